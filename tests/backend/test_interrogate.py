"""Reading a picture into a prompt, with tiny real BLIP and CLIP models of random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest, ModelError
from backend.models import interrogators
from backend.models.load import Models, Options
from backend.operations.interrogate import WORDS, interrogate, read_categories
from backend.operations.run import Run
from backend.request import Request
from backend.settings.interrogate import CAPTION_MODELS, CATEGORIES, RANKING_MODELS, Interrogate
from tests.backend.fake_hub import FakeHub, serve
from tests.backend.helpers import Picture

ROOT = Path(__file__).resolve().parents[2]
WORDS_KNOWN = ["a", "picture", "of", "red", "blue", "figure", "sky", "under", "standing", "tall"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS_KNOWN]
CPU = Options(device="cpu")
CAPTION_MODEL, RANKING_MODEL = CAPTION_MODELS[1], RANKING_MODELS[0]
LARGE: dict[str, Any] = {"caption_model": CAPTION_MODEL, "ranking_model": RANKING_MODEL}


def save_blip(folder: Path) -> Path:
    """Save a captioner of random weights that knows ten words."""
    folder.mkdir(parents=True, exist_ok=True)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**size, **ids, "vocab_size": len(PIECES), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    torch.manual_seed(5)
    config = transformers.BlipConfig(
        text_config={**text, "is_decoder": True, "initializer_range": 0.5},
        vision_config={**size, "image_size": 32, "patch_size": 8, "initializer_range": 0.5},
    )
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={piece: i for i, piece in enumerate(PIECES)}).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """Save a ranker of random weights that reads the embedded model's vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "backend/models/embedded/tokenizer")
    size = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(6)
    config = transformers.CLIPConfig(
        text_config={**size, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny captioner."""
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny ranker."""
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def read(picture: Picture, **settings: Any) -> str:
    """Return the prompt of a picture."""
    request = Request(Interrogate(**settings), {"init": picture})
    request.check()
    return interrogate(request, Run(Models(CPU), lambda share, text: None, lambda: False)).text


def none_but(*names: str) -> dict[str, Any]:
    """Return the switches of all our lists, those alone switched on."""
    return {name: name in names for name in CATEGORIES}


def best_by_hand(clip: Path, picture: Picture, words: list[str]) -> list[tuple[str, float]]:
    """Return words and ranks as transformers' own processor and model have them."""
    model: Any = transformers.CLIPModel.from_pretrained(clip)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(clip)
    square = {"height": 32, "width": 32}
    processor: Any = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)
    pixels = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
    shares = []
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels).pooler_output
        for word in words:
            text = model.get_text_features(**tokenizer([word], return_tensors="pt")).pooler_output
            shares.append(100 * torch.nn.functional.cosine_similarity(text, image)[0].item())
    ranks = torch.tensor(shares).softmax(0).tolist()
    return sorted(zip(words, ranks, strict=True), key=lambda pair: -pair[1])


def test_the_prompt_is_the_caption_and_the_best_of_each_list(blip: Path, clip: Path, picture: Picture) -> None:
    models = {"caption_model": str(blip), "ranking_model": str(clip)}
    caption = read(picture, **models, **none_but())
    words = {name: (WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in CATEGORIES}
    matches = [best_by_hand(clip, picture, words[name])[0] for name in CATEGORIES]
    assert read(picture, **models) == ", ".join([caption, *(word for word, _ in matches)])
    ranks = [f"({word}:{rank:.3f})" for word, rank in matches]
    assert read(picture, **models, show_ranks=True) == ", ".join([caption, *ranks])
    one = read(picture, **models, **none_but("mediums"))
    assert one == f"{caption}, {matches[CATEGORIES.index('mediums')][0]}"


def test_the_caption_goes_on_from_a_picture_of_within_its_lengths(blip: Path, picture: Picture) -> None:
    long = read(picture, caption_model=str(blip), **none_but(), minimum_length=20, maximum_length=24)
    short = read(picture, caption_model=str(blip), **none_but(), minimum_length=4, maximum_length=8)
    start = 4  # tokens: the beginning mark and "a picture of"
    assert 20 - start <= len(long.split()) <= 24 - start and len(short.split()) <= 8 - start
    assert set(long.split()) <= set(WORDS_KNOWN)
    assert long.startswith(short)
    model: Any = transformers.BlipForConditionalGeneration.from_pretrained(blip)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(blip)
    processor: Any = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    start_ids = tokenizer("a picture of", return_tensors="pt").input_ids
    pixels = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
    for beams in (1, 6):
        whole = model.generate(pixels, start_ids, min_length=20, max_length=24, num_beams=beams)[0]
        told = read(picture, caption_model=str(blip), **none_but(), beams=beams, minimum_length=20, maximum_length=24)
        assert tokenizer.decode(whole, skip_special_tokens=True) == f"a picture of {told}"
        assert (told == long) == (beams == 1)


def test_another_picture_gives_another_prompt(clip: Path, picture: Picture) -> None:
    ranker = interrogators.Ranker(clip, CPU)
    first, second = ranker.look(picture), ranker.look(~picture)
    assert not torch.allclose(first, second, atol=1e-3)
    words = ["red", "blue", "green"]
    ranks = dict(ranker.rank(first, words))
    assert sum(ranks.values()) == pytest.approx(1)
    assert ranks == pytest.approx(dict(best_by_hand(clip, picture, words)), abs=1e-4)
    assert dict(ranker.rank(second, words)) == pytest.approx(dict(best_by_hand(clip, ~picture, words)), abs=1e-4)


def test_the_ranker_sees_the_middle_square_of_a_wide_picture(clip: Path, picture: Picture) -> None:
    ranker = interrogators.Ranker(clip, CPU)
    wide = np.concatenate([np.zeros_like(picture)[:, :64], picture, np.zeros_like(picture)[:, :64]], axis=1)
    words = ["red", "blue", "green"]
    ranks = dict(ranker.rank(ranker.look(wide), words))
    assert ranks == pytest.approx(dict(best_by_hand(clip, wide, words)), abs=1e-4)


def test_transparent_parts_are_seen_as_white(blip: Path, clip: Path, picture: Picture) -> None:
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:100] = 0
    white = picture.copy()
    white[:100] = 255
    models = {"caption_model": str(blip), "ranking_model": str(clip), "show_ranks": True}
    assert read(np.dstack([picture, alpha]), **models) == read(white, **models)


def test_own_lists_come_after_ours_or_in_their_place(clip: Path, blip: Path, picture: Picture, tmp_path: Path) -> None:
    own = ["a mannequin", "a duck", "a fish", "a house"]
    (tmp_path / "things.top3.txt").write_text("\n".join(own), encoding="utf-8")
    (tmp_path / "Flavors.txt").write_text("\ufeffspicy\n\n  sweet  \nspicy\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no list")
    settings = Interrogate(words_folder=str(tmp_path))
    found = {category.name: category for category in read_categories(settings)}
    assert list(found) == [*CATEGORIES, "things"]
    assert found["flavours"].words == ("spicy", "sweet") and found["flavours"].best == 1
    assert found["things"].best == 3
    models = {"caption_model": str(blip), "ranking_model": str(clip), "words_folder": str(tmp_path)}
    caption = read(picture, caption_model=str(blip), **none_but())
    best = [word for word, _ in best_by_hand(clip, picture, own)][:3]
    assert read(picture, **models, **none_but()) == ", ".join([caption, *best])


def test_a_list_is_read_to_its_1500th_line(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("\n".join(f"word {i}" for i in range(2000)), encoding="utf-8")
    (many,) = read_categories(Interrogate(words_folder=str(tmp_path), **none_but()))
    assert len(many.words) == 1500 and many.words[-1] == "word 1499"


def test_our_lists_are_long_and_without_repeats() -> None:
    least = {"artists": 100, "flavours": 300, "mediums": 60, "movements": 80}
    for category in read_categories(Interrogate()):
        lines = (WORDS / f"{category.name}.txt").read_text(encoding="utf-8").splitlines()
        assert list(category.words) == lines and len(lines) >= least[category.name]
        assert not any(mark in line for line in lines for mark in ",()[]:|")


def test_wrong_lists_and_lengths_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="can't be read"):
        read_categories(Interrogate(words_folder=str(tmp_path / "none")))
    with pytest.raises(InvalidRequest, match=r"no \.txt"):
        read_categories(Interrogate(words_folder=str(tmp_path)))
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read_categories(Interrogate(words_folder=str(tmp_path)))
    (tmp_path / "broken.txt").rename(tmp_path / "none.top0.txt")
    (tmp_path / "none.top0.txt").write_text("word")
    with pytest.raises(InvalidRequest, match="0 best"):
        read_categories(Interrogate(words_folder=str(tmp_path)))
    with pytest.raises(InvalidRequest, match="Maximum Length"):
        Interrogate(minimum_length=40, maximum_length=20).check()


def test_missing_models_are_named_with_their_sizes(cache: Path, picture: Picture, blip: Path) -> None:
    assert interrogators.download_needed(Interrogate(**LARGE)) == [(CAPTION_MODEL, 1.9), (RANKING_MODEL, 1.7)]
    assert interrogators.download_needed(Interrogate(**LARGE, **none_but())) == [(CAPTION_MODEL, 1.9)]
    assert interrogators.download_needed(Interrogate()) == [], "the embedded one came along"
    assert interrogators.download_needed(Interrogate(caption_model=str(blip), ranking_model="owner/other")) == [
        ("owner/other", None)
    ]
    with pytest.raises(ModelError) as caught:
        read(picture, **LARGE)
    assert f"{CAPTION_MODEL} (1.9 GB) and {RANKING_MODEL} (1.7 GB)" in caught.value.sentence
    assert "Online Access" in caught.value.remedy and "folders" in caught.value.remedy
    for name in ("no such model", "/no/such/folder", "~nobody-here/model", ""):
        with pytest.raises(ModelError, match="There is no model"):
            interrogators.download_needed(Interrogate(caption_model=name))


def test_models_in_the_hubs_cache_are_found_without_network(
    cache: Path, blip: Path, clip: Path, picture: Picture
) -> None:
    for name, folder in (("owner/captions", blip), ("owner/ranks", clip)):
        repository = cache / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, repository / "snapshots" / "abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
    names: dict[str, Any] = {"caption_model": "owner/captions", "ranking_model": "owner/ranks"}
    assert interrogators.download_needed(Interrogate(**names)) == []
    assert read(picture, **names) == read(picture, caption_model=str(blip), ranking_model=str(clip))
    (cache / "models--owner--ranks" / "snapshots" / "abc" / "model.safetensors").unlink()
    assert interrogators.download_needed(Interrogate(**names)) == [("owner/ranks", None)]


def test_wrong_models_are_one_sentence(blip: Path, clip: Path, picture: Picture, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="of the kind clip, not blip"):
        read(picture, caption_model=str(clip), **none_but())
    with pytest.raises(ModelError, match="could not be loaded"):
        read(picture, caption_model=str(tmp_path), **none_but())
    pickled = tmp_path / "pickled"
    shutil.copytree(blip, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="could not be loaded"):
        read(picture, caption_model=str(pickled), **none_but())
    cut = tmp_path / "cut"
    shutil.copytree(blip, cut)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="could not be loaded"):
        read(picture, caption_model=str(cut), **none_but())
    half = tmp_path / "half"
    shutil.copytree(blip, half)
    config = json.loads((half / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (half / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"lacks \d+ of its weights"):
        read(picture, caption_model=str(half), **none_but())


def test_a_cancel_ends_the_reading_at_the_next_layer(blip: Path, clip: Path, picture: Picture) -> None:
    settings = Interrogate(caption_model=str(blip), ranking_model=str(clip))
    request = Request(settings, {"init": picture})
    counted = 0

    def count(last: int) -> bool:
        nonlocal counted
        counted += 1
        assert counted <= last, "went on after the cancel"
        return counted == last

    interrogators.load_ranker.cache_clear()  # which has the words of earlier tests
    interrogate(request, Run(Models(CPU), lambda share, text: None, lambda: count(10**6)))
    total = counted
    assert total > 100
    for last in (1, total // 4, total // 2, total):
        counted = 0
        interrogators.load_ranker.cache_clear()
        with pytest.raises(Cancelled):
            interrogate(request, Run(Models(CPU), lambda share, text: None, partial(count, last)))
    assert ", " in read(picture, caption_model=str(blip), ranking_model=str(clip))


def test_progress_never_falls_and_says_what_is_done(blip: Path, clip: Path, picture: Picture) -> None:
    told: list[tuple[float, str]] = []
    interrogators.load_ranker.cache_clear()
    request = Request(Interrogate(caption_model=str(blip), ranking_model=str(clip)), {"init": picture})
    interrogate(request, Run(Models(CPU), lambda share, text: told.append((share, text)), lambda: False))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] > 0.8
    assert any("Describing" in text for _, text in told) and any("words of flavours" in text for _, text in told)


@pytest.fixture
def hub(blip: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine that has the tiny captioner as owner/tiny, and a pickle beside it."""
    (blip / "pytorch_model.bin").write_bytes(b"pickle")
    with serve({"owner/tiny": blip}) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found
    (blip / "pytorch_model.bin").unlink()


def fetch(name: str, is_cancelled: Any = lambda: False) -> Path:
    """Fetch a model as a run does."""
    run = Run(Models(CPU), lambda share, text: None, is_cancelled)
    return interrogators.fetch_model(name, Options(device="cpu", online=True), run.check, run.share)


def test_a_missing_model_is_fetched_once_without_its_pickles(hub: FakeHub, cache: Path, blip: Path) -> None:
    folder = fetch("owner/tiny")
    assert (folder / "model.safetensors").read_bytes() == (blip / "model.safetensors").read_bytes()
    assert not list(cache.rglob("*.bin")) and not hub.fetched(".bin")
    assert interrogators.download_needed(Interrogate(caption_model="owner/tiny", **none_but())) == []
    hub.asked.clear()
    assert fetch("owner/tiny") == folder and not hub.asked


def test_a_cancel_ends_the_download(hub: FakeHub, cache: Path) -> None:
    hub.pace = 30.0
    cancelled_at = 0.0

    def is_cancelled() -> bool:
        nonlocal cancelled_at
        if hub.fetched(".safetensors"):
            cancelled_at = cancelled_at or time.monotonic()
        return cancelled_at > 0

    with pytest.raises(Cancelled):
        fetch("owner/tiny", is_cancelled)
    assert time.monotonic() - cancelled_at < 1
    assert interrogators.find_model("owner/tiny") is None


def test_a_model_that_the_hub_lacks_is_one_sentence(hub: FakeHub, cache: Path) -> None:
    with pytest.raises(ModelError, match=r"The hub has no model owner/none, or it is private[.] Check"):
        fetch("owner/none")


def test_the_engine_runs_it(blip: Path, clip: Path, picture: Picture) -> None:
    settings = Interrogate(caption_model=str(blip), ranking_model=str(clip))
    output = Engine(CPU).run(Request(settings, {"init": picture}), lambda share, text: None, lambda: False)
    assert output.pictures == [] and output.text == read(picture, caption_model=str(blip), ranking_model=str(clip))


def test_the_command_line_prints_the_text(blip: Path, clip: Path, picture: Picture, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "in.png")
    command = [sys.executable, "-m", "backend", "run", "interrogate", "--device", "cpu"]
    command += ["--init", str(tmp_path / "in.png"), "--output", str(tmp_path / "out")]
    command += ["--caption-model", str(blip), "--ranking-model", str(clip), "--no-artists"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    expected = read(picture, caption_model=str(blip), ranking_model=str(clip), artists=False)
    assert json.loads(result.stdout)["text"] == expected

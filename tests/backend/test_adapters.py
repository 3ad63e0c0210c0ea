"""LoRAs, embeddings and VAEs by value: what they change, how much, and that nothing of them stays."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from backend.engine import Engine
from backend.errors import InvalidRequest, ModelError
from backend.models.adapters import read_tags
from backend.models.additions import files_in
from backend.models.conditioning import encode
from backend.models.folders import EMBEDDINGS
from backend.models.load import Models, Options
from backend.models.model import Model
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run

PROJECTIONS = ["to_q", "to_v"]


class _Harm:
    """Ends whoever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


EVIL = pickle.dumps({"lora.weight": _Harm()})
TEXT_PROJECTIONS = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def loras(root: Path) -> Path:
    """A folder of LoRAs: ink and wash of a Stable Diffusion 1 UNet, words of its text encoder, wide of XL's UNet."""
    folder = root / "loras"
    (folder / "below").mkdir(parents=True)
    for seed, (name, family, has_text) in enumerate(
        (("ink", "sd1", False), ("below/wash", "sd1", False), ("words", "sd1", True), ("wide", "sdxl", False))
    ):
        save_lora(folder / f"{name}.safetensors", tiny.folder(family, root), seed, has_text)
    (folder / "torn.safetensors").write_bytes((folder / "ink.safetensors").read_bytes()[:-100])
    (folder / "notes.txt").write_text("no weights")
    (folder / "text.safetensors").write_text("no weights")
    (folder / "evil.safetensors").write_bytes(EVIL)
    save_file({"weight": torch.zeros(2)}, folder / "other.safetensors")
    return folder


def save_lora(path: Path, model: str, seed: int, has_text: bool) -> None:
    """Write a random LoRA of a model's UNet, or of its text encoder."""
    torch.manual_seed(seed)
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(model, safety_checker=None)
    part = pipe.text_encoder if has_text else pipe.unet
    part.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TEXT_PROJECTIONS if has_text else PROJECTIONS))
    weights = {key: torch.randn_like(value) * 0.3 for key, value in get_peft_model_state_dict(part).items()}
    saver = pipe.save_lora_weights
    layers = {"text_encoder_lora_layers" if has_text else "unet_lora_layers": weights}
    saver(path.parent, weight_name=path.name, **layers)


@pytest.fixture
def engine(loras: Path) -> Engine:
    return Engine(Options(device="cpu", precision="float32", lora_folders=(str(loras),)))


@pytest.fixture
def make(engine: Engine, root: Path, picture: Picture) -> Callable[..., Picture]:
    """Make a picture with the tiny Stable Diffusion 1."""

    def made(prompt: str, family: str = "sd1", **settings: Any) -> Picture:
        common: dict[str, Any] = {"width": 64, "height": 64, "model": tiny.folder(family, root), "sampler": "Euler"}
        return run(engine, img2img(picture, prompt=prompt, **{**common, **settings}))

    return made


def distance(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# --- The tags ---


def test_tags_are_taken_out_of_the_prompt() -> None:
    assert read_tags("a cat <lora:ink:0.8>, rain") == ("a cat , rain", {"ink": 0.8})
    assert read_tags("<lora:a><lora:b:-.5:1>") == ("", {"a": 1.0, "b": -0.5})
    assert read_tags("<lora:a:1><lora:a:.5>")[1] == {"a": 1.5}
    assert read_tags(r"<lora:C:\my files\ink.safetensors:0.5>")[1] == {r"C:\my files\ink.safetensors": 0.5}
    assert read_tags("a <b> <lora:>, 1 < 2") == ("a <b> <lora:>, 1 < 2", {})


# --- LoRA ---


def test_the_effect_grows_with_the_weight(make: Callable[..., Picture]) -> None:
    without = make("a cat")
    changes = [distance(make(f"a cat<lora:ink:{weight}>"), without) for weight in (0, 0.2, 0.5, 1)]
    assert changes[0] == 0
    assert changes[1] < changes[2] < changes[3]
    assert np.array_equal(make("a cat<lora:ink>"), make("a cat<lora:ink:1.0:0.3>"))


def test_a_lora_in_the_layout_of_training_tools_has_its_alpha(make: Callable[..., Picture], loras: Path) -> None:
    """Its alpha, twice its rank, doubles it."""
    loud: dict[str, torch.Tensor] = {}
    for key, value in load_file(loras / "ink.safetensors").items():
        place = key.removeprefix("unet.").partition(".lora_")[0].replace(".", "_")
        loud[f"lora_unet_{place}.lora_{'down' if 'lora_A' in key else 'up'}.weight"] = value
        loud[f"lora_unet_{place}.alpha"] = torch.tensor(8.0)
    save_file(loud, loras / "loud.safetensors")
    assert np.abs(make("a cat<lora:loud:0.5>").astype(int) - make("a cat<lora:ink>")).max() <= 1
    assert distance(make("a cat<lora:loud>"), make("a cat<lora:ink>")) > 0.1


def test_nothing_of_a_lora_stays(make: Callable[..., Picture], engine: Engine, root: Path) -> None:
    without = make("a cat")
    pipe: Any = engine.models.get(tiny.folder("sd1", root)).pipe
    parts = ("unet", "text_encoder")
    before = {part: {key: value.clone() for key, value in getattr(pipe, part).state_dict().items()} for part in parts}
    assert not np.array_equal(make("a cat<lora:ink><lora:words:0.5>"), without)
    assert np.array_equal(make("a cat"), without)
    for part in parts:
        after = getattr(pipe, part).state_dict()
        assert list(after) == list(before[part])
        assert all(torch.equal(after[key], value) for key, value in before[part].items())


def test_a_lora_of_the_text_encoder_reads_kept_prompts_anew(make: Callable[..., Picture]) -> None:
    without = make("a cat")
    with_words = make("a cat<lora:words>")
    assert not np.array_equal(with_words, without)
    with pytest.raises(ModelError):
        make("a cat<lora:torn>")
    assert np.array_equal(make("a cat"), without)
    assert np.array_equal(make("a cat<lora:words>"), with_words)
    assert np.array_equal(make("a cat"), without)


def test_a_loras_convolutions_are_seamless_from_the_first_picture_on(
    make: Callable[..., Picture], loras: Path, root: Path
) -> None:
    torch.manual_seed(3)
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(tiny.folder("sd1", root), safety_checker=None)
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["conv1", "conv2"]))
    weights = {key: torch.randn_like(value) * 0.3 for key, value in get_peft_model_state_dict(pipe.unet).items()}
    pipe.save_lora_weights(loras, weight_name="convolutions.safetensors", unet_lora_layers=weights)
    first, second = (make("a cat <lora:convolutions:1>", seamless_x=True) for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first, make("a cat", seamless_x=True))


def test_two_loras_act_together(make: Callable[..., Picture], loras: Path) -> None:
    one, other, both = (make(f"a cat{tags}") for tags in ("<lora:ink>", "<lora:wash>", "<lora:ink><lora:wash>"))
    assert min(distance(one, other), distance(one, both), distance(other, both)) > 0
    assert np.array_equal(make(f"a cat<lora:{loras / 'below' / 'wash.safetensors'}>"), other)


@pytest.mark.parametrize(
    ("tag", "error", "words"),
    [
        ("inc", InvalidRequest, "no LoRA “inc”. Did you mean: ink|no LoRA “inc”.*ink"),
        ("/nowhere/ink.safetensors", InvalidRequest, "no LoRA at"),
        ("torn", ModelError, "damaged"),
        ("text", ModelError, "damaged"),
        ("evil", ModelError, "damaged"),
        ("wide", InvalidRequest, "another family"),
        ("other", InvalidRequest, "another family"),
        ("{loras}/notes.txt", InvalidRequest, "no .safetensors"),
    ],
)
def test_a_lora_that_does_not_serve_is_a_sentence_and_leaves_nothing(
    tag: str, error: type[Exception], words: str, make: Callable[..., Picture], loras: Path
) -> None:
    without = make("a cat")
    with pytest.raises(error, match=words):
        make(f"a cat<lora:ink><lora:{tag.format(loras=loras)}>")
    assert np.array_equal(make("a cat"), without)


def test_a_cancel_or_error_amid_a_lora_leaves_nothing(make: Callable[..., Picture]) -> None:
    without = make("a cat")
    with pytest.raises(InvalidRequest, match="Clip skip"):
        make("a cat<lora:ink>", clip_skip=9)
    assert np.array_equal(make("a cat"), without)


# --- Embeddings ---


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_file({"emb_params": torch.randn(3, tiny.WIDTH)}, tmp_path / "brushwork.safetensors")
    save_file({"<x>": torch.randn(tiny.WIDTH)}, tmp_path / "Ink-2.safetensors")
    save_file(
        {"clip_l": torch.randn(2, tiny.WIDTH), "clip_g": torch.randn(2, tiny.WIDTH)}, tmp_path / "pair.safetensors"
    )
    save_file({"emb_params": torch.randn(3, 7)}, tmp_path / "alien.safetensors")
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "nothing.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\0" * 50)
    (tmp_path / "letter.safetensors").write_text("no weights")
    (tmp_path / "evil.safetensors").write_bytes(EVIL)
    (tmp_path / "worse.pt").write_bytes(pickle.dumps({"vector": _Harm()}, protocol=2))  # as torch writes them
    (tmp_path / "ended.pt").write_bytes(b"PK\x03\x04" + b"\0" * 50)
    torch.save(["a", "list"], tmp_path / "list.bin")
    torch.save({"string_to_param": {"*": torch.zeros(1).expand(9_999_999, tiny.WIDTH)}}, tmp_path / "swollen.pt")
    return tmp_path


def model_with(embeddings: Path, root: Path, family: str) -> Model:
    options = Options(device="cpu", precision="float32", embedding_folders=(str(embeddings),))
    return Models(options).get(tiny.folder(family, root))


def test_an_embeddings_name_becomes_its_vectors(embeddings: Path, root: Path) -> None:
    model = model_with(embeddings, root, "sd1")
    pipe: Any = model.pipe
    found = model.encode_prompts("a cat, brushwork", "ink-2", 4, 1)
    pipe.load_textual_inversion(str(embeddings / "brushwork.safetensors"), token="brushwork")
    expected = encode(pipe, "a cat, brushwork")
    assert torch.allclose(found.positives[0][1][0][1].embeds, expected.embeds, atol=1e-5)
    assert not torch.allclose(found.negative[0][1].embeds, encode(pipe, "ink-2").embeds, atol=1e-3)


@pytest.mark.parametrize("kind", ["web UI", "diffusers"])
def test_an_embedding_in_a_pickle_is_that_of_a_safetensors_file(kind: str, embeddings: Path, root: Path) -> None:
    vectors = load_file(embeddings / "brushwork.safetensors")["emb_params"]
    known = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(vectors)}, "name": "x"}
    torch.save(known if kind == "web UI" else {"<brush>": vectors}, embeddings / "older.pt")
    model = model_with(embeddings, root, "sd1")
    read = [
        model.encode_prompts(f"a cat, {name}", "", 4, 1).positives[0][1][0][1].embeds for name in ("brushwork", "older")
    ]
    assert torch.equal(*read)
    assert not torch.equal(read[0], encode(model.pipe, "a cat, older").embeds)


def test_of_two_files_of_a_name_the_safe_one_counts(embeddings: Path) -> None:
    (embeddings / "brushwork.pt").write_bytes(EVIL)
    assert files_in([embeddings], EMBEDDINGS)["brushwork"].suffix == ".safetensors"


def test_a_folder_that_vanishes_while_files_are_listed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "moved"):
        (tmp_path / "loras" / name).mkdir(parents=True)
        (tmp_path / "loras" / name / f"{name}.safetensors").write_bytes(b"")
    scandir = os.scandir

    def scandir_late(folder: str | Path) -> Any:
        if Path(folder).name == "moved":
            Path(folder).rename(tmp_path / "elsewhere")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir_late)
    assert list(files_in([tmp_path / "loras"])) == ["a"]
    assert (tmp_path / "elsewhere").is_dir()


def test_embeddings_act_as_whole_words_in_any_case_with_weights(embeddings: Path, root: Path) -> None:
    model = model_with(embeddings, root, "sd1")

    def read(text: str) -> torch.Tensor:
        return model.encode_prompts(text, "", 4, 1).positives[0][1][0][1].embeds

    assert torch.equal(read("a cat, Brushwork"), read("a cat, brushwork"))
    assert not torch.equal(read("a cat, (brushwork:1.3)"), read("a cat, brushwork"))
    assert torch.equal(read("a brushworker"), encode(model.pipe, "a brushworker").embeds)
    assert torch.equal(read("a cat"), encode(model.pipe, "a cat").embeds)


def test_each_text_encoder_takes_its_own_vectors(embeddings: Path, root: Path) -> None:
    model = model_with(embeddings, root, "sdxl")
    found = model.encode_prompts("a pair", "", 4, 1).positives[0][1][0][1].embeds
    plain = encode(model.pipe, "a pair").embeds
    width = tiny.WIDTH
    assert not torch.allclose(found[..., :width], plain[..., :width])
    assert not torch.allclose(found[..., width:], plain[..., width:])


def test_an_embedding_that_changes_is_read_anew(embeddings: Path, root: Path) -> None:
    model = model_with(embeddings, root, "sd1")
    first = model.encode_prompts("brushwork", "", 4, 1).positives[0][1][0][1].embeds
    save_file({"emb_params": torch.randn(5, tiny.WIDTH)}, embeddings / "brushwork.safetensors")
    second = model.encode_prompts("brushwork", "", 4, 1).positives[0][1][0][1].embeds
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("family", "word", "error", "words"),
    [
        ("sd1", "alien", InvalidRequest, "another family"),
        ("flux", "brushwork", InvalidRequest, "takes no embeddings"),
        ("sd1", "nothing", ModelError, "holds no embedding"),
        ("sd1", "torn", ModelError, "damaged"),
        ("sd1", "letter", ModelError, "damaged"),
        ("sd1", "evil", ModelError, "damaged"),
        ("sd1", "worse", ModelError, "would run code"),
        ("sd1", "ended", ModelError, "damaged"),
        ("sd1", "list", ModelError, "no weights, but a list"),
        ("sd1", "swollen", ModelError, "damaged"),
    ],
)
def test_an_embedding_that_does_not_serve_is_a_sentence(
    family: str, word: str, error: type[Exception], words: str, embeddings: Path, root: Path
) -> None:
    with pytest.raises(error, match=words):
        model_with(embeddings, root, family).encode_prompts(f"a {word}", "", 4, 1)


# --- VAE ---


@pytest.fixture
def other_vae(root: Path, tmp_path: Path) -> Path:
    """Another VAE of Stable Diffusion 1's family, as a diffusers folder."""
    torch.manual_seed(7)
    own = diffusers.AutoencoderKL.from_pretrained(tiny.folder("sd1", root), subfolder="vae")
    diffusers.AutoencoderKL.from_config(own.config).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def test_a_chosen_vae_takes_the_place_of_the_models_own(other_vae: Path, root: Path, picture: Picture) -> None:
    models = Models(Options(device="cpu", precision="float32"))
    name = tiny.folder("sd1", root)
    small = picture[:64, :64].copy()
    own = models.get(name).encode(small)
    file = other_vae / "diffusion_pytorch_model.safetensors"
    by_folder, by_file = (models.get(name, str(vae)).encode(small) for vae in (other_vae, file))
    assert torch.equal(by_folder, by_file)
    assert not torch.allclose(by_folder, own)
    with models.get(name, str(file)).seamless(True, True):
        assert not torch.allclose(models.get(name, str(file)).encode(small), by_file)
    assert torch.equal(models.get(name).encode(small), own)


def test_a_vae_in_the_layout_of_checkpoints_is_read(other_vae: Path, root: Path, picture: Picture) -> None:
    torch.manual_seed(3)
    weights = diffusers.AutoencoderKL.from_pretrained(other_vae).state_dict()
    old = other_vae.parent / "old.safetensors"
    save_file({to_old(key): value.contiguous() for key, value in weights.items()}, old)
    models = Models(Options(device="cpu", precision="float32"))
    name = tiny.folder("sd1", root)
    small = picture[:64, :64].copy()
    assert torch.equal(models.get(name, str(old)).encode(small), models.get(name, str(other_vae)).encode(small))


def to_old(key: str) -> str:
    """Return a weight's name in a checkpoint of the tiny VAE."""
    for new, former in (
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"),
        ("attn_1.group_norm", "attn_1.norm"),
        ("attn_1.to_q", "attn_1.q"),
        ("attn_1.to_k", "attn_1.k"),
        ("attn_1.to_v", "attn_1.v"),
        ("attn_1.to_out.0", "attn_1.proj_out"),
        ("conv_norm_out", "norm_out"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("conv_shortcut", "nin_shortcut"),
    ):
        key = key.replace(new, former)
    parts = key.split(".")
    if parts[1] in ("down_blocks", "up_blocks"):
        is_down = parts[1] == "down_blocks"
        parts[1:3] = ["down" if is_down else "up", parts[2] if is_down else str(3 - int(parts[2]))]
        parts = ["block" if part == "resnets" else part for part in parts]
    return ".".join(parts)


def test_a_vae_that_does_not_serve_is_a_sentence(other_vae: Path, root: Path, loras: Path) -> None:
    models = Models(Options(device="cpu", precision="float32"))
    name = tiny.folder("sd1", root)
    own: Any = models.get(name).pipe.vae
    for vae, error, words in (
        ("/nowhere/vae.safetensors", ModelError, "no VAE at"),
        (str(loras / "ink.safetensors"), InvalidRequest, "no VAE of this model's family"),
        (str(loras / "torn.safetensors"), ModelError, "damaged"),
        (str(loras / "text.safetensors"), ModelError, "damaged"),
        (str(loras / "evil.safetensors"), ModelError, "damaged"),
        (str(loras / "notes.txt"), ModelError, "no .safetensors"),
        (str(loras), ModelError, "holds no VAE"),
        (tiny.folder("flux", root), InvalidRequest, "another family"),
    ):
        with pytest.raises(error, match=words):
            models.get(name, vae)
        assert models.get(name).pipe.vae is own

"""What the captioner learns from: words that come back whole, patches where regions are, pictures either way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from tests.training.drawn import known, scene  # noqa: E402
from training import captioner, pictures  # noqa: E402
from training.captions import full_caption  # noqa: E402
from training.evaluate import Case  # noqa: E402
from training.evaluate_captioner import marks  # noqa: E402
from training.reading import PARTS, UNSAID, Pictured  # noqa: E402
from training.regions import Region  # noqa: E402


def test_words_put_together_again_are_the_sentence() -> None:
    said = [captioner.said_of(Pictured(known(), 0, style)) for style in range(3)]
    tokenizer = captioner.words_of(said)
    assert "t-shirt" in said[0]
    for sentence in said:
        ids = tokenizer(sentence).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == sentence


def test_a_patch_is_asked_for_the_region_that_it_shows() -> None:
    readers = captioner.PatchReaders()
    for reader in (readers.regions, readers.colours):
        torch.nn.init.eye_(reader.weight)
        torch.nn.init.zeros_(reader.bias)
    across = captioner.SIDE // captioner.PATCH
    shown = torch.full((1, pictures.REGIONS_SIDE, pictures.REGIONS_SIDE), int(Region.SKY))
    shown[:, : pictures.REGIONS_SIDE // 4, pictures.REGIONS_SIDE // 2 :] = int(Region.TOP)
    seen = torch.zeros(1, across, across, captioner.WIDTH)
    seen[..., int(Region.SKY)] = 30
    seen[:, : across // 4, across // 2 :, int(Region.SKY)] = 0
    seen[:, : across // 4, across // 2 :, int(Region.TOP)] = 30
    silent = torch.full((1, 1 + len(PARTS)), UNSAID)
    assert readers.mistaken(seen.flatten(1, 2), shown, silent).item() == pytest.approx(0, abs=1e-4)
    assert readers.mistaken(seen.transpose(1, 2).flatten(1, 2), shown, silent).item() > 1
    colours = silent.clone()
    colours[0, 1 + PARTS.index("top")] = int(Region.TOP)  # the place where these features are large
    assert readers.mistaken(seen.flatten(1, 2), shown, colours).item() == pytest.approx(0, abs=1e-4)


def test_a_mirrored_picture_has_mirrored_regions() -> None:
    rng, count = np.random.default_rng(4), 2
    shown = rng.integers(0, 256, (count, *pictures.RECORD), np.uint8)
    regions = rng.integers(0, 4, (count, pictures.REGIONS_SIDE, pictures.REGIONS_SIDE), np.uint8)
    lines = [known(), known(pose="standing")]
    tokenizer = captioner.words_of(captioner.said_of(Pictured(line, 0, 1)) for line in lines)
    torch.manual_seed(0)
    model, readers = captioner.build(tokenizer).eval(), captioner.PatchReaders()

    def wrong(turned: bool, mirrored: bool) -> list[float]:
        turn = slice(None, None, -1 if turned else 1)
        files = pictures.Pictures(shown[:, :, :, :, turn], lines), regions[..., turn]
        lessons = captioner.Lessons(model, readers, tokenizer, Path(), files)
        with torch.no_grad():
            views = [captioner.View(mirrored=mirrored)] * 2
            return [float(part) for part in lessons.wrong([pictures.Whose(0, 0, 1), pictures.Whose(1, 1, 1)], views)]

    assert wrong(turned=False, mirrored=True) == wrong(turned=True, mirrored=False)
    assert wrong(turned=False, mirrored=True) != wrong(turned=False, mirrored=False)


def test_a_checkpoint_finds_the_matrices_in_the_order_in_which_it_left_them() -> None:
    words = ["a picture of ink line drawing of a man"]
    model = captioner.build(captioner.words_of(words))
    state = captioner.Optimisers(model, captioner.PatchReaders())
    named = [p for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name]
    held = state._all[0].param_groups[0]["params"]
    assert len(held) > 30 and all(a is b for a, b in zip(held, named, strict=True))


def test_a_view_shows_the_same_part_of_a_picture_and_of_its_regions() -> None:
    regions = np.arange(pictures.REGIONS_SIDE**2).reshape(2 * [pictures.REGIONS_SIDE]).astype(np.uint8)
    picture = regions.repeat(4, 0).repeat(4, 1)
    for seed in range(20):
        view = captioner.View.draw(np.random.default_rng(seed))
        assert captioner.LEAST_SEEN <= view.side <= pictures.REGIONS_SIDE
        part = view.of(regions)
        assert part.shape == (view.side, view.side)
        assert np.array_equal(view.of(picture), part.repeat(4, 0).repeat(4, 1))


def test_of_a_drawing_without_colours_none_is_told() -> None:
    drawn = known() | {"styles": ["ink", "anime", "pencil", "oil"]}
    said = captioner.said_of(Pictured(drawn, 0, 1))
    assert (
        said
        == "a picture of ink line drawing of an old man, waving, t-shirt, trousers, " + said.partition("trousers, ")[2]
    )
    named = set(drawn["colours"][0].values())
    assert not named & set(said.replace(",", "").split())
    assert named & set(captioner.said_of(Pictured(drawn, 0, 2)).replace(",", "").split())


def test_a_caption_is_marked_by_its_facts() -> None:
    case = Case(np.zeros((2, 9, 4, 4, 3), np.uint8), known(azimuth=90.0), scene())
    colours = case.facts["colours"][0]
    true = full_caption(case.facts, colours, "anime")
    assert set(marks(case, "anime", true).values()) == {True}
    found = marks(case, "ink", true.replace("waving", "bowing").replace(f"{colours['top']} t-shirt", "shirt"))
    missed = {name for name, taken in found.items() if not taken}
    assert missed == {"style", "pose", "colour of top"}
    assert not marks(case, "anime", true.replace("from the side", "from behind"))["view"]

"""What the readers learn from, on a fresh denoiser."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import CLIPTokenizer  # noqa: E402

from tests.training.drawn import facts  # noqa: E402
from training.captions import full_caption  # noqa: E402
from training.denoiser import HEADS, build  # noqa: E402
from training.pictures import STYLES_EACH, palettes  # noqa: E402
from training.reading import FORMS, PARTS, UNSAID, Pictured, Readers, Told, moved, teach_words, told_by  # noqa: E402
from training.regions import Region  # noqa: E402
from training.stylist import PLAIN  # noqa: E402


def test_where_all_captions_are_empty_nothing_is_misread() -> None:
    tokenizer = CLIPTokenizer.from_pretrained("backend/models/embedded/tokenizer")
    model = build(tokenizer)
    readers = Readers(model)
    told = told_by(tokenizer, ["", ""], [None, None])
    with torch.no_grad():
        model(torch.zeros(2, 4, 8, 8), torch.tensor([500, 500]), told.tokens)
        assert float(readers.misread(told)) == 0


def test_forms_are_told_where_a_caption_says_them() -> None:
    its = {
        "pose": "arms raised",
        "framing": "full body",
        "azimuth": 130.0,
        "hair": "ponytail",
        "outfit": {"bottom": "skirt", "top": "sweater"},
        "styles": ["ink"],
        "colours": [dict.fromkeys(PARTS, "red")],
    }
    tokenizer = CLIPTokenizer.from_pretrained("backend/models/embedded/tokenizer")
    said = "hands up, blue skirt, green ponytail hair, from behind", "arms raised, fullness, upper body, blue shorts"
    told = told_by(tokenizer, list(said), [Pictured(its, 0, 1)] * 2)
    forms = told.whole[:, 1 + len(PARTS) :].tolist()
    raised = FORMS["pose"].index("arms raised")
    assert forms == [
        [raised, UNSAID, 1, FORMS["hair"].index("ponytail"), FORMS["bottom"].index("skirt")],
        [raised, UNSAID, UNSAID, UNSAID, UNSAID],
    ]


def test_a_watched_denoiser_draws_as_an_unwatched_one() -> None:
    tokenizer = CLIPTokenizer.from_pretrained("backend/models/embedded/tokenizer")
    model = build(tokenizer)
    torch.nn.init.normal_(model.unet.conv_out.weight)
    told = told_by(tokenizer, ["ink line drawing of a girl", "red shirt"], [None, None])
    given = torch.randn(2, 4, 16, 16), torch.tensor([500, 300]), told.tokens
    with torch.no_grad():
        before = model(*given)
        Readers(model)
        torch.testing.assert_close(model(*given), before)


@pytest.mark.parametrize(("top", "bottom", "wrong"), [(1, 3, 0.0), (3, 1, 9.21)])
def test_a_place_shall_heed_the_words_for_its_part(top: int, bottom: int, wrong: float) -> None:
    readers = Readers(build(CLIPTokenizer.from_pretrained("backend/models/embedded/tokenizer")))
    words = torch.zeros(1, 5, 2, dtype=torch.int64)  # of no part, the top's, of no part, the bottom's, the end's
    words[0, 1, 0], words[0, 3, 0], words[0, 4] = 1 + PARTS.index("top"), 1 + PARTS.index("bottom"), UNSAID
    unsaid = torch.full((1, 1 + len(PARTS)), UNSAID)
    told = Told(torch.zeros(1, 5, dtype=torch.int64), unsaid[:, :0], words, unsaid)
    regions = torch.full((1, 16, 16), int(Region.SKIN))  # which no word speaks of
    regions[:, :8], regions[:, 8:12] = int(Region.TOP), int(Region.BOTTOM)
    heeded = torch.zeros(HEADS, 4, 4, 5)  # places are 4 latents a side
    heeded[:, :2, :, top] = heeded[:, 2:3, :, bottom] = 1
    for watch in readers.watched:
        watch.heeded = heeded.flatten(1, 2)
    assert float(readers.misheeded(regions, told)) == pytest.approx(wrong, abs=0.01)


def test_words_that_a_unet_heeds_already_are_taught_without_moving_far() -> None:
    tokenizer = CLIPTokenizer.from_pretrained("backend/models/embedded/tokenizer")
    known: list[dict[str, Any]] = []
    for number, pose in enumerate(("waving", "sitting", "t-pose", "kicking")):
        its = facts(pose=pose)
        first, second, changed = palettes(its, number, False)
        known.append(its | {"styles": ["anime"] * STYLES_EACH, "hands": [asdict(PLAIN)] * STYLES_EACH})
        known[-1] |= {"colours": [first.names, second.names], "changed": list(changed)}

    def taught(held: bool, seconds: float = 4.0) -> tuple[float, float]:
        torch.manual_seed(0)
        model = build(tokenizer)
        readers = Readers(model)
        before = copy.deepcopy(model.text)
        teach_words(model, readers, tokenizer, known, np.random.default_rng(1), seconds, held)
        told: list[Pictured | None] = [Pictured(its, 0, 1) for its in known]
        captions = [full_caption(its, its["colours"][0], "anime") for its in known]
        with torch.no_grad():
            said = told_by(tokenizer, captions, told)
            words = model.text(said.tokens).last_hidden_state
            model.unet.add_embedding(words)
            return float(readers.misread(said)), float(moved(words, before(said.tokens).last_hidden_state))

    untaught, near, free = taught(held=True, seconds=0.0), taught(held=True), taught(held=False)
    assert near[1] < 0.5 * free[1]
    assert near[0] < untaught[0] - 1

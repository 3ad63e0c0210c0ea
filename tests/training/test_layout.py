"""What teaches the coarser scales to lay out a picture, on a fresh denoiser and small latents."""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import CLIPTokenizer  # noqa: E402

from tests.training.drawn import known  # noqa: E402
from training import checkpoints, layout  # noqa: E402
from training.bridge import LEVELS, Levels  # noqa: E402
from training.denoiser import CHANNELS, Denoiser, build  # noqa: E402
from training.encode import RECORD  # noqa: E402
from training.layout import (  # noqa: E402
    LED,
    SCALES,
    SEEN,
    Lessons,
    Made,
    heard,
    joined,
    led_from_noise,
    made_of,
    waves,
)
from training.optimiser import Optimisers  # noqa: E402
from training.pictures import KEPT_BACK, REGIONS_SIDE, STYLES_EACH  # noqa: E402
from training.reading import Readers, told_by  # noqa: E402
from training.samples import Batch  # noqa: E402
from training.stylist import PLAIN  # noqa: E402
from training.unet import OWN_PLAIN  # noqa: E402

SIDE = 16  # latents
FOLDER = Path("backend/models/embedded")


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")


@pytest.fixture
def model(tokenizer: CLIPTokenizer) -> Denoiser:
    torch.manual_seed(3)
    return build(tokenizer).eval()


def batch(tokenizer: CLIPTokenizer, bridged: bool) -> Batch:
    """Return two samples of the highest level, with a source or without one."""
    generator = torch.Generator().manual_seed(5)
    target, source = torch.randn(2, 2, 4, SIDE, SIDE, generator=generator)
    level, yes = torch.tensor([990, 990]), torch.tensor([bridged, bridged])
    levels = Levels(level, torch.ones(2), yes, ~yes)
    captions = ["ink drawing of a girl, waving", "oil painting of a man"]
    told = told_by(tokenizer, captions, [None, None])
    ones = torch.ones(2, 1, SIDE, SIDE)
    return Batch(target, source, levels, ones[:, 0].long(), told, ~yes, captions, ones)


@pytest.mark.parametrize(("name", "block", "asked"), [("coarsest", 0, 2), ("finer", 1, 0)])
def test_a_scale_alone_makes_what_it_makes_in_the_whole_network(
    name: str, block: int, asked: int, model: Denoiser, tokenizer: CLIPTokenizer
) -> None:
    seen: list[Any] = []
    model.unet.up_blocks[block].upsamplers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokens = told_by(tokenizer, ["ink drawing of a girl"] * 2, [None, None]).tokens
    sample, level, scale = torch.randn(2, 4, SIDE, SIDE), torch.tensor([900, 400]), SCALES[name](model)
    with torch.no_grad():
        words, embedding = heard(model, tokens, level)
        model.unet(sample, level, words)
        *places, here = scale(scale.given(model, sample, embedding, words), embedding, words)
    torch.testing.assert_close(here, seen[0])
    assert [of.shape[1] for of in places] == [CHANNELS[-1]] * asked == [CHANNELS[-1]] * scale.asked


@pytest.mark.parametrize("name", SCALES)
def test_of_noise_it_shall_make_what_it_makes_of_the_picture_and_of_renders_what_it_makes_now(
    name: str, model: Denoiser, tokenizer: CLIPTokenizer
) -> None:
    stays, alone, scale = batch(tokenizer, True), batch(tokenizer, False), SCALES[name](model)
    for given, level in ((stays, 990), (alone, SEEN)):
        torch.manual_seed(7)
        made = made_of(model, scale, given)
        assert made.level.tolist() == [990, 990]
        torch.manual_seed(7)
        noise = torch.randn_like(given.target)
        shown = copy.deepcopy(given)
        if given is alone:
            noise = torch.randn_like(given.target)  # the next one: the first has buried the picture
            shown.levels = Levels(torch.tensor([level] * 2), torch.ones(2), ~stays.levels.blind, stays.levels.blind)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            words, embedding = heard(model, given.told.tokens, torch.tensor([level] * 2))
            before = scale.given(model, shown.sample(noise), embedding, words)
            expected = scale(before, embedding, words)[-1]
        torch.testing.assert_close(made.goal.float(), expected.float(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("guided", [False, True])
def test_what_the_model_leads_on_from_noise_is_learnt_from_at_every_step(
    guided: bool, model: Denoiser, tokenizer: CLIPTokenizer
) -> None:
    alone, scale = batch(tokenizer, False), SCALES["coarsest"](model)
    seed = next(seed for seed in range(99) if (np.random.default_rng(seed).random() >= OWN_PLAIN) == guided)
    torch.manual_seed(7)
    seen = led_from_noise(model, tokenizer, alone, np.random.default_rng(seed))
    levels = torch.stack([level for _, level in seen])
    assert len(seen) == LED and (levels.diff(dim=0) < 0).all() and levels.max() < LEVELS - 1
    made = made_of(model, scale, alone, seen)
    assert len(made) == len(made.tokens) == LED * len(alone.target)
    for part, (sample, level) in zip(range(LED), seen, strict=True):
        its = made.chosen(torch.arange(2 * part, 2 * part + 2))
        assert torch.equal(its.level, level) and torch.equal(its.goal, made.goal[:2])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            words, embedding = heard(model, alone.told.tokens, level)
            given = scale.given(model, sample, embedding, words)
        torch.testing.assert_close(its.given[0].float(), given[0].float(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "its_own"),
    [
        ("coarsest", ("unet.down_blocks.2.", "unet.mid_block.", "unet.up_blocks.0.")),
        ("finer", ("unet.up_blocks.0.upsamplers.", "unet.up_blocks.1.")),
    ],
)
def test_it_learns_its_goals_and_nothing_else_moves(
    name: str,
    its_own: tuple[str, ...],
    model: Denoiser,
    tokenizer: CLIPTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace = ((step, 1.0) for step in range(1, 26))  # however quick the machine is
    monkeypatch.setattr(layout, "paced", lambda seconds, warm: pace)
    torch.manual_seed(1)
    scale = SCALES[name](model)
    stays = joined([made_of(model, scale, batch(tokenizer, True))] * 8)
    alone = joined([made_of(model, scale, batch(tokenizer, False))] * 8)
    lessons, before = Lessons(model, scale, alone, stays), copy.deepcopy(model.state_dict())

    def far(made: Made) -> float:
        with torch.no_grad():
            return float(lessons.errors(made)[0].mean())

    at_first = far(alone)
    assert far(stays) == pytest.approx(0, abs=0.01)
    lessons.learn(1)
    assert far(alone) < 0.5 * at_first and far(stays) < 0.5 * at_first
    moved = {name for name, part in model.state_dict().items() if not torch.equal(part, before[name])}
    assert moved and all(name.startswith(its_own) for name in moved)


def test_every_place_has_waves_of_its_own() -> None:
    found = waves(16)
    assert found.mean((1, 2)).abs().max() < 1e-5
    torch.testing.assert_close(found.std((1, 2)), torch.ones(len(found)))
    places = found.flatten(1).T
    assert torch.cdist(places, places).fill_diagonal_(9).min() > 0.3


def stored_records(cache: Path, count: int) -> None:
    """Write so many records of noise, of one scene, as the stages before leave them."""
    rng = np.random.default_rng(8)
    (cache / "latents.f16").write_bytes(rng.normal(size=(count, *RECORD)).astype(np.float16).tobytes())
    for name in ("regions", "dots"):
        (cache / f"{name}.u8").write_bytes(bytes(count * REGIONS_SIDE**2))
    line = json.dumps(known(hands=[asdict(PLAIN)] * STYLES_EACH, seed=3))
    (cache / "pictures.jsonl").write_text(f"{line}\n" * count)


def test_the_stage_replaces_the_checkpoint_and_keeps_the_one_before(tmp_path: Path, model: Denoiser) -> None:
    stored_records(tmp_path, KEPT_BACK + 1)
    shutil.copytree(FOLDER / "tokenizer", tmp_path / "tokenizer")
    torch.nn.utils.memory_format.convert_conv2d_weight_memory_format(model, torch.channels_last)
    readers = Readers(model)
    weights = {name: part.clone() for name, part in model.state_dict().items()}
    state = {"model": weights, "average": weights, "optimiser": Optimisers(model, readers).state_dict()}
    before = state | {"beside": readers.state_dict(), "step": 40, "samples": 700, "spent": 9.0}
    checkpoints.save(tmp_path / "unet.pt", before)
    layout.run(tmp_path, 2, argparse.Namespace(scale="coarsest", seconds=2, alone=16, stays=16))
    now, kept = (torch.load(tmp_path / name, weights_only=False) for name in ("unet.pt", "unet_40.pt"))
    assert now["step"] == 40 and now["samples"] == 700
    for name, part in weights.items():
        assert torch.equal(kept["average"][name], part) and torch.equal(now["model"][name], now["average"][name])
    coarse, finer = "unet.mid_block.resnets.0.conv1.weight", "unet.down_blocks.0.resnets.0.conv1.weight"
    assert torch.equal(now["average"][finer], weights[finer]) and not torch.equal(
        now["average"][coarse], weights[coarse]
    )
    lengths = [torch.cat(one["optimiser"]["lengths"]) for one in (now, kept)]
    assert lengths[0].shape == lengths[1].shape and not torch.equal(*lengths)

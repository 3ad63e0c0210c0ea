"""What holds for every family of models, and through both backends: the mask, seeds, steps, sizes, cancelling."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest
from backend.imaging import masks
from backend.imaging.pictures import load
from backend.imaging.resize import resize
from backend.models.load import Options
from backend.models.model import Model
from backend.operations.parameters import describe, settings_from_text
from backend.operations.run import Output
from backend.request import Request
from backend.settings import (
    EMBEDDED,
    OPERATIONS,
    Img2Img,
    Inpaint,
    Loopback,
    Outpaint,
    SDUpscale,
    Settings,
    make_settings,
)
from backend.settings.diffusion import INPAINT_AREAS, MASKED_CONTENTS
from backend.transport.embedded import EmbeddedBackend
from backend.transport.subprocess import SubprocessBackend
from tests.backend import tiny
from tests.backend.helpers import Picture
from tests.backend.test_transports import follow

# The others share their code with one of these; test_families.py holds each to diffusers' own pipelines.
MODELS = [EMBEDDED, "sd1", "velocity", "inpainting", "sdxl", "flux", "schnell", "flux2", "sd3", "z_image"]
FLOWS = {"flux", "schnell", "flux2", "sd3", "z_image"}
# Whose networks are another family's: for what depends on predictions alone.
VARIANTS = {"velocity", "schnell"}
MASK = slice(30, 52), slice(34, 60)  # rows and columns of 80×96 that the mask covers
PROMPT = "a cat in the rain"


@dataclass(frozen=True)
class Subject:
    """A model and an engine that has it loaded; it is asked for 96×80 pixels, the embedded one for twice that."""

    family: str
    engine: Engine
    path: str

    @property
    def scale(self) -> int:
        return 2 if self.family == EMBEDDED else 1

    @property
    def common(self) -> dict[str, Any]:
        """Settings that every request shares."""
        sampler = "Euler" if self.family in FLOWS else "Euler a"
        size = {"width": 96 * self.scale, "height": 80 * self.scale}
        return {
            "model": self.path,
            "prompt": PROMPT,
            "steps": 3,
            "seed": 5,
            "cfg_scale": 3.0,
            "sampler": sampler,
            **size,
        }

    @property
    def samplers(self) -> tuple[str, ...]:
        """One sampler of each kind, among them those that draw noise of their own."""
        if self.family == EMBEDDED:
            return ("Euler a",)
        return ("Euler", "DPM++ 2M SDE", "UniPC") if self.family in FLOWS else ("Euler a", "DPM++ 2M SDE", "DPM++ SDE")

    def scene(self, picture: Picture) -> tuple[Picture, NDArray[np.float32]]:
        """Return a picture and a mask over its middle, at the size asked for."""
        height, width = 80 * self.scale, 96 * self.scale
        mask = np.zeros((80, 96), np.float32)
        mask[MASK] = 1
        return resize(picture, width, height, "just_resize"), mask.repeat(self.scale, 0).repeat(self.scale, 1)

    def make(self, settings: Settings, picture: Picture, mask: NDArray[np.float32] | None = None) -> Output:
        """Return what comes of a request."""
        return self.engine.run(request_of(settings, picture, mask), lambda share, text: None, lambda: False)


def request_of(settings: Settings, picture: Picture, mask: NDArray[np.float32] | None = None) -> Request:
    return Request(settings, {"init": picture} if mask is None else {"init": picture, "mask": mask})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small lose more by waiting for other threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def subject_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Return the subject of a family, each built and loaded once."""

    @functools.cache
    def subject(family: str) -> Subject:
        path = EMBEDDED if family == EMBEDDED else tiny.folder(family, tmp_path_factory.getbasetemp())
        return Subject(family, Engine(), path)

    return subject


@pytest.fixture(params=[name for name in MODELS if name not in VARIANTS])
def subject(request: pytest.FixtureRequest, subject_of: Callable[[str], Subject]) -> Subject:
    return subject_of(request.param)


@pytest.fixture(params=MODELS)
def any_subject(request: pytest.FixtureRequest, subject_of: Callable[[str], Subject]) -> Subject:
    return subject_of(request.param)


# --- The mask ---


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("area", INPAINT_AREAS)
def test_not_a_byte_changes_where_the_overlay_is_0(
    any_subject: Subject, picture: Picture, area: str, soft: bool
) -> None:
    source, mask = any_subject.scene(picture)
    for content in list(MASKED_CONTENTS)[: 1 if any_subject.family == EMBEDDED else None]:
        settings = Inpaint(
            **any_subject.common,
            inpaint_area=area,
            masked_content=content,
            soft_inpainting=soft,
            mask_blur=3,
            denoising_strength=0.9,
        )
        result = any_subject.make(settings, source, mask).pictures[0].pixels
        blurred = masks.blur(mask, 3)
        overlay = masks.overlay_mask(blurred) if area == "whole_picture" else blurred
        assert 0.2 < (overlay == 0).mean() < 0.95
        assert np.array_equal(result[overlay == 0], source[overlay == 0])
        assert np.abs(result[mask == 1].astype(int) - source[mask == 1]).mean() > 3


@pytest.mark.parametrize("shape", [(61, 70), (100, 133)])
def test_only_masked_keeps_the_sources_size(subject: Subject, picture: Picture, shape: tuple[int, int]) -> None:
    source = resize(picture, shape[1], shape[0], "just_resize")
    mask = np.zeros(shape, np.float32)
    mask[20:40, 10:50] = 1
    result = subject.make(Inpaint(**subject.common, inpaint_area="only_masked", mask_blur=2), source, mask)
    assert result.pictures[0].pixels.shape == source.shape
    assert np.array_equal(result.pictures[0].pixels[masks.blur(mask, 2) == 0], source[masks.blur(mask, 2) == 0])


@pytest.mark.parametrize("area", INPAINT_AREAS)
def test_a_blank_mask_is_a_sentence(subject: Subject, picture: Picture, area: str) -> None:
    source, mask = subject.scene(picture)
    with pytest.raises(InvalidRequest, match="mask is blank"):
        subject.make(Inpaint(**subject.common, inpaint_area=area), source, np.zeros_like(mask))


# --- The picture ---


@pytest.mark.parametrize("cls", [Img2Img, Inpaint])
def test_a_denoising_strength_of_0_gives_the_pixels_back(
    subject: Subject, picture: Picture, cls: type[Img2Img]
) -> None:
    source, mask = subject.scene(picture)
    given = mask if cls is Inpaint else None
    result = subject.make(cls(**subject.common, denoising_strength=0.0), source, given)
    assert np.array_equal(result.pictures[0].pixels, source)


def test_a_canvas_keeps_its_size_whatever_that_is(subject: Subject, picture: Picture) -> None:
    for width, height in ((70, 93), (64, 300)):
        settings = Img2Img(**{**subject.common, "width": width, "height": height})
        assert subject.make(settings, picture).pictures[0].pixels.shape == (height, width, 3)


@pytest.mark.parametrize(
    "extreme",
    [
        {"cfg_scale": 30.0, "denoising_strength": 1.0},
        {"cfg_scale": 1.0, "steps": 1, "denoising_strength": 1.0},
        {"denoising_strength": 0.01},
        {"initial_noise_multiplier": 0.0, "extra_noise": 1.0},
    ],
)
def test_the_extremes_of_settings_give_pictures(subject: Subject, picture: Picture, extreme: dict[str, Any]) -> None:
    source, _ = subject.scene(picture)
    result = subject.make(Img2Img(**{**subject.common, **extreme}), source)  # which raises ModelError for NaN
    assert result.pictures[0].pixels.std() > 1


# --- Seeds and settings ---


def test_a_pictures_infotext_makes_it_again(subject: Subject, picture: Picture) -> None:
    source, mask = subject.scene(picture)
    told: dict[str, Any] = {
        "negative_prompt": "a dog",
        "denoising_strength": 0.6,
        "mask_blur": 2,
        "masked_content": "fill",
    }
    told |= {"variation_strength": 0.3, "variation_seed": 9}
    settings = Inpaint(**subject.common, **told, inpaint_area="only_masked", only_masked_padding=12, batch_size=2)
    made = subject.make(settings, source, mask).pictures
    assert not np.array_equal(made[0].pixels, made[1].pixels)
    for one in made:
        read = settings_from_text(describe(one))
        again = make_settings(OPERATIONS[read.operation], {**read.settings, "model": subject.path})
        assert again == one.settings
        remade = subject.make(again, source, mask).pictures[0].pixels
        assert difference(remade, one.pixels) <= 1


def test_a_seed_with_its_settings_gives_one_picture_and_another_seed_another(
    subject: Subject, picture: Picture
) -> None:
    source, _ = subject.scene(picture)
    settings = Img2Img(**subject.common)
    first = subject.make(settings, source).pictures[0].pixels
    other = subject.make(dataclasses.replace(settings, seed=6), source).pictures[0].pixels
    assert np.array_equal(subject.make(settings, source).pictures[0].pixels, first)
    assert not np.array_equal(first, other)


def test_a_batch_is_its_pictures_made_one_by_one(any_subject: Subject, picture: Picture) -> None:
    source, _ = any_subject.scene(picture)
    for sampler in any_subject.samplers:
        settings = Img2Img(**{**any_subject.common, "sampler": sampler}, batch_size=3)
        batch = any_subject.make(settings, source).pictures
        assert [one.seed for one in batch] == [5, 6, 7]
        for one in batch:
            single = any_subject.make(dataclasses.replace(settings, seed=one.seed, batch_size=1), source).pictures[0]
            assert difference(single.pixels, one.pixels) <= 1, sampler
            assert difference(single.pixels, batch[(one.seed - 4) % 3].pixels) > 5, sampler


def difference(one: Picture, other: Picture) -> int:
    """Return the greatest difference of two pictures, of 255."""
    return int(np.abs(one.astype(int) - other).max())


# --- Steps ---

# Denoising strength → steps that run of 20, as measured on the web UI.
STEPS = {0.05: 2, 0.1: 3, 0.3: 7, 0.5: 11, 0.75: 16, 0.9: 19, 0.95: 20, 1.0: 20}


def test_steps_are_the_web_uis(any_subject: Subject, picture: Picture) -> None:
    source, _ = any_subject.scene(picture)
    table = STEPS if any_subject.family != EMBEDDED else {0.3: 7}
    for strength, wanted in table.items():
        settings = Img2Img(**{**any_subject.common, "steps": 20, "cfg_scale": 1.0}, denoising_strength=strength)
        with counting(model_of(any_subject)) as begun:
            any_subject.make(settings, source)
        assert begun["step"] == wanted, strength


def test_exactly_the_steps_are_run_at_any_strength(subject: Subject, picture: Picture) -> None:
    source, _ = subject.scene(picture)
    for strength in (0.2, 0.7):
        # Without CFG each step is one call; with it, texts of unequal length are asked for one by one.
        common = {**subject.common, "steps": 4, "cfg_scale": 1.0}
        settings = Img2Img(**common, denoising_strength=strength, exact_steps=True)
        with counting(model_of(subject)) as begun:
            subject.make(settings, source)
        assert begun["step"] == 4, strength


# --- Cancelling ---


def model_of(subject: Subject) -> Model:
    return subject.engine.models.get(subject.path)


def doors(model: Model) -> dict[str, tuple[torch.nn.Module, torch.nn.Module]]:
    """Return what a phase goes through first and last."""
    pipe = model.pipe
    network = getattr(pipe, "unet", None) or pipe.transformer
    encoder = pipe.text_encoder or pipe.text_encoder_2
    text = getattr(encoder, "text_model", encoder)
    if not hasattr(text, "embeddings"):  # a language model, perhaps within one that also sees
        text = next(part for part in text.modules() if hasattr(part, "embed_tokens"))
    return {
        "text": (text.embeddings, text.final_layer_norm)
        if hasattr(text, "embeddings")
        else (text.embed_tokens, text.norm),
        "encode": (pipe.vae.encoder.conv_in, pipe.vae.encoder.conv_out),
        "step": _ends(network),
        "decode": (pipe.vae.decoder.conv_in, pipe.vae.decoder.conv_out),
    }


def _ends(network: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return a denoiser's first part and its last."""
    if hasattr(network, "all_x_embedder"):
        return network.all_x_embedder["2-1"], network.all_final_layer["2-1"]
    for first, last in (("conv_in", "conv_out"), ("x_embedder", "proj_out"), ("pos_embed", "proj_out")):
        if hasattr(network, first):
            return getattr(network, first), getattr(network, last)
    raise AssertionError(type(network))


class counting:  # noqa: N801 - reads as a word in a with statement
    """Counts how often each phase is begun and ended; at(phase, how often begun) is told of each beginning."""

    def __init__(self, model: Model, at: Callable[[str, int], None] = lambda phase, count: None) -> None:
        self.begun: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self._hooks = []

        def begin(phase: str) -> None:
            self.begun[phase] = self.begun.get(phase, 0) + 1
            at(phase, self.begun[phase])

        for phase, (first, last) in doors(model).items():
            self._hooks += [
                first.register_forward_pre_hook(lambda *_, phase=phase: begin(phase)),
                last.register_forward_hook(
                    lambda *_, phase=phase: self.ended.update({phase: self.ended.get(phase, 0) + 1})
                ),
            ]

    def __enter__(self) -> dict[str, int]:
        return self.begun

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("phase", "nth"), [("text", 1), ("encode", 1), ("step", 1), ("step", 2), ("step", 3), ("decode", 1)]
)
def test_a_cancel_stops_amid_the_phase_it_comes_in(subject: Subject, picture: Picture, phase: str, nth: int) -> None:
    source, _ = subject.scene(picture)
    model = model_of(subject)
    model._prompts.clear()  # which would spare it the reading of the prompt
    model._latents.clear()  # and this of the picture
    cancelled = False

    def at(where: str, count: int) -> None:
        nonlocal cancelled
        cancelled = cancelled or (where, count) == (phase, nth)

    settings = Img2Img(**{**subject.common, "cfg_scale": 1.0}, denoising_strength=1.0)
    counter = counting(model, at)
    with counter, pytest.raises(Cancelled):
        subject.engine.run(request_of(settings, source), lambda share, text: None, lambda: cancelled)
    assert counter.begun[phase] == nth
    assert counter.ended.get(phase, 0) == nth - 1
    assert subject.make(settings, source).pictures[0].pixels.shape == source.shape


def test_a_cancel_while_loading_ends_before_the_picture_is_read(subject: Subject, picture: Picture) -> None:
    source, _ = subject.scene(picture)
    said: list[str] = []
    with pytest.raises(Cancelled):
        Engine().run(
            request_of(Img2Img(**subject.common), source), lambda share, text: said.append(text), lambda: bool(said)
        )
    assert len(said) == 1 and said[0].startswith("Loading")


# --- Backends ---


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedBackend | SubprocessBackend]]:
    """One of each kind."""
    jobs = tmp_path_factory.mktemp("jobs")
    both: list[EmbeddedBackend | SubprocessBackend] = [
        EmbeddedBackend(jobs, Options()),
        SubprocessBackend(sys.executable, jobs, Options()),
    ]
    yield both
    for backend in both:
        backend.close()


def test_both_backends_give_the_same_pixels(
    subject: Subject, picture: Picture, backends: list[EmbeddedBackend | SubprocessBackend]
) -> None:
    source, mask = subject.scene(picture)
    settings = Inpaint(**{**subject.common, "steps": 2}, inpaint_area="only_masked", batch_size=2)
    made = []
    for backend in backends:
        last = follow(backend, backend.submit(request_of(settings, source, mask)))[-1]
        assert last.kind == "finished", last
        made.append([load(Path(result.path)) for result in last.results])
    assert len(made[0]) == 2
    for one, other in zip(*made, strict=True):
        assert np.array_equal(one, other)


# --- Operations ---


def test_every_operation_runs_on_every_family(subject: Subject, picture: Picture) -> None:
    source, _ = subject.scene(picture)
    outpainted = subject.make(Outpaint(**subject.common, pixels_right=16, pixels_up=8), source).pictures[0].pixels
    assert outpainted.shape == (source.shape[0] + 8, source.shape[1] + 16, 3)
    for method in ("seamless", "tiles"):
        settings = SDUpscale(**{**subject.common, "width": 64, "height": 64}, scale=1.5, overlap=16, method=method)
        settings = dataclasses.replace(settings, upscaler="Lanczos")
        enlarged = subject.make(settings, source).pictures[0].pixels
        assert enlarged.shape == (source.shape[0] * 3 // 2, source.shape[1] * 3 // 2, 3)
    looped = subject.make(Loopback(**subject.common, loops=2), source).pictures
    assert not np.array_equal(looped[-1].pixels, source)

"""What is kept from picture to picture: it spares work, and never changes a pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.engine import Engine
from backend.models.kept import Kept
from backend.models.load import Options
from backend.transport.memory import free_models
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run

SMALL: dict[str, Any] = {"width": 64, "height": 64, "denoising_strength": 0.6}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def counting(engine: Engine, name: str) -> tuple[list[int], Callable[[], None]]:
    """Return a list that grows with every run of a model's VAE encoder, and what stops that."""
    runs: list[int] = []
    hook = engine.models.get(name).pipe.vae.encoder.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs, hook.remove


def test_a_picture_is_encoded_once_and_gives_the_same_pixels(root: Path, picture: Picture) -> None:
    engine, name = Engine(Options(precision="float32")), tiny.folder("sd1", root)
    request = img2img(picture, model=name, **SMALL)
    runs, _ = counting(engine, name)
    first = run(engine, request)
    assert len(runs) == 1
    assert np.array_equal(run(engine, request), first)
    other = run(engine, img2img(picture, model=name, **{**SMALL, "denoising_strength": 0.3, "seed": 4}))
    assert len(runs) == 1 and not np.array_equal(other, first)
    run(engine, img2img(picture[::-1].copy(), model=name, **SMALL))
    assert len(runs) == 2
    assert np.array_equal(run(Engine(Options(precision="float32")), request), first)


def test_kept_latents_are_those_of_the_vae_as_it_is(root: Path, picture: Picture) -> None:
    engine, name = Engine(Options(precision="float32")), tiny.folder("sd1", root)
    model = engine.models.get(name)
    small = picture[60:124, 70:134].copy()
    own = model.encode(small)
    with model.seamless(True, False):
        across = model.encode(small)
        assert torch.equal(across, model.encode_anew(small)) and not torch.equal(across, own)
    model.use_vae(tiny.folder("velocity", root))
    other = model.encode(small)
    assert torch.equal(other, model.encode_anew(small))
    model.use_vae("")
    assert torch.equal(model.encode(small), own)
    assert not torch.equal(model.encode(small[:, ::-1]), own)
    assert model.encode(small[:32]).shape != own.shape


def test_a_prompt_read_beside_a_picture_is_kept_for_that_picture_alone(root: Path, picture: Picture) -> None:
    engine, name = Engine(Options(precision="float32")), tiny.folder("qwen_edit", root)
    model = engine.models.get(name)
    request = img2img(picture, model=name, sampler="Euler", **SMALL)
    first = run(engine, request)
    assert len(model._prompts) == 2  # with the negative one
    assert np.array_equal(run(engine, request), first) and len(model._prompts) == 2
    other = run(engine, img2img(picture[::-1].copy(), model=name, sampler="Euler", **SMALL))
    assert len(model._prompts) == 4 and model.picture is None
    assert not np.array_equal(other, first)
    model._prompts.clear()
    assert np.array_equal(run(engine, request), first)


def test_freeing_memory_forgets_what_was_kept(root: Path, picture: Picture) -> None:
    engine, name = Engine(Options()), tiny.folder("sd1", root)
    run(engine, img2img(picture, model=name, **SMALL))
    kept = engine.models.get(name)._latents, engine.models.get(name)._prompts
    assert [len(one) for one in kept] == [1, 2]
    free_models(engine)
    model = engine.models.get(name)
    assert len(model._latents) == len(model._prompts) == 0
    runs, _ = counting(engine, name)
    run(engine, img2img(picture, model=name, **SMALL))
    assert len(runs) == 1


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept: Kept[int, torch.Tensor] = Kept(most=4 * 100)
    made: list[int] = []

    def value(key: int, size: int = 25) -> torch.Tensor:
        def make() -> torch.Tensor:
            made.append(key)
            return torch.full((size,), float(key))

        return kept.get(key, make)

    for key in (1, 2, 3, 4, 1, 5):
        assert value(key)[0] == key
    assert made == [1, 2, 3, 4, 5] and 2 not in kept and 1 in kept
    assert len(value(6, size=1000)) == 1000 and len(kept) == 1, "what is larger than the room is alone there"
    value(7)
    assert len(kept) == 1 and 7 in kept

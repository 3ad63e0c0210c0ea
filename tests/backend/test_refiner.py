"""The refiner: a second model that takes over for the last steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest
from backend.models.load import Options
from backend.operations.parameters import describe
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return lambda family: tiny.folder(family, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Options(device="cpu", precision="float32"))


@pytest.fixture
def make(engine: Engine, folder_of: Callable[[str], str], picture: Picture) -> Callable[..., Picture]:
    def made(**settings: Any) -> Picture:
        common = {"model": folder_of("sdxl"), "refiner": folder_of("refiner"), "width": 64, "height": 64, "steps": 8}
        return run(engine, img2img(picture, **{**common, "sampler": "Euler", "prompt": "a cat", **settings}))

    return made


def test_each_step_is_the_models_or_the_refiners(
    make: Callable[..., Picture], engine: Engine, folder_of: Callable[[str], str]
) -> None:
    """Of 8 steps at a strength of 0.5 the last 5 run, from the third on: at 0.75 of the schedule 2 are left."""
    asked: list[str] = []
    make()
    parts: dict[str, Any] = {
        "model": engine.models.get(folder_of("sdxl")).family.network.conv_in,
        "refiner": engine.models.refiner(folder_of("refiner")).family.network.conv_in,
    }
    hooks = [part.register_forward_hook(lambda *_, name=name: asked.append(name)) for name, part in parts.items()]
    for switch, expected in ((0.75, ["model"] * 3 + ["refiner"] * 2), (0.0, ["refiner"] * 5), (1.0, ["model"] * 5)):
        asked.clear()
        make(refiner_switch_at=switch, denoising_strength=0.5)
        assert asked == expected
    for hook in hooks:
        hook.remove()


def test_the_refiner_alone_is_the_refiner_as_a_model(
    make: Callable[..., Picture], folder_of: Callable[[str], str]
) -> None:
    """The tiny models' VAEs are of one seed, their denoisers are not."""
    vae = {"vae": folder_of("sdxl")}
    alone = make(model=folder_of("refiner"), refiner="", **vae)
    assert np.abs(make(refiner_switch_at=0.0, **vae).astype(int) - alone).max() <= 1
    never = make(refiner_switch_at=1.0)
    assert np.array_equal(never, make(refiner="")) and not np.array_equal(never, make(refiner_switch_at=0.5))


@pytest.mark.parametrize("alone", [True, False])
def test_it_is_led_away_from_a_lower_score(
    alone: bool,
    make: Callable[..., Picture],
    engine: Engine,
    folder_of: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of each step's two texts, for two pictures, the prompt comes with a score of 6 and the negative with 2.5."""
    models, name = engine.models, folder_of("refiner")
    settings = {"model": name, "refiner": ""} if alone else {"refiner_switch_at": 0.5}
    make(**settings)  # what isn't asked for any more is let go
    model = models.get(name) if alone else models.refiner(name)
    cat = model.encode_prompts("a cat", "", 1, 1).positives[0][1][0][1].embeds
    denoise, scores = model.family.denoise, []

    def noted(*args: Any, **given: Any) -> Any:
        texts, times = given["encoder_hidden_states"], given["added_cond_kwargs"]["time_ids"]
        scores.append([(torch.equal(text, cat[0]), float(time[-1])) for text, time in zip(texts, times, strict=True)])
        return denoise(*args, **given)

    monkeypatch.setattr(model.family, "denoise", noted)
    make(negative_prompt="a dog", batch_size=2, cfg_scale=4.0, **settings)
    assert scores and all(sorted(some) == [(False, 2.5)] * 2 + [(True, 6.0)] * 2 for some in scores)


@pytest.mark.parametrize("other", ["flux", "inpainting"])
def test_what_cant_go_on_is_a_sentence(
    other: str, make: Callable[..., Picture], folder_of: Callable[[str], str]
) -> None:
    with pytest.raises(InvalidRequest, match="can't refine"):
        make(refiner=folder_of(other))
    with pytest.raises(InvalidRequest, match="can't refine"):
        make(model=folder_of("flux"))
    with pytest.raises(InvalidRequest, match="is an inpainting model"):
        make(model=folder_of("inpainting"))
    assert make().shape == (64, 64, 3)


def test_a_refiner_that_is_switched_off_is_let_go_and_one_that_becomes_the_model_is_not_loaded_again(
    engine: Engine, make: Callable[..., Picture], folder_of: Callable[[str], str]
) -> None:
    models, name = engine.models, folder_of("refiner")
    make(width=128)
    refiner = models.get(folder_of("sdxl")).refiner
    assert refiner is models.refiner(name) and refiner.savings._job is not None and refiner.savings._job.width == 128
    assert models.is_loaded(name) and models.get(name) is refiner
    make()
    make(refiner="")
    assert not models.is_loaded(name) and models.get(folder_of("sdxl")).refiner is None


def test_a_cancel_stops_the_refiner(
    engine: Engine, make: Callable[..., Picture], folder_of: Callable[[str], str], picture: Picture
) -> None:
    before = make()
    cancelled = False

    def cancel(*_: Any) -> None:
        nonlocal cancelled
        cancelled = True

    network: torch.nn.Module = engine.models.refiner(folder_of("refiner")).family.network
    hook = network.conv_in.register_forward_hook(cancel)  # type: ignore[union-attr, operator]
    both = {"model": folder_of("sdxl"), "refiner": folder_of("refiner")}
    request = img2img(picture, **both, refiner_switch_at=0.3, width=64, height=64)
    with pytest.raises(Cancelled):
        engine.run(request, lambda share, text: None, lambda: cancelled)
    hook.remove()
    assert np.array_equal(make(), before)


def test_the_infotext_tells_it(engine: Engine, folder_of: Callable[[str], str], picture: Picture) -> None:
    request = img2img(picture, model=folder_of("sdxl"), refiner=folder_of("refiner"), width=64, height=64)
    made = engine.run(request, lambda share, text: None, lambda: False).pictures[0]
    assert "Refiner switch at: 0.8" in describe(made) and "Refiner: refiner" in describe(made)

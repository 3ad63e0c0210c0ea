"""The fast mode: what it leaves out, that nothing stays behind, and that merged tokens come back to their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from backend.engine import Engine
from backend.errors import InvalidRequest
from backend.imaging.regions import Region
from backend.models.fast import MODES, NOTHING, Merging, Shortcut, shortcut_of
from backend.models.load import Models, Options
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run

SMALL: dict[str, Any] = {"width": 96, "height": 64, "steps": 6, "denoising_strength": 0.9}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def exact() -> Engine:
    return Engine(Options(precision="float32"))


@pytest.mark.parametrize("family", ["sd1", "sdxl", "inpainting", "velocity"])
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
def test_deep_layers_run_in_every_second_call_alone(
    family: str, sampler: str, exact: Engine, root: Path, picture: Picture
) -> None:
    name = tiny.folder(family, root)
    unet = exact.models.get(name).pipe.unet
    runs: dict[str, int] = {}
    parts = {"deep": unet.mid_block, "shallow": unet.up_blocks[-1].resnets[-1]}
    for part, module in parts.items():
        runs[part] = 0

        def count(*_: Any, part: str = part) -> None:
            runs[part] += 1

        module.register_forward_pre_hook(count)
    common = {**SMALL, "model": name, "sampler": sampler, "negative_prompt": "a dog"}
    full = run(exact, img2img(picture, **common))
    calls = runs["deep"]
    assert calls == runs["shallow"] >= 6
    fast = run(exact, img2img(picture, **common, fast_mode="balanced"))
    assert runs == {"deep": calls + -(-calls // 2), "shallow": 2 * calls}
    assert not np.array_equal(fast, full)
    assert np.abs(fast.astype(int) - full).mean() < 16
    assert np.array_equal(run(exact, img2img(picture, **common)), full), "nothing stays behind"
    assert np.array_equal(run(exact, img2img(picture, **common, fast_mode="balanced")), fast), "nothing is random"


def test_a_shallow_call_of_what_has_not_changed_is_the_full_one(exact: Engine, root: Path) -> None:
    model = exact.models.get(tiny.folder("sdxl", root))
    model.watch = lambda: None
    sample = torch.randn(1, 4, 7, 11, generator=torch.Generator().manual_seed(1))
    conditionings = [model.encode_prompts(text, "", 1, 1).positives[0][1][0][1] for text in ("a cat", "a dog")]
    found: list[list[torch.Tensor]] = []

    def guide(predict: Any, sample: torch.Tensor) -> torch.Tensor:
        found.extend(predict(sample, conditionings) for _ in range(3))
        return sample

    added = {"text_embeds": torch.zeros(1, 32), "time_ids": torch.zeros(1, 6)}
    with torch.inference_mode(), model.guided_by(guide), model.hurried(Shortcut(3)):
        model._forward(sample, torch.tensor(500), added_cond_kwargs=added, return_dict=False)
    for again in found[1:]:
        for one, first in zip(again, found[0], strict=True):
            assert torch.allclose(one, first, atol=1e-5)
    assert not torch.allclose(found[0][0], found[0][1])


def test_tiles_of_a_large_picture_are_hurried_apart(exact: Engine, root: Path, picture: Picture) -> None:
    """Each window has deep layers of its own: with those of its neighbour the picture would be another."""
    model = exact.models.get(tiny.folder("sd1", root))
    model.watch = lambda: None
    conditioning = model.encode_prompts("a cat", "", 1, 1).positives[0][1][0][1]
    windows = Region(0, 0, 8, 8), Region(8, 0, 16, 8)
    sample = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(2))
    found: list[torch.Tensor] = []

    def guide(predict: Any, sample: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            for window in windows:
                found.append(predict(sample[:, :, :, window.x1 : window.x2], [conditioning], window)[0])
        return sample

    with torch.inference_mode(), model.guided_by(guide), model.hurried(Shortcut(2)):
        model._forward(sample, torch.tensor(500), return_dict=False)
    assert torch.allclose(found[0], found[2], atol=1e-5) and torch.allclose(found[1], found[3], atol=1e-5)


def test_little_memory_changes_nothing(exact: Engine, root: Path, picture: Picture) -> None:
    """The denoiser looks at each sample and prompt on its own then, and its weights lie on the disk between blocks."""
    common = {**SMALL, "model": tiny.folder("sd1", root), "fast_mode": "fastest", "batch_size": 2, "cfg_scale": 7.0}
    low = Engine(Options(precision="float32", memory="low"))
    for one, other in zip(pixels(exact, picture, **common), pixels(low, picture, **common), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def pixels(engine: Engine, picture: Picture, **settings: Any) -> list[Picture]:
    made = engine.run(img2img(picture, **settings), lambda share, text: None, lambda: False)
    return [one.pixels for one in made.pictures]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_merging_tokens_changes_the_picture_and_more_so_the_more(
    family: str, exact: Engine, root: Path, picture: Picture
) -> None:
    common = {**SMALL, "model": tiny.folder(family, root), "cfg_scale": 7.0}
    full = run(exact, img2img(picture, **common)).astype(int)
    far = [
        np.abs(run(exact, img2img(picture, **common, token_merging_ratio=ratio)) - full).mean() for ratio in (0.1, 0.7)
    ]
    assert 0 < far[0] < far[1]
    assert np.array_equal(run(exact, img2img(picture, **common)), full)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 3)])
def test_merged_tokens_come_back_to_their_places(height: int, width: int) -> None:
    tokens = torch.randn(2, height * width, 8, generator=torch.Generator().manual_seed(3))
    none = Merging(tokens, height, width, 0.0)
    assert torch.equal(none.spread(none.merge(tokens)), tokens)
    some = Merging(tokens, height, width, 0.5)
    count = min(int(height * width * 0.5), height * width - (-(-height // 2) * -(-width // 2)))
    fewer = some.merge(tokens)
    assert fewer.shape == (2, height * width - count, 8)
    spread = some.spread(fewer)
    changed = (spread - tokens).abs().amax(-1) > 1e-6
    # Those merged and those merged into are changed, each of the latter by one of the former at least.
    assert (changed.sum(1) > count).all() and (changed.sum(1) <= 2 * count).all()


def test_equal_tokens_lose_nothing_by_being_merged() -> None:
    square = torch.randn(1, 1, 1, 6, generator=torch.Generator().manual_seed(4))
    tokens = square.expand(2, 4, 4, 6).reshape(2, 16, 6).clone()
    tokens[:, 5] = -tokens[:, 5]  # unlike all others, so that it is left alone
    merging = Merging(tokens, 4, 4, 0.5)
    assert merging.merge(tokens).shape[1] == 8
    assert torch.allclose(merging.spread(merging.merge(tokens)), tokens, atol=1e-6)


def test_modes_and_ratio_add_up() -> None:
    assert shortcut_of("off", 0.0) == NOTHING
    assert shortcut_of("balanced", 0.3) == Shortcut(2, 0.3, 0.08)
    assert shortcut_of("fastest", 0.3) == Shortcut(3, 0.5, 0.15)
    assert shortcut_of("off", 0.75) == Shortcut(1, 0.75)


@pytest.mark.parametrize("family", ["flux", "schnell", "qwen_image"])
def test_a_transformers_blocks_run_where_the_first_ones_answer_changes(
    family: str, exact: Engine, root: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tiny.folder(family, root)
    transformer = exact.models.get(name).pipe.transformer
    blocks = [*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", [])]
    if len(blocks) == 1:
        pytest.skip("there is no block but the first")
    runs: list[int] = []
    blocks[-1].attn.register_forward_pre_hook(lambda *_: runs.append(1))
    common = {**SMALL, "model": name, "sampler": "Euler", "cfg_scale": 1.0}
    full = run(exact, img2img(picture, **common))
    calls = len(runs)
    for change, expected in ((1e9, 1), (1e-9, calls)):
        monkeypatch.setitem(MODES, "balanced", Shortcut(2, 0.0, change))
        runs.clear()
        fast = run(exact, img2img(picture, **common, fast_mode="balanced"))
        assert len(runs) == expected
        assert np.array_equal(fast, full) == (expected == calls)
    assert np.array_equal(run(exact, img2img(picture, **common)), full), "nothing stays behind"


@pytest.mark.parametrize(
    ("family", "change"),
    [("flux", {"token_merging_ratio": 0.5}), ("sd3", {"fast_mode": "balanced"}), ("z_image", {"fast_mode": "fastest"})],
)
def test_what_cant_be_left_out_is_a_sentence(
    family: str, change: dict[str, Any], exact: Engine, root: Path, picture: Picture
) -> None:
    common = {**SMALL, "model": tiny.folder(family, root), "sampler": "Euler"}
    with pytest.raises(InvalidRequest, match="can't leave out"):
        run(exact, img2img(picture, **common, **change))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_attention_on_a_processor_gives_the_same_bits_as_diffusers(family: str, root: Path) -> None:
    model = Models(Options(device="cpu", precision="float32")).get(tiny.folder(family, root))
    unet: Any = model.family.network
    assert {type(processor).__name__ for processor in unet.attn_processors.values()} == {"ContiguousAttention"}
    blocks = [part for part in unet.modules() if type(part).__name__ == "BasicTransformerBlock"]
    tokens = torch.randn(2, 12, blocks[0].norm1.normalized_shape[0], generator=torch.Generator().manual_seed(5))
    text = torch.randn(2, 7, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        ours = blocks[0](tokens, encoder_hidden_states=text)
        for attention in (blocks[0].attn1, blocks[0].attn2):
            attention.set_processor(AttnProcessor2_0())
        assert torch.equal(blocks[0](tokens, encoder_hidden_states=text), ours)

"""The web UI's scripts on the real engine: each picture is what its settings alone would have made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest, ModelError
from backend.imaging import masks
from backend.imaging.colour import correct_colours
from backend.imaging.grid import captioned_grid
from backend.models import interrogators
from backend.models.load import Options
from backend.models.samplers import SAMPLERS, SCHEDULES
from backend.operations.run import Output
from backend.request import Array, Request
from backend.settings import Alternative, Img2Img, Inpaint, Loopback, PromptLines, PromptMatrix, Settings, XYZPlot
from tests.backend.helpers import FEW, Picture, run

QUICK: dict[str, Any] = {**FEW, "steps": 2, "denoising_strength": 0.6}
FIRM = next(name for name, entry in SAMPLERS.items() if set(SCHEDULES) - set(entry.follows))  # can't follow all
Mask = NDArray[np.float32]


def asked(settings: Settings, picture: Picture, mask: Mask | None = None) -> Request:
    images: dict[str, Array] = {"init": picture}
    return Request(settings, images if mask is None else {**images, "mask": mask})


def output(engine: Engine, settings: Settings, picture: Picture, mask: Mask | None = None) -> Output:
    return engine.run(asked(settings, picture, mask), lambda share, text: None, lambda: False)


def single(engine: Engine, settings: Settings, picture: Picture, mask: Mask | None = None) -> Picture:
    return run(engine, asked(settings, picture, mask))


# --- Loopback ---


def test_each_loop_is_img2img_of_the_last_with_the_next_seed_and_strength(engine: Engine, picture: Picture) -> None:
    made = output(engine, Loopback(**QUICK, loops=3, final_denoising_strength=0.3, batch_size=2), picture).pictures
    grid, loops = made[0], made[1:]
    expected = picture
    for index, strength in enumerate((0.6, 0.45, 0.3)):
        expected = single(engine, Img2Img(**{**QUICK, "seed": 11 + index, "denoising_strength": strength}), expected)
        assert np.array_equal(loops[index].pixels, expected)
        assert loops[index].seed == 11 + index
        assert loops[index].settings.denoising_strength == pytest.approx(strength)  # type: ignore[attr-defined]
    assert np.array_equal(grid.pixels, np.hstack([one.pixels for one in loops]))


def test_several_batches_give_the_last_of_each_and_can_be_made_alone(engine: Engine, picture: Picture) -> None:
    made = output(engine, Loopback(**QUICK, loops=2, batch_count=2), picture).pictures
    assert [one.settings.seed for one in made] == [11, 13]  # type: ignore[attr-defined]
    for one in made:
        assert np.array_equal(output(engine, one.settings, picture).pictures[-1].pixels, one.pixels)


def test_loopback_fills_the_mask_only_once_and_keeps_the_rest(engine: Engine, picture: Picture, mask: Mask) -> None:
    settings = Loopback(**QUICK, loops=2, final_denoising_strength=0.6, masked_content="fill")
    made = output(engine, settings, picture, mask).pictures[1:]
    first = single(engine, Inpaint(**QUICK, masked_content="fill"), picture, mask)
    second = single(engine, Inpaint(**{**QUICK, "seed": 12}, masked_content="original"), first, mask)
    assert np.array_equal(made[0].pixels, first) and np.array_equal(made[1].pixels, second)


@pytest.mark.parametrize("area", ["whole_picture", "only_masked"])
def test_loopback_of_another_size_takes_its_mask_along(engine: Engine, picture: Picture, mask: Mask, area: str) -> None:
    source, cut = picture[:200], mask[:200]
    settings = Loopback(**QUICK, loops=2, inpaint_area=area, mask_blur=0, colour_correction=True)
    made = output(engine, settings, source, cut).pictures[1:]
    if area == "only_masked":
        assert all(np.array_equal(one.pixels[cut == 0], source[cut == 0]) for one in made)
    else:
        assert made[1].pixels.shape == (256, 256, 3)
        kept = masks.overlay_mask(cut)[0] == 0
        assert np.array_equal(made[1].pixels[0][kept], made[0].pixels[0][kept])
    assert not np.array_equal(made[0].pixels, made[1].pixels)


def test_loopbacks_colours_are_those_of_the_first_input(engine: Engine, picture: Picture) -> None:
    corrected = output(engine, Loopback(**QUICK, loops=2, colour_correction=True), picture).pictures[1:]
    inner = Img2Img(**{**QUICK, "seed": 12, "denoising_strength": 0.5})
    plain = single(engine, inner, corrected[0].pixels)
    assert np.array_equal(corrected[1].pixels, correct_colours(plain, picture))
    assert corrected[1].settings.colour_correction  # type: ignore[attr-defined]


def test_loopback_keeps_transparency(engine: Engine, picture: Picture) -> None:
    alpha = np.full((256, 256), 128, np.uint8)
    alpha[50:240, 100:156] = 255
    made = output(engine, Loopback(**QUICK, loops=2), np.dstack([picture, alpha])).pictures
    assert all(np.array_equal(one.pixels[..., 3], alpha) for one in made[1:])


def test_a_cancel_inside_a_loop_stops_it(engine: Engine, picture: Picture) -> None:
    seen: list[str] = []
    with pytest.raises(Cancelled):
        engine.run(
            Request(Loopback(**QUICK, loops=3), {"init": picture}),
            lambda share, text: seen.append(text),
            lambda: any(text.startswith("Loop 2 of 3: Step 1") for text in seen),
        )
    assert seen[-1].startswith("Loop 2 of 3: Step 1") and not any("Loop 3" in text for text in seen)


def test_loopback_asks_for_the_model_that_reads_its_input_first(
    engine: Engine, picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrogators, "EMBEDDED_CAPTIONER", tmp_path / "gone")
    said: list[str] = []
    with pytest.raises(ModelError):
        engine.run(
            Request(Loopback(**QUICK, append_interrogation=True), {"init": picture}),
            lambda share, text: said.append(text),
            lambda: False,
        )
    assert not any("Step" in text for text in said)


def test_progress_runs_once_over_all_loops(engine: Engine, picture: Picture) -> None:
    shares: list[float] = []
    request = Request(Loopback(**QUICK, loops=2), {"init": picture})
    engine.run(request, lambda share, text: shares.append(share), lambda: False)
    assert shares == sorted(shares) and max(shares) < 1


# --- X/Y/Z plot ---


def test_cells_of_a_plot_equal_single_runs(engine: Engine, picture: Picture, mask: Mask) -> None:
    settings = XYZPlot(
        **QUICK,
        x_type="cfg_scale",
        x_values="2, 5",
        y_type="denoising_strength",
        y_values="0.4, 0.8",
        include_cells=True,
        margin=3,
    )
    made = output(engine, settings, picture, mask)
    *cells, grid = made.pictures
    expected = [
        single(engine, Inpaint(**{**QUICK, "cfg_scale": cfg, "denoising_strength": strength}), picture, mask)
        for strength in (0.4, 0.8)
        for cfg in (2.0, 5.0)
    ]
    for cell, alone in zip(cells, expected, strict=True):
        assert np.array_equal(cell.pixels, alone)
        assert np.array_equal(single(engine, cell.settings, picture, mask), alone)
    columns, rows = ["CFG Scale: 2", "CFG Scale: 5"], ["Denoising: 0.4", "Denoising: 0.8"]
    assert np.array_equal(grid.pixels, captioned_grid(expected, columns, rows, margin=3))
    assert made.notice == "" and isinstance(grid.settings, XYZPlot) and grid.settings.x_values == "2, 5"


def test_z_gives_a_grid_for_each_value_and_one_of_all(engine: Engine, picture: Picture) -> None:
    settings = XYZPlot(
        **QUICK, x_type="seed", x_values="1,-1", z_type="steps", z_values="1,2", draw_legend=False, margin=0
    )
    made = output(engine, settings, picture).pictures
    assert [one.pixels.shape for one in made] == [(256, 512, 3), (256, 512, 3), (256, 1024, 3)]
    assert np.array_equal(made[2].pixels, np.hstack([made[0].pixels, made[1].pixels]))
    fixed = str(made[2].extras["Fixed X Values"]).split(", ")
    assert fixed[0] == "1" and int(fixed[1]) >= 0
    alone = single(engine, Img2Img(**{**QUICK, "seed": int(fixed[1]), "steps": 1}), picture)
    assert np.array_equal(made[0].pixels[:, 256:], alone)


def test_a_batch_in_a_cell_is_a_grid_of_its_own(engine: Engine, picture: Picture) -> None:
    settings = XYZPlot(**QUICK, batch_size=2, x_type="steps", x_values="1,2", draw_legend=False)
    assert output(engine, settings, picture).pictures[0].pixels.shape == (256, 1024, 3)


def test_a_failing_cell_is_blank_and_told(engine: Engine, picture: Picture) -> None:
    schedule = next(name for name in SCHEDULES if name not in SAMPLERS[FIRM].follows)
    settings = XYZPlot(
        **QUICK,
        schedule=schedule,
        x_type="sampler",
        x_values=f"Euler, {FIRM}, LMS",
        draw_legend=False,
        include_cells=True,
    )
    made = output(engine, settings, picture)
    first, last, grid = made.pictures
    assert grid.pixels.shape == (256, 768, 3)
    assert np.array_equal(grid.pixels[:, :256], first.pixels) and np.array_equal(grid.pixels[:, 512:], last.pixels)
    assert (grid.pixels[:, 256:512] == 255).mean() > 0.9
    assert "1 of 3" in made.notice and FIRM in made.notice and schedule in made.notice


def test_where_every_cell_fails_the_plot_does(engine: Engine, picture: Picture) -> None:
    settings = XYZPlot(**QUICK, x_type="steps", x_values="1,2")
    with pytest.raises(InvalidRequest, match="blank"):
        output(engine, settings, picture, np.zeros((256, 256), np.float32))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (XYZPlot(**QUICK), "X Values is empty"),
        (XYZPlot(**QUICK, x_type="nothing"), "no axis"),
        (XYZPlot(**QUICK, x_values="5, 99"), "CFG Scale is 99"),
        (XYZPlot(**QUICK, x_type="sampler", x_values="Euler, Nonsense"), "Nonsense"),
        (XYZPlot(**QUICK, x_type="prompt_replace", x_values="elephant, mouse"), "elephant"),
        (XYZPlot(**{**QUICK, "width": 4096, "height": 4096}, x_values="1-12"), "too large"),
        (PromptMatrix(**QUICK), r"no \|"),
        (PromptMatrix(**{**QUICK, "prompt": "|".join("abcdefghijkl")}), "combinations"),
        (PromptMatrix(**{**QUICK, "prompt": "a|b|c|d|e", "width": 4096, "height": 4096}), "too large"),
        (PromptLines(**QUICK), "no line"),
        (PromptLines(**QUICK, lines="a cat\n\n--steps none"), "Line 3"),
    ],
)
def test_wrong_scripts_are_a_sentence_before_the_first_picture(
    engine: Engine, picture: Picture, settings: Settings, words: str
) -> None:
    said: list[str] = []
    with pytest.raises(InvalidRequest, match=words):
        engine.run(Request(settings, {"init": picture}), lambda share, text: said.append(text), lambda: False)
    assert said == []


# --- Prompt matrix, prompts from text ---


def test_a_prompt_matrix_makes_every_combination(engine: Engine, picture: Picture) -> None:
    settings = PromptMatrix(
        **{**QUICK, "prompt": "a woman| red hair|smiling"}, include_cells=True, different_seeds=True
    )
    *cells, grid = output(engine, settings, picture).pictures
    prompts = ["a woman", "a woman, red hair", "a woman, smiling", "a woman, red hair, smiling"]
    expected = [
        single(engine, Img2Img(**{**QUICK, "prompt": prompt, "seed": 11 + index}), picture)
        for index, prompt in enumerate(prompts)
    ]
    assert all(np.array_equal(cell.pixels, alone) for cell, alone in zip(cells, expected, strict=True))
    assert np.array_equal(grid.pixels, captioned_grid(expected, ["", "red hair"], ["", "smiling"]))


def test_a_prompt_matrix_of_the_negative_with_its_parts_first(engine: Engine, picture: Picture) -> None:
    settings = PromptMatrix(
        **QUICK, negative_prompt="rain|snow", matrix_of_negative=True, put_at_start=True, include_cells=True
    )
    cells = output(engine, settings, picture).pictures[:-1]
    assert [cell.settings.negative_prompt for cell in cells] == ["rain", "snow, rain"]  # type: ignore[attr-defined]
    assert {cell.seed for cell in cells} == {11}


def test_each_line_is_a_picture_of_its_own_settings(picture: Picture) -> None:
    # Where a processor reckons in float32, sums hang on the batch's size, and bytes at the edge of rounding with them.
    engine = Engine(Options(device="cpu", precision="bfloat16"))
    lines = '\na man\n--prompt "a house" --steps 3 --batch_size 2\n--seed 5 --prompt "a tree"\na cat\n'
    made = output(engine, PromptLines(**QUICK, lines=lines, iterate_seed=True), picture).pictures
    found = [(one.settings.prompt, one.settings.steps, one.seed) for one in made]  # type: ignore[attr-defined]
    assert found == [("a man", 2, 11), ("a house", 3, 12), ("a house", 3, 13), ("a tree", 2, 5), ("a cat", 2, 15)]
    for one in made[:3]:
        assert np.array_equal(single(engine, one.settings, picture), one.pixels)


# --- img2img alternative ---


def test_the_found_noise_leads_back_to_the_input(engine: Engine, picture: Picture) -> None:
    # Were each slope taken where its step starts, not where it leads, 0.57 would be left with 20 steps, 0.23 with 96.
    settings: dict[str, Any] = {**FEW, "steps": 20, "cfg_scale": 1.0, "denoising_strength": 1.0, "sampler": "Euler"}
    unchanged = single(engine, Img2Img(**{**settings, "denoising_strength": 0.01}), picture)
    random_noise = single(engine, Img2Img(**settings), picture)
    found = output(
        engine,
        Alternative(**settings, original_prompt=FEW["prompt"], decode_steps=20, decode_cfg_scale=1.0),
        picture,
    )
    floor, far, near = (
        np.abs(one.astype(int) - picture).mean() for one in (unchanged, random_noise, found.pictures[0].pixels)
    )
    assert near < floor + 0.12 * (far - floor)
    assert found.notice == ""


def test_all_random_it_is_img2img_by_euler(engine: Engine, picture: Picture) -> None:
    random = {"original_prompt": "a house", "decode_steps": 2, "randomness": 1.0, "batch_size": 2}
    made = output(engine, Alternative(**{**QUICK, "sampler": "Euler a", **random}), picture)
    assert "Euler" in made.notice and "Euler a" in made.notice
    for index, one in enumerate(made.pictures):
        alone = single(engine, Img2Img(**{**QUICK, "sampler": "Euler", "seed": 11 + index}), picture)
        assert np.abs(one.pixels.astype(int) - alone).max() <= 1
        assert one.seed == 11 + index


@pytest.mark.parametrize(
    "change",
    [
        {"original_prompt": "black ink line drawing"},
        {"original_negative_prompt": "rain", "decode_cfg_scale": 2.0},
        {"decode_steps": 6},
        {"decode_cfg_scale": 2.0},
        {"randomness": 0.3},
        {"prompt": "a house"},
    ],
)
def test_every_setting_of_the_alternative_changes_the_picture(
    engine: Engine, picture: Picture, change: dict[str, Any]
) -> None:
    before = Alternative(**QUICK, original_prompt="a woman", decode_steps=3)
    first = single(engine, before, picture)
    assert not np.array_equal(first, single(engine, dataclasses.replace(before, **change), picture))


def test_the_alternative_follows_the_schedule_and_can_be_cancelled(engine: Engine, picture: Picture) -> None:
    settings = Alternative(**{**QUICK, "schedule": "Karras"}, decode_steps=4)
    assert single(engine, settings, picture).shape == picture.shape
    seen: list[str] = []
    with pytest.raises(Cancelled):
        engine.run(
            Request(settings, {"init": picture}),
            lambda share, text: seen.append(text),
            lambda: any("Finding the noise: Step 2" in text for text in seen),
        )
    assert "Finding the noise: Step 2" in seen[-1]

"""What the axes of an X/Y/Z plot and the parts and lines of other scripts are read as, before anything is made."""

from __future__ import annotations

import dataclasses
import random

import pytest

from backend.errors import DiffusionError, InvalidRequest, ModelError
from backend.operations.axes import SPECIAL, Axis, in_order, read_axis, reorder, require_different
from backend.operations.prompt_lines import read_line
from backend.operations.prompt_matrix import combinations, split_parts
from backend.operations.xyz_plot import plan_cells
from backend.settings import Img2Img, Inpaint, XYZPlot
from backend.settings.scripts import AXES

BASE = Inpaint(prompt="a red cat, a blue dog", negative_prompt="rain", seed=100)


def axis(kind: str, text: str, base: Img2Img = BASE, draw: random.Random | None = None) -> Axis:
    return read_axis("X", kind, text, base, draw)


def changed(kind: str, text: str, name: str) -> list[object]:
    return [getattr(value.change(BASE), name) for value in axis(kind, text).values]


@pytest.mark.parametrize(
    ("kind", "text", "name", "expected"),
    [
        ("steps", "1-10 (+3)", "steps", [1, 4, 7, 10]),
        ("cfg_scale", "5, 7.5", "cfg_scale", [5.0, 7.5]),
        ("denoising_strength", "0-1 (+0.25)", "denoising_strength", [0, 0.25, 0.5, 0.75, 1]),
        ("clip_skip", "1-2", "clip_skip", [1, 2]),
        ("mask_blur", "0,8", "mask_blur", [0, 8]),
        ("sampler", "Euler, DPM++ 2M Karras", "sampler", ["Euler", "DPM++ 2M"]),
        ("sampler", "Euler, DPM++ 2M Karras", "schedule", ["Automatic", "Karras"]),
        ("schedule", "Karras", "schedule", ["Karras"]),
        ("model", "embedded, owner/model", "model", ["embedded", "owner/model"]),
        ("eta", "0-1 [3]", "eta", [0, 0.5, 1]),
        ("s_churn", "0, 2.5", "s_churn", [0, 2.5]),
        ("s_tmin", "0.1", "s_tmin", [0.1]),
        ("s_tmax", "5", "s_tmax", [5]),
        ("s_noise", "0.9, 1.1", "s_noise", [0.9, 1.1]),
        ("rng", "CPU, nv, GPU", "rng", ["CPU", "NV", "NV"]),
        ("vae", f"None, Automatic, {__file__}", "vae", ["", "", __file__]),
        ("style", '"ink, pen", oil', "style", ["ink, pen", "oil"]),
        ("size", "512x768, 64x64", "width", [512, 64]),
        ("size", "512x768, 64x64", "height", [768, 64]),
        ("prompt_replace", "cat, fox", "prompt", ["a red cat, a blue dog", "a red fox, a blue dog"]),
        ("prompt_replace", "rain, snow", "negative_prompt", ["rain", "snow"]),
        ("prompt_order", "a red cat, a blue dog", "prompt", ["a red cat, a blue dog", "a blue dog, a red cat"]),
    ],
)
def test_axes_by_value(kind: str, text: str, name: str, expected: list[object]) -> None:
    assert changed(kind, text, name) == expected


@pytest.mark.parametrize("kind", [kind for kind in AXES if kind != "nothing"])
def test_every_axis_changes_a_setting_and_wants_values(kind: str) -> None:
    assert kind in SPECIAL or hasattr(BASE, kind)
    with pytest.raises(InvalidRequest, match="X Values is empty"):
        axis(kind, " , ")


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("sampler", "Euler, Nonsense", "Nonsense"),
        ("schedule", "Nonsense", "Nonsense"),
        ("model", "embedded, /nowhere/model.safetensors", "/nowhere"),
        ("steps", "1.5", "whole number"),
        ("cfg_scale", "much", "much"),
        ("size", "512", "size"),
        ("prompt_replace", "wolf, cat", "wolf"),
        ("prompt_order", "a red cat, wolf", "wolf"),
        ("prompt_order", "a,b,c,d,e,g,r", "orders"),
        ("prompt_order", "cat, cat", "twice"),
    ],
)
def test_wrong_values_are_a_sentence(kind: str, text: str, words: str) -> None:
    with pytest.raises((InvalidRequest, ModelError), match=words):
        axis(kind, text)


def test_an_axis_of_the_mask_needs_one() -> None:
    with pytest.raises(InvalidRequest, match="without a mask"):
        axis("mask_blur", "1,2", Img2Img())


def test_axes_must_differ_and_be() -> None:
    nothing, steps, words = axis("nothing", ""), axis("steps", "1,2"), axis("prompt_replace", "cat,fox")
    with pytest.raises(InvalidRequest, match="no axis"):
        require_different([nothing, nothing])
    with pytest.raises(InvalidRequest, match="Two axes change Steps"):
        require_different([steps, nothing, steps])
    require_different([words, words, nothing])


def test_the_model_is_changed_least_often() -> None:
    places = in_order([axis("model", "embedded, a/b"), axis("steps", "1,2,3"), axis("nothing", "")])
    assert places == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0)]
    places = in_order([axis("steps", "1,2"), axis("cfg_scale", "1,2"), axis("nothing", "")])
    assert places == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]


def seeds(**settings: object) -> list[int]:
    plot = XYZPlot(seed=100, **settings)  # type: ignore[arg-type]
    axes = [axis("cfg_scale", "1-3"), axis("steps", "1-2"), axis("clip_skip", "1-2")]
    return [cell.settings.seed for cell in plan_cells(plot, BASE, axes, random.Random(0))]


def test_seeds_are_one_unless_they_shall_vary() -> None:
    assert seeds() == [100] * 12
    assert seeds(vary_seeds_x=True) == [100, 101, 102] * 4
    assert seeds(vary_seeds_y=True) == ([100] * 3 + [101] * 3) * 2
    assert seeds(vary_seeds_x=True, vary_seeds_z=True) == [100, 101, 102] * 2 + [103, 104, 105] * 2
    assert seeds(vary_seeds_x=True, vary_seeds_y=True, vary_seeds_z=True) == [100 + i for i in range(12)]


def test_kept_random_seeds_differ_by_cell_and_come_again() -> None:
    found = seeds(keep_random_seeds=True)
    assert len(set(found)) == 12 and -1 not in found
    assert found == seeds(keep_random_seeds=True)


def test_random_seeds_of_an_axis_are_settled_once() -> None:
    fixed = axis("seed", "-1, 5", draw=random.Random(3))
    cells = plan_cells(XYZPlot(), BASE, [fixed, axis("steps", "1,2"), axis("nothing", "")], random.Random(0))
    found = [cell.settings.seed for cell in cells]
    assert found[0] == found[2] >= 0 and found[1] == found[3] == 5
    assert fixed.values[0].text == str(found[0])


def test_a_cell_out_of_range_is_a_sentence() -> None:
    axes = [axis("cfg_scale", "5, 99"), axis("nothing", ""), axis("nothing", "")]
    with pytest.raises(InvalidRequest, match=r"CFG Scale is 99"):
        plan_cells(XYZPlot(), BASE, axes, random.Random(0))


def test_reordering_keeps_the_rest_and_prefers_longer_words() -> None:
    assert reorder("x a b, a y", ["a b", "a"], ["a", "a b"]) == "x a, a b y"


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a|b | c", ["a", "b", "c"]),
        ("[a|b] c|d", ["[a|b] c", "d"]),
        ("a[ b|c", ["a[ b", "c"]),
        (r"a\|b|c", [r"a\|b", "c"]),
        ("a", ["a"]),
        ("", [""]),
    ],
)
def test_parts_of_a_prompt_by_value(prompt: str, parts: list[str]) -> None:
    assert split_parts(prompt) == parts


def test_combinations_count_in_binary() -> None:
    assert combinations(["a", "b"]) == [[], ["a"], ["b"], ["a", "b"]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a cat, (sitting:1.2)", {"prompt": "a cat, (sitting:1.2)"}),
        ('--prompt "a cat" --steps 7 --cfg-scale 4.5', {"prompt": "a cat", "steps": 7, "cfg_scale": 4.5}),
        (
            '--negative_prompt "rain, snow" --sampler_name "DPM++ 2M Karras" --subseed 3',
            {"negative_prompt": "rain, snow", "sampler": "DPM++ 2M", "schedule": "Karras", "variation_seed": 3},
        ),
        ("--seed -1 --seamless-x --n_iter=2", {"seed": -1, "seamless_x": True, "batch_count": 2}),
        ("--model /somewhere/else", {"model": "/somewhere/else"}),
        ("--tiling True --steps 3", {"seamless_x": True, "seamless_y": True, "steps": 3}),
        ("--tiling false", {"seamless_x": False, "seamless_y": False}),
        ("--tiling --exact_steps --no-keep-alpha", {"seamless_x": True, "exact_steps": True, "keep_alpha": False}),
        (
            '--prompt "-1 degrees" --negative-prompt -rain --subseed -1',
            {"prompt": "-1 degrees", "negative_prompt": "-rain", "variation_seed": -1},
        ),
        ("--prompt --dashes-- --steps 4", {"prompt": "--dashes--", "steps": 4}),
    ],
)
def test_lines_by_value(line: str, expected: dict[str, object]) -> None:
    found, unused = read_line(line, 1, BASE)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.height == BASE.height and unused == []


def test_flags_of_the_web_ui_that_do_nothing_here_are_taken_and_told() -> None:
    line = '--outpath_samples "/a b" --do_not_save_samples --do_not_save_grid True --prompt a --restore_faces no'
    found, unused = read_line(line, 1, BASE)
    assert found == dataclasses.replace(BASE, prompt="a")
    assert unused == ["--outpath_samples", "--do_not_save_samples", "--do_not_save_grid", "--restore_faces"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('--prompt "a cat', "can't be read"),
        ("--nonsense 3", "no flag --nonsense"),
        ("--stesp 3", "Did you mean --steps"),
        ("--no-steps 3", "no flag --no-steps"),
        ("--steps many", "--steps can't be “many”"),
        ("--steps 0", "Sampling Steps is 0"),
        ("--sampler Nonsense", "Nonsense"),
        ("--steps", "--steps needs a value"),
        ("--negative_prompt --steps 3", "--negative_prompt needs a value"),
        ("--prompt a cat", "“cat” belongs to no flag"),
        ("--tiling=maybe", "--tiling can't be “maybe”"),
    ],
)
def test_wrong_lines_are_named(line: str, words: str) -> None:
    with pytest.raises(DiffusionError, match="Line 3") as found:
        read_line(line, 3, BASE)
    assert words in str(found.value)


def test_lines_know_of_no_mask_where_there_is_none() -> None:
    with pytest.raises(InvalidRequest, match="Line 1"):
        read_line("--mask-blur 3", 1, Img2Img())

"""The pictures' file: scenes in turn, then the layouts again in other colours, and no record twice."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

from tests.training.drawn import facts, scene
from training.buffers import save_scene, scene_path
from training.pictures import KEPT_BACK, open_pictures, run


def test_layouts_follow_the_scenes_in_other_colours_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    scenes = KEPT_BACK + 2
    (tmp_path / "scenes").mkdir()
    for number in range(scenes):
        pose = {KEPT_BACK: "waving", KEPT_BACK + 1: "sitting"}.get(number, "dynamic pose")
        save_scene(scene_path(tmp_path / "scenes", number), replace(scene(), facts=facts(seed=number, pose=pose)))
    run(tmp_path, 1, Namespace(count=scenes, again=1, wait=0))
    drawn = open_pictures(tmp_path)
    known = [KEPT_BACK, KEPT_BACK + 1]
    assert [its["seed"] for its in drawn.facts] == [*range(scenes), *known]
    assert drawn.facts[-1]["colours"] != drawn.facts[KEPT_BACK + 1]["colours"]
    assert not np.array_equal(drawn.records[-1], drawn.records[KEPT_BACK + 1])
    before, lines = bytes(drawn.records[-1]), (tmp_path / "pictures.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "pictures.jsonl").write_text("".join(lines[:-1]))  # stopped before the last line
    run(tmp_path, 1, Namespace(count=scenes, again=2, wait=0))
    again = open_pictures(tmp_path)
    assert [its["seed"] for its in again.facts] == [*range(scenes), *known, *known]
    assert bytes(again.records[-3]) == before
    assert json.dumps(again.facts[-3]) + "\n" == lines[-1]


def test_without_a_scene_the_layouts_wait(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    save_scene(scene_path(tmp_path / "scenes", 0), replace(scene(), facts=facts(seed=0)))
    run(tmp_path, 1, Namespace(count=KEPT_BACK + 2, again=2, wait=0))
    assert [its["seed"] for its in open_pictures(tmp_path).facts] == [0]

"""Interrogate in real Blender: a result or a capture becomes the prompt, and missing models are named."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from backend.settings.interrogate import CAPTION_MODELS, RANKING_MODELS
from tests.backend.test_interrogate import read, save_blip, save_clip
from tools.extension import part


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings that name two tiny models on disk."""
    folder = tmp_path_factory.mktemp("models")
    return {"caption_model": str(save_blip(folder / "blip")), "ranking_model": str(save_clip(folder / "clip"))}


def choose(scene: bpy.types.Scene, models: dict[str, str]) -> None:
    """Set the models in the scene, and few words to try."""
    settings = scene.viewport_diffusion.interrogate
    for name, value in models.items():
        setattr(settings, name, value)
    settings.artists = settings.flavours = False
    settings.show_ranks = True


def test_the_prompt_is_read_from_the_source_and_then_from_the_result(
    scene: bpy.types.Scene, models: dict[str, str]
) -> None:
    choose(scene, models)
    same = {**models, "artists": False, "flavours": False, "show_ranks": True}
    captured = part("addon.scene.capture").capture(bpy.context, 128, 128)
    assert bpy.ops.viewport_diffusion.interrogate() == {"FINISHED"}
    assert scene.viewport_diffusion.diffusion.prompt == read(captured, **same)
    image = bpy.data.images.new("Striped", 64, 48)
    pixels = np.ones((48, 64, 4), np.float32)
    pixels[::4, :, :2] = 0
    image.pixels.foreach_set(pixels.ravel())
    scene.viewport_diffusion.result = image
    assert bpy.ops.viewport_diffusion.interrogate() == {"FINISHED"}  # another picture than the source shows
    assert scene.viewport_diffusion.diffusion.prompt == read(captured, **same)
    image["viewport_diffusion_view"] = part("addon.scene.results").source_mark(bpy.context, 128, 128)
    assert bpy.ops.viewport_diffusion.interrogate() == {"FINISHED"}
    expected = read(part("addon.scene.images").read_image(image), **same)
    assert scene.viewport_diffusion.diffusion.prompt == expected != read(captured, **same)
    assert scene.viewport_diffusion.result == image and image.name == "Striped"


def test_a_figure_is_read_by_the_model_that_came_along(
    scene: bpy.types.Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    bpy.ops.viewport_diffusion.add_mannequin()
    assert part("addon.operators.interrogate").missing_models(scene) == []
    assert bpy.ops.viewport_diffusion.interrogate() == {"FINISHED"}
    said = scene.viewport_diffusion.diffusion.prompt
    assert said.partition(",")[0].endswith(("of a man", "of a woman"))
    assert "full body" in said and said == read(part("addon.scene.capture").capture(bpy.context, 128, 128))


def test_missing_models_leave_the_prompt_and_are_named(
    scene: bpy.types.Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    operators, settings = part("addon.operators.interrogate"), scene.viewport_diffusion.interrogate
    settings.caption_model, settings.ranking_model = CAPTION_MODELS[1], RANKING_MODELS[0]
    assert operators.missing_models(scene) == [(CAPTION_MODELS[1], 1.9), (RANKING_MODELS[0], 1.7)]
    scene.viewport_diffusion.diffusion.prompt = "as it was"
    part("addon.jobs").shut_down()  # a process that started with another cache
    with pytest.raises(RuntimeError, match=r"large \(1\.9 GB\).*large-patch14 \(1\.7 GB\).*Online Access"):
        bpy.ops.viewport_diffusion.interrogate()
    assert scene.viewport_diffusion.diffusion.prompt == "as it was"
    part("addon.jobs").shut_down()


def test_paths_may_be_relative_to_the_file(scene: bpy.types.Scene, models: dict[str, str], tmp_path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    scene = bpy.context.scene
    choose(scene, models)
    (tmp_path / "words").mkdir()
    scene.viewport_diffusion.interrogate.words_folder = "//words"
    settings = part("addon.properties").read_settings(scene, part("backend.settings").Interrogate)
    assert Path(settings.words_folder) == tmp_path / "words" and settings.caption_model == models["caption_model"]


def test_the_prompt_goes_to_the_scene_that_asked(scene: bpy.types.Scene) -> None:
    other = bpy.data.scenes.new("Other")
    job = part("addon.jobs").Job("1", "Interrogate", lambda job: None, text="a red cube")
    part("addon.operators.interrogate").VIEWPORT_DIFFUSION_OT_interrogate.apply(job, other.session_uid, "")
    assert other.viewport_diffusion.diffusion.prompt == "a red cube"
    assert scene.viewport_diffusion.diffusion.prompt != "a red cube"


def test_one_undo_brings_the_prompt_back(scene: bpy.types.Scene, models: dict[str, str]) -> None:
    choose(scene, models)
    scene.viewport_diffusion.diffusion.prompt = "as it was"
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.viewport_diffusion.interrogate("EXEC_DEFAULT", True)
    assert bpy.context.scene.viewport_diffusion.diffusion.prompt != "as it was"
    bpy.ops.ed.undo()
    assert bpy.context.scene.viewport_diffusion.diffusion.prompt == "as it was"

"""The picture so far in Blender: seen while it is made, by both backends, and gone without a trace afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tools.extension import EXTENSION, part

PATIENCE = 60.0  # seconds; only a hang takes this long
STEPS = 16


@pytest.fixture
def chosen(scene: bpy.types.Scene) -> Iterator[Any]:
    """The preferences, with previews of every step; as they were afterwards."""
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    before = preferences.backend, preferences.previews, preferences.preview_steps
    preferences.previews = "cheap"
    scene.viewport_diffusion.img2img.denoising_strength = 1.0
    scene.viewport_diffusion.diffusion.steps = STEPS
    scene.viewport_diffusion.diffusion.cfg_scale = 2.0
    yield preferences
    preferences.backend, preferences.previews, preferences.preview_steps = before


def begin() -> Any:
    """Start a picture as the button does, and return its job."""
    generate, results = part("addon.operators.generate"), part("addon.scene.results")
    request, view = generate.VIEWPORT_DIFFUSION_OT_generate.request(None, bpy.context)
    scene = bpy.context.scene.session_uid
    return part("addon.jobs").submit(
        request, "Generate", lambda job: results.apply_results(job.results, scene, view), view
    )


def tick_until(job: Any, wanted: Any) -> None:
    """Do what Blender's timer does until something is so."""
    began = time.monotonic()
    while not wanted():
        assert time.monotonic() - began < PATIENCE and (not job.is_over or job.kind == "finished"), job.sentence
        part("addon.jobs")._tick()
        time.sleep(0.005)


def is_shown() -> bool:
    """Whether there is something to see; the icon itself has a number in a window alone."""
    return part("addon.scene.preview")._state.icons is not None


def shown() -> Any:
    """Return what the panel's icon shows (uint8 h×w×3, top row first)."""
    picture = part("addon.scene.preview")._state.icons["preview"]
    width, height = picture.image_size
    pixels = np.empty(width * height, np.int32)
    picture.image_pixels.foreach_get(pixels)
    return pixels.view(np.uint8).reshape(height, width, 4)[::-1, :, :3]


def blocks() -> list[Any]:
    """Return everything that the file holds and that a preview could have left."""
    return [sorted(block.name for block in data) for data in (bpy.data.images, bpy.data.textures, bpy.data.brushes)]


@pytest.mark.parametrize("backend", ["subprocess", "embedded"])
def test_the_picture_so_far_becomes_the_result_and_leaves_nothing(
    scene: bpy.types.Scene, chosen: Any, backend: str, tmp_path: Path
) -> None:
    chosen.backend = backend
    before = blocks()
    job = begin()
    assert not is_shown()
    tick_until(job, is_shown)
    first = shown()
    assert first.shape == (256, 256, 3) and first.std() > 5
    assert blocks() == before
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "meanwhile.blend"), copy=True)
    with bpy.data.libraries.load(str(tmp_path / "meanwhile.blend")) as (saved, _):
        assert sorted(saved.images) == [name for name in before[0] if name in saved.images]
    last = [first]

    def over() -> bool:
        last[:] = [shown()] if is_shown() else last
        return bool(job.is_over)

    tick_until(job, over)
    assert job.kind == "finished" and not is_shown()
    result = part("addon.scene.images").read_image(scene.viewport_diffusion.result)[..., :3]
    small = result.reshape(32, 4, 32, 4, 3).mean((1, 3))
    apart = [np.abs(one.reshape(32, 8, 32, 8, 3).mean((1, 3)) - small).mean() for one in (first, last[0])]
    assert apart[1] < 30 and apart[1] < apart[0]
    assert blocks()[0] == sorted([*before[0], scene.viewport_diffusion.result.name])


def test_a_cancel_and_switching_off_leave_nothing(scene: bpy.types.Scene, chosen: Any) -> None:
    preview, jobs = part("addon.scene.preview"), part("addon.jobs")
    before = blocks()
    scene.viewport_diffusion.diffusion.steps = 150
    job = begin()
    tick_until(job, is_shown)
    jobs.cancel(job)
    while not job.is_over:
        jobs._tick()
        time.sleep(0.005)
    assert job.kind == "cancelled" and not is_shown() and preview._state.handler is None
    assert blocks() == before
    job = begin()
    tick_until(job, is_shown)
    preview.clear()  # as unregister() does
    assert not is_shown() and blocks() == before
    jobs.cancel(job)
    jobs.wait(job)
    jobs._tick()
    assert not is_shown()


def test_switched_off_there_are_none_and_the_picture_is_the_same(scene: bpy.types.Scene, chosen: Any) -> None:
    pixels = []
    for previews in ("cheap", "off"):
        chosen.previews = previews
        seen: list[bool] = []
        job = begin()
        tick_until(job, lambda job=job, seen=seen: seen.append(is_shown()) or job.is_over)
        assert any(seen) == (previews == "cheap") and (job.preview == 0 or previews == "cheap")
        pixels.append(part("addon.scene.images").read_image(scene.viewport_diffusion.result))
    assert np.array_equal(*pixels)


def test_it_is_laid_over_editors_that_view_images_alone(
    scene: bpy.types.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = part("addon.scene.results")
    area = next(area for area in bpy.data.screens["UV Editing"].areas if area.type == "IMAGE_EDITOR")
    space = area.spaces.active
    assert not results.shows_results(space)  # it is one for UVs
    space.mode = "VIEW"
    assert results.shows_results(space)
    space.use_image_pin = True
    assert not results.shows_results(space)


def test_an_old_preview_is_passed_over_and_another_job_ends_it(scene: bpy.types.Scene, tmp_path: Path) -> None:
    preview, files = part("addon.scene.preview"), part("backend.previews")
    viewer = files.FileViewer(tmp_path, files.Previews(1))
    picture = np.zeros((512, 256, 3), np.uint8)
    picture[0, 0], picture[-1, 0] = (255, 0, 0), (0, 0, 255)
    viewer.show(picture)
    assert not preview.follow("a", 0, tmp_path, 1)
    assert preview.follow("a", 1, tmp_path, 1) and not preview.follow("a", 1, tmp_path, 1)
    assert shown().shape == (256, 128, 3)  # no more than an icon shows
    assert preview._state.levels.shape == (512, 256, 4) and tuple(preview._state.levels[0, 0]) == (0, 0, 255, 255)
    viewer.show(np.full((256, 256, 3), 7, np.uint8))
    assert preview.follow("a", 3, tmp_path, 1) and (shown() == 7).all()
    assert preview.follow("b", 0, tmp_path, 1) and not is_shown()
    assert not preview.clear()


def drawn(panel: Any) -> list[str]:
    """Return what a panel lays out: the names of its operators, and what else it calls."""
    calls: list[str] = []

    class Layout:
        """Takes the place of Blender's own, which can't be had without a window."""

        def __getattr__(self, name: str) -> Any:
            def call(*args: Any, **_rest: Any) -> Layout:
                calls.append(str(args[0]) if name.startswith("operator") else name)
                return self

            return call

    panel.draw(type("Drawn", (), {"layout": Layout()})(), bpy.context)
    return calls


def test_it_is_seen_in_its_own_scene_alone_and_leaves_the_last_results_buttons(
    scene: bpy.types.Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preview, files, panels = part("addon.scene.preview"), part("backend.previews"), part("addon.panels.result")
    scene.viewport_diffusion.result = bpy.data.images.new("result", 8, 8)
    buttons = [name for name in drawn(panels.VIEWPORT_DIFFUSION_PT_result) if name.startswith("viewport_diffusion.")]
    assert {"viewport_diffusion.save_result", "viewport_diffusion.send_result"} <= set(buttons)
    files.FileViewer(tmp_path, files.Previews(1)).show(np.zeros((64, 64, 3), np.uint8))
    for owner, icons in ((scene, 2), (bpy.data.scenes.new("other"), 1)):
        assert preview.follow(owner.name, 1, tmp_path, owner.session_uid)
        monkeypatch.setattr(preview._state, "icons", {"preview": type("Icon", (), {"icon_id": 9})})  # as in a window
        calls = drawn(panels.VIEWPORT_DIFFUSION_PT_result)
        assert calls.count("template_icon") == icons and set(buttons) <= set(calls)
        monkeypatch.undo()
    assert preview.clear()

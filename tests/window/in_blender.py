"""Runs inside the tested Blender: answers the test's questions from a timer, and times how its main thread goes on.

The test writes question.json ({"number": …, "call": a function below, "arguments": {…}}), this writes answer.json.
What an artist would do is not done here: the test does that with mouse and keyboard.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

FOLDER = Path(os.environ["VIEWPORT_DIFFUSION_TEST_FOLDER"])
EXTENSION = "bl_ext.user_default.viewport_diffusion"
TICK = 0.01  # seconds between two looks at the clock
LOOK = 0.05  # seconds between two looks for a question


class _Clock:
    """The largest pause between two ticks of a timer on the main thread, since it was last asked for."""

    largest = 0.0
    count = 0
    last = 0.0


def _tick() -> float:
    now = time.monotonic()
    if _Clock.last:
        _Clock.largest = max(_Clock.largest, now - _Clock.last)
    _Clock.last = now
    _Clock.count += 1
    return TICK


def clock() -> dict[str, float]:
    """Return the largest pause of the main thread and its number of ticks since the last call, and start anew."""
    answer = {"largest": _Clock.largest, "count": _Clock.count}
    _Clock.largest, _Clock.count = 0.0, 0
    return answer


def open_scene(path: str) -> None:
    """Open a file in the window's own layout."""
    bpy.ops.wm.open_mainfile(filepath=path, load_ui=False)


def pose(name: str) -> None:
    """Put the mannequin into a pose."""
    bpy.ops.viewport_diffusion.apply_pose(pose=name)


def close_areas() -> None:
    """Leave the viewport alone in the window."""
    for unwanted in ("OUTLINER", "PROPERTIES", "DOPESHEET_EDITOR"):
        with _override(unwanted):
            bpy.ops.screen.area_close()


def split() -> None:
    """Put an image editor beside the viewport, and look through the camera in textured solid shading."""
    with _override("VIEW_3D"):
        bpy.ops.screen.area_split(direction="VERTICAL", factor=0.68)
    widest, narrower = sorted(_areas("VIEW_3D"), key=lambda area: area.width, reverse=True)
    narrower.type = "IMAGE_EDITOR"
    space = widest.spaces.active
    space.shading.type, space.shading.light, space.shading.color_type = "SOLID", "STUDIO", "TEXTURE"
    space.region_3d.view_perspective = "CAMERA"
    space.overlay.show_extras = space.overlay.show_bones = False
    space.show_region_ui = True


def show_tab(name: str) -> None:
    """Turn the viewport's sidebar to a tab; it must have been drawn once before."""
    _region("UI").active_panel_category = name


def center_camera() -> None:
    """Let the camera's frame fill what the sidebar leaves of the viewport."""
    with _override("VIEW_3D"):
        bpy.ops.view3d.view_center_camera()


def place() -> dict[str, int]:
    """Return where the sidebar is in the window: left, top, right, bottom, in pixels from the upper left corner."""
    region, height = _region("UI"), bpy.context.window_manager.windows[0].height
    return {
        "left": region.x,
        "top": height - region.y - region.height,
        "right": region.x + region.width,
        "bottom": height - region.y,
    }


def set_settings(group: str, values: dict[str, Any]) -> None:
    """Set some of the extension's settings in the scene."""
    target = getattr(_settings(), group)
    for name, value in values.items():
        setattr(target, name, value)


def get_setting(group: str, name: str) -> Any:
    """Return one of the extension's settings."""
    return getattr(getattr(_settings(), group), name)


def job() -> dict[str, Any]:
    """Return the extension's last job, or nothing."""
    last = sys.modules[f"{EXTENSION}.addon.jobs"].last()
    if last is None:
        return {}
    return {name: getattr(last, name) for name in ("id", "kind", "progress", "message", "remedy", "seconds")}


def result() -> dict[str, Any]:
    """Return what the scene's result is, and how much of it differs from the capture that its job was given."""
    image = _settings().result
    if image is None:
        return {}
    width, height = image.size
    flat = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(flat)
    pixels = np.rint(flat.reshape(height, width, -1)[::-1, :, :3] * 255)
    jobs = Path(bpy.utils.extension_path_user(EXTENSION, path="jobs"))
    given = np.load(jobs / job()["id"] / "init.npy")[..., :3]
    return {
        "name": image.name,
        "size": [width, height],
        "capture_size": [given.shape[1], given.shape[0]],
        "packed": image.packed_file is not None,
        "changed": float((pixels != given).any(2).mean()) if pixels.shape == given.shape else 1.0,
        "colours": len(np.unique(pixels.reshape(-1, 3), axis=0)),
        "infotext": image.get("parameters", ""),
        "preview": image.preview is not None and len(set(image.preview.image_pixels_float)) > 100,
        "shown": [area.spaces.active.image == image for area in _areas("IMAGE_EDITOR")],
        "count": sum("parameters" in other for other in bpy.data.images),
    }


def preview() -> dict[str, Any]:
    """Return what is on show of the picture that is being made, and the images of the file meanwhile."""
    module = sys.modules[f"{EXTENSION}.addon.scene.preview"]
    state = module._state
    return {
        "icon": module.icon(bpy.context.scene),
        "count": state.count,
        "colours": 0 if state.levels is None else len(np.unique(state.levels.reshape(-1, 4), axis=0)),
        "over_editor": state.texture is not None,  # which the editor makes when it is drawn
        "images": sorted(image.name for image in bpy.data.images),
    }


def fit_image() -> None:
    """Show the whole picture in the image editor."""
    with _override("IMAGE_EDITOR"):
        bpy.ops.image.view_all(fit_view=True)


def clipboard() -> str:
    """Return what was copied last, and empty the clipboard."""
    manager = bpy.context.window_manager
    text = manager.clipboard
    manager.clipboard = ""
    return text


def redraw_all() -> None:
    """Have everything drawn again, to see how long that holds the main thread up on this machine."""
    for area in bpy.context.window_manager.windows[0].screen.areas:
        area.tag_redraw()


def _settings() -> Any:
    return bpy.context.window_manager.windows[0].scene.viewport_diffusion


def _areas(kind: str) -> list[bpy.types.Area]:
    return [area for area in bpy.context.window_manager.windows[0].screen.areas if area.type == kind]


def _region(kind: str) -> bpy.types.Region:
    return next(region for region in _areas("VIEW_3D")[0].regions if region.type == kind)


def _override(kind: str) -> AbstractContextManager[Any]:
    """A timer has no window in its context: name the first area of a kind for an operator."""
    area = _areas(kind)[0]
    region = next(region for region in area.regions if region.type == "WINDOW")
    return bpy.context.temp_override(window=bpy.context.window_manager.windows[0], area=area, region=region)


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        center_camera, clipboard, clock, close_areas, fit_image, get_setting, job, open_scene, place, redraw_all,
        pose, preview, result, set_settings, show_tab, split,
    )
}  # fmt: skip


def _answer() -> float:
    question_file = FOLDER / "question.json"
    if question_file.exists():
        question = json.loads(question_file.read_text(encoding="utf-8"))
        question_file.unlink()
        answer: dict[str, Any] = {"number": question["number"]}
        try:
            answer["value"] = CALLS[question["call"]](**question["arguments"])
        except Exception:  # whatever went wrong belongs to the one who asked
            answer["error"] = traceback.format_exc()
        partial = FOLDER / "answer.partial"
        partial.write_text(json.dumps(answer), encoding="utf-8")
        partial.replace(FOLDER / "answer.json")
    return LOOK


view = bpy.context.preferences.view
view.show_splash = view.show_tooltips = view.use_save_prompt = False
# The sidebar beside the picture, not over it: the screenshot shows both, and its edge can be taken by the mouse
bpy.context.preferences.system.use_region_overlap = False
bpy.app.timers.register(_tick, persistent=True)
bpy.app.timers.register(_answer, persistent=True)

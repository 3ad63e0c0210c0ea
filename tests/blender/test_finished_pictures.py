"""What was finished before a cancel, a failure or a death becomes images of the file, or files of the command line."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import pytest

from tests.blender.test_main_job import part
from tests.blender.test_queue import offered, wait_until
from tools.extension import EXTENSION

MANY = 40  # pictures, of which a cancel leaves most unmade


@pytest.fixture(params=["embedded", "subprocess"])
def backend(request: pytest.FixtureRequest, scene: bpy.types.Scene) -> Iterator[str]:
    """Either backend, chosen in the preferences."""
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    before, preferences.backend = preferences.backend, request.param
    yield request.param
    part("addon.jobs").shut_down()
    preferences.backend = before


def submit_batch(scene: bpy.types.Scene) -> Any:
    """Queue a batch, as Generate does."""
    scene.viewport_diffusion.diffusion.batch_count = MANY
    operator = part("addon.operators.generate").VIEWPORT_DIFFUSION_OT_generate
    request, view = operator.request(None, bpy.context)
    target = scene.session_uid
    return part("addon.jobs").submit(request, "Generate", lambda job: operator.apply(job, target, view), view)


def finished(job: Any, count: int) -> bool:
    """Whether so many pictures of a job are on the disk and in its log."""
    return len(part("backend.job").kept_results(part("addon.jobs").queue().folder(job.id))) >= count


def images() -> list[str]:
    """Return the names of the results in the file."""
    return sorted(image.name for image in bpy.data.images if image.name.startswith("Diffusion"))


def test_a_cancelled_batch_leaves_its_finished_pictures_in_the_file(scene: bpy.types.Scene, backend: str) -> None:
    job = submit_batch(scene)
    wait_until(lambda: finished(job, 2))
    part("addon.jobs").cancel(job)
    wait_until(lambda: job.is_over)
    count = len(job.results)
    assert job.kind == "cancelled" and 2 <= count < MANY
    assert job.message == f"Cancelled. {count} finished pictures are kept."
    assert images() == [f"Diffusion {7 + index}" for index in range(count)]
    assert scene.viewport_diffusion.result.name == f"Diffusion {6 + count}"
    assert f"Seed: {6 + count}" in scene.viewport_diffusion.result["parameters"]
    assert offered() == []


def test_a_killed_workers_pictures_arrive_and_its_job_is_still_offered(scene: bpy.types.Scene) -> None:
    jobs = part("addon.jobs")
    job = submit_batch(scene)
    wait_until(lambda: finished(job, 1))
    jobs._state.backend._worker.child.process.kill()
    wait_until(lambda: job.is_over)
    assert job.kind == "failed" and "killed" in job.message and "kept" in job.message
    assert "Diffusion 7" in images()
    (left,) = offered()
    assert (left.job, left.state) == (job.id, "interrupted") and len(left.results) == len(job.results)
    for image in list(bpy.data.images):
        bpy.data.images.remove(image)
    assert bpy.ops.viewport_diffusion.queue_show(job=left.job) == {"FINISHED"}
    assert len(images()) == len(left.results)
    assert [other.job for other in offered()] == [job.id]  # the rest can still be made
    assert bpy.ops.viewport_diffusion.queue_discard(job=job.id) == {"FINISHED"}
    assert offered() == []


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_the_command_line_writes_what_a_frame_had_finished(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    painting = importlib.import_module(f"{EXTENSION}.backend.operations.painting")
    real, calls = painting.sample, 0

    def fails_the_third_time(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise part("backend.errors").OutOfMemory("There was not enough memory.", "Choose a smaller size.")
        return real(*arguments)

    monkeypatch.setattr(painting, "sample", fails_the_third_time)
    flags = ["render", "--output", str(tmp_path / "out"), "--batch-count", "4", "--frames", "3"]
    assert part("addon.cli").main([*flags, "--steps", "1", "--seed", "5"]) == 2
    assert "2 finished pictures are kept. Choose a smaller size." in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0003-1.png", "0003-2.png"]


def test_masks_come_along_and_the_result_is_what_was_painted(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.capture.mask_source, settings.capture.mask_object = "OBJECT", bpy.data.objects["Cube"]
    settings.inpaint.return_mask = settings.inpaint.return_mask_composite = True

    assert bpy.ops.viewport_diffusion.inpaint() == {"FINISHED"}

    assert images() == ["Diffusion 7", "Diffusion 7 mask", "Diffusion 7 masked composite"]
    assert settings.result.name == "Diffusion 7"

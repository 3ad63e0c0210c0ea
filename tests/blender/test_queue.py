"""The queue in real Blender: order, pause, a killed Blender's jobs offered again, memory given back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import pytest

from tests.blender.test_main_job import part
from tools.extension import EXTENSION

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds; only a hang takes this long
TICK = 0.008  # seconds that the timer may keep the window waiting

# A Blender of the same user, that queues three pictures and is at the first one when it prints; it waits to be killed.
OTHER_BLENDER = f"""
import sys, time, bpy, addon_utils
addon_utils.enable("{EXTENSION}", default_set=True)
jobs = sys.modules["{EXTENSION}.addon.jobs"]
generate = sys.modules["{EXTENSION}.addon.operators.generate"]
python = sys.argv[1]
if python:
    bpy.context.preferences.addons["{EXTENSION}"].preferences.python = python
scene = bpy.context.scene
scene.render.resolution_x = scene.render.resolution_y = 128
settings = scene.viewport_diffusion
settings.capture.source = "CAMERA"
sent = []
for steps, seed, title in ((1, 3, "Finished"), (150, 4, "Interrupted"), (2, 5, "Not Begun")):
    settings.diffusion.steps, settings.diffusion.seed = steps, seed
    settings.img2img.denoising_strength = 1.0
    request, view = generate.VIEWPORT_DIFFUSION_OT_generate.request(None, bpy.context)
    sent.append(jobs.submit(request, title, lambda job: None, view))
backend = jobs._state.backend
while not any(event.job == sent[1].id and event.message.startswith("Step") for event in backend.poll()):
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""


def wait_until(is_so: Callable[[], bool]) -> None:
    """Let Blender's side go on until something is so."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        part("addon.jobs").drain()
        time.sleep(0.01)


def submit(title: str, **diffusion: Any) -> Any:
    """Queue a picture of the scene, without waiting for it."""
    for name, value in diffusion.items():
        setattr(bpy.context.scene.viewport_diffusion.diffusion, name, value)
    request, view = part("addon.operators.generate").VIEWPORT_DIFFUSION_OT_generate.request(None, bpy.context)
    return part("addon.jobs").submit(request, title, lambda job: None, view)


@pytest.fixture
def left_behind(scene: bpy.types.Scene) -> list[Any]:
    """What a Blender that was killed has left behind."""
    python = bpy.context.preferences.addons[EXTENSION].preferences.python
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_BLENDER, python], stdout=subprocess.PIPE, text=True, env=os.environ, cwd=ROOT
    )
    assert other.stdout is not None
    assert any(line == "ready\n" for line in other.stdout)
    assert offered() == []  # they are looked after
    other.kill()
    other.wait()
    return offered()


def offered() -> list[Any]:
    """Return what is offered after a new look."""
    part("addon.jobs").look_for_leftovers()
    part("addon.leftovers").wait()
    offers: list[Any] = part("addon.leftovers").offers()
    return offers


def test_a_killed_blenders_jobs_are_offered_and_never_run_by_themselves(left_behind: list[Any]) -> None:
    scene, jobs = bpy.context.scene, part("addon.jobs")
    assert [(left.note["title"], left.state) for left in left_behind] == [
        ("Finished", "finished"),
        ("Interrupted", "interrupted"),
        ("Not Begun", "waiting"),
    ]
    assert jobs.running() == []
    finished, interrupted, not_begun = (left.job for left in left_behind)
    assert bpy.ops.viewport_diffusion.queue_resume(job=finished) == {"FINISHED"}
    assert scene.viewport_diffusion.result["parameters"].count("Seed: 3") == 1 and jobs.running() == []
    assert scene.viewport_diffusion.result["viewport_diffusion_view"] != ""
    assert bpy.ops.viewport_diffusion.queue_discard(job=interrupted) == {"FINISHED"}
    assert bpy.ops.viewport_diffusion.queue_resume() == {"FINISHED"}  # all that is left
    assert [(job.id, job.scene) for job in jobs.running()] == [(not_begun, scene.session_uid)]
    wait_until(lambda: not jobs.running())
    assert "Seed: 5" in scene.viewport_diffusion.result["parameters"]
    assert offered() == []
    with pytest.raises(RuntimeError, match="Nothing was left"):
        bpy.ops.viewport_diffusion.queue_resume()


def test_a_paused_queue_is_reordered_cancelled_and_goes_on(scene: bpy.types.Scene) -> None:
    jobs = part("addon.jobs")
    bpy.ops.viewport_diffusion.queue_pause()
    first, second, third = (submit(title) for title in ("First", "Second", "Third"))
    bpy.ops.viewport_diffusion.queue_move(job=third.id, place="FRONT")
    bpy.ops.viewport_diffusion.queue_move(job=first.id, place="DOWN")
    assert [job.title for job in jobs.running()] == ["Third", "Second", "First"]
    bpy.ops.viewport_diffusion.queue_cancel(job=second.id)
    jobs.drain()
    assert second.kind == "cancelled" and [job.title for job in jobs.running()] == ["Third", "First"]
    bpy.ops.viewport_diffusion.queue_pause()
    wait_until(lambda: third.is_over)
    assert not first.is_over
    wait_until(lambda: first.is_over)
    assert (first.kind, third.kind) == ("finished", "finished") and offered() == []


def test_a_killed_worker_is_told_and_its_job_offered(scene: bpy.types.Scene) -> None:
    jobs = part("addon.jobs")
    job, after = submit("Long", steps=150), submit("After", steps=2)
    wait_until(lambda: bool(job.message.startswith("Step")))
    jobs._state.backend._worker.child.process.kill()
    wait_until(lambda: job.is_over)
    assert job.kind == "failed" and "killed" in job.message
    wait_until(lambda: after.is_over)
    assert after.kind == "finished"
    assert [left.job for left in offered()] == [job.id]
    with bpy.context.temp_override(scene=bpy.data.scenes.new("another that is open now")):
        assert bpy.ops.viewport_diffusion.queue_resume(job=job.id) == {"FINISHED"}
    assert [resumed.scene for resumed in jobs.running()] == [scene.session_uid]  # the one whose picture it is
    bpy.ops.viewport_diffusion.cancel()
    wait_until(lambda: not jobs.running())
    assert offered() == []


def test_progress_ends_below_one_until_the_picture_is_there_and_time_left_is_told(scene: bpy.types.Scene) -> None:
    job = submit("Picture", steps=30)
    shares, lefts = [], []
    while not job.is_over:
        for changed in part("addon.jobs").drain():
            shares.append((changed.kind, changed.progress))
            lefts.append(changed.time_left())
        time.sleep(0.005)
    assert shares[-1] == ("finished", 1.0) and all(share < 1 for _, share in shares[:-1])
    assert [share for _, share in shares] == sorted(share for _, share in shares)
    assert sum(left is not None and 0 <= left < 60 for left in lefts) > 5


def test_the_timer_never_keeps_the_window_waiting(scene: bpy.types.Scene) -> None:
    jobs = part("addon.jobs")
    for seed in range(3):
        submit("Many", steps=20, seed=seed)
    longest = 0.0
    while jobs.running():
        started = time.thread_time()  # of this thread: what other processes take of the cores is not counted
        jobs.drain()
        longest = max(longest, time.thread_time() - started)
        time.sleep(0.005)
    assert longest < TICK


def test_memory_is_freed_by_the_button_and_the_next_picture_loads_again(scene: bpy.types.Scene) -> None:
    jobs = part("addon.jobs")

    def loads() -> bool:
        job, messages = submit("Picture", steps=1), []
        while not job.is_over:
            jobs.drain()
            messages.append(job.message)
            time.sleep(0.002)
        assert job.kind == "finished"
        return any("Loading" in message for message in messages)

    loads()
    assert not loads()
    assert bpy.ops.viewport_diffusion.free_memory() == {"FINISHED"}
    assert loads()
    submit("Picture", steps=150)
    with pytest.raises(RuntimeError, match="is being made"):
        bpy.ops.viewport_diffusion.free_memory()
    bpy.ops.viewport_diffusion.cancel()
    wait_until(lambda: not jobs.running())


def test_a_render_is_told_from_our_own(scene: bpy.types.Scene) -> None:
    queue = part("addon.operators.queue")
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    assert not queue.renders_on_card(scene)
    scene.cycles.device = "GPU"
    assert queue.renders_on_card(scene)
    assert [handler.__name__ for handler in bpy.app.handlers.render_init].count("free_for_render") == 1


@pytest.fixture
def chosen(scene: bpy.types.Scene) -> Iterator[Any]:
    """The preferences; as they were afterwards."""
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    names = ("backend", "memory", "python", "lora_folders")
    before = {name: getattr(preferences, name) for name in names}
    yield preferences
    for name, value in before.items():
        setattr(preferences, name, value)


@pytest.mark.parametrize(("backend", "then"), [("subprocess", "subprocess"), ("embedded", "subprocess")])
def test_changed_preferences_let_a_running_job_finish_and_hold_from_the_next_one_on(
    chosen: Any, backend: str, then: str, tmp_path: Path
) -> None:
    jobs, chosen.backend = part("addon.jobs"), backend
    running, waiting = submit("Running", steps=40), submit("Waiting", steps=2)
    wait_until(lambda: bool(running.message.startswith("Step")))
    first = jobs._state.backend
    chosen.lora_folders, chosen.memory, chosen.backend = str(tmp_path), "medium", then
    late = submit("Late", steps=2)
    assert jobs._state.backend is first and [job.title for job in jobs.running()] == ["Running", "Waiting", "Late"]
    wait_until(lambda: running.is_over)
    assert running.kind == "finished" and not waiting.is_over
    wait_until(lambda: late.is_over)
    assert jobs._state.backend is not first and jobs._state.key[0] == then
    assert jobs._state.key[-1] == part("addon.preferences").engine_options()
    for job in (running, waiting, late):
        log = (jobs.queue().folder(job.id) / "events.jsonl").read_text(encoding="utf-8")
        assert job.kind == "finished" and log.count('"started"') == 1 and len(job.results) == 1


def test_jobs_that_wait_are_told_of_a_preference_that_names_nothing_once_the_running_one_is_over(
    chosen: Any, tmp_path: Path
) -> None:
    running, waiting = submit("Running", steps=40), submit("Waiting", steps=2)
    wait_until(lambda: bool(running.message.startswith("Step")))
    chosen.python = str(tmp_path / "nowhere")
    wait_until(lambda: running.is_over and waiting.is_over)
    assert running.kind == "finished" and waiting.kind == "failed" and "no Python at" in waiting.message
    assert [left.job for left in offered()] == [waiting.id]
    assert bpy.ops.viewport_diffusion.queue_discard() == {"FINISHED"}

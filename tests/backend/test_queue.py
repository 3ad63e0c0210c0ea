"""The queue on disk: its order, what outlives a death, who may take a job up, and what is removed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.errors import BackendError
from backend.events import Event, Result
from backend.job import last_event, log_event
from backend.models.load import Options
from backend.queue import JobQueue, leftovers, state_of, tidy
from backend.transport.embedded import EmbeddedBackend
from tests.backend.helpers import Picture, img2img
from tests.backend.test_transports import ROOT, follow

# Adds three jobs, moves the last to the front, takes it as a worker would, and waits to be killed.
SESSION = (
    "import sys, time, pathlib, numpy as np\n"
    "from backend.queue import JobQueue\nfrom backend.request import Request\nfrom backend.settings import Img2Img\n"
    "from backend.job import log_event\nfrom backend.events import Event\n"
    "queue = JobQueue(pathlib.Path(sys.argv[1]))\n"
    "request = Request(Img2Img(width=64, height=64), {'init': np.zeros((64, 64, 3), np.uint8)})\n"
    "jobs = [queue.add(request, {'title': str(i)}) for i in range(4)]\n"
    "queue.move(jobs[3], 0)\n"
    "queue.move(jobs[2], 1)\n"
    "folder = queue.take()\n"
    "log_event(folder, Event(folder.name, 'started'))\n"
    "print('ready', flush=True)\n"
    "time.sleep(600)\n"
)


def session(jobs: Path) -> subprocess.Popen[str]:
    """Start a session in a process of its own and return it once its jobs are queued."""
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(jobs)], stdout=subprocess.PIPE, text=True, cwd=ROOT, bufsize=1
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def end(queue: JobQueue, kind: str = "failed") -> Path:
    """Take the next job and let its log say how it ended."""
    folder = queue.take()
    assert folder is not None
    log_event(folder, Event(folder.name, "started"))
    log_event(folder, Event(folder.name, kind))  # type: ignore[arg-type]
    return folder


def test_jobs_are_taken_in_the_artists_order(jobs: Path, picture: Picture) -> None:
    queue = JobQueue(jobs)
    a, b, c, d = (queue.add(img2img(picture)) for _ in range(4))
    queue.move(d, 0)
    queue.move(a, 99)
    assert queue.waiting == (d, b, c, a)
    assert queue.withdraw(c) and not queue.withdraw(c)
    queue.paused = True
    assert queue.take() is None
    queue.paused = False
    assert [folder.name for folder in iter(queue.take, None)] == [d, b, a]
    assert state_of(jobs / c) == "over"
    queue.close()


def test_a_resumed_job_that_is_cancelled_while_it_waits_gives_what_it_had_finished(
    jobs: Path, picture: Picture
) -> None:
    queue = JobQueue(jobs)
    job = queue.add(img2img(picture))
    finished = Result(str(jobs / job / "result-0.png"), 1, "Seed: 1")
    assert queue.take() is not None
    log_event(jobs / job, Event(job, "started"))
    log_event(jobs / job, Event(job, "picture", results=(finished,)))
    queue.close()
    backend = EmbeddedBackend(jobs, Options())
    backend.queue.paused = True
    backend.resume(job)
    backend.cancel(job)
    last = backend.poll()[-1]
    assert (last.kind, last.results) == ("cancelled", (finished,)) and last == last_event(jobs / job)
    backend.close()
    assert [(left.state, left.results) for left in leftovers(jobs)] == [("finished", (finished,))]


def test_a_killed_sessions_jobs_are_offered_in_their_order_and_not_before_its_death(jobs: Path) -> None:
    process = session(jobs)
    assert leftovers(jobs) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [(left.note["title"], left.state) for left in leftovers(jobs)] == [
        ("3", "interrupted"),
        ("2", "waiting"),
        ("0", "waiting"),
        ("1", "waiting"),
    ]


def test_only_one_of_two_sessions_can_take_a_job_up(jobs: Path) -> None:
    process = session(jobs)
    process.kill()
    process.wait()
    first, second = JobQueue(jobs), JobQueue(jobs)
    job = leftovers(jobs)[0].job
    first.resume(job)
    with pytest.raises(BackendError, match="not to be had"):
        second.resume(job)
    assert first.waiting == (job,) and second.waiting == () and len(leftovers(jobs)) == 3
    first.close()
    assert job in [left.job for left in leftovers(jobs)]  # the session ended without running it
    second.discard(job)
    assert job not in [left.job for left in leftovers(jobs)]
    with pytest.raises(BackendError):
        first.resume(job)
    first.close()
    second.close()


def test_results_are_offered_until_they_are_taken_in(jobs: Path, picture: Picture) -> None:
    backend = EmbeddedBackend(jobs, Options())
    job = backend.submit(img2img(picture), {"title": "Generate"})
    finished = follow(backend, job)[-1]
    assert leftovers(jobs) == []
    backend.close()
    offered = leftovers(jobs)
    assert [(left.job, left.state, left.note) for left in offered] == [(job, "finished", {"title": "Generate"})]
    assert offered[0].event == finished
    queue = JobQueue(jobs)
    queue.claim(job)
    queue.applied(job)
    queue.close()
    assert leftovers(jobs) == []


def test_a_closed_backend_leaves_its_jobs_to_be_resumed_and_they_then_run(jobs: Path, picture: Picture) -> None:
    backend = EmbeddedBackend(jobs, Options())
    long = backend.submit(img2img(picture, steps=150, denoising_strength=1.0))
    waiting = backend.submit(img2img(picture))
    follow(backend, long, lambda event: event.message.startswith("Step"))
    backend.close()
    assert {left.job: left.state for left in leftovers(jobs)} == {long: "interrupted", waiting: "waiting"}
    backend = EmbeddedBackend(jobs, Options())
    backend.resume(waiting)
    assert follow(backend, waiting)[-1].kind == "finished"
    assert [left.job for left in leftovers(jobs)] == [long]
    backend.close()


def test_a_paused_queue_begins_nothing_and_goes_on_afterwards(jobs: Path, picture: Picture) -> None:
    backend = EmbeddedBackend(jobs, Options())
    backend.queue.paused = True
    job = backend.submit(img2img(picture))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert {event.kind for event in backend.poll()} <= {"queued"}
    backend.queue.paused = False
    assert follow(backend, job)[-1].kind == "finished"
    backend.close()


def test_a_torn_log_is_read_up_to_the_tear(jobs: Path, picture: Picture) -> None:
    queue = JobQueue(jobs)
    folder = queue.folder(queue.add(img2img(picture)))
    log_event(folder, Event(folder.name, "started"))
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"type": "event", "job": "x", "kind": "fini')
    event = last_event(folder)
    assert event is not None and event.kind == "started" and state_of(folder) == "interrupted"
    queue.close()


def test_the_oldest_ended_jobs_are_removed_and_unfinished_ones_never(jobs: Path, picture: Picture) -> None:
    queue = JobQueue(jobs)
    for _ in range(8):
        queue.add(img2img(picture))
    interrupted = queue.take()
    assert interrupted is not None
    log_event(interrupted, Event(interrupted.name, "started"))
    ended = sorted(end(queue).name for _ in range(5))
    other = jobs / "my pictures"
    other.mkdir()
    outside = jobs.parent / "20200101-000000-00000000"
    outside.mkdir()
    (jobs / outside.name).symlink_to(outside)
    tidy(jobs, jobs=2)
    left = {path.name for path in jobs.iterdir() if path.is_dir()}
    assert left == {interrupted.name, *queue.waiting, *ended[-2:], other.name, outside.name} and outside.is_dir()
    tidy(jobs, jobs=50, size=1)
    assert not any((jobs / name).exists() for name in ended) and (jobs / queue.waiting[0]).is_dir()
    queue.close()


def test_finished_pictures_stay_while_the_session_that_made_them_lives(jobs: Path, picture: Picture) -> None:
    queue = JobQueue(jobs)
    folder = queue.folder(queue.add(img2img(picture)))
    queue.take()
    log_event(folder, Event(folder.name, "finished", 1.0, results=(Result(str(folder / "result-0.png"), 1, ""),)))
    tidy(jobs, jobs=0)
    assert folder.is_dir()
    queue.close()
    tidy(jobs, jobs=0)
    assert not folder.exists()


def test_dead_sessions_files_go_once_nothing_waits_in_them(jobs: Path) -> None:
    process = session(jobs)
    process.kill()
    process.wait()
    tidy(jobs)
    assert [path.suffix for path in jobs.glob("queue-*")] == [".json"]
    queue = JobQueue(jobs)
    for left in leftovers(jobs):
        queue.discard(left.job)
    queue.close()
    tidy(jobs)
    assert list(jobs.glob("queue-*")) == []


def test_a_large_queue_is_read_and_written_fast(jobs: Path, picture: Picture) -> None:
    queue = JobQueue(jobs)
    added = [queue.add(img2img(picture)) for _ in range(50)]
    started = time.perf_counter()
    for job in added:
        queue.move(job, 0)
    assert (time.perf_counter() - started) / len(added) < 0.008
    queue.close()
    assert len(leftovers(jobs)) == 50

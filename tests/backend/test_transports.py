"""Both ways to the engine: equal pixels, cancel, death and its sentence, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import BackendError, InvalidRequest
from backend.events import Event
from backend.imaging.metadata import read_infotext
from backend.imaging.pictures import load
from backend.job import create_job
from backend.models.load import Options
from backend.processes import LineProcess
from backend.queue import leftovers
from backend.transport.causes import cause_of_death
from backend.transport.embedded import EmbeddedBackend
from backend.transport.protocol import Backend
from backend.transport.subprocess import SubprocessBackend, worker_command, worker_environment
from tests.backend.helpers import Picture, img2img

PATIENCE = 240.0  # seconds; only a hang takes this long
ROOT = Path(__file__).resolve().parents[2]


def follow(backend: Backend, job: str, until: Callable[[Event], bool] = lambda event: event.is_last) -> list[Event]:
    """Return a job's events up to the first one that is waited for."""
    events: list[Event] = []
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        for event in backend.poll():
            if event.job == job:
                events.append(event)
                if until(event):
                    return events
        time.sleep(0.01)
    raise AssertionError(f"nothing more came after {events[-1:]}")


def is_alive(process: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def separate(jobs: Path) -> Iterator[SubprocessBackend]:
    """A backend in its own process."""
    backend = SubprocessBackend(sys.executable, jobs, Options())
    yield backend
    backend.close()


def process_of(backend: SubprocessBackend) -> int:
    """Return the worker's process number."""
    assert backend._worker is not None
    return backend._worker.child.process.pid


def test_both_backends_give_the_same_pixels_and_say_the_same(
    separate: SubprocessBackend, jobs: Path, picture: Picture
) -> None:
    embedded = EmbeddedBackend(jobs, Options())
    pictures = []
    for backend in (separate, embedded):
        events = follow(backend, backend.submit(img2img(picture, denoising_strength=0.5)))
        kinds = [event.kind for event in events]
        assert kinds[:2] == ["queued", "started"] and kinds[-1] == "finished"
        assert set(kinds[2:-2]) == {"progress"} and kinds[-2] == "picture"
        result = events[-1].results[0]
        assert result.seed == 11 and read_infotext(Path(result.path)) == result.infotext
        assert "Seed: 11" in result.infotext and "Denoising strength: 0.5" in result.infotext
        pictures.append(load(Path(result.path)))
    embedded.close()
    assert np.array_equal(pictures[0], pictures[1])


def test_a_killed_worker_fails_its_job_at_once_and_the_next_one_runs(
    separate: SubprocessBackend, picture: Picture
) -> None:
    job = separate.submit(img2img(picture, steps=150, denoising_strength=1.0))
    waiting = separate.submit(img2img(picture))
    follow(separate, job, lambda event: event.message.startswith("Step"))
    os.kill(process_of(separate), signal.SIGKILL)
    killed = time.monotonic()
    last = follow(separate, job)[-1]
    assert last.kind == "failed" and "killed" in last.message and last.remedy
    assert time.monotonic() - killed < 2
    assert follow(separate, waiting)[-1].kind == "finished"


def test_what_is_free_is_told_again_before_a_job_ends(jobs: Path, picture: Picture) -> None:
    folder = create_job(jobs, img2img(picture))
    with (jobs / "log").open("wb") as errors:
        worker = LineProcess(worker_command(sys.executable, Options()), errors, "reader", worker_environment(False))
    try:
        worker.send({"type": "run", "job": folder.name, "folder": str(folder), "idle": 0})
        said: list[dict[str, Any]] = []
        while not said or said[-1].get("kind") != "finished":
            message = worker.hear(PATIENCE)
            assert message is not None
            said.append(message)
    finally:
        worker.kill()
    assert (said[-2]["type"], said[-2]["job"]) == ("beat", "") and said[-2]["room"] > 0


def test_a_cancel_ends_the_running_job_and_a_waiting_one(separate: SubprocessBackend, picture: Picture) -> None:
    job = separate.submit(img2img(picture, steps=150, denoising_strength=1.0))
    waiting = separate.submit(img2img(picture))
    follow(separate, job, lambda event: event.message.startswith("Step"))
    separate.cancel(waiting)
    separate.cancel(job)
    assert follow(separate, job)[-1].kind == "cancelled"
    after = separate.submit(img2img(picture))
    assert follow(separate, after)[-1].kind == "finished"


def test_closing_leaves_no_child(separate: SubprocessBackend, picture: Picture) -> None:
    job = separate.submit(img2img(picture, steps=150, denoising_strength=1.0))
    follow(separate, job, lambda event: event.message.startswith("Step"))
    process = process_of(separate)
    separate.close()
    assert not is_alive(process)


def test_a_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib, numpy as np\n"
        "from backend.transport.subprocess import SubprocessBackend\n"
        "from backend.models.load import Options\n"
        "from backend.request import Request\nfrom backend.settings import Img2Img\n"
        "backend = SubprocessBackend(sys.executable, pathlib.Path(sys.argv[1]), Options())\n"
        "picture = np.zeros((256, 256, 3), np.uint8)\n"
        "settings = Img2Img(steps=150, denoising_strength=1.0, width=256, height=256)\n"
        "backend.submit(Request(settings, {'init': picture}))\n"
        "while not any(event.message.startswith('Step') for event in backend.poll()): time.sleep(0.01)\n"
        "print(backend._worker.child.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    gone = time.monotonic() + 2
    while is_alive(worker) and time.monotonic() < gone:
        time.sleep(0.01)
    assert not is_alive(worker)


def test_a_python_without_torch_is_a_sentence_and_three_deaths_end_the_trying(jobs: Path, picture: Picture) -> None:
    empty = jobs.parent / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True)
    backend = SubprocessBackend(str(empty / "bin" / "python"), jobs, Options())
    submitted = [backend.submit(img2img(picture)) for _ in range(4)]
    ended = _drain(backend, 4)
    assert [event.job for event in ended] == submitted and {event.kind for event in ended} == {"failed"}
    assert all("3 times in a row" in event.message and "Install" in event.remedy for event in ended)
    assert [left.job for left in leftovers(jobs)] == submitted  # told, and still there to be resumed
    backend.close()


def _drain(backend: Backend, count: int) -> list[Event]:
    last: list[Event] = []
    started = time.monotonic()
    while len(last) < count and time.monotonic() - started < PATIENCE:
        last += [event for event in backend.poll() if event.is_last]
        time.sleep(0.01)
    return last


def test_a_missing_python_is_a_sentence(jobs: Path, picture: Picture) -> None:
    with pytest.raises(BackendError, match="could not be started"):
        SubprocessBackend("/nowhere/python", jobs, Options()).submit(img2img(picture))


def test_a_wrong_request_is_refused_before_anything_starts(separate: SubprocessBackend, picture: Picture) -> None:
    with pytest.raises(InvalidRequest):
        separate.submit(img2img(picture, steps=0))
    assert separate._worker is None


def test_a_folder_that_cant_be_written_is_a_sentence(tmp_path: Path, picture: Picture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(Exception, match="could not be used"):
        EmbeddedBackend(blocked, Options()).submit(img2img(picture))


def test_last_words_become_sentences(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("Traceback\nModuleNotFoundError: No module named 'torch'\n")
    assert "no torch" in cause_of_death(1, log)[0]
    log.write_text("OSError: [Errno 28] No space left on device\n")
    assert "full" in cause_of_death(1, log)[0]
    assert "killed" in cause_of_death(-9, log)[0]

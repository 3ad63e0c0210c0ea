"""Kill, cancel, fill and break for real, count what was lost, and write the table docs/faults.md."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from backend.errors import DiffusionError  # noqa: E402
from backend.events import Event  # noqa: E402
from backend.models.load import Options  # noqa: E402
from backend.queue import leftovers  # noqa: E402
from backend.request import Request  # noqa: E402
from backend.settings import Img2Img, Settings, Upscale  # noqa: E402
from backend.transport.subprocess import SubprocessBackend  # noqa: E402
from tools.faults_table import Cancels, Found, Kills, table  # noqa: E402

TABLE = ROOT / "docs" / "faults.md"
SIDE, STEPS = 256, 6
PATIENCE = 120.0  # seconds after which a wait counts as a hang
LOOK = 0.002  # seconds between two looks at the backend
PICTURE = np.full((SIDE, SIDE, 3), (150, 190, 230), np.uint8)
PHASES = {
    "start": "",
    "load": "Loading",
    "encode": "Reading the picture",
    "step": "Step 3",
    "decode": "Painting the picture",
    "idle": "",
}
CANCELS = ("Loading", "Reading the picture", *(f"Step {i + 1} of" for i in range(STEPS)), "Painting the picture")

# A parent that has a worker at a phase, tells the worker's number, and waits to be killed.
PARENT = """
import sys, time, pathlib
from tools.faults import PICTURE, SubprocessBackend, Options, painting
backend = SubprocessBackend(sys.executable, pathlib.Path(sys.argv[1]), Options())
backend.submit(painting(steps=150))
while sys.argv[2] and not any(event.message.startswith(sys.argv[2]) for event in backend.poll()):
    time.sleep(0.002)
print(backend._worker.child.process.pid, flush=True)
time.sleep(600)
"""


class Hang(Exception):
    """What was waited for never came."""


def painting(**changes: object) -> Request:
    """Return a quick request of the embedded model."""
    values = {"prompt": "a woman", "width": SIDE, "height": SIDE, "steps": STEPS, "denoising_strength": 1.0, "seed": 1}
    return Request(Img2Img(**{**values, **changes}), {"init": PICTURE})  # type: ignore[arg-type]


def enlarging() -> Request:
    """Return a request that enlarges a picture."""
    settings: Settings = Upscale(scale=2.0)
    return Request(settings, {"init": PICTURE})


@contextmanager
def backend_in(folder: Path, python: str = sys.executable) -> Iterator[SubprocessBackend]:
    """Give a backend in a process of its own, closed afterwards."""
    backend = SubprocessBackend(python, folder, Options())
    try:
        yield backend
    finally:
        backend.close()


def follow(backend: SubprocessBackend, job: str, until: Callable[[Event], bool] = lambda event: event.is_last) -> Event:
    """Return the first event of a job that is waited for; raises Hang where it never comes."""
    ended = time.monotonic() + PATIENCE
    while time.monotonic() < ended:
        found = [event for event in backend.poll() if event.job == job and (until(event) or event.is_last)]
        if found:
            return found[0]
        time.sleep(LOOK)
    raise Hang(job)


def worker_of(backend: SubprocessBackend) -> int:
    """Return the number of the worker's process."""
    assert backend._worker is not None
    return backend._worker.child.process.pid


def starts(folder: Path) -> int:
    """Return how often a job was begun, by its log."""
    log = folder / "events.jsonl"
    return log.read_text().count('"kind": "started"') if log.exists() else 0


def kill_at(phase: str, folder: Path, tally: Kills) -> None:
    """Kill the worker at a phase of a job with another one waiting, and see what becomes of both."""
    tally.tried += 1
    with backend_in(folder) as backend:
        victim = backend.submit(painting())
        if phase == "start":
            time.sleep(random.uniform(0, 2))
        elif phase == "idle":
            follow(backend, victim)
        else:
            follow(backend, victim, lambda event: event.message.startswith(PHASES[phase]))
        process = worker_of(backend)
        waiting = backend.submit(painting()) if phase != "idle" else ""
        os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        waiting = waiting or backend.submit(painting())
        try:
            ends = settle(backend, [victim, waiting] if phase != "idle" else [waiting], killed, tally)
        except Hang:
            tally.hangs += 1
            return
        left = {offer.job for offer in leftovers(folder)}
        for job, event in ends.items():
            tally.lost += event.kind != "finished" and job not in left
            tally.twice += starts(folder / job) > 1
        for job in left & set(ends):
            backend.resume(job)
            tally.lost += follow(backend, job).kind != "finished"


def settle(backend: SubprocessBackend, jobs: list[str], killed: float, tally: Kills) -> dict[str, Event]:
    """Follow jobs to their ends, and note when the death was told and when work went on; raises Hang."""
    ends: dict[str, Event] = {}
    back = told = False
    process = worker_of(backend)
    while len(ends) < len(jobs):
        if time.monotonic() - killed > PATIENCE:
            raise Hang
        for event in backend.poll():
            if event.is_last and event.job in jobs:
                ends[event.job] = event
            if event.kind == "started" and not back:
                back = True
                tally.back.append(time.monotonic() - killed)
        if not told and (backend._worker is None or backend._worker.child.process.pid != process):
            told = True
            tally.told.append(time.monotonic() - killed)
        time.sleep(LOOK)
    return ends


def cancel_at(backend: SubprocessBackend, message: str, request: Request, tally: Cancels) -> None:
    """Cancel a job when it says a message, and see that the next one runs."""
    tally.tried += 1
    job = backend.submit(request)
    reached = follow(backend, job, lambda event: event.message.startswith(message) and event.kind == "progress")
    after = backend.submit(painting(steps=1))
    asked = time.monotonic()
    backend.cancel(job)
    seen: dict[tuple[str, str], float] = {(job, reached.kind): 0.0} if reached.is_last else {}
    while (after, "finished") not in seen and time.monotonic() - asked < PATIENCE:
        for event in backend.poll():
            seen.setdefault((event.job, event.kind), time.monotonic() - asked)
        time.sleep(LOOK)
    tally.finished += (job, "finished") in seen
    told = seen.get((job, "cancelled"), seen.get((job, "finished")))
    if told is None or (after, "finished") not in seen:
        tally.wrong += 1
    elif (job, "cancelled") in seen:
        tally.told.append(told)
        tally.free.append(seen[after, "started"])


def call_seconds(backend: SubprocessBackend) -> float:
    """Return how long one model call takes, between two reports."""
    job = backend.submit(painting(steps=20))
    times: list[float] = []
    while True:
        for event in backend.poll():
            if event.message.startswith("Step"):
                times.append(time.monotonic())
            if event.job == job and event.is_last:
                return statistics.median(b - a for a, b in itertools.pairwise(times))
        time.sleep(LOOK / 4)


def cancels(times: int, folder: Path) -> tuple[float, dict[str, Cancels]]:
    """Cancel at every moment of many jobs, and return the seconds of a model call and what came of it."""
    tallies = {message: Cancels() for message in (*CANCELS, "Enlarging")}
    with backend_in(folder) as backend:
        call = call_seconds(backend)
        for _ in range(times):
            for message, tally in tallies.items():
                if message == "Loading":
                    free(backend)
                cancel_at(backend, message, enlarging() if message == "Enlarging" else painting(), tally)
    return call, tallies


def free(backend: SubprocessBackend) -> None:
    """Have the worker forget its models."""
    if not backend.free():
        raise Hang("a job still runs")


def orphan_seconds(message: str, folder: Path) -> float:
    """Kill a parent whose worker is at a phase, and return how long the worker lives on."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), message], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    if not message:
        time.sleep(random.uniform(0, 2))
    parent.kill()
    killed = time.monotonic()
    parent.wait()
    while is_alive(worker) and time.monotonic() - killed < PATIENCE:
        time.sleep(LOOK)
    return time.monotonic() - killed


def is_alive(process: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def told(python: str, folder: Path, request: Request) -> str:
    """Return the sentence that a job ends with, or is refused with."""
    try:
        with backend_in(folder, python) as backend:
            event = follow(backend, backend.submit(request))
    except DiffusionError as error:
        return str(error)
    except Hang:
        return "HANG"
    return f"{event.message} {event.remedy}".strip() if event.kind == "failed" else f"NOT TOLD: {event.kind}"


def script(folder: Path, text: str) -> str:
    """Return a program that stands in for a Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """Mount a disk of that size in memory, and say whether that was allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def sentences(folder: Path) -> dict[str, str]:
    """Break each thing that an artist's machine may lack, and return what is said about it."""
    found = {
        "missing model": told(sys.executable, folder / "a", painting(model="/nowhere/model.safetensors")),
        "a Python that isn't there": told("/nowhere/python", folder / "b", painting()),
        "a program that is no Python": told(shutil.which("true") or "true", folder / "c", painting()),
        "a worker of another protocol": told(
            script(folder, 'echo \'{"type": "hello", "protocol": 1}\'; cat > /dev/null'), folder / "d", painting()
        ),
    }
    empty = folder / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True)
    found["a Python without torch"] = told(str(empty / "bin" / "python"), folder / "e", painting())
    limited = script(folder, f'ulimit -v 400000; exec {sys.executable} "$@"')
    found["too little memory to start"] = told(limited, folder / "f", painting())
    with small_disk(folder / "full", "1m") as mounted:
        if mounted:
            (folder / "full" / "other").write_bytes(bytes(900_000))
            found["a disk that is full at once"] = told(sys.executable, folder / "full", painting())
            (folder / "full" / "other").write_bytes(bytes(780_000))
            found["a disk that fills up while painting"] = told(sys.executable, folder / "full", painting(batch_size=2))
    with small_disk(folder / "locked", "8m") as mounted:
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(folder / "locked")], check=True)
            found["a folder that can't be written"] = told(sys.executable, folder / "locked" / "jobs", painting())
    return found


def hung(folder: Path) -> str:
    """Stop a worker without killing it, and return what is said; takes a minute."""
    with backend_in(folder) as backend:
        job = backend.submit(painting(steps=150))
        follow(backend, job, lambda event: event.message.startswith("Step"))
        os.kill(worker_of(backend), signal.SIGSTOP)
        stopped = time.monotonic()
        event = follow(backend, job)
        seconds = time.monotonic() - stopped
        after = follow(backend, backend.submit(painting(steps=1))).kind
    return f"{event.message} {event.remedy} (after {seconds:.0f} s; the next job {after})"


def say(what: str) -> None:
    """Tell on the error output what is being done: with 20 of each it takes over half an hour."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def main() -> int:
    """Run every fault and write the table; returns 1 where something was lost, hung or stayed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="how often each fault is tried")
    parser.add_argument("--output", type=Path, default=TABLE, help="where the table goes")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="viewport-diffusion-faults-") as scratch:
        folder = Path(scratch)
        kills = {phase: Kills() for phase in PHASES}
        for number in range(parsed.times):
            say(f"killing the worker, round {number + 1} of {parsed.times}")
            for phase, tally in kills.items():
                with suppress(Hang):
                    kill_at(phase, folder / f"kill-{phase}-{number}", tally)
        say("cancelling jobs")
        call, stops = cancels(parsed.times, folder / "cancels")
        say("killing the parent")
        moments = {"start": "", "load": "Loading", "encode": "Reading the picture", "step": "Step"}
        orphans = {
            name: [orphan_seconds(message, folder / f"orphan-{name}-{i}") for i in range(parsed.times)]
            for name, message in moments.items()
        }
        say("breaking the rest")
        words = {**sentences(folder), "a worker that is stopped, not killed": hung(folder / "hung")}
    words = {name: said.replace(str(folder), "…") for name, said in words.items()}
    found = Found(kills, call, stops, orphans, words)
    text = table(found, f"{SIDE}×{SIDE}, {STEPS} steps", parsed.times)
    parsed.output.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(found.is_bad())


if __name__ == "__main__":
    sys.exit(main())

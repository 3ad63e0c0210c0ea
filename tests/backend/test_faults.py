"""Real faults, each once: kills, cancels, a parent's death, a broken machine; tools/faults.py does them many times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import backend.transport.subprocess as transport
from backend.transport.causes import cause_of_death
from backend.transport.subprocess import SubprocessBackend
from tools.faults import (
    CANCELS,
    backend_in,
    cancel_at,
    enlarging,
    follow,
    hung,
    kill_at,
    orphan_seconds,
    painting,
    sentences,
)
from tools.faults_table import ORPHAN_LIMIT, Cancels, Kills

NOTICED = 1.0  # seconds in which a death must be noticed
SOON = 1.0  # seconds for a cancel; several model calls of a busy machine, and far less than a job


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubprocessBackend]:
    """A backend whose worker has its models loaded."""
    with backend_in(tmp_path_factory.mktemp("warm")) as backend:
        assert follow(backend, backend.submit(painting(steps=1))).kind == "finished"
        yield backend


# Three of the six phases: each costs 15 seconds, and `python tools/faults.py` runs them all.
@pytest.mark.parametrize("phase", ["load", "step", "idle"])
def test_a_killed_worker_loses_no_job_and_runs_none_twice(phase: str, tmp_path: Path) -> None:
    found = Kills()
    kill_at(phase, tmp_path, found)
    assert (found.lost, found.twice, found.hangs) == (0, 0, 0)
    assert max(found.told) < NOTICED and found.back


@pytest.mark.parametrize("message", CANCELS[1:])
def test_a_cancel_takes_effect_at_once_at_every_step_and_the_next_job_runs(
    message: str, warm: SubprocessBackend
) -> None:
    found = Cancels()
    cancel_at(warm, message, painting(), found)
    assert not found.wrong and all(seconds < SOON for seconds in (*found.told, *found.free))


def test_a_cancel_stops_an_upscaler_in_between(warm: SubprocessBackend) -> None:
    found = Cancels()
    cancel_at(warm, "Enlarging", enlarging(), found)
    assert not found.wrong and not found.finished and found.told[0] < SOON


def test_freed_models_are_loaded_again_and_a_cancel_while_loading_keeps_nobody_waiting(warm: SubprocessBackend) -> None:
    assert warm.free()
    found = Cancels()
    cancel_at(warm, "Loading", painting(), found)
    assert not found.wrong and not found.finished and found.told[0] < SOON


def test_an_idle_worker_frees_its_models_by_itself(warm: SubprocessBackend) -> None:
    def loads() -> bool:
        job = warm.submit(painting(steps=1))
        event = follow(warm, job, lambda event: event.message.startswith(("Loading", "Step")))
        assert follow(warm, job).kind == "finished"
        return event.message.startswith("Loading")

    loads()
    assert not loads()
    warm.idle = 0.2
    loads()
    time.sleep(1)
    warm.idle = 0
    assert loads()
    time.sleep(1)
    assert not loads()


def test_a_worker_beats_while_nothing_else_is_said_and_tells_what_it_holds(warm: SubprocessBackend) -> None:
    worker = warm._worker
    assert worker is not None
    worker.held = 0
    until = time.monotonic() + 5
    while not worker.held and time.monotonic() < until:
        warm.poll()
        time.sleep(0.05)
    assert worker.held > 50e6 and "GB" in warm.state()  # torch alone takes more


def test_progress_counts_the_steps_and_is_never_whole_before_the_picture_is_there(warm: SubprocessBackend) -> None:
    job = warm.submit(painting(steps=7))
    shares, steps, ended = [], [], None
    while ended is None:
        for event in warm.poll():
            if event.kind != "picture":  # which only says that one is there
                shares.append(event.progress)
            if event.message.startswith("Step"):
                steps.append(event.message)
            if event.is_last:
                ended = event
                assert all(Path(result.path).is_file() for result in event.results)
            else:
                assert event.progress < 1
        time.sleep(0.005)
    assert ended.job == job and ended.progress == 1 and shares == sorted(shares)
    assert steps == [f"Step {i + 1} of 7" for i in range(7)]


@pytest.mark.parametrize("message", ["", "Loading", "Step"])
def test_a_killed_parents_worker_leaves_wherever_it_is(message: str, tmp_path: Path) -> None:
    assert orphan_seconds(message, tmp_path) < ORPHAN_LIMIT


def test_a_worker_that_hangs_is_told_from_one_that_works_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SILENCE", 3.0)
    said = hung(tmp_path)
    assert "no longer answered" in said and "the next job finished" in said


def test_everything_broken_is_a_sentence_with_a_remedy(tmp_path: Path) -> None:
    said = sentences(tmp_path)
    expected = {
        "missing model": ("There is no model at", "Check"),
        "a Python that isn't there": ("could not be started", "Choose a Python"),
        "a program that is no Python": ("is no Python", "Choose"),
        "a worker of another protocol": ("another version", "Install"),
        "a Python without torch": ("lacks a package", "Install"),
        "too little memory to start": ("not enough memory", "smaller"),
        "a disk that is full at once": ("is full", "Make room"),
        "a disk that fills up while painting": ("is full", "Make room"),
        "a folder that can't be written": ("could not be used", "allow writing"),
    }
    for name, (sentence, remedy) in expected.items():
        if name in said:  # disks can't be mounted everywhere
            assert sentence in said[name] and remedy in said[name], said[name]
    assert not any("HANG" in words or "NOT TOLD" in words for words in said.values()), said


def test_last_words_and_exit_codes_are_known_causes(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    for words, code, sentence in (
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 1, "ran out of memory"),
        ("RuntimeError: Found no NVIDIA driver on your system.", 1, "driver"),
        ("ImportError: cannot import name 'X' from 'diffusers'", 1, "do not fit together"),
        ("SyntaxError: invalid syntax", 1, "too old"),
        ("", -9, "out of memory"),
        ("", 137, "out of memory"),
        ("", -11, "crashed"),
        ("", 0xC0000005, "crashed"),
        ("", -15, "signal 15"),
        ("", 3, "code 3"),
    ):
        log.write_text(f"Traceback (most recent call last):\n{words}\n")
        told, remedy = cause_of_death(code, log)
        assert sentence in told and remedy, (words, code, told)

"""Pictures that were finished before a cancel, a failure or a death reach the artist, and the event tells of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.engine import Engine
from backend.errors import InvalidRequest, OutOfMemory
from backend.events import Event
from backend.imaging.files import save
from backend.imaging.grid import captioned_grid
from backend.imaging.metadata import read_infotext
from backend.imaging.pictures import load
from backend.job import create_job, run_job
from backend.models.load import Options
from backend.operations import painting, sampling, xyz_plot
from backend.operations.inpaint import repaint
from backend.queue import JobQueue, leftovers
from backend.request import Request
from backend.settings import Alternative, Img2Img, Inpaint, Loopback, Outpaint, PromptLines, SDUpscale, XYZPlot
from backend.settings import PromptMatrix as Matrix
from backend.transport.embedded import EmbeddedBackend
from backend.transport.protocol import Backend
from backend.transport.subprocess import SubprocessBackend
from tests.backend.helpers import FEW, Picture, img2img
from tests.backend.test_transports import ROOT, follow, process_of

QUICK: dict[str, Any] = {**FEW, "width": 128, "height": 128, "steps": 2, "denoising_strength": 0.6}


def cancelled_after(engine: Engine, jobs: Path, request: Request, pictures: int) -> Event:
    """Run a job, cancel it once so many pictures are there, and return its last event."""
    events: list[Event] = []
    folder = create_job(jobs, request)
    run_job(engine, folder, events.append, lambda: [event.kind for event in events].count("picture") >= pictures)
    return events[-1]


def made(engine: Engine, request: Request) -> list[Picture]:
    """Return the pictures of a request that runs to its end."""
    output = engine.run(request, lambda share, text: None, lambda: False)
    return [picture.pixels for picture in output.pictures]


@pytest.mark.parametrize(
    "settings",
    [
        Img2Img(**QUICK, batch_count=3),
        Inpaint(**QUICK, batch_count=3, inpaint_area="only_masked"),
        Alternative(**QUICK, batch_count=3, decode_steps=2),
        PromptLines(**QUICK, lines="a\nb\nc"),
        Outpaint(**QUICK, batch_count=3, pixels_right=8, method="poor_mans"),
        SDUpscale(**QUICK, batch_count=3, upscaler="None"),
    ],
    ids=lambda settings: settings.operation,
)
def test_a_cancelled_job_gives_what_it_had_finished(
    engine: Engine, jobs: Path, picture: Picture, mask: Any, settings: Any
) -> None:
    images = {"init": picture[:128, :128]}
    if settings.operation == "inpaint":
        images["mask"] = mask[80:208, 60:188]
    request = Request(settings, images)
    event = cancelled_after(engine, jobs, request, 2)
    assert (event.kind, event.message) == ("cancelled", "Cancelled. 2 finished pictures are kept.")
    whole = made(engine, request)
    assert len(whole) == 3
    for result, expected in zip(event.results, whole[:2], strict=True):
        assert np.array_equal(load(Path(result.path)), expected)
        assert read_infotext(Path(result.path)) == result.infotext and f"Seed: {result.seed}" in result.infotext


def test_a_cancelled_loopback_gives_its_loops_and_of_earlier_batches_the_last(
    engine: Engine, jobs: Path, picture: Picture
) -> None:
    images = {"init": picture[:128, :128]}
    first = made(engine, Request(Loopback(**QUICK, loops=2), images))[1:]
    event = cancelled_after(engine, jobs, Request(Loopback(**QUICK, loops=3), images), 2)
    assert [result.seed for result in event.results] == [11, 12]
    event = cancelled_after(engine, jobs, Request(Loopback(**QUICK, loops=2, batch_count=2), images), 4)
    assert [result.seed for result in event.results] == [11, 13]  # the settings that make the last loop again
    assert np.array_equal(load(Path(event.results[0].path)), first[-1])


@pytest.mark.parametrize("with_cells", [False, True])
def test_a_cancelled_plot_gives_the_grid_so_far(engine: Engine, jobs: Path, picture: Picture, with_cells: bool) -> None:
    settings = XYZPlot(**QUICK, x_type="seed", x_values="1,2", y_type="steps", y_values="1,2", include_cells=with_cells)
    request = Request(settings, {"init": picture[:128, :128]})
    event = cancelled_after(engine, jobs, request, 3)
    assert event.message == "Cancelled. The grid so far is kept, with 3 of its 4 pictures."
    *singles, grid = event.results
    assert len(singles) == 3 * with_cells and "Script: X/Y/Z Plot" in grid.infotext
    alone = [
        made(engine, Request(Img2Img(**{**QUICK, "seed": seed, "steps": steps}), {"init": picture[:128, :128]}))[0]
        for seed, steps in ((1, 1), (2, 1), (1, 2))
    ]
    expected = captioned_grid([*alone, None], ["Seed: 1", "Seed: 2"], ["Steps: 1", "Steps: 2"])
    assert np.array_equal(load(Path(grid.path)), expected)


def test_a_cancelled_plot_keeps_the_finished_pictures_of_the_cell_in_progress(
    engine: Engine, jobs: Path, picture: Picture
) -> None:
    settings = XYZPlot(**QUICK, batch_count=3, x_type="steps", x_values="1,2")
    event = cancelled_after(engine, jobs, Request(settings, {"init": picture[:128, :128]}), 5)
    first, second, grid = event.results
    assert "Script: X/Y/Z Plot" in grid.infotext and [first.seed, second.seed] == [11, 12]
    assert all("Steps: 2" in result.infotext for result in (first, second))
    assert "with 1 of its 2 pictures. Finished pictures of other cells are kept too." in event.message


def test_a_grid_that_cannot_be_drawn_leaves_the_single_pictures_and_the_cancel(
    engine: Engine, jobs: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: Any, **named: Any) -> Any:
        raise InvalidRequest("The grid would be too large.")

    monkeypatch.setattr(xyz_plot, "captioned_grid", refuses)
    settings = XYZPlot(**QUICK, x_type="seed", x_values="1,2,3")
    event = cancelled_after(engine, jobs, Request(settings, {"init": picture[:128, :128]}), 2)
    assert event.kind == "cancelled" and [result.seed for result in event.results] == [1, 2]


def test_a_failed_cell_lets_go_of_what_it_held(
    engine: Engine, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Any]] = []
    left: list[bool] = []
    real = repaint

    def fails_at_first(*arguments: Any) -> Any:
        left.extend(reference() is not None for reference in held)
        if held:
            return real(*arguments)
        activations = np.zeros(8)
        held.append(weakref.ref(activations))
        raise OutOfMemory("There was not enough memory to go on.", "Choose a smaller size.")

    monkeypatch.setattr("backend.operations.cells.repaint", fails_at_first)
    request = Request(XYZPlot(**QUICK, x_type="seed", x_values="1,2"), {"init": picture[:128, :128]})
    notice = engine.run(request, lambda share, text: None, lambda: False).notice
    assert left == [False] and "There was not enough memory to go on. (Seed: 1)" in notice


def runs_out_at(picture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the memory run out as that picture, from 1, is sampled."""
    calls = 0
    real = sampling.sample

    def fails_once(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == picture:
            raise OutOfMemory("There was not enough memory to go on.", "Choose a smaller size.")
        return real(*arguments)

    monkeypatch.setattr(painting, "sample", fails_once)


@pytest.mark.parametrize(
    ("settings", "others"),
    [
        (PromptLines(**QUICK, lines='--prompt "a" --n_iter 3\nb'), 1),
        (XYZPlot(**QUICK, batch_count=3, x_type="steps", x_values="2,3"), 1),
        (XYZPlot(**QUICK, batch_count=3, x_type="steps", x_values="2,3", include_cells=True), 4),
    ],
    ids=["lines", "grid", "cells"],
)
def test_pictures_of_a_cell_that_fails_later_are_kept(
    engine: Engine, jobs: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, settings: Any, others: int
) -> None:
    alone = made(engine, Request(Img2Img(**QUICK, batch_count=2), {"init": picture[:128, :128]}))
    runs_out_at(3, monkeypatch)
    events: list[Event] = []
    folder = create_job(jobs, Request(settings, {"init": picture[:128, :128]}))
    run_job(engine, folder, events.append, lambda: False)
    last = events[-1]
    assert last.kind == "finished" and last.message.endswith("What was finished of them before is kept.")
    assert len(last.results) == 2 + others
    found = [load(Path(result.path)) for result in last.results[:2]]
    if settings.operation == "xyz_plot":
        assert all(np.array_equal(*pair) for pair in zip(found, alone, strict=True))
    assert all(each.shape == (128, 128, 3) for each in found) and not np.array_equal(found[0], found[1])


def test_a_cancelled_prompt_matrix_gives_the_grid_so_far(engine: Engine, jobs: Path, picture: Picture) -> None:
    request = Request(Matrix(**{**QUICK, "prompt": "a|b|c"}), {"init": picture[:128, :128]})
    event = cancelled_after(engine, jobs, request, 1)
    assert len(event.results) == 1 and "with 1 of its 4 pictures" in event.message
    assert min(load(Path(event.results[0].path)).shape[:2]) >= 256
    assert cancelled_after(engine, jobs, request, 0).results == ()


def test_a_cancelled_sd_upscale_by_tiles_is_enlarged_alone_where_it_was_not_reached(
    engine: Engine, jobs: Path, picture: Picture
) -> None:
    settings = SDUpscale(**QUICK, upscaler="None", method="tiles", overlap=0)
    request = Request(settings, {"init": picture})
    whole = made(engine, request)[0]
    said: list[Event] = []
    folder = create_job(jobs, request)
    run_job(engine, folder, said.append, lambda: any("Tile 3 of 4: Step 1" in event.message for event in said))
    last = said[-1]
    assert last.kind == "cancelled" and "The picture so far is kept" in last.message
    (result,) = last.results
    found = load(Path(result.path))
    assert np.array_equal(found[:128], whole[:128]) and np.array_equal(found[128:], picture[128:])


def test_no_memory_for_a_later_picture_keeps_the_earlier_ones(
    engine: Engine, jobs: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_out_at(2, monkeypatch)
    events: list[Event] = []
    folder = create_job(jobs, Request(Img2Img(**QUICK, batch_count=3), {"init": picture[:128, :128]}))
    run_job(engine, folder, events.append, lambda: False)
    last = events[-1]
    assert last.kind == "failed" and last.remedy == "Choose a smaller size."
    assert last.message == "There was not enough memory to go on. 1 finished picture is kept."
    assert [result.seed for result in last.results] == [11] and Path(last.results[0].path).exists()


@pytest.fixture(params=["embedded", "subprocess"])
def backend(request: pytest.FixtureRequest, jobs: Path) -> Any:
    """Either way to the engine."""
    embedded = request.param == "embedded"
    kind = EmbeddedBackend(jobs, Options()) if embedded else SubprocessBackend(sys.executable, jobs, Options())
    yield kind
    kind.close()


def test_both_backends_tell_what_a_cancelled_job_had_finished(backend: Backend, picture: Picture) -> None:
    job = backend.submit(img2img(picture, batch_count=20))
    announced = follow(backend, job, lambda event: event.kind == "picture")[-1]
    backend.cancel(job)
    last = follow(backend, job)[-1]
    assert last.kind == "cancelled" and announced.results[0] in last.results and "kept" in last.message
    assert all(Path(result.path).exists() for result in last.results) and len(last.results) < 20


def test_a_killed_worker_keeps_what_it_had_finished_and_the_job_can_be_resumed(jobs: Path, picture: Picture) -> None:
    backend = SubprocessBackend(sys.executable, jobs, Options())
    job = backend.submit(img2img(picture, batch_count=20))
    announced = follow(backend, job, lambda event: event.kind == "picture")[-1]
    os.kill(process_of(backend), signal.SIGKILL)
    last = follow(backend, job)[-1]
    assert last.kind == "failed" and "killed" in last.message and last.results[:1] == announced.results
    backend.queue.applied(job)  # taken in: still, the rest can be made
    assert [(left.job, left.state, left.results) for left in leftovers(jobs)] == [(job, "interrupted", last.results)]
    backend.resume(job)
    backend.cancel(job)
    again = follow(backend, job)[-1]
    assert again.kind == "cancelled" and not set(again.results) - set(last.results)
    backend.close()


def test_a_discarded_job_is_offered_no_more_whatever_it_had_finished(
    engine: Engine, jobs: Path, picture: Picture
) -> None:
    queue = JobQueue(jobs)
    job = queue.add(img2img(picture))
    folder = queue.take()
    assert folder is not None

    def closes(event: Event) -> None:
        if event.kind == "picture":
            raise KeyboardInterrupt  # as a death would, nothing is written down any more

    with pytest.raises(KeyboardInterrupt):
        run_job(engine, folder, closes, lambda: False)
    queue.close()
    assert [(left.state, len(left.results)) for left in leftovers(jobs)] == [("interrupted", 1)]
    later = JobQueue(jobs)
    later.discard(job)
    later.close()
    assert leftovers(jobs) == []


def test_ctrl_c_on_the_command_line_writes_what_is_finished(tmp_path: Path, picture: Picture) -> None:
    save(picture, tmp_path / "init.png")
    command = [sys.executable, "-m", "backend", "run", "loopback", "--loops", "32", "--steps", "4", "--seed", "5"]
    command += ["--init", str(tmp_path / "init.png"), "--output", str(tmp_path / "out")]
    command += ["--width", "256", "--height", "256"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("viewport-diffusion-*/*/result-1.png")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and b"Cancelled" in errors and b"Traceback" not in errors
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written[:2] == ["00000-5.png", "00001-6.png"] and len(out.splitlines()) == len(written) < 32
    assert f"{len(written)} finished pictures are kept" in errors.decode()

"""Whatever comes in, random or damaged, is taken, refused with a sentence or passed over, and writes nothing.

`make fuzz` tries each with 10,000 inputs.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.disk import write_atomically
from backend.errors import DiffusionError, InvalidRequest, ModelError
from backend.events import Event, Result
from backend.imaging.files import encode
from backend.imaging.metadata import infotext_if_any
from backend.imaging.pictures import load
from backend.install.report import Report
from backend.job import kept_results, last_event, read_note
from backend.models.catalogue import find_models
from backend.models.load import Options
from backend.models.recognise import is_pickle, read_safetensors_header, tell_family
from backend.operations.parameters import settings_from_text
from backend.processes import ROOT, parse_line
from backend.queue import leftovers
from backend.request import Request
from backend.settings import Inpaint, Upscale, make_settings
from backend.settings.presets import read_preset
from backend.transport.protocol import PROTOCOL
from backend.transport.subprocess import SubprocessBackend
from backend.transport.worker import read_order

WRITES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
PICTURE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
JOB = "20261123-101112-0123abcd"
EVENT = Event(JOB, "finished", 1.0, "Finished", results=(Result(f"/jobs/{JOB}/result-0.png", 7, "a knight"),))

unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck))


class Guard:
    """Notes every file that is written, made or removed below no allowed folder, while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.allowed = Path()
        self.outside: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or event not in WRITES or not isinstance(arguments[0], (str, bytes)):
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        path = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
        if not Path(path).resolve().is_relative_to(self.allowed):
            self.outside.append(f"{event} {path}")


GUARD = Guard()  # an audit hook can't be taken off again


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder, outside which nothing may be written."""
    GUARD.allowed, GUARD.outside = tmp_path.resolve(), []
    yield tmp_path
    GUARD.is_on = False


def tried(call: Callable[[], object], *refusals: type[Exception]) -> object:
    """Return what a call gives, None where it refuses in a sentence; nothing may be written outside meanwhile."""
    GUARD.is_on = True
    try:
        return call()
    except refusals as error:
        assert not isinstance(error, DiffusionError) or error.sentence.strip()
        return None
    finally:
        GUARD.is_on = False
        assert GUARD.outside == []


def damaged(*whole: bytes) -> st.SearchStrategy[bytes]:
    """Return pieces of whole files with bytes changed, left out, doubled or put in, and bytes that are nothing."""

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        content = bytearray(draw(st.sampled_from(whole)))
        for _ in range(draw(st.integers(0, 4))):
            place, size = draw(st.integers(0, len(content))), draw(st.integers(0, 8))
            piece = draw(st.one_of(st.binary(max_size=8), st.just(bytes(content[place : place + size]) * 2)))
            content[place : place + size] = piece
        return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)

    return st.one_of(one(), st.binary(max_size=200))


def changed(document: dict[str, Any]) -> st.SearchStrategy[str]:
    """Return lines of JSON that are like a document, with other values, without keys, or not like it at all."""
    numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 2**63]))
    leaves = st.one_of(
        st.none(), st.booleans(), numbers, st.text(max_size=9), st.sampled_from(["../..", "/", "\0", "NaN"])
    )
    values = st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
        max_leaves=6,
    )

    @st.composite
    def one(draw: st.DrawFn) -> str:
        copy = json.loads(json.dumps(document))
        for _ in range(draw(st.integers(1, 3))):
            place = copy
            while True:
                key = draw(st.sampled_from([*place, "more"]) if isinstance(place, dict) else st.integers(0, len(place)))
                inner = place.get(key) if isinstance(place, dict) else None
                if not isinstance(inner, dict) or draw(st.booleans()):
                    break
                place = inner
            if draw(st.booleans()) or key not in place:
                place[key] = draw(values)
            else:
                del place[key]
        text = json.dumps(copy)
        return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 4)) == 0 else text

    return st.one_of(one(), values.map(json.dumps), st.text(max_size=60), st.just("[" * 100_000), st.just("9" * 5000))


@unhurried
@given(line=changed({"type": "run", "job": JOB, "folder": f"/jobs/{JOB}", "idle": 600.0}))
def test_an_order_is_understood_or_passed_over(line: str) -> None:
    order = tried(lambda: read_order(line))
    if isinstance(order, dict) and order["type"] == "run":
        folder = Path(order["folder"])
        assert folder.is_absolute() and folder.name == order["job"] and 0 <= order["idle"] < float("inf")


@unhurried
@given(line=changed(EVENT.to_wire()))
def test_an_event_is_whole_or_none(line: str) -> None:
    message = tried(lambda: parse_line(line))
    if not isinstance(message, dict):
        return
    event = tried(lambda: Event.from_wire(message), ValueError)
    if isinstance(event, Event):
        assert 0 <= event.progress <= 1 and 0 <= event.seconds < float("inf")
        assert Event.from_wire(event.to_wire()) == event


@unhurried
@given(line=changed({"kind": "progress", "progress": 0.5, "message": "x", "remedy": "", "versions": {"torch": "2"}}))
def test_a_report_of_the_installer_is_whole_or_none(line: str) -> None:
    message = tried(lambda: parse_line(line))
    report = tried(lambda: Report.from_wire(message)) if isinstance(message, dict) else None
    assert not isinstance(report, Report) or 0 <= report.progress <= 1


REQUESTS = [
    {"format": 2, "operation": cls.operation, "settings": vars(make_settings(cls, {})), "images": names, "infotext": ""}
    for cls, names in ((Inpaint, ["init", "mask"]), (Upscale, ["init"]))
]


@unhurried
@given(text=st.one_of(*(changed(document) for document in REQUESTS)))
def test_a_request_file_is_taken_or_refused(folder: Path, text: str) -> None:
    np.save(folder / "init.npy", PICTURE)
    np.save(folder / "mask.npy", np.zeros((8, 8), np.float32))
    (folder / "request.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    request = tried(lambda: Request.load(folder), InvalidRequest)
    if isinstance(request, Request):
        tried(request.check, InvalidRequest)


def array_file(array: Any) -> bytes:
    """Return the bytes of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@unhurried
@given(content=damaged(array_file(PICTURE), array_file(np.array({"code": 1}, object))))
def test_a_request_with_a_damaged_array_is_taken_or_refused(folder: Path, content: bytes) -> None:
    document = {**REQUESTS[1], "settings": {}}
    (folder / "request.json").write_text(json.dumps(document))
    (folder / "init.npy").write_bytes(content)
    request = tried(lambda: Request.load(folder), InvalidRequest)
    if isinstance(request, Request):
        tried(request.check, InvalidRequest)


def gif(text: bytes) -> bytes:
    """Return a GIF with a comment."""
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, "GIF", comment=text)
    return stream.getvalue()


PICTURES = [*(encode(PICTURE, "a knight\nSteps: 2, Seed: 3", kind) for kind in ("png", "jpg", "webp")), gif(b"a")]


@unhurried
@given(content=damaged(*PICTURES))
def test_a_picture_is_read_or_refused_and_so_is_its_infotext(content: bytes) -> None:
    picture = tried(lambda: load(content), InvalidRequest)
    assert picture is None or (isinstance(picture, np.ndarray) and picture.dtype == np.uint8)
    text = tried(lambda: infotext_if_any(content))
    assert isinstance(text, str)
    tried(lambda: settings_from_text(text))


KEYS = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight")
HEADER = {key: {"dtype": "F16", "shape": [4, 4], "data_offsets": [32 * i, 32 * i + 32]} for i, key in enumerate(KEYS)}


def safetensors_file(header: str) -> bytes:
    """Return a file with that header and 64 bytes of weights."""
    text = header.encode("utf-8", errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + bytes(64)


@unhurried
@given(content=st.one_of(damaged(safetensors_file(json.dumps(HEADER))), changed(HEADER).map(safetensors_file)))
def test_a_model_file_is_recognised_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)

    def recognise() -> str:
        return "" if is_pickle(path) else tell_family(read_safetensors_header(path).shapes, path.name)

    tried(recognise, ModelError)
    tried(lambda: find_models([folder]))


INDEX = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": [None, None]}


@unhurried
@given(index=changed(INDEX), config=changed({"in_channels": 4, "cross_attention_dim": 768}))
def test_a_model_folder_is_listed_whatever_it_holds(folder: Path, index: str, config: str) -> None:
    (folder / "unet").mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(index, encoding="utf-8", errors="surrogatepass")
    (folder / "unet" / "config.json").write_text(config, encoding="utf-8", errors="surrogatepass")
    tried(lambda: find_models([folder]))


@unhurried
@given(
    log=st.lists(changed(EVENT.to_wire()), max_size=3), note=changed({"title": "a"}), order=changed({"waiting": [JOB]})
)
def test_jobs_that_were_left_are_listed_whatever_their_files_hold(
    folder: Path, log: list[str], note: str, order: str
) -> None:
    job = folder / JOB
    job.mkdir(exist_ok=True)
    for path, text in (
        (job / "request.json", "{}"),
        (job / "owner-nobody", ""),
        (job / "events.jsonl", "\n".join(log)),
        (job / "note.json", note),
        (folder / "queue-x.json", order),
    ):
        write_atomically(path, text.encode("utf-8", errors="surrogatepass"), flush=False)
    for call in (lambda: leftovers(folder), lambda: last_event(job), lambda: kept_results(job), lambda: read_note(job)):
        tried(call)


PRESETS = [path.read_bytes() for path in sorted((ROOT / "presets" / "viewport_diffusion").glob("*.py"))]


@unhurried
@given(content=damaged(*PRESETS))
def test_a_preset_is_read_as_data_or_refused(content: bytes) -> None:
    values = tried(lambda: read_preset(content.decode("utf-8", errors="replace")), InvalidRequest)
    if isinstance(values, dict):
        assert all(isinstance(group, str) and isinstance(name, str) for group, name in values)


@unhurried
@given(
    text=st.one_of(st.text(), changed({"Steps": 2})), pairs=st.dictionaries(st.text(max_size=9), st.text(max_size=9))
)
def test_any_text_can_be_pasted(text: str, pairs: dict[str, str]) -> None:
    written = ", ".join(f"{key}: {value}" for key, value in {"Steps": "2", "Seed": "1", **pairs}.items())
    for pasted in (text, f"{text}\n{written}"):
        tried(lambda pasted=pasted: settings_from_text(pasted))  # type: ignore[misc]


@settings(parent=unhurried, max_examples=3)
@given(lines=st.lists(changed({**EVENT.to_wire(), "protocol": PROTOCOL, "held": 1}), min_size=50, max_size=200))
def test_a_worker_that_talks_nonsense_is_listened_to_without_harm(folder: Path, lines: list[str]) -> None:
    said = folder / "said"
    said.write_text("\n".join(["{}", *lines, ""]), encoding="utf-8", errors="surrogatepass")
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncat {said}\ncat > /dev/null\n")
    python.chmod(0o755)
    backend = SubprocessBackend(str(python), folder / "jobs", Options())
    job = backend.submit(Request(Upscale(), {"init": PICTURE}))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert all(event.job == job for event in backend.poll())
        time.sleep(0.01)
    backend.close()

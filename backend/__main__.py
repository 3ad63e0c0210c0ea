"""The backend's own command line: `python -m backend run OPERATION …` without Blender, and the worker's entry."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .disk import copy_whole, output_folder
from .errors import DiffusionError
from .events import Event, Result
from .flags import add_setting_flags, given_settings
from .imaging.metadata import infotext_if_any
from .models.load import COMPILE, MEMORY_MODES, PRECISIONS, Options, require_card
from .request import Array, Request, whole_size
from .settings import OPERATIONS, Img2Img, Outpaint, make_settings

BAD_INPUT = 2
IMAGES = {
    "mask": "white is repainted; of a file with transparency, what is opaque",
    "reference": "what an IP-Adapter goes by",
    "surroundings": "what a wider camera sees, at the size of the result, for the method scene",
}
FOLDERS = {
    "--lora-folder": "where the prompt's <lora:name:weight> are looked for",
    "--embedding-folder": "where embeddings are looked for, the words of which the prompt has",
    "--model-folder": "another tool's folder, whose LoRAs and embeddings are looked for too",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 with one sentence on standard error."""
    parsed = _parser().parse_args(arguments)
    options = Options(
        parsed.device,
        parsed.precision,
        parsed.online,
        tuple(parsed.lora_folder),
        tuple(parsed.embedding_folder),
        tuple(parsed.model_folder),
        parsed.memory,
        parsed.compile,
    )
    if parsed.command == "worker":
        from .transport import worker

        return worker.main(options)
    try:
        return run(parsed, options)
    except DiffusionError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT


def run(parsed: argparse.Namespace, options: Options) -> int:
    """Run one operation on files and print one line of JSON for each picture.

    What was finished before a cancel or a failure is written too; then DiffusionError is raised.
    """
    if options.compiled:
        require_card(options.device)
    images = _images(parsed)
    settings = make_settings(OPERATIONS[parsed.operation], _settings(parsed, images["init"]))
    request = Request(settings, images, infotext_if_any(parsed.init))
    output = output_folder(parsed.output)
    from .engine import Engine
    from .job import create_job, run_job

    last: list[Event] = []

    def tell(event: Event) -> None:
        last[:] = [event]
        if event.kind == "progress" and sys.stderr.isatty():
            print(f"\r{event.progress:4.0%} {event.message:<40}", end="", file=sys.stderr, flush=True)

    started = time.monotonic()
    with _scratch() as scratch, cancelled_by_signals() as is_cancelled:
        folder = create_job(scratch, request)
        run_job(Engine(options), folder, tell, is_cancelled)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        seconds = round(time.monotonic() - started, 3)
        for result in last[0].results:
            path = _keep(result, output)
            line = {"path": str(path), "seed": result.seed, "infotext": result.infotext, "seconds": seconds}
            print(json.dumps(line, ensure_ascii=False))
        if last[0].text:
            print(json.dumps({"text": last[0].text, "seconds": seconds}, ensure_ascii=False))
    if last[0].kind != "finished":
        raise DiffusionError(last[0].message, last[0].remedy)
    return 0


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder to work in, and remove it; with pictures in it that couldn't be taken out, it stays and is told."""
    folder = Path(tempfile.mkdtemp(prefix="viewport-diffusion-"))
    emptied = False
    try:
        yield folder
        emptied = True
    finally:
        if emptied or not any(folder.rglob("*.png")):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"The pictures that were finished are in {folder}", file=sys.stderr)


@contextmanager
def cancelled_by_signals() -> Iterator[Callable[[], bool]]:
    """Return what tells whether Ctrl-C, or a request to terminate, has come; a second one ends the program at once."""
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend", description="Viewport Diffusion without Blender")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", help="serve a parent process over standard input and output")
    _add_machine_flags(worker)
    operations = commands.add_parser("run", help="make pictures from files").add_subparsers(
        dest="operation", required=True
    )
    for name, cls in OPERATIONS.items():
        operation = operations.add_parser(name, help=(cls.__doc__ or "").splitlines()[0], allow_abbrev=False)
        operation.add_argument("--init", type=Path, required=True, metavar="FILE", help="the picture to start from")
        for image in (*cls.images, *cls.optional_images):
            if image != "init":
                operation.add_argument(
                    f"--{image}", type=Path, required=image in cls.images, metavar="FILE", help=IMAGES[image]
                )
        operation.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the PNGs go")
        _add_machine_flags(operation)
        add_setting_flags(operation, cls)
    return parser


def _add_machine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="automatic", help="automatic, cpu, cuda, cuda:1, xpu or mps")
    parser.add_argument("--precision", default="automatic", choices=PRECISIONS)
    modes = "; ".join(f"{name}: {what[0].lower()}{what[1:]}" for name, (_, what) in MEMORY_MODES.items())
    parser.add_argument("--memory", default="automatic", choices=MEMORY_MODES, help=modes)
    parser.add_argument("--compile", action="store_true", help=f"{COMPILE[0].lower()}{COMPILE[1:]}")
    parser.add_argument("--online", action="store_true", help="allow models to be fetched from the hub")
    for flag, what in FOLDERS.items():
        parser.add_argument(
            flag, metavar="DIR", action="append", default=[], help=f"{what}; can be given several times"
        )


def _settings(parsed: argparse.Namespace, init: Array) -> dict[str, object]:
    """Return the settings given as flags, and the picture's own size where no size is given."""
    cls = OPERATIONS[parsed.operation]
    height, width = init.shape[:2]
    takes_it = issubclass(cls, (Img2Img, Outpaint))  # for the others width and height are something else
    own = dict(zip(("width", "height"), whole_size(width, height), strict=True)) if takes_it else {}
    return {**own, **given_settings(parsed, cls)}


def _images(parsed: argparse.Namespace) -> dict[str, Array]:
    from .imaging.masks import binary_mask
    from .imaging.pictures import load

    cls = OPERATIONS[parsed.operation]
    files = {name: getattr(parsed, name) for name in (*cls.images, *cls.optional_images)}
    pictures = {name: load(path) for name, path in files.items() if path is not None}
    return {name: binary_mask(picture) if name == "mask" else picture for name, picture in pictures.items()}


def _keep(result: Result, output: Path) -> Path:
    from .imaging.files import numbered_path

    path = numbered_path(output, result.seed, result.name)
    copy_whole(Path(result.path), path)
    return path


if __name__ == "__main__":
    sys.exit(main())

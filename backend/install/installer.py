"""One installation from the first look to the verified environment, as readable steps."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import BackendError, Cancelled
from . import environments
from .causes import explain
from .commands import Commands, clean_environment
from .environments import LOG, interpreter
from .interpreters import Base, choose
from .plan import GIGABYTE, SIZES, UV_REQUIREMENTS, Plan, check_sources, digest, pins
from .report import Report
from .steps import Steps, bytes_below, records
from .verify import SIGN

Tell = Callable[[Report], None]

RAW_PROGRESS = (24, 1)  # the first pip that tells its downloads in numbers
WAIT = 1.0  # seconds between two looks at a lock
# Where each step begins, of 1.
MAKING, PACKAGES, ALONE, VERIFYING = 0.02, 0.06, 0.88, 0.92


def install(plan: Plan, tell: Tell, cancelled: Callable[[], bool]) -> None:
    """Make, fill and verify an environment and put it to use; tells how far it is, and last how it ended."""
    root = Path(plan.root)
    try:
        environments.claim(root)
        _wait_for_lock(root, tell, cancelled)
        with environments.locked(root) as lock, (root / LOG).open("w", encoding="utf-8") as log:
            environment = clean_environment(root, bool(plan.wheels))
            commands = Commands(log, environment, lock, cancelled)
            try:
                tell(_install(plan, root, commands, tell))
            except BackendError as error:
                commands.note(str(error))
                raise
    except Cancelled:
        tell(Report("cancelled", message="Cancelled"))
    except BackendError as error:
        tell(Report("failed", message=error.sentence, remedy=error.remedy))
    except OSError as error:
        sentence, remedy = explain(1, [f"{error} [Errno {error.errno}]"])
        tell(Report("failed", message=sentence, remedy=remedy))


def _install(plan: Plan, root: Path, commands: Commands, tell: Tell) -> Report:
    tell(Report("progress", 0.0, "Looking for a Python"))
    check_sources(plan)
    _check_space(plan, root)
    base = choose(plan.python, plan.own_python, offline=bool(plan.wheels))
    wanted = digest((*plan.requirements, *plan.alone))
    index = plan.extra_index.rpartition("@")[2]  # without a password
    folder = environments.begin(root, json.dumps([wanted, index, plan.wheels, base.python]))
    base = _with_uv(base, root, commands, tell)
    tell(Report("progress", MAKING, "Making the environment"))
    _make(base, folder, commands)
    source = _source(plan, root) + ([] if base.uv else environments.kept_wheels(root))  # uv's own cache keeps all
    _fill(plan, base, folder, source, commands, tell)
    tell(Report("progress", VERIFYING, "Checking that it works"))
    versions = _verify(plan, folder, commands)
    environments.finish(root, folder, versions, wanted)
    return Report("finished", 1.0, "Installed", versions=versions)


def _wait_for_lock(root: Path, tell: Tell, cancelled: Callable[[], bool]) -> None:
    """Let another installation in the folder end first: what a killed one has started goes on for a while."""
    while environments.is_locked(root):
        tell(Report("progress", message="Waiting for another installation in the same folder to end"))
        time.sleep(WAIT)
        if cancelled():
            raise Cancelled


def _check_space(plan: Plan, root: Path) -> None:
    free = shutil.disk_usage(root).free + sum(bytes_below(root / name) for name in environments.SCRATCH)
    if free < plan.space:
        needed, left = plan.space / GIGABYTE, free / GIGABYTE
        raise BackendError(
            f"The installation needs {needed:.1f} GB, and {left:.1f} GB are free on the disk of {root}.",
            "Make room, and install again.",
        )


def _with_uv(base: Base, root: Path, commands: Commands, tell: Tell) -> Base:
    """Return the base with uv in hand: where it must be fetched, into a scratch environment."""
    if base.uv or not base.bootstrap:
        return base
    tell(Report("progress", MAKING / 2, "Fetching uv, which brings a Python that fits"))
    folder = root / "temp" / "uv"
    commands.run([base.bootstrap, "-I", "-m", "venv", str(folder)])
    python = str(interpreter(folder))
    commands.run([python, "-I", "-m", "pip", "install", "--only-binary", ":all:", "-r", str(UV_REQUIREMENTS)])
    uv = interpreter(folder).with_name("uv.exe" if os.name == "nt" else "uv")
    return Base(base.python, str(uv))


def _make(base: Base, folder: Path, commands: Commands) -> None:
    if base.uv:
        commands.run([base.uv, "venv", "--no-project", "--python", base.python, str(folder)])
    else:
        commands.run([base.python, "-I", "-m", "venv", str(folder)])


def _source(plan: Plan, root: Path) -> list[str]:
    """Return where packages come from, as flags that pip and uv share.

    The extra index goes into a file that only this user can read: a command line can be read by everyone.
    """
    if plan.wheels:
        return ["--no-index", "--find-links", plan.wheels]
    if not plan.extra_index:
        return []
    file = root / "temp" / "index.txt"
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f"--extra-index-url {plan.extra_index}\n")
    return ["-r", str(file)]


def _fill(plan: Plan, base: Base, folder: Path, source: list[str], commands: Commands, tell: Tell) -> None:
    """Install the pinned packages, and then those that come without what they depend on."""
    temporary = Path(plan.root) / "temp"
    begin = len(records(folder))
    steps = Steps(len(pins(plan.requirements)), SIZES[plan.build].download * GIGABYTE)

    told: list[Report] = []

    def show() -> None:
        report = Report("progress", round(PACKAGES + (ALONE - PACKAGES) * steps.progress, 3), steps.message)
        if told != [report]:
            tell(report)
            told[:] = [report]

    def hear(line: str) -> None:
        steps.hear(line)
        while steps.complete:
            environments.keep(Path(plan.root), steps.complete.pop())
        show()

    def look() -> None:
        steps.measure(bytes_below(temporary), len(records(folder)) - begin)
        show()

    command = _installing(base, folder, bool(plan.extra_index)) + source
    commands.run([*command, *_files(plan.requirements)], hear, look)
    if plan.alone:
        tell(Report("progress", ALONE, "Installing what stands alone"))
        commands.run([*command, "--no-deps", *_files(plan.alone)])


def _installing(base: Base, folder: Path, extra: bool) -> list[str]:
    """Return the command that installs wheels, and nothing that would have to be built or run to be installed."""
    python = interpreter(folder)
    if base.uv:
        strategy = ["--index-strategy", "unsafe-best-match"] if extra else []  # as pip does: the pins say what is meant
        return [base.uv, "pip", "install", "--no-build", "--python", str(python), *strategy]
    bar = "raw" if _pip_version(folder) >= RAW_PROGRESS else "off"
    return [str(python), "-I", "-m", "pip", "install", "--only-binary", ":all:", "--progress-bar", bar]


def _files(files: tuple[str, ...]) -> list[str]:
    return [flag for file in files for flag in ("-r", file)]


def _pip_version(folder: Path) -> tuple[int, ...]:
    found = [
        *folder.glob("lib/python*/site-packages/pip-*.dist-info"),
        *folder.glob("Lib/site-packages/pip-*.dist-info"),
    ]
    numbers = found[0].name.removeprefix("pip-").removesuffix(".dist-info").split(".") if found else []
    return tuple(int(number) for number in numbers if number.isdigit())


def _verify(plan: Plan, folder: Path, commands: Commands) -> dict[str, str]:
    """Return the versions that the new interpreter tells once it has imported, compared and computed."""
    question = json.dumps([plan.modules, pins((*plan.requirements, *plan.alone))])
    lines = commands.run([str(interpreter(folder)), "-E", "-s", "-B", "-m", f"{__package__}.verify", question])
    for line in lines:
        if line.startswith(SIGN):
            versions: dict[str, str] = json.loads(line.removeprefix(SIGN))
            return versions
    raise BackendError("The new environment did not answer.", "Press Resume; if it happens again, copy the log.")


def remove(root: Path, tell: Tell, *, everything: bool) -> None:
    """Remove the environments that are not in use, or everything; tells how it ended."""
    try:
        if not everything or environments.is_ours(root):
            environments.claim(root)
            with environments.locked(root):
                environments.prune(root)
        if everything:
            environments.uninstall(root)
        tell(Report("finished", 1.0, "Removed"))
    except BackendError as error:
        tell(Report("failed", message=error.sentence, remedy=error.remedy))
    except OSError as error:
        sentence, remedy = explain(1, [f"{error} [Errno {error.errno}]"])
        tell(Report("failed", message=sentence, remedy=remedy))


def own_python() -> str:
    """Return the interpreter that Blender brings: sys.executable, but where that is Blender itself."""
    if Path(sys.executable).name.lower().startswith("python"):
        return sys.executable
    name = "python.exe" if os.name == "nt" else f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = (Path(sys.prefix) / "bin" / name, Path(sys.prefix) / name)
    return next((str(place) for place in places if place.is_file()), "")

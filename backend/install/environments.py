"""The folder of environments: which one is used, which is unfinished, and how they are put in place and removed.

v1, v2 …          an environment each; a new one is made beside the one in use
v2.incomplete     stands until v2 has been verified
current.json      names the one in use; replaced in one step
cache, temp       downloads, kept until an installation is verified, so that the next try goes on from them
pythons           what uv fetched
install.log       everything the last installation said
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..disk import write_atomically
from ..errors import BackendError

MARK = "viewport-diffusion.txt"
MARK_TEXT = "The Python environment of Viewport Diffusion. The extension's preferences remove it.\n"
CURRENT = "current.json"
LOG = "install.log"
LOCK = "lock"
SCRATCH = ("cache", "temp")
WHEELS, PURPOSE = "wheels", "wheels-for.txt"  # in the cache
KEPT = ("pythons",)
NAME = re.compile(r"^v[1-9][0-9]{0,5}$")
INCOMPLETE = ".incomplete"
REMOVED = ".removed"


@dataclass(frozen=True)
class Installed:
    """The environment in use."""

    name: str
    python: Path
    versions: dict[str, str]
    digest: str

    @property
    def is_whole(self) -> bool:
        """Whether its interpreter still starts from something: the Python it was made from may have been removed."""
        return self.python.is_file()


def interpreter(folder: Path) -> Path:
    """Return where an environment has its Python."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def current(root: Path) -> Installed | None:
    """Return the environment in use, None where there is none."""
    try:
        known = json.loads((root / CURRENT).read_text(encoding="utf-8"))
        name, versions = known["name"], known["versions"]
        if not NAME.match(name) or not isinstance(versions, dict) or (root / name).is_symlink():
            return None
        return Installed(name, interpreter(root / name), {str(k): str(v) for k, v in versions.items()}, known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def incomplete(root: Path) -> str:
    """Return the name of the environment whose installation did not come to its end, empty where there is none."""
    known = current(root)
    names = [path.name.removesuffix(INCOMPLETE) for path in _children(root) if path.name.endswith(INCOMPLETE)]
    return next((name for name in names if NAME.match(name) and (known is None or name != known.name)), "")


def claim(root: Path) -> None:
    """Make the folder ours; raises BackendError where it is a link, or where another's files are in it."""
    if root.is_symlink():
        raise BackendError(f"{root} is a link to another place.", "Remove the link, and install again.")
    root.mkdir(parents=True, exist_ok=True)
    if not is_ours(root):
        if any(root.iterdir()):
            raise BackendError(f"{root} holds other files.", "Move them elsewhere, and install again.")
        write_atomically(root / MARK, MARK_TEXT.encode())
    for name in (*SCRATCH, *KEPT, LOG, LOCK, CURRENT):
        if (root / name).is_symlink():
            raise BackendError(f"{root / name} is a link to another place.", "Remove the link, and install again.")


def is_ours(root: Path) -> bool:
    """Whether the folder is one that claim() made."""
    mark = root / MARK
    return not root.is_symlink() and not mark.is_symlink() and mark.is_file()


def begin(root: Path, purpose: str) -> Path:
    """Return the folder for a new environment, marked as incomplete; what an earlier try left is removed.

    Half an environment is never gone on with: pip can't tell a package that was unpacked in part. Its downloads stay,
    but wheels kept for another purpose, such as other versions, sources or another Python, would be forced on this one.
    """
    prune(root)
    _remove(root / "temp")
    for name in SCRATCH:
        (root / name).mkdir(exist_ok=True)
    told, now = root / "cache" / PURPOSE, hashlib.sha256(purpose.encode()).hexdigest()
    if not told.is_file() or told.read_text(encoding="utf-8") != now:
        _remove(root / "cache" / WHEELS)
        write_atomically(told, now.encode())
    taken = [int(path.name[1:]) for path in _children(root) if NAME.match(path.name)]
    folder = root / f"v{max(taken, default=0) + 1}"
    (root / f"{folder.name}{INCOMPLETE}").write_text("This environment is not finished.\n", encoding="utf-8")
    return folder


def finish(root: Path, folder: Path, versions: dict[str, str], digest: str) -> None:
    """Put a verified environment to use, in one step; the one before it stays until prune()."""
    content = json.dumps({"name": folder.name, "versions": versions, "digest": digest}, indent=1)
    write_atomically(root / CURRENT, content.encode())
    (root / f"{folder.name}{INCOMPLETE}").unlink(missing_ok=True)
    for name in SCRATCH:
        _remove(root / name)


def keep(root: Path, wheel: str) -> None:
    """Keep a wheel that pip has fetched whole for the next try: pip's own cache keeps but what servers allow.

    It becomes a second name of the same file, and is left out where the disk can't do that.
    """
    kept = root / "cache" / WHEELS
    kept.mkdir(exist_ok=True)
    for file in (root / "temp").glob("pip-unpack-*/*.whl"):
        if file.name == wheel:
            with contextlib.suppress(OSError):
                (kept / wheel).hardlink_to(file)


def kept_wheels(root: Path) -> list[str]:
    """Return the flags that have pip take what an earlier try has fetched: of two equals it prefers the index's."""
    files = sorted((root / "cache" / WHEELS).glob("*.whl"))
    whole = [file for file in files if not file.is_symlink() and zipfile.is_zipfile(file)]
    if not whole:
        return []
    constraints = root / "temp" / "constraints.txt"
    lines = [f"{file.name.partition('-')[0]} @ {file.as_uri()}\n" for file in whole]
    constraints.write_text("".join(lines), encoding="utf-8")
    return ["-c", str(constraints)]


def prune(root: Path) -> None:
    """Remove every environment but the one in use."""
    if not is_ours(root):
        return
    known = current(root)
    for path in _children(root):
        stem = path.name.removesuffix(INCOMPLETE).removesuffix(REMOVED)
        if NAME.match(stem) and (known is None or path.name != known.name):
            _remove(path)


def uninstall(root: Path) -> None:
    """Remove everything that was installed; files of others in the folder stay. Raises BackendError."""
    if not root.exists() and not root.is_symlink():
        return
    if not is_ours(root):
        raise BackendError(f"{root} was not made by this extension.", "Remove it by hand if you don't need it.")
    _remove(root / CURRENT)
    prune(root)
    for name in (*SCRATCH, *KEPT, LOG, LOCK, MARK):
        _remove(root / name)
    with contextlib.suppress(OSError):  # not empty: what is left isn't ours
        root.rmdir()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the folder for one process and its children; raises BackendError where another has it.

    The lock is the descriptor's: it ends with the last process that has it open, however that ends.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(root / LOCK, flags, 0o600)
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise BackendError("Another installation is at work in the same folder.", "Wait for its end.") from error
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(root: Path) -> bool:
    """Whether an installation is at work in the folder."""
    try:
        with locked(root):
            return False
    except BackendError:
        return True


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _children(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    """Remove a file, a link itself, or a folder: renamed first, so that half of one never looks like a whole."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path.with_name(f"{path.name}{REMOVED}") if NAME.match(path.name) else path
    if doomed != path:
        path.rename(doomed)
    shutil.rmtree(doomed)

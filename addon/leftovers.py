"""What an earlier session, or a worker's death, has left behind: looked for on a thread that never touches bpy."""

from __future__ import annotations

import threading
from pathlib import Path

from ..backend.queue import Leftover, leftovers, tidy


class _State:
    """What the last look found, and the look that goes on."""

    offers: list[Leftover]
    thread: threading.Thread | None = None
    again: bool = False  # whether something changed while the look went on


_state = _State()
_state.offers = []


def offers() -> list[Leftover]:
    """Return the jobs that no living session looks after, as the last look found them."""
    return _state.offers


def forget(left: Leftover) -> None:
    """Offer a job no more."""
    _state.offers = [offer for offer in _state.offers if offer.job != left.job]


def look(root: Path) -> None:
    """Look for jobs that were left behind in a folder of jobs, and remove the oldest that have ended.

    is_looking() tells when it's done.
    """
    _state.again = True
    if not is_looking():
        _state.thread = threading.Thread(target=_look, args=(root,), name="viewport-diffusion-look", daemon=True)
        _state.thread.start()


def is_looking() -> bool:
    """Whether a look goes on."""
    return _state.thread is not None and _state.thread.is_alive()


def wait() -> None:
    """Block until the look is done, for scripts."""
    if _state.thread is not None:
        _state.thread.join()


def _look(root: Path) -> None:
    while _state.again:
        _state.again = False
        tidy(root)
        _state.offers = leftovers(root)

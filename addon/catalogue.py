"""The models of this machine and of the hub from Blender's side: one look at the disk, one fetching process, one timer.

Drawing reads what is here and nothing else: no disk, no network.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable

import bpy

from ..backend.errors import DiffusionError
from ..backend.models.additions import Addition, find_additions
from ..backend.models.catalogue import Entry, find_models
from ..backend.models.folders import EMBEDDINGS, LORAS, VAES, places
from ..backend.models.hub import Fetching
from ..backend.models.samplers import AUTOMATIC
from ..backend.models.traits import Traits, traits_of
from .preferences import backend_python, chosen_folders, engine_options, preferences

log = logging.getLogger(__name__)

INTERVAL = 0.2  # seconds between two looks at what runs
FIRST_LOOK = 2.0  # seconds after the start, when Blender has its window


class _State:
    """What lives from register() to unregister()."""

    entries: tuple[Entry, ...] = ()
    additions: dict[str, list[Addition]]  # by their kind
    positions: dict[str, int]
    # What a thread has found and the main thread hasn't taken in yet.
    found: list[tuple[list[Entry], dict[str, list[Addition]]]]
    looking: threading.Thread | None = None
    again: bool = False  # what is looked at has changed meanwhile
    refused: tuple[str, str] = ("", "")  # an entry that was chosen though it can't be used, and the model then
    fetching: Fetching | None = None
    asking: Fetching | None = None
    on_size: Callable[[Fetching], None] | None = None
    failure: str = ""
    notice: str = ""


_state = _State()
_state.additions, _state.positions, _state.found = {}, {}, []


# --- What is on this machine ---


def entries() -> tuple[Entry, ...]:
    """Return the models that the last look has found."""
    return _state.entries


def additions(kind: str) -> list[Addition]:
    """Return the LoRAs, embeddings or VAEs that the last look has found."""
    return _state.additions.get(kind, [])


def is_looking() -> bool:
    """Whether the disk is being looked at."""
    return _state.looking is not None


def refresh() -> None:
    """Look at the disk again, on a thread; once more after a look that is under way."""
    if _state.looking is not None:
        _state.again = True
        return
    _state.again = False
    shared = chosen_folders("model_folders")
    own = {LORAS: chosen_folders("lora_folders"), EMBEDDINGS: chosen_folders("embedding_folders"), VAES: ()}

    def look() -> None:
        found = {kind: find_additions(kind, places(kind, folders, shared)) for kind, folders in own.items()}
        _state.found.append((find_models(shared), found))

    _state.looking = threading.Thread(target=look, name="viewport-diffusion-models", daemon=True)
    _state.looking.start()
    _start_timer()


def position(model: str) -> int:
    """Return the place in the list of what is chosen, -1 where it isn't there: a Model setting, or what was refused."""
    name, then = _state.refused
    return _state.positions.get(name if name and then == model else model, -1)


def model_traits(diffusion: bpy.types.PropertyGroup) -> Traits:
    """Return what the scene's model is, and what it can't do."""
    return traits_of(bpy.path.abspath(diffusion.model))


def notice() -> str:
    """Return in a sentence what the last choice of a model has changed besides, empty where nothing."""
    return _state.notice


def choose(place: int, settings: bpy.types.PropertyGroup) -> None:
    """Set the model to the entry at that place; one that can't be used is only shown with its problem."""
    if not 0 <= place < len(_state.entries):
        return
    entry = _state.entries[place]
    if entry.problem:
        _state.refused = entry.name, settings.model
    else:
        _state.refused = "", ""
        settings.model = entry.name
        _state.notice = suit_sampler(settings)


def suit_sampler(diffusion: bpy.types.PropertyGroup) -> str:
    """Leave sampler and schedule to themselves where the model can't have them; returns a sentence that says so."""
    traits = model_traits(diffusion)
    changed = []
    for name, can in (("sampler", traits.can_sample), ("schedule", traits.can_follow)):
        if not can(getattr(diffusion, name)):
            changed.append(getattr(diffusion, name))
            setattr(diffusion, name, AUTOMATIC)
    if not changed:
        return ""
    return f"{' and '.join(changed)} can't be had with {traits.family}: Automatic has taken the place."


# --- The hub ---


def fetching() -> Fetching | None:
    """Return what is being fetched, if anything."""
    return _state.fetching


def asking() -> Fetching | None:
    """Return what the hub is asked about or was asked about last, if anything."""
    return _state.asking


def failure() -> str:
    """Return in a sentence why the last fetch failed, empty where it didn't."""
    return _state.failure


def ask(name: str, on_size: Callable[[Fetching], None] | None = None) -> None:
    """Ask the hub how large a model is; on_size is called on the main thread once that is known.

    Raises DiffusionError where the hub may not or can't be asked.
    """
    forget()
    _state.asking = Fetching(name, engine_options(), only_size=True, python=_python())
    _state.on_size = on_size
    _start_timer()


def fetch(name: str) -> None:
    """Start to fetch a model of the hub; raises DiffusionError where that may not or can't be done."""
    forget()
    _state.fetching = Fetching(name, engine_options(), python=_python())
    _start_timer()


def cancel() -> None:
    """End what is being fetched or asked, at once."""
    for running in (_state.fetching, _state.asking):
        if running is not None and not running.is_over:
            running.close()
    _state.fetching, _state.asking, _state.on_size = None, None, None


def forget() -> None:
    """Drop what was asked, and the last failure."""
    if _state.asking is not None:
        _state.asking.close()
    _state.asking, _state.on_size, _state.failure = None, None, ""


def _python() -> str:
    return sys.executable if preferences().backend == "embedded" else backend_python()


# --- The timer ---


def drain() -> bool:
    """Take in what the thread and the processes have found out, and return whether anything has changed."""
    changed = False
    thread = _state.looking
    if thread is not None and not thread.is_alive():
        _state.looking, changed = None, True
        if _state.found:
            _take_in(*_state.found.pop())
        if _state.again:
            refresh()
    if _state.asking is not None and not _state.asking.is_over:
        changed |= _state.asking.poll()
        if _state.asking.is_over:
            _asked(_state.asking)
    if _state.fetching is not None:
        changed |= _state.fetching.poll()
        if _state.fetching.is_over:
            _fetched(_state.fetching)
    return changed


def wait() -> None:
    """Block until nothing runs any more, for scripts and the command line."""
    while _runs():
        drain()
        time.sleep(INTERVAL / 4)


def _runs() -> bool:
    asked = _state.asking is not None and not _state.asking.is_over
    return asked or _state.fetching is not None or _state.looking is not None


def _take_in(found: list[Entry], additions: dict[str, list[Addition]]) -> None:
    """Show what was found in the list."""
    _state.entries = tuple(found)
    _state.additions = additions
    _state.positions = {entry.name: place for place, entry in enumerate(found)}
    items = bpy.context.window_manager.viewport_diffusion_models
    items.clear()
    for entry in found:
        items.add().name = entry.title


def _asked(asked: Fetching) -> None:
    on_size, _state.on_size = _state.on_size, None
    if asked.error is not None:
        _state.failure, _state.asking = str(asked.error), None
    elif on_size is not None:
        on_size(asked)


def _fetched(fetched: Fetching) -> None:
    _state.fetching = None
    if fetched.error is not None:
        _state.failure = str(fetched.error)
        log.warning("%s", fetched.error)
    refresh()


def _start_timer() -> None:
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=INTERVAL, persistent=True)


def _tick() -> float | None:
    if drain():
        redraw()
    return INTERVAL if _runs() else None


def _look_first() -> None:
    try:
        refresh()
    except DiffusionError as error:
        log.warning("%s", error)


def redraw() -> None:
    """Have the sidebars drawn again."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()


def shut_down() -> None:
    """End what runs."""
    cancel()


def register() -> None:
    """Look at the disk soon, and make sure that no fetching process outlives Blender."""
    atexit.register(shut_down)
    if not bpy.app.background:
        bpy.app.timers.register(_look_first, first_interval=FIRST_LOOK, persistent=True)


def unregister() -> None:
    """Stop the timers and what runs."""
    for timer in (_tick, _look_first):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
    shut_down()
    _state.entries, _state.additions, _state.positions, _state.failure = (), {}, {}, ""
    _state.looking, _state.again = None, False
    _state.found.clear()
    atexit.unregister(shut_down)

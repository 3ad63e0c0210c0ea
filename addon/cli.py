"""The command line inside Blender: `blender -b scene.blend --command viewport_diffusion render …`."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from pathlib import Path

import bpy

from ..backend.disk import copy_whole, output_folder
from ..backend.engine import with_seeds
from ..backend.errors import DiffusionError, InvalidRequest
from ..backend.flags import add_setting_flags, given_settings
from ..backend.models.load import COMPILE, MEMORY_MODES
from ..backend.request import Request, whole_side
from ..backend.settings import SCRIPTS, Img2Img, Inpaint, Script, make_settings
from . import jobs
from .jobs import Job
from .operators.generate import generate_request, inpaint_request, scene_settings
from .operators.picture import with_reference
from .preferences import BACKENDS, NO_PREVIEWS, preferences
from .presets import apply_preset
from .properties import SHADINGS, SOURCES
from .scene.state import changed

COMMAND = "viewport_diffusion"
FAILED = 2
RANGE = re.compile(r"(-?\d+)(?:-(-?\d+))?(?::(\d+))?")
MOST_FRAMES = 100_000
FOLDERS = ("lora", "embedding", "model")  # of which preferences hold several, in place of which flags can be given


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 done, 2 with one sentence on standard error."""
    parsed = _parser().parse_args(arguments)
    try:
        return render(parsed)
    except DiffusionError as error:
        print(error, file=sys.stderr)
        return FAILED
    finally:
        jobs.shut_down()


def render(parsed: argparse.Namespace) -> int:
    """Turn each frame into a picture in the output folder, named by its number, with its parameters inside.

    Where more than one comes of a frame, the others have a number of their own behind the frame's; so have all that
    were finished where a frame fails.
    """
    scene = bpy.context.scene
    cls = _settings_class(parsed)
    make_settings(cls, _given(parsed, cls))  # complains before anything is changed
    if parsed.preset:
        apply_preset(parsed.preset)
    _use_backend(parsed)
    frames = parse_frames(parsed.frames) if parsed.frames else [scene.frame_current]
    output = output_folder(parsed.output)
    _set_up(scene, parsed)
    settings = scene_settings(scene, cls, masked=parsed.inpaint, **_given(parsed, cls))
    settings = with_seeds(Request(settings, {})).settings  # one seed for all: frames belong together
    fresh = changed(scene.viewport_diffusion.capture, inpaint_result=False)  # a result is of one frame alone
    with changed(scene, frame_current=scene.frame_current), fresh:
        for count, frame in enumerate(frames, 1):
            path = output / f"{frame:04d}.png"
            if parsed.skip_existing and path.exists():
                print(f"[{count}/{len(frames)}] frame {frame}: {path} is there already", flush=True)
                continue
            scene.frame_set(frame)
            make_request = inpaint_request if parsed.inpaint else generate_request
            request, _ = make_request(bpy.context, settings)
            request = with_reference(scene, request)
            job = jobs.submit(request, f"Frame {frame}", lambda job: None)
            _wait(job, f"[{count}/{len(frames)}] frame {frame}")
            pictures = [Path(result.path) for result in job.results]
            others = pictures[:-1] if job.kind == "finished" else pictures
            for number, other in enumerate(others, 1):
                copy_whole(other, output / f"{frame:04d}-{number}.png")
            if job.kind != "finished":
                raise DiffusionError(job.message, job.remedy)
            copy_whole(pictures[-1], path)
            print(f"[{count}/{len(frames)}] frame {frame}: {path} in {job.seconds:.1f} s", flush=True)
    return 0


def _settings_class(parsed: argparse.Namespace) -> type[Img2Img]:
    if not parsed.script:
        return Inpaint if parsed.inpaint else Img2Img
    if parsed.inpaint and not issubclass(SCRIPTS[parsed.script], Script):
        raise InvalidRequest(f"{SCRIPTS[parsed.script].label} repaints whole pictures.", "Leave --inpaint out.")
    return SCRIPTS[parsed.script]


def _given(parsed: argparse.Namespace, cls: type[Img2Img]) -> dict[str, object]:
    """Return the settings given as flags, sides made whole; raises InvalidRequest for one of another class."""
    for other in (Inpaint, *SCRIPTS.values()):
        foreign = given_settings(parsed, other).keys() - {item.name for item in dataclasses.fields(cls)}
        if foreign:
            flag = "--" + min(foreign).replace("_", "-")
            raise InvalidRequest(f"{cls.label} has no {flag}.", f"It belongs to {other.label}.")
    given = given_settings(parsed, cls)
    return {name: whole_side(value) if name in ("width", "height") else value for name, value in given.items()}


def _wait(job: Job, label: str) -> None:
    shown = -1

    def tell(job: Job) -> None:
        nonlocal shown
        tenth = int(job.progress * 10)
        if tenth > shown and job.kind == "progress":
            shown = tenth
            print(f"{label}: {job.progress:4.0%} {job.message}", flush=True)

    jobs.wait(job, tell)


def parse_frames(text: str) -> list[int]:
    """Return the frames of a list such as "1-4", "1,3,10-20:2"; raises InvalidRequest for anything else."""
    frames: list[int] = []
    for part in text.split(","):
        match = RANGE.fullmatch(part.strip())
        if match is None:
            raise InvalidRequest(f"“{text}” is no list of frames.", "Write them like 1-4 or 1,3,10-20:2.")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step < 1 or (last - first) // step > MOST_FRAMES:
            raise InvalidRequest(f"“{part}” is no range of frames.", "Write the lower frame first, such as 1-4.")
        frames += range(first, last + 1, step)
    return frames


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"blender -b FILE --command {COMMAND}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    frames = commands.add_parser("render", help="turn frames into pictures", allow_abbrev=False)
    frames.add_argument("--frames", metavar="LIST", help="such as 1-4 or 1,3,10-20:2 (default the current frame)")
    frames.add_argument("--preset", metavar="NAME", help="a preset to start from, as the preset menu shows it")
    frames.add_argument("--output", metavar="DIR", required=True, type=Path, help="where the numbered PNGs go")
    frames.add_argument("--source", choices=[name.lower() for name, _, _ in SOURCES], help="what is captured")
    frames.add_argument("--shading", choices=[name.lower() for name, _, _ in SHADINGS], help="how it is drawn")
    frames.add_argument("--backend", choices=[name for name, _, _ in BACKENDS], help="where pictures are made")
    frames.add_argument("--python", metavar="FILE", help="the Python of the separate process")
    frames.add_argument("--memory", choices=MEMORY_MODES, help="how much memory the model may take")
    frames.add_argument("--compile", action="store_true", help=f"{COMPILE[0].lower()}{COMPILE[1:]}")
    for kind in FOLDERS:
        frames.add_argument(f"--{kind}-folder", metavar="DIR", action="append", help=f"a folder with {kind}s")
    frames.add_argument("--skip-existing", action="store_true", help="leave frames alone that are there already")
    frames.add_argument("--inpaint", action="store_true", help="repaint only what the scene's mask settings say")
    frames.add_argument("--script", choices=SCRIPTS, help="what to do with each frame instead of one picture")
    add_setting_flags(frames, Img2Img, Inpaint, *SCRIPTS.values())
    return parser


def _use_backend(parsed: argparse.Namespace) -> None:
    """Take backend and folders of the flags for this run; Blender doesn't save preferences when it is run like this."""
    chosen = preferences()
    chosen.previews = NO_PREVIEWS  # nobody looks
    if parsed.backend:
        chosen.backend = parsed.backend
    if parsed.python:
        chosen.python = parsed.python
    if parsed.memory:
        chosen.memory = parsed.memory
    if parsed.compile:
        chosen.compiled = True
    for kind in FOLDERS:
        if given := getattr(parsed, f"{kind}_folder"):
            setattr(chosen, f"{kind}_folders", ";".join(given))


def _set_up(scene: bpy.types.Scene, parsed: argparse.Namespace) -> None:
    """Give the scene the flags' settings; without a flag a scene that has a camera is seen through it."""
    settings = scene.viewport_diffusion.capture
    if parsed.source:
        settings.source = parsed.source.upper()
    elif settings.source == "VIEWPORT" and scene.camera is not None:
        settings.source = "CAMERA"
    if parsed.shading:
        settings.shading = parsed.shading.upper()


_commands: list[object] = []


def register() -> None:
    """Give Blender the command."""
    _commands.append(bpy.utils.register_cli_command(COMMAND, main))


def unregister() -> None:
    """Take it back."""
    while _commands:
        bpy.utils.unregister_cli_command(_commands.pop())

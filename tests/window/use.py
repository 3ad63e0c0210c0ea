"""The extension used in Blender's window as an artist would: by mouse and keyboard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from checks import Failed, check, installed_scene, step, wait_for
from window import SCREEN_HEIGHT, SCREEN_WIDTH, Window, hand, screen, window

SIDEBAR_WIDTH = 350  # pixels
POSE = "Walking"
PROMPT = "anime illustration of a woman, walking, red t-shirt"
STEPS, LONG = 20, 150  # of a picture, and of the one that is cancelled


def arrange(blender: Window, scene: Path) -> None:
    """Open the mannequin's scene and lay the window out: viewport with the Diffusion tab, image editor beside it."""
    blender.ask("open_scene", path=str(scene))
    blender.ask("pose", name=POSE)
    blender.ask("close_areas")
    blender.ask("split")
    time.sleep(1.5)  # the sidebar must have been drawn before it has tabs
    blender.ask("show_tab", name="Diffusion")
    time.sleep(0.5)
    wait_for(lambda: _widen(blender), 20, "The sidebar didn't follow the mouse at its edge")
    blender.ask("center_camera")


def _widen(blender: Window) -> bool:
    """Draw the sidebar's edge to the left until it is wide enough; a question between moves lets Blender see each."""
    place = blender.ask("place")
    wider = SIDEBAR_WIDTH - (place["right"] - place["left"])
    if wider <= 0:
        return True
    middle = (place["top"] + place["bottom"]) // 2
    blender.point(place["left"], middle)
    time.sleep(0.3)
    hand("mousedown", 1)
    for move in range(1, 6):
        blender.ask("place")
        hand("mousemove", place["left"] - wider * move // 5 - 1, middle)
    blender.ask("place")
    time.sleep(0.3)
    hand("mouseup", 1)
    time.sleep(0.3)
    return False


def type_prompt(blender: Window) -> None:
    """Type the prompt into its field."""
    blender.click(*blender.find("viewport_diffusion.diffusion.prompt"))
    time.sleep(0.3)
    hand("key", "ctrl+a")
    hand("type", "--delay", 30, PROMPT)
    hand("key", "Return")
    time.sleep(0.3)
    typed = blender.ask("get_setting", group="diffusion", name="prompt")
    check(typed == PROMPT, f"The prompt's field took “{typed}” for “{PROMPT}”.")


def press_generate(blender: Window, button: tuple[int, int]) -> str:
    """Click Generate and return the new job's id."""
    before = blender.ask("job").get("id")
    blender.click(*button)

    def new_job() -> dict[str, Any] | None:
        job: dict[str, Any] = blender.ask("job")
        return job if job.get("id") != before else None

    return str(wait_for(new_job, 10, "The click on Generate started no job")["id"])


def wait_for_end(blender: Window, kind: str) -> dict[str, Any]:
    """Wait for the end of the last job, which must be of that kind."""

    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = blender.ask("job")
        return job if job["kind"] in ("finished", "failed", "cancelled") else None

    job: dict[str, Any] = wait_for(ended, 180, "The job didn't end")
    check(job["kind"] == kind, f"The job should be {kind}, but it {job['kind']}: {job['message']} {job['remedy']}")
    return job


def workers() -> list[str]:
    """Return the command lines of the backend's processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended meanwhile
            continue
        if "backend" in words and "worker" in words:
            lines.append(" ".join(words).strip())
    return lines


def use(work: Path) -> None:
    """Use the extension in a window, and leave a screenshot of it with its first result in panel.png."""
    with screen(work), window(work) as blender:
        with step("open the window"):
            blender.ask("clock")
        with step("open the mannequin's scene and the Diffusion tab"):
            arrange(blender, installed_scene(work))
        with step("type the prompt"):
            type_prompt(blender)
            blender.ask("set_settings", group="diffusion", values={"seed": 7, "cfg_scale": 1.0})
            blender.ask("set_settings", group="img2img", values={"denoising_strength": 0.5})
        with step("find Generate"):
            button = blender.find("viewport_diffusion.generate")
        for _ in range(8):
            blender.ask("redraw_all")
            time.sleep(0.2)
        idle = blender.ask("clock")["largest"]
        with step("click Generate and wait for the picture"):
            check(not workers(), "A backend runs before anything was generated.")
            press_generate(blender, button)
            blender.ask("clock")
            job = wait_for_end(blender, "finished")
            pauses = blender.ask("clock")
            check(len(workers()) == 1, f"There should be one backend process, not {workers()}.")
        print(
            f"          job {job['seconds']:.1f} s; the main thread's largest pause meanwhile "
            f"{pauses['largest'] * 1000:.0f} ms in {pauses['count']} ticks; "
            f"drawing the window alone {idle * 1000:.0f} ms"
        )
        check(pauses["largest"] < max(0.3 * job["seconds"], 2 * idle), "The job held the main thread up.")
        check_result(blender.ask("result"), 1)
        blender.ask("fit_image")
        time.sleep(1.5)
        blender.point(SCREEN_WIDTH // 4, SCREEN_HEIGHT - 8)
        time.sleep(1.0)
        blender.screenshot("panel.png")
        with step("click Cancel while it runs"):
            cancel(blender, button)
        with step("click Generate again: the next job runs"):
            press_generate(blender, button)
            wait_for_end(blender, "finished")
            check_result(blender.ask("result"), 2)
        with step("close Blender"):
            close(blender)


def check_result(result: dict[str, Any], count: int) -> None:
    """Check that a picture arrived, and that it is one."""
    check(result, "The job finished, but the scene has no result.")
    check(result["size"] == result["capture_size"], f"The result is {result['size']}, not {result['capture_size']}.")
    check(result["packed"], "The result isn't packed.")
    check(result["changed"] > 0.5, f"Only {result['changed']:.0%} of the result differ from the capture.")
    check(result["colours"] > 100, f"The result has {result['colours']} colours.")
    check(PROMPT in result["infotext"], f"The result's parameters don't hold the prompt: {result['infotext']}")
    check(result["shown"] == [True], "The image editor doesn't show the result.")
    check(result["preview"], "The panel has no small picture of the result to show.")
    check(result["count"] == count, f"There should be {count} results in the file, not {result['count']}.")


def cancel(blender: Window, button: tuple[int, int]) -> None:
    """Start a long job and stop it with the button beside its progress."""
    blender.ask("set_settings", group="diffusion", values={"steps": LONG})
    press_generate(blender, button)
    wait_for(lambda: blender.ask("job")["kind"] == "progress", 60, "The long job made no progress")
    before = blender.ask("preview")["images"]
    seen = wait_for(lambda: _preview(blender), 60, "The picture that is being made was not shown")
    check(seen["colours"] > 100, f"The preview has {seen['colours']} colours.")
    check(seen["images"] == before, f"The preview left images in the file: {seen['images']}, not {before}.")
    place = blender.ask("place")
    # From its right end to the left, in the row where Generate was
    for x in range(place["right"] - 30, button[0], -8):
        if "viewport_diffusion.cancel" in blender.under(x, button[1]):
            break
    else:
        raise Failed("There is no Cancel beside the progress of a running job.")
    check(blender.ask("job")["kind"] == "progress", "The long job was over before it could be cancelled.")
    blender.screenshot("running.png")
    hand("click", 1)
    clicked = time.monotonic()
    wait_for_end(blender, "cancelled")
    wait_for(lambda: not blender.ask("preview")["icon"], 5, "The preview outlived its picture")
    print(f"          cancelled {time.monotonic() - clicked:.1f} s after the click")
    blender.ask("set_settings", group="diffusion", values={"steps": STEPS})


def _preview(blender: Window) -> dict[str, Any] | None:
    """Return what is seen of the running job once it is seen in the panel and over the Image Editor."""
    seen: dict[str, Any] = blender.ask("preview")
    return seen if seen["icon"] and seen["over_editor"] and seen["count"] > 2 else None


def close(blender: Window) -> None:
    """Quit as an artist does; Blender must end well, and the backend with it."""
    blender.point(SCREEN_WIDTH // 4, SCREEN_HEIGHT // 2)
    hand("key", "ctrl+q")
    wait_for(lambda: blender.process.poll() is not None, 30, "Blender didn't close")
    check(blender.process.returncode == 0, f"Blender ended with {blender.process.returncode}.")
    wait_for(lambda: not workers(), 2, "The backend outlived Blender and didn't leave")
    log = (blender.work / "blender.log").read_text(encoding="utf-8", errors="replace")
    check("Traceback" not in log, f"Blender's console has an error:\n{log}")

"""The queue's operators: order, pause, cancel, what an earlier session left behind, and the models' memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy

from ...backend.errors import DiffusionError
from ...backend.queue import Leftover
from .. import jobs, leftovers
from ..jobs import Job
from ..scene.results import apply_results

OWN_RENDER = "viewport-diffusion-"  # what the folders are called that our own renders go into
PLACES = (
    ("FRONT", "To Front", "Run it next"),
    ("UP", "Up", "Run it one earlier"),
    ("DOWN", "Down", "Run it one later"),
)


class JobOperator:
    """Base of what acts on one job."""

    bl_options = {"INTERNAL"}

    job: bpy.props.StringProperty(name="Job", description="The job's id", options={"HIDDEN", "SKIP_SAVE"})


class VIEWPORT_DIFFUSION_OT_queue_cancel(JobOperator, bpy.types.Operator):
    """Stop this picture, whether it waits or is being made"""

    bl_idname = "viewport_diffusion.queue_cancel"
    bl_label = "Cancel Job"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Cancel the job."""
        for job in jobs.running():
            if job.id == self.job:
                jobs.cancel(job)
        jobs.redraw()
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_queue_move(JobOperator, bpy.types.Operator):
    """Change when this picture is made"""

    bl_idname = "viewport_diffusion.queue_move"
    bl_label = "Move Job"

    place: bpy.props.EnumProperty(name="Place", description="Where it goes", items=PLACES)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Move the job among those that wait."""
        order = jobs.queue().waiting
        if self.job not in order:
            return {"CANCELLED"}
        place = order.index(self.job)
        jobs.queue().move(self.job, {"FRONT": 0, "UP": place - 1, "DOWN": place + 1}[self.place])
        jobs.redraw()
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_queue_pause(bpy.types.Operator):
    """Begin no further picture until the queue goes on; the one that is being made is finished"""

    bl_idname = "viewport_diffusion.queue_pause"
    bl_label = "Pause Queue"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Pause the queue, or let it go on."""
        jobs.queue().paused = not jobs.queue().paused
        jobs.redraw()
        return {"FINISHED"}


class LeftoverOperator(JobOperator):
    """Base of what is done with the jobs that were left behind: one, or all where none is named."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only where there are some."""
        if not leftovers.offers():
            cls.poll_message_set("Nothing was left unfinished")
            return False
        return True

    def for_each(self, act: Callable[[Leftover], object]) -> set[str]:
        """Do something with each, and report what can't be."""
        done = {"CANCELLED"}
        for left in list(leftovers.offers()):
            if self.job not in ("", left.job):
                continue
            try:
                act(left)
            except DiffusionError as error:
                self.report({"ERROR"}, str(error))
                jobs.look_for_leftovers()
                break
            done = {"FINISHED"}
        jobs.redraw()
        return done


class VIEWPORT_DIFFUSION_OT_queue_resume(LeftoverOperator, bpy.types.Operator):
    """Make what was left unfinished, from its beginning, or show what was finished but never shown"""

    bl_idname = "viewport_diffusion.queue_resume"
    bl_label = "Resume"
    bl_options = {"UNDO", "INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Queue them, in the order in which they waited; show what is there already."""

        def act(left: Leftover) -> None:
            scene = scene_of(left, context.scene)
            if left.state != "finished":
                jobs.resume(left, applier(left, scene), scene)
            else:
                jobs.take_in(left, applier(left, scene))

        return self.for_each(act)


class VIEWPORT_DIFFUSION_OT_queue_show(LeftoverOperator, bpy.types.Operator):
    """Show the pictures that were finished before this was interrupted"""

    bl_idname = "viewport_diffusion.queue_show"
    bl_label = "Show Finished Pictures"
    bl_options = {"UNDO", "INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Take them in."""

        def act(left: Leftover) -> None:
            if left.results:
                jobs.take_in(left, applier(left, scene_of(left, context.scene)))

        return self.for_each(act)


class VIEWPORT_DIFFUSION_OT_queue_discard(LeftoverOperator, bpy.types.Operator):
    """Drop what was left unfinished"""

    bl_idname = "viewport_diffusion.queue_discard"
    bl_label = "Discard"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Discard them."""
        return self.for_each(jobs.discard)


class VIEWPORT_DIFFUSION_OT_free_memory(bpy.types.Operator):
    """Give the memory of the loaded models back; the next picture loads them again"""

    bl_idname = "viewport_diffusion.free_memory"
    bl_label = "Free Memory"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only while no picture is being made."""
        if jobs.running():
            cls.poll_message_set("A picture is being made")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Have the backend free them."""
        if not jobs.free_memory():
            self.report({"INFO"}, "No model is loaded")
        return {"FINISHED"}


def scene_of(left: Leftover, scene: bpy.types.Scene) -> int:
    """Return the session_uid of the scene that asked for a leftover job, if it is here, else of this one."""
    name = left.note.get("scene", "")
    own = bpy.data.scenes.get(name) if left.note.get("file", "") == bpy.data.filepath else None
    return (own or scene).session_uid


def applier(left: Leftover, scene: int) -> Callable[[Job], None]:
    """Return what takes a leftover job's results in for the scene of that session_uid."""
    view = left.note.get("view", "")

    def apply(job: Job) -> None:
        apply_results(job.results, scene, view)
        for each in bpy.data.scenes:
            if each.session_uid == scene and job.text:
                each.viewport_diffusion.diffusion.prompt = job.text

    return apply


def free_for_render(scene: bpy.types.Scene, *_: object) -> None:
    """Give the graphics card to a render that wants it; Blender calls this as a render begins."""
    own = Path(scene.render.filepath).parent.name.startswith(OWN_RENDER)
    if not own and renders_on_card(scene) and jobs.device() not in ("", "cpu"):
        jobs.free_memory()


def renders_on_card(scene: bpy.types.Scene) -> bool:
    """Whether a scene's engine renders with the graphics card."""
    return scene.render.engine != "CYCLES" or scene.cycles.device == "GPU"


CLASSES = (
    VIEWPORT_DIFFUSION_OT_queue_cancel,
    VIEWPORT_DIFFUSION_OT_queue_move,
    VIEWPORT_DIFFUSION_OT_queue_pause,
    VIEWPORT_DIFFUSION_OT_queue_resume,
    VIEWPORT_DIFFUSION_OT_queue_show,
    VIEWPORT_DIFFUSION_OT_queue_discard,
    VIEWPORT_DIFFUSION_OT_free_memory,
)


def register() -> None:
    """Register the operators, and make way for renders."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.app.handlers.render_init.append(bpy.app.handlers.persistent(free_for_render))


def unregister() -> None:
    """Take both off again."""
    bpy.app.handlers.render_init.remove(free_for_render)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

"""What every operator that makes a picture shares: blocking in scripts, modal in a window, over one job."""

from __future__ import annotations

import dataclasses

import bpy

from ...backend.errors import DiffusionError
from ...backend.events import FINISHED
from ...backend.request import Request
from .. import jobs
from ..jobs import Job
from ..scene.images import read_image
from ..scene.results import apply_results

INTERVAL = 0.1  # seconds between two looks at the job


def with_reference(scene: bpy.types.Scene, request: Request) -> Request:
    """Return a request with the scene's reference image, where its settings name an IP-Adapter to go by it."""
    image = scene.viewport_diffusion.capture.reference
    if image is None or not getattr(request.settings, "ip_adapter", ""):
        return request
    return dataclasses.replace(request, images={**request.images, "reference": read_image(image)})


class NeedsResult:
    """Mix-in of the operators that go on from the scene's result."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only once there is a result."""
        if context.scene.viewport_diffusion.result is None:
            cls.poll_message_set("There is no result yet: generate a picture, or choose an image as the result")
            return False
        return True


class PictureOperator:
    """Base of the operators: a subclass says what to make in request(), the rest is the same for all."""

    bl_options = {"UNDO"}

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return what to make, and the mark of the view that it is made from ("" for none)."""
        raise TypeError(f"{type(self).__name__} doesn't say what it makes")

    @staticmethod
    def apply(job: Job, scene: int, view: str) -> None:
        """Take in a finished job for the scene of that session_uid; the operator itself may be gone by then."""
        apply_results(job.results, scene, view)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Make the picture and wait for it."""
        if not self._submit(context):
            return {"CANCELLED"}
        jobs.wait(self._job)
        return self._conclude()

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Start the picture and leave the window to the artist."""
        if bpy.app.background or context.window is None:
            return self.execute(context)
        if not self._submit(context):
            return {"CANCELLED"}
        self._timer = context.window_manager.event_timer_add(INTERVAL, window=context.window)
        context.window_manager.modal_handler_add(self)
        jobs.redraw()
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Wait for the job's end without being in the way."""
        if event.type != "TIMER" or not self._job.is_over:
            return {"PASS_THROUGH"}
        self.cancel(context)
        return self._conclude()

    def cancel(self, context: bpy.types.Context) -> None:
        """Stop watching; the job itself goes on, and its pictures still arrive."""
        context.window_manager.event_timer_remove(self._timer)
        jobs.redraw()

    def _submit(self, context: bpy.types.Context) -> bool:
        try:
            request, view = self.request(context)
            request = with_reference(context.scene, request)
            scene = context.scene.session_uid
            apply = self.apply
            self._job = jobs.submit(request, self.bl_label, lambda job: apply(job, scene, view), view)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return False
        return True

    def _conclude(self) -> set[str]:
        job = self._job
        outcome = {"FINISHED"} if job.results else {"CANCELLED"}  # what was finished before is in the file
        if job.kind == "failed":
            self.report({"ERROR"}, job.sentence)
            return outcome
        if job.kind == "cancelled":
            self.report({"INFO"}, f"{job.title}: {job.message}")
            return outcome
        if job.message != FINISHED:
            self.report({"WARNING"}, job.message)
        self.report({"INFO"}, f"{job.title}: finished in {job.seconds:.1f} s")
        return {"FINISHED"}

"""The queue: what waits and in which order, what was left unfinished, and the memory that models hold."""

from __future__ import annotations

import bpy

from ...backend.queue import Leftover
from .. import jobs, leftovers
from .base import ClosedPanel

MOST = 12  # jobs that are listed; more only make the panel long
STATES = {"waiting": "not begun", "interrupted": "interrupted", "finished": "made, not shown yet"}


class VIEWPORT_DIFFUSION_PT_queue(ClosedPanel, bpy.types.Panel):
    """What waits, and what was left unfinished."""

    bl_label = "Queue"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the queue."""
        layout = self.layout
        waiting = [job for job in jobs.running() if job.id in jobs.queue().waiting]
        paused = jobs.queue().paused
        row = layout.row(align=True)
        row.operator(
            "viewport_diffusion.queue_pause",
            text="Go On" if paused else "Pause",
            icon="PLAY" if paused else "PAUSE",
            depress=paused,
        )
        row.operator("viewport_diffusion.cancel", text="Cancel All", icon="CANCEL")
        column = layout.column(align=True)
        for place, job in enumerate(waiting[:MOST]):
            draw_waiting(column, job, place, len(waiting))
        if len(waiting) > MOST:
            column.label(text=f"and {len(waiting) - MOST} more", icon="BLANK1")
        if not waiting:
            column.label(text="Nothing waits", icon="CHECKMARK")
        draw_leftovers(layout)
        layout.label(text=jobs.backend_state(), icon="SYSTEM")
        layout.operator("viewport_diffusion.free_memory", icon="TRASH")


def draw_waiting(layout: bpy.types.UILayout, job: jobs.Job, place: int, count: int) -> None:
    """Show a waiting job with its buttons."""
    row = layout.row(align=True)
    row.label(text=f"{place + 1}. {job.title}", icon="SORTTIME")
    for target, icon, possible in (
        ("FRONT", "TRIA_UP_BAR", place > 0),
        ("UP", "TRIA_UP", place > 0),
        ("DOWN", "TRIA_DOWN", place < count - 1),
    ):
        part = row.row(align=True)
        part.enabled = possible
        button = part.operator("viewport_diffusion.queue_move", text="", icon=icon)
        button.job, button.place = job.id, target
    row.operator("viewport_diffusion.queue_cancel", text="", icon="X").job = job.id


def draw_leftovers(layout: bpy.types.UILayout) -> None:
    """Show what was left unfinished, each with Resume and Discard."""
    offers = leftovers.offers()
    if not offers:
        return
    box = layout.box().column(align=True)
    row = box.row(align=True)
    row.label(text=f"{len(offers)} left unfinished", icon="RECOVER_LAST")
    row.operator("viewport_diffusion.queue_resume", text="All", icon="PLAY").job = ""
    row.operator("viewport_diffusion.queue_discard", text="All", icon="TRASH").job = ""
    for left in offers[:MOST]:
        row = box.row(align=True)
        row.label(text=name_of(left), icon="IMAGE_DATA" if left.state == "finished" else "BLANK1")
        if left.state == "interrupted" and left.results:
            row.operator("viewport_diffusion.queue_show", text="", icon="IMAGE_DATA").job = left.job
        row.operator("viewport_diffusion.queue_resume", text="", icon="PLAY").job = left.job
        row.operator("viewport_diffusion.queue_discard", text="", icon="TRASH").job = left.job


def name_of(left: Leftover) -> str:
    """Return what a job that was left behind is called: what it makes, of which file, and how far it came."""
    title = left.note.get("title", "") or left.job
    file = left.note.get("file", "")
    if file and file != bpy.data.filepath:
        title = f"{title} of {bpy.path.basename(file)}"
    made = f", {len(left.results)} pictures made" if left.state == "interrupted" and left.results else ""
    return f"{title}: {STATES[left.state]}{made}"

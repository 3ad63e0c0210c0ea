"""The backend's own Python environment: installed, updated, removed, and its log."""

from __future__ import annotations

from collections.abc import Callable

import bpy

from ...backend.errors import DiffusionError
from ...backend.install.detect import fitting, planned_build
from ...backend.install.environments import LOG
from ...backend.install.plan import SIZES, Plan
from ...backend.install.report import Report
from .. import installation, jobs
from ..panels.environment import draw_wide
from ..preferences import preferences

DIALOG_WIDTH = 460  # pixels
BUSY = "Something is being installed or removed already"


class VIEWPORT_DIFFUSION_OT_install_environment(bpy.types.Operator):
    """Make a Python environment of the extension's own, with all that the backend needs"""

    bl_idname = "viewport_diffusion.install_environment"
    bl_label = "Install"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only with online access, or from a folder of wheels."""
        if installation.running():
            cls.poll_message_set(BUSY)
            return False
        if not bpy.app.online_access and not preferences().wheels.strip():
            cls.poll_message_set("Allow Online Access in Preferences, System, or choose a folder of wheels")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Say first what will be fetched, how large it is, and where it goes."""
        installation.look_around()
        return context.window_manager.invoke_props_dialog(self, width=DIALOG_WIDTH, confirm_text="Install")

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the sizes, the folder and the hardware that was found."""
        layout = self.layout
        found = installation.accelerators()
        if found is None:
            layout.label(text="Looking at the graphics hardware …", icon="VIEWZOOM")
        else:
            draw_wide(layout, fitting(found), "INFO")
            size = SIZES[planned_build(found, preferences().extra_index)]
            about = "" if size.measured else " (roughly)"
            fetched = "nothing is fetched" if preferences().wheels.strip() else f"{size.download:.1f} GB to fetch"
            layout.label(text=f"{fetched}, {size.disk:.1f} GB on the disk{about}", icon="IMPORT")
        draw_wide(layout, f"It goes into {installation.folder()}", "FILE_FOLDER")
        draw_wide(layout, "Blender can be used meanwhile. It can be cancelled, and goes on from there later.", "TIME")

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the installation; without a window wait for it."""
        chosen = preferences()
        wheels = chosen.wheels.strip()
        plan = installation.plan(
            python=absolute(chosen.base_python),
            extra_index=chosen.extra_index.strip(),
            wheels=absolute(wheels),
            build=planned_build(installation.accelerators() or [], chosen.extra_index),
        )
        return run(self, "install", plan, "Installing", remove_earlier)


class VIEWPORT_DIFFUSION_OT_cancel_installation(bpy.types.Operator):
    """End the installation; it can be resumed later"""

    bl_idname = "viewport_diffusion.cancel_installation"
    bl_label = "Cancel Installation"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only while something runs."""
        return installation.running()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Ask for the end."""
        installation.cancel()
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_uninstall_environment(bpy.types.Operator):
    """Remove the Python environment that this extension has made, and nothing else"""

    bl_idname = "viewport_diffusion.uninstall_environment"
    bl_label = "Uninstall"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Never under a picture in the making."""
        if installation.running() or jobs.running():
            cls.poll_message_set(BUSY if installation.running() else "A picture is being made: wait, or cancel it")
            return False
        if not installation.folder().exists():
            cls.poll_message_set("Nothing is installed")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask first."""
        return context.window_manager.invoke_confirm(
            self, event, title="Uninstall", message=f"Remove {installation.folder()}?", confirm_text="Uninstall"
        )

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Stop the backend, which runs in it, and remove it."""
        jobs.shut_down()
        return run(self, "uninstall", installation.plan(), "Uninstalling")


class VIEWPORT_DIFFUSION_OT_copy_installation_log(bpy.types.Operator):
    """Copy everything that the last installation said, to show it to somebody who can help"""

    bl_idname = "viewport_diffusion.copy_installation_log"
    bl_label = "Copy Log"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only once there is a log."""
        return (installation.folder() / LOG).is_file()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Put it into the clipboard."""
        context.window_manager.clipboard = installation.last_log()
        self.report({"INFO"}, "The log was copied")
        return {"FINISHED"}


def run(
    operator: bpy.types.Operator,
    command: str,
    plan: Plan,
    title: str,
    on_end: Callable[[Report], None] | None = None,
) -> set[str]:
    """Start a command of the installing process, and without a window wait for its end."""
    try:
        installation.start(command, plan, title, on_end)
    except DiffusionError as error:
        operator.report({"ERROR"}, str(error))
        return {"CANCELLED"}
    if not bpy.app.background:
        return {"FINISHED"}
    installation.wait()
    report = installation.report()
    if report.kind == "failed":
        operator.report({"ERROR"}, f"{report.message} {report.remedy}")
        return {"CANCELLED"}
    return {"FINISHED"}


def remove_earlier(report: Report) -> None:
    """After an update: remove the environment before it, unless a picture is being made there."""
    if report.kind != "finished" or jobs.running():
        return  # the next installation removes it
    jobs.shut_down()
    folders = installation.folder().glob("v*")
    if sum(1 for folder in folders if folder.is_dir()) > 1:
        installation.start("prune", installation.plan(), "Removing the version before")


def absolute(path: str) -> str:
    """Return a path of the preferences as the system knows it, empty as it is."""
    return bpy.path.abspath(path.strip()) if path.strip() else ""


CLASSES = (
    VIEWPORT_DIFFUSION_OT_install_environment,
    VIEWPORT_DIFFUSION_OT_cancel_installation,
    VIEWPORT_DIFFUSION_OT_uninstall_environment,
    VIEWPORT_DIFFUSION_OT_copy_installation_log,
)


def register() -> None:
    """Register the operators, and what ends an installation with Blender."""
    installation.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    """Unregister the operators and end what they started."""
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    installation.unregister()

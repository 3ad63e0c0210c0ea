"""The part of the preferences that shows the backend's own Python environment."""

from __future__ import annotations

import textwrap

import bpy

from ...backend.install.environments import Installed, current, incomplete
from .. import installation

WIDE_LINE = 84  # characters that fit into a line of the preferences and of the dialog


def draw_environment(layout: bpy.types.UILayout, preferences: bpy.types.AddonPreferences) -> None:
    """Lay out how the environment is, what can be done with it, and where its packages come from."""
    box = layout.box()
    if installation.running():
        draw_running(box)
        return
    found = installation.installed()
    unfinished = incomplete(installation.folder())
    report = installation.report()
    label, verb = state(found, unfinished)
    draw_wide(box, label, "CHECKMARK" if found else "INFO")
    if report is not None and report.kind == "failed":
        draw_wide(box, f"{report.message} {report.remedy}", "ERROR")
    row = box.row()
    if verb:
        row.operator("viewport_diffusion.install_environment", text=verb, icon="IMPORT")
    if found or unfinished or installation.folder().exists():
        row.operator("viewport_diffusion.uninstall_environment", icon="TRASH")
        row.operator("viewport_diffusion.copy_installation_log", icon="COPYDOWN")
    if verb:
        box.prop(preferences, "extra_index", placeholder="Only for another build of torch than the registry's own")
        box.prop(preferences, "wheels", placeholder="Only to install without a network")
        box.prop(preferences, "base_python", placeholder="Found by itself: Python 3.11 or 3.12")


def draw_running(box: bpy.types.UILayout) -> None:
    """Lay out the progress of what runs."""
    report = installation.report()
    row = box.row(align=True)
    row.progress(factor=report.progress, text=f"{installation.title()} {report.progress:.0%}: {report.message}")
    row.operator("viewport_diffusion.cancel_installation", text="", icon="CANCEL")
    draw_wide(box, str(installation.folder()), "FILE_FOLDER")


def state(found: Installed | None, unfinished: str) -> tuple[str, str]:
    """Return in a sentence what is installed, and what the button does: empty where there is nothing to do."""
    known = current(installation.folder())
    if found is not None:
        names = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        if unfinished:
            return f"Installed: {names}. An update is incomplete; this version stays in use until it is done.", "Resume"
        if installation.is_outdated():
            return f"Installed: {names}. This extension asks for other versions.", "Update"
        return f"Installed: {names}", ""
    if known is not None:
        return "The installed environment no longer starts: the Python it was made from has gone.", "Repair"
    if unfinished:
        return "Incomplete: the installation did not come to its end. What was fetched is kept.", "Resume"
    return "Not installed. The backend needs a Python environment with torch and diffusers.", "Install"


def draw_wide(layout: bpy.types.UILayout, sentence: str, icon: str) -> None:
    """Show a sentence over as many lines as it needs."""
    column = layout.column(align=True)
    for number, line in enumerate(textwrap.wrap(sentence, WIDE_LINE)):
        column.label(text=line, icon="BLANK1" if number else icon)

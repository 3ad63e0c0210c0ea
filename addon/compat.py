"""What differs between the versions of Blender, kept in one place."""

from __future__ import annotations

import bpy


def eevee() -> str:
    """Return the id of EEVEE: it lost its "NEXT" in 5.0."""
    return "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"


def start_gpu(scene: bpy.types.Scene) -> None:
    """Make the gpu module usable without a window: by 5.2's own call, before that by a tiny Workbench render."""
    import gpu

    if not bpy.app.background:
        return
    if hasattr(gpu, "init"):
        gpu.init()
        return
    from .scene.state import changed

    render = scene.render
    with changed(render, engine="BLENDER_WORKBENCH", resolution_percentage=2, use_compositing=False):
        bpy.ops.render.render(scene=scene.name)


def use_nodes(block: bpy.types.Material | bpy.types.World) -> None:
    """Give a material or world its node tree; from 5.0 on it always has one."""
    if bpy.app.version < (5, 0, 0):
        block.use_nodes = True


# Options of a path's property that may begin with // for the blend file's own folder; Blender has it from 4.5 on.
RELATIVE_PATHS: dict[str, set[str]] = (
    {"options": {"ANIMATABLE", "PATH_SUPPORTS_BLEND_RELATIVE"}} if bpy.app.version >= (4, 5, 0) else {}
)

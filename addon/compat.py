"""What differs between the versions of Blender, kept in one place."""

from __future__ import annotations

import bpy

STARTING = "viewport-diffusion-gpu/start"  # where a render that starts the driver is said to go; none is written


def eevee() -> str:
    """Return the id of EEVEE: it lost its "NEXT" in 5.0."""
    return "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"


def start_gpu(scene: bpy.types.Scene) -> None:
    """Make the gpu module usable without a window: by 5.2's own call, before that by a tiny Workbench render.

    A scene without a camera has one for that moment. (A scene of our own for it, removed afterwards, crashed 4.3.)
    """
    import gpu

    if not bpy.app.background:
        return
    if hasattr(gpu, "init"):
        gpu.init()
        return
    from .scene.state import changed

    eye = bpy.data.cameras.new("Eye") if scene.camera is None else None
    if eye is not None:
        scene.camera = bpy.data.objects.new("Eye", eye)
    tiny = {"engine": "BLENDER_WORKBENCH", "resolution_percentage": 2, "filepath": STARTING, "use_compositing": False}
    try:
        with changed(scene.render, **tiny):
            bpy.ops.render.render(scene=scene.name)
    finally:
        if eye is not None:
            bpy.data.cameras.remove(eye)  # and with it its object


def compositor_trees(scene: bpy.types.Scene) -> list[bpy.types.NodeTree]:
    """Return the node trees that composite a scene's renders, groups in them included."""
    found: list[bpy.types.NodeTree] = []
    waiting = [scene.node_tree if bpy.app.version < (5, 0, 0) else scene.compositing_node_group]
    while waiting:
        tree = waiting.pop()
        if tree is not None and tree not in found:
            found.append(tree)
            waiting += [node.node_tree for node in tree.nodes if node.bl_idname == "CompositorNodeGroup"]
    return found


def use_nodes(block: bpy.types.Material | bpy.types.World) -> None:
    """Give a material or world its node tree; from 5.0 on it always has one."""
    if bpy.app.version < (5, 0, 0):
        block.use_nodes = True


# Options of a path's property that may begin with // for the blend file's own folder; Blender has it from 4.5 on.
RELATIVE_PATHS: dict[str, set[str]] = (
    {"options": {"ANIMATABLE", "PATH_SUPPORTS_BLEND_RELATIVE"}} if bpy.app.version >= (4, 5, 0) else {}
)

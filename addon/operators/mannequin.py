"""The mannequin: added from the Add menu, and posed from the sidebar."""

from __future__ import annotations

import bpy

from ...backend.errors import DiffusionError
from ..scene.mannequin import add_mannequin, apply_pose, find_mannequin, pose_names

_pose_items: list[tuple[str, str, str]] = []  # Blender needs the strings of a dynamic enum to stay alive


def pose_items(_operator: bpy.types.Operator, _context: bpy.types.Context | None) -> list[tuple[str, str, str]]:
    """Return the poses as the items of an enum."""
    if not _pose_items:
        _pose_items.extend((name, name, f"Put the mannequin into the pose {name}") for name in pose_names())
    return _pose_items


class VIEWPORT_DIFFUSION_OT_add_mannequin(bpy.types.Operator):
    """Add a posable, textured figure at the 3D cursor"""

    bl_idname = "viewport_diffusion.add_mannequin"
    bl_label = "Add Mannequin"
    bl_options = {"REGISTER", "UNDO"}

    with_set: bpy.props.BoolProperty(
        name="Camera, light and backdrop as well",
        description="Bring the set that the mannequin was made with; its camera and world become the scene's",
        default=False,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Objects are added in Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Leave to Object Mode first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Append the figure."""
        try:
            add_mannequin(context, self.with_set)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_apply_pose(bpy.types.Operator):
    """Put the mannequin into one of the poses it comes with"""

    bl_idname = "viewport_diffusion.apply_pose"
    bl_label = "Apply Pose"
    bl_options = {"REGISTER", "UNDO"}

    pose: bpy.props.EnumProperty(name="Pose", description="What the mannequin does", items=pose_items)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """There must be no doubt about which mannequin is meant."""
        try:
            found = find_mannequin(context) is not None
        except DiffusionError as error:
            cls.poll_message_set(str(error))
            return False
        if not found:
            cls.poll_message_set("Select a mannequin; choose Mannequin in the Add menu to make one")
        return found

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Pose the active mannequin, or the only one."""
        try:
            apply_pose(find_mannequin(context), self.pose)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


def draw_add_menu(self: bpy.types.Menu, _context: bpy.types.Context) -> None:
    """Add the mannequin to the Add menu."""
    self.layout.operator(VIEWPORT_DIFFUSION_OT_add_mannequin.bl_idname, text="Mannequin", icon="ARMATURE_DATA")


CLASSES = (VIEWPORT_DIFFUSION_OT_add_mannequin, VIEWPORT_DIFFUSION_OT_apply_pose)


def register() -> None:
    """Register the operators and the menu entry."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.VIEW3D_MT_add.append(draw_add_menu)


def unregister() -> None:
    """Take the menu entry and the operators away again."""
    bpy.types.VIEW3D_MT_add.remove(draw_add_menu)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

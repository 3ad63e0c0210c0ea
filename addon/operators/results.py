"""What an artist does with a result: a plane, the camera's background, a file, its seed and settings again."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy_extras.io_utils import ExportHelper

from ...backend.errors import DiffusionError
from ..properties import LARGEST_INTEGER
from ..scene.images import save_image
from ..scene.results import add_plane, seed_of, set_camera_background
from .picture import NeedsResult


class VIEWPORT_DIFFUSION_OT_result_to_plane(NeedsResult, bpy.types.Operator):
    """Add an upright plane at the 3D cursor that shows the result"""

    bl_idname = "viewport_diffusion.result_to_plane"
    bl_label = "Add as Plane"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Objects are added in Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Leave to Object Mode first")
            return False
        return super().poll(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Add the plane and select it alone."""
        plane = add_plane(context, context.scene.viewport_diffusion.result)
        for other in context.selected_objects:
            other.select_set(False)
        plane.select_set(True)
        context.view_layer.objects.active = plane
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_result_to_background(NeedsResult, bpy.types.Operator):
    """Show the result over the scene in the camera's view"""

    bl_idname = "viewport_diffusion.result_to_background"
    bl_label = "Set as Camera Background"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only with a camera."""
        if context.scene.camera is None:
            cls.poll_message_set("The scene has no camera")
            return False
        return super().poll(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Set the background image."""
        set_camera_background(context.scene.camera, context.scene.viewport_diffusion.result)
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_save_result(NeedsResult, ExportHelper, bpy.types.Operator):
    """Write the result as a PNG with the parameters that made it"""

    bl_idname = "viewport_diffusion.save_result"
    bl_label = "Save Result As"
    filename_ext = ".png"
    filter_glob: bpy.props.StringProperty(default="*.png", options={"HIDDEN"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Write the file."""
        try:
            save_image(context.scene.viewport_diffusion.result, Path(bpy.path.abspath(self.filepath)))
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except OSError as error:
            self.report({"ERROR"}, f"{self.filepath} could not be written: {error.strerror}")
            return {"CANCELLED"}
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_reuse_seed(NeedsResult, bpy.types.Operator):
    """Use the seed of the result again"""

    bl_idname = "viewport_diffusion.reuse_seed"
    bl_label = "Reuse Seed"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Copy the seed out of the result's parameters."""
        settings = context.scene.viewport_diffusion
        seed = seed_of(settings.result)
        if seed is None or seed > LARGEST_INTEGER:
            why = f"{seed} is more than the {LARGEST_INTEGER} that Blender can hold" if seed else "it has none"
            self.report({"ERROR"}, f"The seed of {settings.result.name} can't be used: {why}")
            return {"CANCELLED"}
        settings.diffusion.seed = seed
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_random_seed(bpy.types.Operator):
    """Use a new seed for every picture"""

    bl_idname = "viewport_diffusion.random_seed"
    bl_label = "Random Seed"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Set the seed to -1."""
        context.scene.viewport_diffusion.diffusion.seed = -1
        return {"FINISHED"}


CLASSES = (
    VIEWPORT_DIFFUSION_OT_result_to_plane,
    VIEWPORT_DIFFUSION_OT_result_to_background,
    VIEWPORT_DIFFUSION_OT_save_result,
    VIEWPORT_DIFFUSION_OT_reuse_seed,
    VIEWPORT_DIFFUSION_OT_random_seed,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

"""Generate and Inpaint: a capture of the scene becomes a picture, or as many as a script makes of it."""

from __future__ import annotations

import bpy

from ...backend.errors import InvalidRequest
from ...backend.request import Array, Request
from ...backend.settings import SCRIPTS, Img2Img, Inpaint, PromptLines, Script
from .. import jobs
from ..properties import read_settings
from ..scene.capture import capture, current_view, picture_size
from ..scene.images import read_image
from ..scene.masks import current_mask, sketch_inputs, transparency_inputs
from ..scene.results import VIEW_MARK, source_mark
from .picture import PictureOperator


class VIEWPORT_DIFFUSION_OT_generate(PictureOperator, bpy.types.Operator):
    """Capture the source and turn it into a picture by the prompt"""

    bl_idname = "viewport_diffusion.generate"
    bl_label = "Generate"

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the img2img request of the scene's settings, or the script's that is chosen."""
        return generate_request(context, scripted(context, Img2Img))


class VIEWPORT_DIFFUSION_OT_inpaint(PictureOperator, bpy.types.Operator):
    """Repaint what the mask covers, and leave every other pixel as it is"""

    bl_idname = "viewport_diffusion.inpaint"
    bl_label = "Inpaint"

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the inpaint request of the scene's settings, or the script's that is chosen."""
        return inpaint_request(context, scripted(context, Inpaint))


def generate_request(context: bpy.types.Context, settings: Img2Img) -> tuple[Request, str]:
    """Return a request over a capture of the scene's source, and the mark of the view that it shows."""
    mark = source_mark(context, settings.width, settings.height)
    return Request(settings, {"init": capture(context, settings.width, settings.height)}), mark


def inpaint_request(context: bpy.types.Context, settings: Inpaint) -> tuple[Request, str]:
    """Return a request over the last result of the same view, or a capture, with the scene's mask; and the mark."""
    properties = context.scene.viewport_diffusion
    if properties.capture.mask_source == "SKETCH":
        init, mask = sketch_inputs(context, settings)
        return Request(settings, {"init": init, "mask": mask}), properties.capture.sketch.get(VIEW_MARK, "")
    mark = source_mark(context, settings.width, settings.height)
    init = last_result(properties, mark) if mark else None
    init = capture(context, settings.width, settings.height) if init is None else init
    if properties.capture.mask_source == "ALPHA":
        init, mask = transparency_inputs(init, settings.masked_content)
    else:
        mask = current_mask(context, current_view(context, init.shape[1], init.shape[0]))
    return Request(settings, {"init": init, "mask": mask}), mark


def scripted(context: bpy.types.Context, cls: type[Img2Img]) -> Img2Img:
    """Return the settings of Generate or Inpaint, or those of the script that runs over them."""
    script = context.scene.viewport_diffusion.script
    if script == "NONE":
        return scene_settings(context.scene, cls)
    if cls is Inpaint and not issubclass(SCRIPTS[script], Script):
        raise InvalidRequest(f"{SCRIPTS[script].label} repaints whole pictures.", "Use Generate, or choose no script.")
    return scene_settings(context.scene, SCRIPTS[script], masked=cls is Inpaint)


def scene_settings(scene: bpy.types.Scene, cls: type[Img2Img], *, masked: bool = False, **changes: object) -> Img2Img:
    """Return the settings of a capture's operation at the size that the scene names, some of them changed."""
    capture = scene.viewport_diffusion.capture
    width, height = picture_size(scene)
    values = {"width": width, "height": height, "resize_by": capture.scale if capture.size == "SCALE" else 0.0}
    if cls is PromptLines and capture.prompt_text is not None:
        values["lines"] = capture.prompt_text.as_string()
    return read_settings(scene, cls, masked=masked, **{**values, **changes})


def last_result(properties: bpy.types.PropertyGroup, mark: str) -> Array | None:
    """Return the pixels of the scene's last result if it shows that view and is to be repainted, else None."""
    image = properties.result
    if not properties.capture.inpaint_result or image is None or image.get(VIEW_MARK) != mark:
        return None
    return read_image(image)


class VIEWPORT_DIFFUSION_OT_cancel(bpy.types.Operator):
    """Stop the picture that is being made, and all that wait behind it"""

    bl_idname = "viewport_diffusion.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only while something runs."""
        if not jobs.running():
            cls.poll_message_set("Nothing is being made")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Cancel every job, the waiting ones first."""
        for job in reversed(jobs.running()):
            jobs.cancel(job)
        jobs.redraw()
        return {"FINISHED"}


CLASSES = (VIEWPORT_DIFFUSION_OT_generate, VIEWPORT_DIFFUSION_OT_inpaint, VIEWPORT_DIFFUSION_OT_cancel)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

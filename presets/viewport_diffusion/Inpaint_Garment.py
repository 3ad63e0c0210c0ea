import bpy

settings = bpy.context.scene.viewport_diffusion
settings.inpaint.denoising_strength = 0.9
settings.inpaint.mask_blur = 2
settings.inpaint.masked_content = "original"
settings.inpaint.inpaint_area = "only_masked"
settings.inpaint.only_masked_padding = 64

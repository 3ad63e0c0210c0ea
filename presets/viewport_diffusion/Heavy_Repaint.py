import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.cfg_scale = 5.0
settings.img2img.denoising_strength = 0.75
settings.inpaint.denoising_strength = 0.85

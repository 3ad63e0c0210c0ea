import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.model = "embedded"
settings.diffusion.sampler = "Euler"
settings.diffusion.cfg_scale = 1.4
settings.img2img.denoising_strength = 0.5
settings.inpaint.denoising_strength = 0.8
settings.outpaint.denoising_strength = 0.25
settings.outpaint.method = "scene"

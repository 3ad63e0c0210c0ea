import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.steps = 80
settings.diffusion.sampler = "Euler a"
settings.diffusion.cfg_scale = 12.0
settings.outpaint.method = "poor_mans"
settings.outpaint.masked_content = "fill"
settings.outpaint.denoising_strength = 1.0

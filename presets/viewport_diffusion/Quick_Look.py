import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.steps = 8
settings.diffusion.sampler = "DPM++ 2M"
settings.diffusion.schedule = "Karras"

import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "watercolor painting"
settings.img2img.denoising_strength = 0.6

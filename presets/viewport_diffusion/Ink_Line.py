import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "black ink line drawing"
settings.img2img.denoising_strength = 0.6

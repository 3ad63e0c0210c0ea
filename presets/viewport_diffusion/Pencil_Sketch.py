import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "pencil sketch of {prompt}"
settings.img2img.denoising_strength = 0.6

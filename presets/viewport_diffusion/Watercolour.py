import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "watercolor painting of {prompt}"
settings.img2img.denoising_strength = 0.6

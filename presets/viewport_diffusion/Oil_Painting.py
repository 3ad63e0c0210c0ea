import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "oil painting of {prompt}"
settings.img2img.denoising_strength = 0.55

import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "pixel art of {prompt}"
settings.img2img.denoising_strength = 0.6

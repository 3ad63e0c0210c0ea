import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "anime illustration of {prompt}, cel shading"
settings.img2img.denoising_strength = 0.55

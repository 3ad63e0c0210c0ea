import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "anime illustration, cel shading"
settings.img2img.denoising_strength = 0.55

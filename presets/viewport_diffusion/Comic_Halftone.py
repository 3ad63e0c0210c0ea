import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "comic book art of {prompt}, halftone"
settings.img2img.denoising_strength = 0.55

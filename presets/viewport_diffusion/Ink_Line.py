import bpy

settings = bpy.context.scene.viewport_diffusion
settings.diffusion.style = "black ink line drawing of {prompt}"
settings.img2img.denoising_strength = 0.6

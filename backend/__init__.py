"""The picture-making half of Viewport Diffusion: importable with numpy alone, and never with bpy."""

"""Viewport Diffusion: a posed 3D viewport becomes a 2D picture. Blender calls register() and unregister()."""


def register() -> None:
    """Enable the extension; bpy is imported here and not before, so that tools can read the package without Blender."""
    from . import addon

    addon.register()


def unregister() -> None:
    """Disable the extension and stop everything that it started."""
    from . import addon

    addon.unregister()

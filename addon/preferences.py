"""The extension's preferences: which backend, which Python, which precision."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import bpy

from ..backend.errors import BackendError
from ..backend.models.folders import split_folders
from ..backend.models.load import COMPILE, MEMORY_MODES, Options, compiles_on
from ..backend.previews import METHODS, SHARP, Previews
from . import installation

PACKAGE = installation.PACKAGE

BACKENDS = (
    ("subprocess", "Separate Process", "Pictures are made in a process of their own: its crash can't end Blender"),
    ("embedded", "Inside Blender", "Pictures are made in Blender's own process, whose Python must have torch"),
)
MEMORY = tuple((name, label, description) for name, (label, description) in MEMORY_MODES.items())
PRECISIONS = (
    ("automatic", "Automatic", "Half precision where the device is faster with it"),
    ("float32", "Full", "32 bits: slowest, and safe from black pictures"),
    ("bfloat16", "Half (bfloat16)", "16 bits with the range of 32"),
    ("float16", "Half (float16)", "16 bits, for graphics cards"),
)


NO_PREVIEWS = "off"
PREVIEWS = (
    (NO_PREVIEWS, "Off", "Show the picture once it is finished"),
    *((name, label, description) for name, (label, description) in METHODS.items()),
)


def look_again(preferences: bpy.types.AddonPreferences, context: bpy.types.Context) -> None:
    """Find what is in the folders that are chosen now."""
    from . import catalogue  # which asks here for the folders

    catalogue.refresh()


class VIEWPORT_DIFFUSION_AP_preferences(bpy.types.AddonPreferences):
    """Preferences of Viewport Diffusion."""

    bl_idname = PACKAGE

    backend: bpy.props.EnumProperty(name="Backend", description="Where pictures are made", items=BACKENDS)
    python: bpy.props.StringProperty(
        name="Interpreter",
        description="A Python 3.11 or newer of your own that has torch and diffusers; empty takes the installed one",
        subtype="FILE_PATH",
    )
    extra_index: bpy.props.StringProperty(
        name="Extra Index",
        description="Address of a further package index, for a build of torch that the registry doesn't have for this "
        "system: PyTorch's page Get Started shows those for CPU, CUDA, ROCm and XPU",
    )
    wheels: bpy.props.StringProperty(
        name="Folder of Wheels",
        description="Install from the .whl files in this folder, without any network",
        subtype="DIR_PATH",
    )
    base_python: bpy.props.StringProperty(
        name="Made From",
        description="The Python 3.11 or 3.12 that the environment is made from; empty looks for one",
        subtype="FILE_PATH",
    )
    model_folders: bpy.props.StringProperty(
        name="Model Folders",
        description="Folders with models, several of them separated by a semicolon; that of another tool will do, such "
        "as a web UI's or ComfyUI's, whose LoRAs, embeddings and VAEs are found too",
        update=look_again,
    )
    lora_folders: bpy.props.StringProperty(
        name="LoRA Folders",
        description="Folders with LoRAs, several of them separated by a semicolon",
        update=look_again,
    )
    embedding_folders: bpy.props.StringProperty(
        name="Embedding Folders",
        description="Folders with embeddings (textual inversion), several of them separated by a semicolon",
        update=look_again,
    )
    device: bpy.props.StringProperty(
        name="Device", description="automatic, cpu, cuda, cuda:1, xpu or mps", default="automatic"
    )
    precision: bpy.props.EnumProperty(name="Precision", description="How exact the model computes", items=PRECISIONS)
    memory: bpy.props.EnumProperty(
        name="Memory", description="How much of the model is kept where it works", items=MEMORY
    )
    compiled: bpy.props.BoolProperty(name="Compile", description=COMPILE)
    idle_seconds: bpy.props.IntProperty(
        name="Free Memory After",
        description="Seconds without work after which the models give their memory back; 0 keeps them",
        default=300,
        min=0,
        soft_max=3600,
    )

    previews: bpy.props.EnumProperty(
        name="Live Previews",
        description="How the picture is shown while it is made: in the panel, and in an Image Editor that views images",
        items=PREVIEWS,
        default=SHARP,
    )
    preview_steps: bpy.props.IntProperty(
        name="Every N Steps",
        description="Show a new live preview every so many sampling steps",
        default=1,
        min=1,
        soft_max=20,
    )
    preview_autoencoder: bpy.props.StringProperty(
        name="Tiny Autoencoder",
        description="A folder with a TAESD in diffusers' layout, or with several called taesd, taesdxl, taesd3 and "
        "taef1; they are also found beside the model and in the hub's cache",
        subtype="DIR_PATH",
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the preferences."""
        from .panels.environment import draw_environment  # panels need the preferences themselves

        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "backend")
        row = layout.row()
        row.active = self.backend == "subprocess"
        row.prop(self, "python", placeholder="The installed one")
        if self.backend == "subprocess" and not self.python.strip():
            draw_environment(layout, self)
        layout.prop(self, "model_folders", placeholder="For the list of models")
        layout.prop(self, "lora_folders", placeholder="Beside those of other tools")
        layout.prop(self, "embedding_folders", placeholder="Beside those of other tools")
        layout.prop(self, "device")
        layout.prop(self, "precision")
        layout.prop(self, "memory")
        draw_compiled(layout, self)
        layout.prop(self, "idle_seconds")
        layout.prop(self, "previews")
        if self.previews != NO_PREVIEWS:
            layout.prop(self, "preview_steps")
        if self.previews == SHARP:
            layout.prop(self, "preview_autoencoder", placeholder="Beside the model")
        layout.label(text=f"Jobs and pictures are kept in {jobs_folder()}", icon="FILE_FOLDER")


def draw_compiled(layout: bpy.types.UILayout, chosen: VIEWPORT_DIFFUSION_AP_preferences) -> None:
    """Lay out whether models are compiled, grey with the reason where the device is none for that."""
    from . import jobs  # which asks here for the backend

    device = jobs.device() or chosen.device.strip()
    suits = device in ("", "automatic") or compiles_on(device)
    row = layout.row()
    row.enabled = suits
    row.prop(chosen, "compiled")
    if not suits:
        layout.label(text=f"Models are compiled for graphics cards alone, not for {device}", icon="INFO")


def preferences() -> VIEWPORT_DIFFUSION_AP_preferences:
    """Return the preferences of this extension."""
    return bpy.context.preferences.addons[PACKAGE].preferences


def jobs_folder() -> Path:
    """Return the folder of the jobs, below the only place where an extension may write."""
    return Path(bpy.utils.extension_path_user(PACKAGE, path="jobs", create=True))


def engine_options() -> Options:
    """Return how models run on this machine, hub access by Blender's own switch."""
    chosen = preferences()
    return Options(
        chosen.device.strip() or "automatic",
        chosen.precision,
        bpy.app.online_access,
        chosen_folders("lora_folders"),
        chosen_folders("embedding_folders"),
        chosen_folders("model_folders"),
        chosen.memory,
        chosen.compiled,
    )


def live_previews() -> Previews:
    """Return how the picture is to be seen while it is made."""
    chosen = preferences()
    if chosen.previews == NO_PREVIEWS:
        return Previews()
    return Previews(chosen.preview_steps, chosen.previews, bpy.path.abspath(chosen.preview_autoencoder))


def chosen_folders(name: str) -> tuple[str, ...]:
    """Return the folders that a preference of that name holds."""
    return tuple(bpy.path.abspath(folder) for folder in split_folders(getattr(preferences(), name)))


def backend_python() -> str:
    """Return the interpreter of the separate process; raises BackendError where none is known to have torch."""
    chosen = preferences().python.strip()
    if chosen:
        path = Path(bpy.path.abspath(chosen)).expanduser()
        if not path.is_file():
            raise BackendError(f"There is no Python at {path}.", "Choose it in the extension's preferences.")
        return str(path)
    own = installation.installed()
    if own is not None:
        return str(own.python)
    if importlib.util.find_spec("torch") is None:
        raise BackendError(
            "No Python with torch is set up yet.",
            "Open Preferences, Add-ons, Viewport Diffusion, and press Install, or choose a Python that has torch.",
        )
    return sys.executable


def register() -> None:
    """Register the preferences."""
    bpy.utils.register_class(VIEWPORT_DIFFUSION_AP_preferences)


def unregister() -> None:
    """Unregister the preferences."""
    bpy.utils.unregister_class(VIEWPORT_DIFFUSION_AP_preferences)

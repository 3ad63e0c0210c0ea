"""From the name in the Model setting to a loaded model: embedded, a diffusers folder, a single file or a hub name."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..settings import EMBEDDED
from .folders import EMBEDDINGS, LORAS, places
from .memory import give_back, memory_for_models
from .pipeline_files import variant_in

if TYPE_CHECKING:
    import torch

    from .model import Model

log = logging.getLogger(__name__)

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
EMBEDDED_TITLE = "viewport-diffusion-embedded"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SINGLE_FILES = (".safetensors", ".ckpt")
PRECISIONS = ("automatic", "float32", "bfloat16", "float16")
# How much memory models may take → label and description; the web UI calls the last two medvram and lowvram.
MEMORY_MODES = {
    "automatic": ("Automatic", "The first of these that what is free suffices for, picture by picture"),
    "full": ("Full", "The whole model stays where it works: fastest"),
    "medium": ("Medium", "Text encoder, denoiser and VAE take turns; the others wait in RAM, or on disk without a GPU"),
    "low": ("Low", "Their blocks take turns too, one picture and one prompt at a time: slowest, for the least memory"),
}
# Devices that torch compiles for to be relied on: CUDA, which is ROCm's name too, and Intel's.
COMPILING = ("cuda", "xpu")
COMPILE = (
    "Compile the model for the graphics card: the first picture of a new size, model or LoRA takes about a minute "
    "longer, the steps after that are faster. It does nothing on a processor or on Apple's chips"
)


@dataclass(frozen=True)
class Options:
    """How models are run on this machine: the device ("automatic", "cpu", "cuda", …), the precision, hub access.

    lora_folders, embedding_folders: where the prompts' LoRAs and embeddings are looked for. model_folders: folders of
    models; those of other tools hold LoRAs and embeddings too. memory: one of MEMORY_MODES. compiled: whether denoisers
    are compiled, where the device is a card.
    """

    device: str = "automatic"
    precision: str = "automatic"
    online: bool = False
    lora_folders: tuple[str, ...] = ()
    embedding_folders: tuple[str, ...] = ()
    model_folders: tuple[str, ...] = ()
    memory: str = "automatic"
    compiled: bool = False


class Models:
    """The loaded models of one engine; the last one stays resident, since the next picture most likely wants it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._name = ""
        self._model: Model | None = None
        self._refiner_name = ""
        self._refiner: Model | None = None

    def is_loaded(self, name: str) -> bool:
        """Whether that model is ready without loading anything."""
        return (self._model is not None and self._name == name) or (
            self._refiner is not None and self._refiner_name == name
        )

    def held(self) -> int:
        """Return the bytes that the weights of the loaded models take where they are used."""
        return sum(model.savings.held() for model in (self._model, self._refiner) if model is not None)

    def title(self, name: str) -> str:
        """Return how that model is called in messages."""
        return "the embedded model" if name == EMBEDDED else Path(name).name

    def get(self, name: str, vae: str = "") -> Model:
        """Return that model, loading it in place of the last one, with another VAE than its own if one is named.

        Raises ModelError with what is wrong with either, InvalidRequest where they don't fit each other.
        """
        if self._model is None or self._name != name:
            known = self._refiner if self._refiner_name == name else None
            self._model = self._refiner = None  # freed before the next is loaded: two rarely fit
            gc.collect()  # which a model needs, since its denoiser's forward is its own method
            self._model = known or load(name, self.options)
            self._name = name
        self._model.use_vae(vae)
        return self._model

    def refiner(self, name: str) -> Model:
        """Return the model of that name, loaded beside the one that `get` has returned; raises as load does."""
        if self._refiner is None or self._refiner_name != name:
            self.drop_refiner()
            self._refiner = load(name, self.options)
            self._refiner_name = name
        return self._refiner

    def drop_refiner(self) -> None:
        """Let go of the model beside the one that `get` has returned, if there is one."""
        if self._refiner is None:
            return
        self._refiner = None
        if self._model is not None:
            self._model.refiner = None
        gc.collect()
        give_back(choose_device(self.options.device))


def load(name: str, options: Options) -> Model:
    """Return the model of that name; raises ModelError where it is missing, damaged or of an unknown family."""
    quiet_libraries(options.online)
    import diffusers.utils.logging
    import torch
    import transformers.utils.logging
    from safetensors import SafetensorError

    from .families import family_of
    from .model import Model

    diffusers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = choose_device(options.device)
    dtype = choose_precision(options.precision, device)
    require_room(name, device, dtype.itemsize, options.memory)
    try:
        with _default_precision_kept():
            pipe = _load_pipeline(name, dtype, options)
    except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        log.info("loading %s failed", name, exc_info=True)
        raise ModelError(f"The model {name} could not be loaded: {_first_line(error)}", _REMEDY) from error
    pipe.set_progress_bar_config(disable=True)
    if getattr(pipe.vae.config, "force_upcast", False) and dtype == torch.float16:
        pipe.vae.to(torch.float32)
    family = family_of(pipe)
    dtype = next(family.network.parameters()).dtype
    loras = places(LORAS, options.lora_folders, options.model_folders)
    embeddings = places(EMBEDDINGS, options.embedding_folders, options.model_folders)
    model = Model(pipe, family, name, device, dtype, loras, embeddings, options.memory)
    if options.compiled and compiles_on(device):
        model.compile()
    model.prepare(model.native, model.native)
    give_back(device)
    return model


@contextmanager
def _default_precision_kept() -> Iterator[None]:
    """Put torch's default precision back, which diffusers leaves changed where its loading is cut short."""
    import torch

    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def require_room(name: str, device: str, item: int, memory: str) -> None:
    """Raise OutOfMemory before a model is loaded that doesn't fit at its own size; item: bytes of a number."""
    from .needs import Job, anatomy_of, plan_memory  # which know this module's names
    from .savings import require_possible

    anatomy = anatomy_of(name)
    if anatomy is not None:
        job = Job(anatomy.native, anatomy.native, item=item, on_card=device != "cpu")
        require_possible(plan_memory(anatomy, job, memory_for_models(device), memory), device, memory)


_REMEDY = "Check the Model setting; a model that was copied only in part must be copied again."


# The class that a model's folder names → the one that turns pictures into pictures with the same parts. An inpainting
# model's five extra channels are given to it by Model, so that one pipeline serves every operation.
PIPELINES = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Img2ImgPipeline",
    "StableDiffusion3Img2ImgPipeline": "StableDiffusion3Img2ImgPipeline",
    "StableDiffusion3InpaintPipeline": "StableDiffusion3Img2ImgPipeline",
    "FluxPipeline": "FluxImg2ImgPipeline",
    "FluxImg2ImgPipeline": "FluxImg2ImgPipeline",
    "FluxInpaintPipeline": "FluxImg2ImgPipeline",
    "FluxFillPipeline": "FluxImg2ImgPipeline",
    "FluxKontextPipeline": "FluxKontextImg2ImgPipeline",
    "FluxKontextInpaintPipeline": "FluxKontextImg2ImgPipeline",
    "Flux2Pipeline": "Flux2Img2ImgPipeline",
    "Flux2KleinPipeline": "Flux2KleinImg2ImgPipeline",
    "Flux2KleinInpaintPipeline": "Flux2KleinImg2ImgPipeline",
    "QwenImagePipeline": "QwenImageImg2ImgPipeline",
    "QwenImageImg2ImgPipeline": "QwenImageImg2ImgPipeline",
    "QwenImageInpaintPipeline": "QwenImageImg2ImgPipeline",
    "QwenImageEditPipeline": "QwenImageEditImg2ImgPipeline",
    "QwenImageEditInpaintPipeline": "QwenImageEditImg2ImgPipeline",
    "QwenImageEditPlusPipeline": "QwenImageEditPlusImg2ImgPipeline",
    "ZImagePipeline": "ZImageImg2ImgPipeline",
    "ZImageImg2ImgPipeline": "ZImageImg2ImgPipeline",
    "ZImageInpaintPipeline": "ZImageImg2ImgPipeline",
}


def place_of(name: str) -> Path:
    """Return where the embedded model, a folder or a file lies; raises RuntimeError for "~name" of no user."""
    return EMBEDDED_FOLDER if name == EMBEDDED else Path(name).expanduser()


def _load_pipeline(name: str, dtype: torch.dtype, options: Options) -> Any:
    path = place_of(name)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"{path} holds no diffusers model.", "Choose the folder that has a model_index.json.")
        return _load_diffusers(path, dtype, False, options.precision)
    if path.is_file():
        from .single_file import load_single_file

        return load_single_file(path, dtype)
    if path.suffix.lower() in SINGLE_FILES or path.is_absolute():
        raise ModelError(f"There is no model at {path}.", "Check the Model setting.")
    if not HUB_NAME.fullmatch(name):
        raise ModelError(
            f"“{name}” is no model: there is no such file or folder.",
            "Give “embedded”, a folder, a .safetensors file, or a hub name such as owner/model.",
        )
    from .hub import find_pipeline  # which knows this module's names

    fetched = find_pipeline(name)
    if fetched is not None:
        return _load_diffusers(fetched, dtype, False, options.precision)
    try:
        return _load_diffusers(name, dtype, options.online, options.precision)
    except OSError as error:
        if options.online:
            raise ModelError(f"{name} could not be fetched from the hub: {_first_line(error)}") from error
        raise ModelError(
            f"{name} is not on this machine, and online access is off.",
            "Allow Online Access in Blender's preferences (System), or choose a model on disk.",
        ) from error


def _load_diffusers(source: Path | str, dtype: torch.dtype, online: bool, precision: str) -> Any:
    """Load a folder or a hub name in diffusers' layout, without a safety checker: its answer is a black picture."""
    import diffusers
    import torch

    config = diffusers.DiffusionPipeline.load_config(source, local_files_only=not online)
    kind = str(config["_class_name"])
    if kind not in PIPELINES:
        raise ModelError(
            f"{source} is a {kind}, which can't turn a picture into a picture here.",
            "Choose a Stable Diffusion 1, 2, 3 or XL model, one of Flux, Qwen-Image or Z-Image.",
        )
    without: dict[str, Any] = (
        {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in config else {}
    )
    if kind.startswith("StableDiffusion3"):  # often shared without T5, its largest and dispensable encoder
        parts = ("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor")
        without |= {name: None for name in parts if config.get(name, (None, None))[0] is None}
    if "transformer" in config and precision == "automatic" and dtype == torch.float16:
        dtype = torch.bfloat16  # the activations of these models, and of T5, overflow float16
    from .families import flux, flux2, qwen_image

    name, modules = PIPELINES[kind], (diffusers, flux, flux2, qwen_image)
    pipeline = next(getattr(module, name) for module in modules if hasattr(module, name))
    variant = variant_in(source) if isinstance(source, Path) else None
    return pipeline.from_pretrained(
        source, dtype=dtype, local_files_only=not online, use_safetensors=True, variant=variant, **without
    )


def choose_device(wanted: str) -> str:
    """Return the device to run on: the wanted one, or the fastest that this machine has."""
    import torch

    available = [
        name
        for name, has in (
            ("cuda", torch.cuda.is_available()),
            ("xpu", torch.xpu.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if has
    ]
    if wanted == "automatic":
        return available[0]
    if wanted.partition(":")[0] not in available:
        raise ModelError(f"This machine has no device {wanted}.", f"Choose one of: {', '.join(available)}.")
    return wanted


def compiles_on(device: str) -> bool:
    """Return whether models are compiled for a device, such as "cuda:1"; for a processor the wait isn't worth it."""
    return device.partition(":")[0] in COMPILING


def require_card(device: str) -> None:
    """Raise ModelError where models can't be compiled, since the wanted device is no graphics card for that."""
    chosen = choose_device(device)
    if not compiles_on(chosen):
        raise ModelError(f"Models are compiled for graphics cards alone, not for {chosen}.", "Leave --compile out.")


def choose_precision(wanted: str, device: str) -> torch.dtype:
    """Return the weights' precision: half where the device is faster with it and keeps the picture, else float32."""
    import torch

    if wanted != "automatic":
        if wanted not in PRECISIONS:
            raise ModelError(f"There is no precision {wanted}.", f"Choose one of: {', '.join(PRECISIONS)}.")
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.float16


def quiet_libraries(online: bool) -> None:
    """Keep the libraries off the network unless it is allowed, and their chatter out of the log."""
    os.environ["HF_HUB_OFFLINE"] = "0" if online else "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."

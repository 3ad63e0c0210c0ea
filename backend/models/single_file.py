"""Single-file checkpoints: the family told by the keys, everything else from our own configurations, never from a hub.

No code of a checkpoint is ever run: .safetensors holds none, and of a pickle only tensors and plain values are read.
The configurations in configs/ are written by tools/build_configs.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from .pickles import read_pickle
from .recognise import CHOOSE, TITLES, UNET, VAE, Header, damaged, is_pickle, tell_family

Weights = dict[str, torch.Tensor]

CONFIGS = Path(__file__).parent / "configs"
EPSILON, VELOCITY = "epsilon", "v_prediction"
VELOCITY_NATIVE = 768  # pixels: the size of Stable Diffusion 2's v-prediction models; its base has 512

PART_NAMES = {
    "unet": "UNet",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
}
KEPT = (UNET, *VAE, "cond_stage_model.", "conditioner.embedders.")
OLD_CLIP = re.compile(r"^cond_stage_model\.transformer\.(?=embeddings\.|encoder\.|final_layer_norm\.)")


def load_single_file(path: Path, dtype: torch.dtype, configs: Path = CONFIGS) -> Any:
    """Return the image-to-image pipeline of a .safetensors or .ckpt file, its weights in that precision, on the CPU.

    The content decides, not the suffix. configs is a folder with one weight-less diffusers folder for each family and
    clip/merges.txt. Raises ModelError with what the file is where it can't be loaded, OSError where it can't be read.
    """
    if is_pickle(path):
        state = read_pickle(path)
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        header = Header({key: tuple(tensors[key].shape) if key in tensors else () for key in state}, {})
        family = tell_family(header.shapes, path.name)
        weights = {
            key: value.to(dtype=dtype, copy=True)
            for key, value in tensors.items()
            if key.startswith(KEPT) and value.is_floating_point()
        }
        del state, tensors
    else:
        header = read_header(path)
        family = tell_family(header.shapes, path.name)
        weights = _read_safetensors(path, dtype)
    weights = {OLD_CLIP.sub("cond_stage_model.transformer.text_model.", key): weights.pop(key) for key in list(weights)}
    pipe = _assemble(weights, family, dtype, configs, path.name)
    _set_prediction(pipe, family, tell_prediction(header, family), "ztsnr" in header.shapes)
    return pipe


# --- What the file is ---


def tell_prediction(header: Header, family: str) -> str | None:
    """Return what the UNet predicts, EPSILON or VELOCITY, or None where only the UNet itself can tell.

    Velocity is marked by a key "v_pred", or by the modelspec metadata. Without a mark, everything predicts epsilon but
    Stable Diffusion 2, whose base (epsilon) and 768 (velocity) have the same keys and shapes.
    """
    predicts = header.metadata.get("modelspec.prediction_type", "").lower()
    architecture = header.metadata.get("modelspec.architecture", "").lower()
    if "v_pred" in header.shapes or predicts.startswith("v") or architecture.endswith("768-v"):
        return VELOCITY
    if predicts.startswith("eps") or architecture.endswith("v2-512") or family != "sd2":
        return EPSILON
    return None


@torch.inference_mode()
def predicts_noise(unet: torch.nn.Module) -> bool:
    """Return whether a UNet predicts the noise (epsilon) rather than the velocity, by asking it once.

    At the last time step the input is nearly pure noise: x = a·x0 + b·noise with b² = 0.995. Epsilon is then the input
    itself, while the velocity a·noise - b·x0 hardly depends on it. So a UNet whose answer is its input predicts noise.
    On the embedded model, which knows little of noise alone, the correlation is 0.83 for its velocity, and 0.999 for
    the noise that follows from it.
    """
    config: Any = unet.config
    size = (1, config.in_channels, 8, 8)  # small, since half precision is slow on CPUs
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0))
    context = torch.zeros((1, 77, config.cross_attention_dim))
    dtype = next(unet.parameters()).dtype
    answer = unet(noise.to(dtype), 999, encoder_hidden_states=context.to(dtype)).sample.float()
    correlation = torch.corrcoef(torch.stack([noise.flatten(), answer.flatten()]))[0, 1]
    return bool(correlation > 0.9)  # not where it is NaN: of these models, those for 768 overflow in half precision


# --- Reading ---


def read_header(path: Path) -> Header:
    """Return the header of a .safetensors file, reading no weight; raises ModelError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
            return Header(shapes, file.metadata() or {})
    except SafetensorError as error:
        raise damaged(path, str(error)) from error


def _read_safetensors(path: Path, dtype: torch.dtype) -> Weights:
    """Return a whole checkpoint's weights as copies, so that nothing depends on the file later."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            kept = [key for key in file.keys() if key.startswith(KEPT)]  # noqa: SIM118 - no mapping
            tensors = ((key, file.get_tensor(key)) for key in kept)
            return {key: value.to(dtype=dtype, copy=True) for key, value in tensors if value.is_floating_point()}
    except SafetensorError as error:
        raise damaged(path, str(error)) from error


# --- Putting the pipeline together ---


def _assemble(weights: Weights, family: str, dtype: torch.dtype, configs: Path, name: str) -> Any:
    """Return the pipeline of a family's configuration with these weights."""
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline

    folder = configs / family
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts: dict[str, Any] = {}
    for part, entry in index.items():
        if not isinstance(entry, list):
            if not part.startswith("_"):
                parts[part] = entry
        elif entry[1] is None:
            parts[part] = None
        elif part.startswith("tokenizer"):
            parts[part] = build_tokenizer(folder / part, configs)
        else:
            with _misfits(name, family, part):
                parts[part] = _load_part(entry[1], part, weights, dtype, folder)
    is_xl = family.startswith("sdxl")
    if is_xl:
        parts["add_watermarker"] = False
    return (StableDiffusionXLImg2ImgPipeline if is_xl else StableDiffusionImg2ImgPipeline)(**parts)


def _load_part(class_name: str, part: str, weights: Weights, dtype: torch.dtype, folder: Path) -> Any:
    import diffusers
    import transformers
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    if part == "scheduler":
        return getattr(diffusers, class_name).from_pretrained(folder, subfolder=part, local_files_only=True)
    source: dict[str, Any] = {"config": str(folder), "subfolder": part, "local_files_only": True}
    if part.startswith("text_encoder"):
        cls = getattr(transformers, class_name)
        module = create_diffusers_clip_model_from_ldm(cls, weights, torch_dtype=dtype, **source)
    else:
        module = getattr(diffusers, class_name).from_single_file(weights, torch_dtype=dtype, **source)
    if any(value.is_meta for value in module.parameters()):
        raise NotImplementedError("a parameter was left without data")  # what torch says when such a module is moved
    return module


@contextmanager
def _misfits(name: str, family: str, part: str) -> Iterator[None]:
    """Turn weights that don't fit the family's configuration into a sentence."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    title, words = TITLES[family.partition("-")[0]], PART_NAMES.get(part, part)
    try:
        yield
    except NotImplementedError as error:
        raise ModelError(f"{name} is made like {title}, but its {words} lacks some weights.", CHOOSE) from error
    except (ValueError, KeyError, SingleFileComponentError) as error:
        reason = " ".join(str(error).partition(". ")[0].split()).rstrip(".")
        raise ModelError(f"{name} is made like {title}, but its {words} differs ({reason}).", CHOOSE) from error


def build_tokenizer(folder: Path, configs: Path = CONFIGS) -> Any:
    """Return the CLIP tokenizer of a family's tokenizer folder, over the one vocabulary that all families share.

    The vocabulary is what byte-pair encoding makes it: the bytes, the bytes that end a word, each merge in order, and
    the two ends of a text.
    """
    from transformers import CLIPTokenizer

    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    lines = (configs / "clip" / "merges.txt").read_text(encoding="utf-8").splitlines()
    letters = _byte_letters()
    ends = [config["bos_token"], config["eos_token"]]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(line.replace(" ", "") for line in lines), *ends]
    merges = [tuple(line.split(" ")) for line in lines]
    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=config["model_max_length"])
    tokenizer.pad_token = config["pad_token"]  # set here, it pads only; given above, a “!” in a prompt would be padding
    return tokenizer


def _byte_letters() -> list[str]:
    """Return the letters that stand for bytes: the printable ones for themselves, then the others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]


def _set_prediction(pipe: Any, family: str, prediction: str | None, zero_snr: bool) -> None:
    """Tell the pipeline's scheduler what the UNet predicts, asking the UNet where the file didn't say."""
    if prediction is None:
        prediction = EPSILON if predicts_noise(pipe.unet) else VELOCITY
    if prediction == VELOCITY and family == "sd2":
        pipe.unet.register_to_config(sample_size=VELOCITY_NATIVE // pipe.vae_scale_factor)
    changes: dict[str, Any] = {"prediction_type": prediction}
    if zero_snr:  # trained down to pure noise, so sampling starts there
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)
    pipe.scheduler.register_to_config(**changes)  # for schedulers made from this one that know more than it does

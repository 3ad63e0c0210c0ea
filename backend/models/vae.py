"""Another VAE than a model's own: a file of weights in any usual layout, or a diffusers folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, ModelError
from .adapters import read_weights
from .additions import SUFFIX

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CHOOSE = f"Choose a {SUFFIX} file or a diffusers folder of a VAE, or none for the model's own."
UNFIT = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, OSError, json.JSONDecodeError)
TELLING = ("latent_channels", "scaling_factor", "shift_factor")  # of a VAE's settings: what a denoiser was trained with


def load_vae(name: str, own: Any) -> Any:
    """Return the VAE in a file or a folder, for a model with that one, in its precision and on its device.

    A file's settings are taken to be those of the model's own. Raises ModelError where there is none, or it is damaged,
    InvalidRequest where it belongs to another family of models.
    """
    import torch

    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(f"There is no VAE at {name}.", CHOOSE)
    if path.is_file() and path.suffix.lower() != SUFFIX:
        raise ModelError(f"“{path.name}” is no {SUFFIX} file.", CHOOSE)
    try:
        vae = _from_folder(path, own) if path.is_dir() else _from_weights(read_weights(path), own)
    except UNFIT as error:
        log.info("loading %s failed", path, exc_info=True)
        raise InvalidRequest(f"“{path.name}” holds no VAE of this model's family.", CHOOSE) from error
    like: torch.Tensor = next(own.parameters())
    with torch.no_grad():
        return vae.to(like.device, like.dtype).eval()


def _from_folder(path: Path, own: Any) -> Any:
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (folder / "config.json").is_file():
        raise ModelError(f"{path} holds no VAE.", CHOOSE)
    vae = type(own).from_pretrained(folder, local_files_only=True, use_safetensors=True)
    if any(vae.config.get(key) != own.config.get(key) for key in TELLING):
        raise InvalidRequest(f"“{path.name}” holds a VAE of another family of models.", CHOOSE)
    return vae


def _from_weights(weights: dict[str, torch.Tensor], own: Any) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = type(own).from_config(own.config)
    if not any(key.startswith("encoder.down_blocks.") for key in weights):
        weights = convert_ldm_vae_checkpoint(weights, own.config)
    expected = vae.state_dict()
    # Old files have attention as convolutions of 1×1.
    vae.load_state_dict(
        {
            key: tensor.reshape(expected[key].shape) if key in expected and tensor.ndim == 4 else tensor
            for key, tensor in weights.items()
        }
    )
    return vae

"""Predictions of the picture as small pictures: by a linear look at their latents, or by a tiny autoencoder."""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import functional

from ..imaging.framing import preview_size, side_by_side
from ..previews import LONGEST, SHARP, Frame, Viewer
from ..request import Array
from .hub import snapshot
from .load import choose_precision, place_of
from .model import Model
from .vae import UNFIT

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

log = logging.getLogger(__name__)

LEAST_TIME = 0.1  # seconds from one preview to the next: the window looks no more often
SHARE = 0.1  # of a picture's time that a tiny autoencoder may take
PROBE = 8  # latents a side of what is decoded to learn what it takes
LEVELS = (16, 90, 165, 239)  # of red, green and blue in the chart of colours
CHART = 8  # fields a side of it: all combinations of four levels
FIELD = 2  # latents a side of a field
STIFFNESS = 1e-3  # what is added to the latents' variance, as a share of it: ten times more or less fits worse
SHUFFLE = 2  # seed of the fields' order: whatever the order, VAEs differ by more than charts do
# A VAE's latent channels and scaling factor → what the tiny autoencoder for such latents is called.
TINY = {(4, 0.18215): "taesd", (4, 0.13025): "taesdxl", (16, 1.5305): "taesd3", (16, 0.3611): "taef1"}
TINY_OWNER = "madebyollin"  # on the hub
OWN = "tiny_vae"  # a model's own one lies in its folder under that name, as the embedded model's does


class Previewer:
    """Shows the predictions of one sampling as they come, and takes next to none of its time."""

    def __init__(self, model: Model, viewer: Viewer, frame: Frame | None = None) -> None:
        """Get ready for a viewer who wants to see something; without a frame a batch is seen as a grid."""
        wanted = viewer.wanted
        self._viewer = viewer
        self._frame = frame or side_by_side
        self._colours = colours_of(model)
        self._tiny = tiny_of(model, wanted.autoencoder) if wanted.method == SHARP else None
        self._cost = 0.0  # seconds of the tiny autoencoder a latent
        self._spent = 0.0  # and in all
        self._began = time.monotonic()
        self._last = float("-inf")
        self._steps = 0
        if self._tiny is not None:
            channels = self._tiny.config["latent_channels"]
            self._timed(torch.zeros(1, channels, PROBE, PROBE, device=model.device))  # the first call takes longer
            self._timed(torch.zeros(1, channels, PROBE, PROBE, device=model.device))
            self._spent = 0.0

    def is_due(self) -> bool:
        """Count a step, and return whether its prediction is to be shown."""
        self._steps += 1
        return self._steps % self._viewer.wanted.every == 0 and time.monotonic() - self._last >= LEAST_TIME

    @torch.inference_mode()
    def show(self, prediction: torch.Tensor) -> None:
        """Show a prediction of the picture (B×C×h×w latents, as the denoiser takes them)."""
        latents = prediction.float()
        pictures = self._sharp(latents)
        if pictures is None and self._spent > 0:
            return  # what is on show is sharper
        weights, offset = (part.to(latents.device) for part in self._colours)
        seen = torch.einsum("bchw,kc->bkhw", latents, weights) + offset if pictures is None else pictures
        self._viewer.show(preview_size(self._frame(_as_pictures(seen))))
        self._last = time.monotonic()

    def _sharp(self, latents: torch.Tensor) -> torch.Tensor | None:
        """Return what a tiny autoencoder makes of latents (B×3×H×W, 0–255), None where there is no time for it."""
        if self._tiny is None:
            return None
        latents = _reduced(latents, 2 ** (len(self._tiny.config["decoder_block_out_channels"]) - 1))
        expected = self._cost * latents[:, 0].numel()
        if self._spent + expected > SHARE * (time.monotonic() - self._began):
            return None
        return self._timed(latents)

    @torch.inference_mode()
    def _timed(self, latents: torch.Tensor) -> torch.Tensor | None:
        """Decode latents and learn what that takes; a device that can't do it costs the previews, not the picture."""
        if self._tiny is None:
            return None
        float(latents.flatten()[0])  # waits for a graphics card to have computed them
        began = time.monotonic()
        try:
            pictures = _decoded(self._tiny, latents).cpu()
        except RuntimeError:
            log.warning("the tiny autoencoder failed", exc_info=True)
            self._tiny, self._spent = None, 0.0
            return None
        taken = time.monotonic() - began
        self._cost = taken / latents[:, 0].numel()
        self._spent += taken
        return pictures


_colours: WeakKeyDictionary[Any, tuple[torch.Tensor, torch.Tensor]] = WeakKeyDictionary()


def colours_of(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what turns latents into colours (0–255 sRGB) the best: 3×C weights, and 3×1×1 to be added.

    By least squares over a chart of colours that the model's own VAE has encoded, once for each VAE. No constants of
    known VAEs are needed then: on one with an even latent space the mean error is 1.6 of 255, where a fit to the
    pictures themselves would leave 1.3; on the embedded model's first one 19, and 17.
    """
    vae = model.pipe.vae
    if vae not in _colours:
        levels = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), -1).reshape(CHART, CHART, 3)
        order = np.random.default_rng(SHUFFLE).permutation(CHART**2)
        chart = levels.reshape(-1, 3)[order].reshape(CHART, CHART, 3).astype(np.uint8)
        side = FIELD * model.scale_factor
        latents = model.encode_anew(chart.repeat(side, 0).repeat(side, 1))[0].double().cpu().nan_to_num().flatten(1)
        wanted = torch.from_numpy(chart.repeat(FIELD, 0).repeat(FIELD, 1)).double().reshape(-1, 3).T
        means = latents.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
        given, asked = latents - means[0], wanted - means[1]
        spread = given @ given.T
        # Flat colours leave some directions of the latents all but empty, where a predicted picture has noise.
        spread += STIFFNESS * spread.trace() / len(spread) * torch.eye(len(spread))
        weights = asked @ given.T @ torch.linalg.pinv(spread)
        _colours[vae] = weights.float(), (means[1] - weights @ means[0]).float().reshape(3, 1, 1)
    return _colours[vae]


def tiny_of(model: Model, chosen: str = "") -> AutoencoderTiny | None:
    """Return the tiny autoencoder for a model's latents, ready on its device; None where there is none of any use.

    chosen: a folder of one, or of several under their own names. The model's own folder may hold one as well.
    """
    channels = int(model.pipe.vae.config.get("latent_channels") or model.pipe.vae.config.get("z_dim") or 0)
    name = TINY.get((channels, float(model.pipe.vae.config.get("scaling_factor") or 1.0)), "")
    for folder in _places(name, chosen.strip(), model.name):
        if (folder / "config.json").is_file():
            try:
                tiny = load_tiny(str(folder), model.device)
            except UNFIT:
                log.warning("%s holds no tiny autoencoder", folder, exc_info=True)
                continue
            if tiny.config["latent_channels"] == channels:
                return tiny
            log.warning("%s is for another model's latents", folder)
    return None


def _places(name: str, chosen: str, model: str) -> list[Path]:
    """Return the folders in which a tiny autoencoder of that name is looked for, the likeliest first."""
    places = []
    beside = place_of(model)
    if chosen:
        folder = Path(chosen).expanduser()
        others = set(TINY.values()) - {name}
        places += [] if folder.name in others else [folder]
        places += [folder / name] if name else []
    places.append(beside / OWN)
    if name:
        places += [beside / name, beside.parent / name]
        fetched = snapshot(f"{TINY_OWNER}/{name}")
        places += [fetched] if fetched is not None else []
    return places


@functools.lru_cache(maxsize=1)
def load_tiny(folder: str, device: str) -> AutoencoderTiny:
    """Return the tiny autoencoder of a folder; raises one of UNFIT where it holds none."""
    from diffusers import AutoencoderTiny

    dtype = choose_precision("automatic", device)
    tiny = AutoencoderTiny.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return tiny.to(device, dtype).eval()


def _decoded(tiny: AutoencoderTiny, latents: torch.Tensor) -> torch.Tensor:
    scaled = latents / tiny.config["scaling_factor"] + tiny.config["shift_factor"]
    pixels: torch.Tensor = tiny.decode(scaled.to(tiny.dtype), return_dict=False)[0]
    return (pixels.float() + 1) * 127.5


def _reduced(latents: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return latents averaged to as many as a tiny autoencoder makes a preview of, at so many pixels a side each."""
    factor = LONGEST // pixels / max(latents.shape[2:])
    if factor >= 1:
        return latents
    height, width = (max(1, round(side * factor)) for side in latents.shape[2:])
    return functional.interpolate(latents, size=(height, width), mode="area")


def _as_pictures(values: torch.Tensor) -> list[Array]:
    """Return B×3×h×w of 0–255 as uint8 h×w×3 each."""
    whole = values.nan_to_num().clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return list(np.asarray(whole))

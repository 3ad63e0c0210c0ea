"""A second model that takes over the denoising for its last steps, as Stable Diffusion XL's refiner was made to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InvalidRequest
from ..imaging.regions import Region
from ..models.adapters import read_tags
from ..models.families.unet import UNet
from ..models.model import Model, Predict
from ..settings import Diffusion
from .guidance import guided, in_tiles
from .plan import StepPlan


class Refining:
    """The part of a denoising that a refiner answers for."""

    def __init__(self, model: Model, settings: Diffusion, plan: StepPlan, windows: Sequence[Region] | None) -> None:
        """Read the prompts, without the LoRAs, which are the first model's; raises InvalidRequest for an unfit one."""
        assert model.refiner is not None
        require_fit(model, model.refiner)
        self._refiner = model.refiner
        self._windows = windows
        self._cfg_scale = settings.cfg_scale
        self._prompts = self._refiner.encode_prompts(
            read_tags(settings.full_prompt)[0], settings.negative_prompt, settings.steps, settings.clip_skip
        )
        self._first = settings.refiner_switch_at * plan.schedule - (plan.schedule - plan.executed)

    def has_begun(self, step: int) -> bool:
        """Whether the refiner answers at a step, counted from the first that runs."""
        return step >= self._first

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        """Return the refiner's guided prediction for a sample (B×C×h×w)."""

        def guide(predict: Predict, sample: torch.Tensor) -> torch.Tensor:
            predict = in_tiles(predict, self._windows) if self._windows else predict
            return guided(predict, sample, self._prompts, step, self._cfg_scale)

        refiner = self._refiner
        assert isinstance(refiner.family, UNet)
        height, width = (side * refiner.scale_factor for side in sample.shape[2:])
        asked = refiner.family.arguments_alone(width, height, sample)
        with refiner.guided_by(guide):
            found: torch.Tensor = refiner.family.network(sample, timestep, **asked)[0]
        return found


def require_fit(model: Model, refiner: Model) -> None:
    """Raise InvalidRequest where a refiner can't go on with what a model has begun."""
    both = (model, refiner)
    inpainting = next((one.name for one in both if one.is_inpainting), None)
    if inpainting is not None:
        raise InvalidRequest(
            f"{refiner.name} can't refine what {model.name} has begun: {inpainting} is an inpainting model.",
            "Choose one that is none, which inpaints too, or no refiner.",
        )
    unets = all(isinstance(one.family, UNet) for one in both)
    kinds = {
        (config.latent_channels, config.scaling_factor, one.noise_schedule.get("prediction_type"))
        for one in both
        for config in (one.pipe.vae.config,)
    }
    if not unets or len(kinds) > 1:
        raise InvalidRequest(
            f"{refiner.name} can't refine what {model.name} has begun: their latents differ.",
            "Choose a refiner of the model's own kind, such as that of Stable Diffusion XL, or none.",
        )

"""Samplers and schedules by the web UI's names, and the diffusers schedulers behind them; a new one is one line."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..imaging import infotext

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

AUTOMATIC = "Automatic"


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler class, its options, and the schedule that "Automatic" means for it."""

    scheduler: str
    options: dict[str, object] = field(default_factory=dict)
    automatic: str = "Normal"
    longest: int = 1000  # steps of a schedule


# The web UI's name → the scheduler that does the same. "Automatic" follows the web UI: Karras for the DPM family.
SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, "Karras"),
    "DPM++ SDE": Sampler("DPMSolverSDEScheduler", {}, "Karras"),
    "DPM++ 2M SDE": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "Exponential"),
    "DPM++ 2S": Sampler("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}, "Karras"),
    "DPM++ 3M": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}, "Karras"),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler"),
    "Euler": Sampler("EulerDiscreteScheduler"),
    "LMS": Sampler("LMSDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler"),
    "DPM2": Sampler("KDPM2DiscreteScheduler", {}, "Karras"),
    "DPM2 a": Sampler("KDPM2AncestralDiscreteScheduler", {}, "Karras"),
    "DDIM": Sampler("DDIMScheduler"),
    "DDPM": Sampler("DDPMScheduler"),
    "PLMS": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": Sampler("UniPCMultistepScheduler"),
    "DEIS": Sampler("DEISMultistepScheduler"),
    "LCM": Sampler("LCMScheduler", longest=50),
    "TCD": Sampler("TCDScheduler", longest=50),
}

# Schedule → (what the scheduler is told, the spacing of its timesteps).
SCHEDULES: dict[str, dict[str, object]] = {
    AUTOMATIC: {},
    "Normal": {"timestep_spacing": "linspace"},
    "Uniform": {"timestep_spacing": "leading"},
    "SGM Uniform": {"timestep_spacing": "trailing"},
    "Karras": {"use_karras_sigmas": True, "timestep_spacing": "linspace"},
    "Exponential": {"use_exponential_sigmas": True, "timestep_spacing": "linspace"},
    "Beta": {"use_beta_sigmas": True, "timestep_spacing": "linspace"},
}

# Options that not every scheduler has: asking one of them of a scheduler without it is an error, not a silent skip.
SIGMA_OPTIONS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def split_sampler(name: str, schedule: str = AUTOMATIC) -> tuple[str, str]:
    """Return sampler and schedule for a name as the web UI wrote it, splitting old ones such as "DPM++ 2M Karras".

    Raises InvalidRequest for an unknown sampler or schedule, listing the known ones.
    """
    if name not in SAMPLERS:
        head, old = infotext.split_sampler(name)
        if old is not None and schedule in (AUTOMATIC, old):
            name, schedule = head, old
    if name not in SAMPLERS:
        raise InvalidRequest(f"There is no sampler called “{name}”.", f"Choose one of: {', '.join(SAMPLERS)}.")
    if schedule not in SCHEDULES:
        raise InvalidRequest(f"There is no schedule called “{schedule}”.", f"Choose one of: {', '.join(SCHEDULES)}.")
    return name, schedule


def build_scheduler(sampler: str, schedule: str, config: dict[str, Any]) -> SchedulerMixin:
    """Return a fresh scheduler of that sampler and schedule over the noise levels of the model's own config.

    Raises InvalidRequest where the sampler can't follow the schedule.
    """
    import diffusers

    sampler, schedule = split_sampler(sampler, schedule)
    entry = SAMPLERS[sampler]
    cls = getattr(diffusers, entry.scheduler)
    known = inspect.signature(cls.__init__).parameters
    wanted = SCHEDULES[entry.automatic if schedule == AUTOMATIC else schedule]
    unknown = [name for name in wanted if name in SIGMA_OPTIONS and name not in known]
    if unknown and schedule != AUTOMATIC:
        able = [name for name in SAMPLERS if unknown[0] in _parameters(SAMPLERS[name])]
        raise InvalidRequest(f"{sampler} can't follow the {schedule} schedule.", f"These can: {', '.join(able)}.")
    if schedule == AUTOMATIC and config.get("rescale_betas_zero_snr"):
        wanted = {}  # such a model was trained to start from pure noise, which only its own spacing reaches
    options = {**dict.fromkeys(SIGMA_OPTIONS, False), **entry.options, **wanted}
    scheduler: SchedulerMixin = cls.from_config(config, **{k: v for k, v in options.items() if k in known})
    return scheduler


def _parameters(entry: Sampler) -> set[str]:
    import diffusers

    return set(inspect.signature(getattr(diffusers, entry.scheduler).__init__).parameters)

"""Samplers by the web UI's names, and the diffusers schedulers behind them; a new one is one line.

A schedule (schedules.py) gives the noise levels; a scheduler follows them, whichever spacing it has of its own.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..imaging import infotext
from . import schedules

if TYPE_CHECKING:
    import torch
    from diffusers import SchedulerMixin

AUTOMATIC = schedules.AUTOMATIC
SCHEDULES = schedules.SCHEDULES
OWN = ""  # the spacing that a scheduler has of itself
LEAST_SIGMA = 1e-5  # what ends a schedule for a solver that can't divide by none
GREATEST_FLOW_SIGMA = 1 - 1e-6  # all but noise, for a solver that can't divide by no picture
MULTISTEP = "DPMSolverMultistepScheduler"


@dataclass(frozen=True)
class Sampler:
    """A scheduler class of diffusers or of solvers.py, its options, and what it can follow."""

    scheduler: str
    options: dict[str, object] = field(default_factory=dict)
    automatic: str = "Normal"  # the schedule that "Automatic" means
    calls: int = 1  # of the model, a step; the last step is always one
    longest: int = 1000  # steps of a schedule
    whole: bool = False  # takes whole timesteps, not noise levels
    least: int = 0  # the lowest timestep it can work from
    drop_penultimate: bool = False
    follows: tuple[str, ...] = SCHEDULES
    end: float = 0.0  # the noise level after the last step
    flow: bool = False  # can solve flow-matching models
    takes: tuple[str, ...] = ()  # which of a Stochastic's fields it heeds, for models that don't match a flow


@dataclass(frozen=True)
class Stochastic:
    """How a sampler adds noise of its own, by the web UI's names; executed: the steps that run, 0 for all.

    eta: how much of each step is fresh noise, below 0 what the sampler has by itself. s_churn: how much fresh noise
    raises the levels from s_tmin to s_tmax (0 for no limit). s_noise: by what all of that noise is multiplied.
    """

    eta: float = -1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    executed: int = 0


ANCESTRAL = ("eta", "s_noise")
PLAIN = Stochastic()
CHURNED = ("s_churn", "s_tmin", "s_tmax", "s_noise", "executed")


def _multistep(algorithm: str, automatic: str, order: int = 2, solver: str = "midpoint", **more: Any) -> Sampler:
    options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver}
    return Sampler(more.pop("scheduler", MULTISTEP), options, automatic, flow=True, **more)


# The web UI's name → the scheduler that does the same. What "Automatic" means for each follows the web UI as well.
SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": _multistep("dpmsolver++", "Karras"),
    "DPM++ SDE": Sampler("SeededSDE", {}, "Karras", calls=2, takes=("s_noise",)),
    "DPM++ 2M SDE": _multistep("sde-dpmsolver++", "Exponential"),
    "DPM++ 2M SDE Heun": _multistep("sde-dpmsolver++", "Exponential", solver="heun"),
    "DPM++ 2S a": Sampler("DPM2SAncestral", {}, "Karras", calls=2, takes=ANCESTRAL),
    "DPM++ 2S": Sampler(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "lower_order_final": True},
        "Karras",
    ),
    "DPM++ 3M SDE": _multistep(
        "sde-dpmsolver++", "Exponential", 3, scheduler="DPM3MSDE", longest=999, drop_penultimate=True
    ),
    "DPM++ 3M": _multistep("dpmsolver++", "Karras", 3),
    "Euler a": Sampler("EulerAncestral", takes=ANCESTRAL),
    "Euler": Sampler("ChurnedEuler", takes=CHURNED),
    "LMS": Sampler("ScheduledLMS"),
    "Heun": Sampler("HeunDiscreteScheduler", calls=2),
    "DPM2": Sampler("ScheduledDPM2", {}, "Karras", calls=2, longest=999, drop_penultimate=True),
    "DPM2 a": Sampler("DPM2Ancestral", {}, "Karras", calls=2, longest=999, drop_penultimate=True, takes=ANCESTRAL),
    "DDIM": Sampler("ScheduledDDIM", {"set_alpha_to_one": True}, "DDIM", whole=True, takes=("eta",)),
    "DDPM": Sampler("DDPMScheduler", whole=True),
    "PLMS": Sampler(
        "ScheduledPLMS",
        {"skip_prk_steps": True, "set_alpha_to_one": True},
        "DDIM",
        whole=True,
        follows=(AUTOMATIC, *schedules.EVENLY_SPACED),
    ),
    "UniPC": Sampler("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}, "DDIM", flow=True),
    "DEIS": Sampler(
        "ScheduledDEIS", {"algorithm_type": "deis", "solver_order": 2, "solver_type": "logrho"}, end=LEAST_SIGMA
    ),
    "LCM": Sampler("LCMScheduler", {}, OWN, longest=50, whole=True, least=1),
    "TCD": Sampler("TCDScheduler", {}, OWN, longest=50, whole=True, least=1),
}

SAMPLER_NAMES = (schedules.AUTOMATIC, *SAMPLERS)
AUTOMATIC_SAMPLER = "Euler a"  # what "Automatic" means; for flow-matching models, which it can't solve, FLOW_AUTOMATIC

# The web UI's samplers that nothing here does.
ABSENT = ("DPM fast", "DPM adaptive", "Restart", "DDIM CFG++")

# What flow-matching models call the schedules that their own scheduler knows.
FLOW_SCHEDULES: dict[str, str] = {
    AUTOMATIC: "",
    "Normal": "",
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}
FLOW_AUTOMATIC = "Euler"
FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
FLOW_SOLVER: dict[str, object] = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "use_dynamic_shifting": False,
}
FLOW_SAMPLERS = (FLOW_AUTOMATIC, *(name for name, entry in SAMPLERS.items() if entry.flow))

# Options by which a model's own configuration would change what a sampler is; clipping is for pixels, not for latents.
NEUTRAL: dict[str, object] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "final_sigmas_type": "zero",
    "clip_sample": False,
    "thresholding": False,
}


def split_sampler(name: str, schedule: str = AUTOMATIC) -> tuple[str, str]:
    """Return sampler and schedule for a name as the web UI wrote it, splitting old ones such as "DPM++ 2M Karras".

    Letters may be of either case. Raises InvalidRequest for an unknown sampler or schedule, listing the known ones.
    """
    if _spelt(name, SAMPLER_NAMES) is None:
        head, old = infotext.split_sampler(name)
        if old is not None and _spelt(schedule, SCHEDULES) in (AUTOMATIC, old):
            name, schedule = head, old
    known = _spelt(name, SAMPLER_NAMES)
    if known is None and (absent := _spelt(name, ABSENT)):
        raise InvalidRequest(
            f"The web UI's sampler “{absent}” is not among those built in here.", _choice(name, SAMPLERS)
        )
    if known is None:
        raise InvalidRequest(f"There is no sampler called “{name}”.", _choice(name, SAMPLERS))
    known_schedule = _spelt(schedule, SCHEDULES)
    if known_schedule is None:
        raise InvalidRequest(f"There is no schedule called “{schedule}”.", _choice(schedule, SCHEDULES))
    return known, known_schedule


def _spelt(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that differs in case alone."""
    return next((each for each in known if each.casefold() == name.strip().casefold()), None)


def _choice(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    guess = f"Did you mean “{near[0]}”? " if near else ""
    return f"{guess}Choose one of: {', '.join(known)}."


def settled_sampler(sampler: str, flow: bool) -> str:
    """Return the sampler that "Automatic" stands for with a model that does or doesn't solve a flow, or the one set."""
    if sampler != AUTOMATIC:
        return sampler
    return FLOW_AUTOMATIC if flow else AUTOMATIC_SAMPLER


def check_sampler(sampler: str, schedule: str) -> None:
    """Raise InvalidRequest where the sampler can't follow the schedule, listing what it can."""
    sampler, schedule = split_sampler(sampler, schedule)
    follows = SAMPLERS[settled_sampler(sampler, False)].follows
    if schedule not in follows:
        raise InvalidRequest(
            f"{sampler} can't follow the {schedule} schedule.", f"It can follow: {', '.join(follows)}."
        )


def build_scheduler(
    sampler: str,
    schedule: str,
    config: dict[str, Any],
    seeds: Sequence[int] = (),
    native: int = 0,
    stochastic: Stochastic = PLAIN,
) -> SchedulerMixin:
    """Return a fresh scheduler of that sampler and schedule over the noise levels of the model's own config.

    seeds: one a picture of the batch, for samplers that draw noise of their own, which then is the same in any batch;
    without, theirs comes from torch's global generator. native: side in pixels of the model's pictures.
    stochastic: how it adds noise, as far as that sampler heeds it. Its
    set_timesteps(steps, device) takes no other spacing than the schedule's. Raises InvalidRequest where the sampler
    can't follow the schedule, or can't solve such a model.
    """
    sampler, schedule = split_sampler(sampler, schedule)
    sampler = settled_sampler(sampler, is_flow(config))
    if is_flow(config):
        return _flow_scheduler(sampler, schedule, config)
    check_sampler(sampler, schedule)
    entry = SAMPLERS[sampler]
    options: dict[str, object] = {**NEUTRAL, **entry.options, "noise_sampler_seed": list(seeds) or None}
    name = entry.automatic if schedule == AUTOMATIC else schedule
    if schedule == AUTOMATIC and config.get("rescale_betas_zero_snr"):
        name = OWN  # such a model was trained to start from pure noise, which only its own spacing reaches
    if name != OWN:
        options["timestep_spacing"] = "linspace"  # whose start is the greatest level, as the schedules' is
    scheduler = _make(entry.scheduler, config, options)
    for knob in entry.takes:
        if knob != "eta" or stochastic.eta >= 0:
            setattr(scheduler, knob, getattr(stochastic, knob))
    if entry.calls == 2:
        scheduler.is_scale_input_called = False  # what tells x0 + σ·noise on the other schedulers of that kind
    if name != OWN:
        follow(scheduler, entry, name, native)
    return scheduler


def is_flow(config: dict[str, Any]) -> bool:
    """Whether a model's own scheduler configuration is one of flow matching, as of Flux and Stable Diffusion 3."""
    return (
        str(config.get("_class_name", "")).startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def follow(scheduler: Any, entry: Sampler, schedule: str, native: int = 0) -> None:
    """Make set_timesteps of a scheduler set the schedule's noise levels, and the timesteps that the model knows."""
    import torch

    table = schedules.sigma_table(scheduler.alphas_cumprod.numpy())
    own = scheduler.set_timesteps

    def levels(steps: int) -> schedules.Levels:
        return schedules.sigmas_of(schedule, table, steps, native, entry.drop_penultimate)[:-1]

    def set_whole(num_inference_steps: int, device: Any = None) -> None:
        own(num_inference_steps, device=device)
        whole = schedules.whole_timesteps(levels(num_inference_steps), table, entry.least)
        scheduler.timesteps = torch.from_numpy(whole).to(device)
        scheduler.custom_timesteps = True  # of DDPM, TCD and LCM: a step goes to the timestep that follows

    def set_levels(num_inference_steps: int, device: Any = None) -> None:
        own(num_inference_steps, device=device)
        sigmas = levels(num_inference_steps)
        sigmas = scheduler.raised(sigmas) if hasattr(scheduler, "raised") else sigmas
        timesteps = schedules.timesteps_at(sigmas, table)
        scheduler.sigmas = torch.tensor([*sigmas, entry.end], dtype=torch.float32)
        scheduler.timesteps = torch.from_numpy(timesteps).to(device, torch.float32)

    def set_interleaved(num_inference_steps: int, device: Any = None) -> None:
        own(num_inference_steps, device="cpu")  # in float64, which not every device has
        scheduler.timesteps = scheduler.timesteps.to(device, torch.float32)

    if entry.whole:
        scheduler.set_timesteps = set_whole
    elif entry.calls == 1:
        scheduler.set_timesteps = set_levels
    else:  # such a scheduler lays out both levels of each step itself, around those that it finds here
        scheduler.register_to_config(use_exponential_sigmas=True)
        scheduler._convert_to_exponential = lambda in_sigmas, num_inference_steps: levels(num_inference_steps)
        scheduler.set_timesteps = set_interleaved


def _make(name: str, config: dict[str, Any], options: dict[str, object]) -> Any:
    import diffusers

    from . import solvers

    cls = getattr(solvers, name, None) or getattr(diffusers, name)
    known = inspect.signature(cls.__init__).parameters
    return cls.from_config(config, **{key: value for key, value in options.items() if key in known})


def _flow_scheduler(sampler: str, schedule: str, config: dict[str, Any]) -> SchedulerMixin:
    """Return a scheduler for a flow-matching model, whose shift and spacing always are the model's own."""
    if sampler not in FLOW_SAMPLERS:
        raise InvalidRequest(
            f"{sampler} can't solve a flow-matching model.", f"These samplers can: {', '.join(FLOW_SAMPLERS)}."
        )
    if schedule not in FLOW_SCHEDULES:
        raise InvalidRequest(
            f"A flow-matching model can't follow the {schedule} schedule.",
            f"It can follow: {', '.join(FLOW_SCHEDULES)}.",
        )
    option = FLOW_SCHEDULES[schedule]
    options: dict[str, object] = {key: value for key, value in NEUTRAL.items() if key.startswith("use_")}
    options |= {"use_flow_sigmas": True, **({option: True} if option else {})}
    own = str(config.get("_class_name", ""))
    name = own if own.startswith("FlowMatch") and own != "FlowMatchHeunDiscreteScheduler" else FLOW_EULER
    shift = {"shift": config["flow_shift"]} if "flow_shift" in config else {}
    euler = _make(name, config, {**options, **shift})
    if sampler == "Euler":
        return euler  # type: ignore[no-any-return]
    entry = SAMPLERS[sampler]
    solver = _make(entry.scheduler, config, {**NEUTRAL, **entry.options, **FLOW_SOLVER})
    follow_flow(solver, euler)
    return solver  # type: ignore[no-any-return]


def follow_flow(scheduler: Any, model: Any) -> None:
    """Make a solver follow the noise levels that the flow-matching model's own scheduler sets from the same call."""
    own = scheduler.set_timesteps

    def set_timesteps(
        num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None, mu: float | None = None
    ) -> None:
        model.set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        own(len(model.timesteps), device=device)
        scheduler.timesteps = model.timesteps
        scheduler.sigmas = model.sigmas.to("cpu").clamp(max=GREATEST_FLOW_SIGMA)

    def scale_noise(sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        noisy: torch.Tensor = scheduler.add_noise(sample, noise, timestep)
        return noisy

    scheduler.set_timesteps = set_timesteps
    scheduler.scale_noise = scale_noise

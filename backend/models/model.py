"""A loaded diffusion model: pictures to latents and back, prompts to embeddings, a watch in every forward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from ..errors import InvalidRequest, ModelError, OutOfMemory
from ..imaging.regions import Region
from ..request import Array
from .adapters import Loras, Version, find_embeddings, read_tags
from .attention import hasten
from .autoencoder import Autoencoder, nothing
from .compiled import Compiled
from .conditioning import KEPT_BYTES, Cache, Conditioning, Prompts, encode_prompts
from .families import Family, Shown
from .fast import NOTHING, Fast, Shortcut, fast
from .ip_adapter import IpAdapter
from .kept import Kept, sign
from .needs import Job, anatomy_of_modules, native_side
from .placement import Placement, blocks_of, work_on
from .savings import Savings, ran_out
from .tiled_vae import Tell
from .vae import load_vae
from .watch import watch_forward

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
LATENTS_BYTES = 32 * 2**20  # of pictures' latents kept: 500 of 512², 30 of 2048²


class Predict(Protocol):
    """One look of the denoiser at a sample (B×C×h×w), once for each conditioning: as many predictions, float32.

    window: the place of the sample in the whole one, in latents, where it is a part of it.
    """

    def __call__(
        self, sample: torch.Tensor, conditionings: list[Conditioning], window: Region | None = None
    ) -> list[torch.Tensor]: ...


Guide = Callable[[Predict, torch.Tensor], torch.Tensor]


class Model:
    """One diffusers image-to-image pipeline of a family, with its device and precision.

    Latents are float32 tensors B×C×h×w, scaled as the denoiser takes them, whatever the precision of the weights: the
    sampling itself always runs in float32, and noise is drawn on the CPU, so that a seed means the same everywhere.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        family: Family,
        name: str,
        device: str,
        dtype: torch.dtype,
        lora_folders: Sequence[str] = (),
        embedding_folders: Sequence[str] = (),
        memory: str = "automatic",
    ) -> None:
        self.pipe = pipe
        self.family = family
        self.name = name
        self.device = device
        self.dtype = dtype
        self.noise_schedule: dict[str, Any] = dict(pipe.scheduler.config)  # the model's own; each run builds on it anew
        self.watch: Callable[[], None] = lambda: None
        self.extra_channels: torch.Tensor | None = None  # what the denoiser sees beside the sample, 1×K×h×w
        self.picture: Array | None = None  # what prompts are read beside, uint8 H×W×3
        self.refiner: Model | None = None  # what takes over for the last steps of a run
        self._prompts: Cache = Kept(KEPT_BYTES)
        self._latents: Kept[tuple[object, ...], torch.Tensor] = Kept(LATENTS_BYTES)
        self._loras = Loras(pipe, lora_folders)
        self._ip_adapter = IpAdapter(pipe)
        self._embedding_folders = embedding_folders
        self._read_with: tuple[object, list[Version]] = ((), [])  # LoRAs and embeddings, as for the kept prompts
        self._own_vae = pipe.vae
        self._vae = ""
        self._guide: Guide | None = None
        self._fast: Fast | None = None
        self._compiled: Compiled | None = None
        _lay_out(family.network, device)
        _lay_out(pipe.vae, device)
        if device == "cpu":
            hasten(family.network)
        family.network.forward = self._forward  # type: ignore[method-assign]
        found = (getattr(pipe, name, None) for name in TEXT_ENCODERS)
        encoders = [encoder for encoder in found if encoder is not None]
        for part in (family.network, pipe.vae, *encoders):
            watch_forward(part, lambda: self.watch())
        work_on(pipe, device)
        parts = {"text": encoders, "denoiser": [family.network], "vae": [pipe.vae]}
        placement = Placement(parts, blocks_of([*encoders, family.network]), device)
        shape: Any = family.network.config
        self.native = native_side(type(pipe).__name__, shape, pipe.vae.config)  # pixels
        anatomy = anatomy_of_modules(encoders, family.network, pipe.vae, self.native, family.is_editing)
        self.savings = Savings(placement, anatomy, memory)
        self.savings.forget = self._latents.clear
        self._autoencoder = Autoencoder(pipe, name, device, self.savings)

    def compile(self, compiler: str | Callable[..., Any] = "") -> None:
        """Have the denoiser's blocks compiled as they are first used, once and for all; see Compiled."""
        self._compiled = Compiled(self.family.network, lambda sentence: self.savings.tell(sentence), compiler)

    def prepare(self, width: int, height: int, batch: int = 1, window: int = 0) -> None:
        """Plan the memory for a picture of that size in pixels, and go without what the plan says.

        batch: how many at once; window: pixels that the denoiser looks at, where those aren't all. Its refiner's memory
        is planned too. Raises OutOfMemory where no plan serves.
        """
        if self.refiner is not None:
            self.refiner.prepare(width, height, batch, window)
        on_card = self.device != "cpu"
        self.savings.prepare(Job(width, height, batch, self.dtype.itemsize, on_card, self.takes_negative, window))

    @property
    def scale_factor(self) -> int:
        """How many pixels of a picture's side make one latent."""
        factor: int = self.pipe.vae_scale_factor
        return factor

    @property
    def is_inpainting(self) -> bool:
        """Whether the denoiser also takes a mask and the masked picture."""
        return self.family.is_inpainting

    @property
    def takes_negative(self) -> bool:
        """Whether a negative prompt has a say; models that are told their CFG scale as a number know none."""
        return self.family.takes_negative

    def _forward(
        self,
        sample: torch.Tensor | list[torch.Tensor] | None = None,
        timestep: Any = None,
        *args: Any,
        hidden_states: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Stand in for the denoiser's own forward: cast to its precision and back, let the guide ask what it wants.

        What a pipeline asks for itself (its own prompt) is only answered where nothing guides it. A transformer's
        pipeline says hidden_states for the sample. One that hands over a list of pictures (C×1×h×w) gets back such a
        list.
        """
        self.watch()
        if isinstance(sample, list):
            found = self._forward(torch.stack(sample).squeeze(2), timestep, *args, **kwargs)[0]
            return (list(found.unsqueeze(2)),)
        sample = hidden_states if sample is None else sample
        assert sample is not None

        def predict(
            sample: torch.Tensor, conditionings: list[Conditioning], window: Region | None = None, place: int = 0
        ) -> list[torch.Tensor]:
            results: dict[int, torch.Tensor] = {}
            for group in _same_length(conditionings, 1 if self.savings.one_at_a_time else len(conditionings)):
                copies = len(group)
                batch = self._with_extra_channels(sample, window).repeat(copies, 1, 1, 1)
                asked = {**kwargs, **self.family.asked([conditionings[i] for i in group], len(sample), kwargs)}
                found = self._denoise(batch, timestep, *args, key=(window, place, *group), **asked)[0]
                results |= dict(zip(group, found.chunk(copies), strict=True))
            return [results[i] for i in range(len(conditionings))]

        def predict_in_turn(
            sample: torch.Tensor, conditionings: list[Conditioning], window: Region | None = None
        ) -> list[torch.Tensor]:
            if not self.savings.one_at_a_time:
                return predict(sample, conditionings, window)
            samples = enumerate(sample.chunk(len(sample)))
            alone = [predict(one, conditionings, window, place) for place, one in samples]
            return [torch.cat(found) for found in zip(*alone, strict=True)]

        if self._guide is not None:
            return (self._guide(predict_in_turn, sample),)
        return self._denoise(self._with_extra_channels(sample), timestep, *args, **kwargs)

    def _denoise(
        self, sample: torch.Tensor, timestep: Any, *args: Any, key: tuple[object, ...] | None = None, **kwargs: Any
    ) -> Any:
        """Return what the denoiser makes of a sample, in float32; raises ModelError where that is no number.

        key: what tells this sample's calls from others' for a shortcut; None takes none.
        """
        denoise: Callable[..., Any] = self.family.denoise
        if self._fast is not None and key is not None:
            denoise = functools.partial(self._fast.denoise, key)
        height, width = (side * self.scale_factor for side in sample.shape[2:])
        found = self.savings.attempt(
            f"work on a picture of {width}×{height}",
            "denoiser",
            lambda: denoise(self._cast(sample), timestep, *args, **self._cast(kwargs)),
        )
        if not isinstance(found, tuple):
            return found
        if not torch.isfinite(found[0]).all():
            raise ModelError(
                f"{self.name} gave numbers that are none (NaN) for a picture.",
                "Set Precision to Full in the preferences, reduce LoRAs' weights and the CFG scale, or use another "
                "model.",
            )
        return tuple(tensor.float() for tensor in found)

    @contextmanager
    def hurried(self, shortcut: Shortcut) -> Iterator[None]:
        """Take a shortcut in every step inside a with block, which is one denoising from its first step to its last.

        Raises InvalidRequest where the denoiser knows none.
        """
        if shortcut == NOTHING:
            yield
            return
        self._fast = fast(self.family.network, self.family.denoise, shortcut)
        if self._fast is None:
            raise InvalidRequest(
                f"{self.name} can't leave out that part of a step.", "Set Fast Mode to Off, Token Merging Ratio to 0."
            )
        # Compiled blocks would take no notice of the hooks by which tokens are merged inside of them.
        pause = self._compiled.paused() if self._compiled is not None and shortcut.merged else nullcontext()
        try:
            with pause, self._fast.hooked():
                yield
        finally:
            self._fast = None

    @contextmanager
    def guided_by(self, guide: Guide) -> Iterator[None]:
        """Let guide(predict, sample) answer for the denoiser inside a with block."""
        self._guide = guide
        try:
            yield
        finally:
            self._guide = None

    def _with_extra_channels(self, sample: torch.Tensor, window: Region | None = None) -> torch.Tensor:
        if self.extra_channels is None:
            return sample
        extra = self.extra_channels.to(sample).expand(sample.shape[0], -1, -1, -1)
        if window is not None:
            extra = extra[:, :, window.y1 : window.y2, window.x1 : window.x2]
        return torch.cat([sample, extra], dim=1)

    def _cast(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim > 1 and value.is_floating_point():
            return value.to(self.dtype)
        if isinstance(value, dict):
            return {name: self._cast(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._cast(item) for item in value]
        return value

    def encode(self, picture: Array) -> torch.Tensor:
        """Return the latents (1×C×h×w float32) of a picture (uint8 H×W×3 sRGB, sides multiples of scale_factor).

        Those of the pictures last asked for are kept; nobody may write into them.
        """
        pixels = np.ascontiguousarray(picture)
        key = (sign(pixels), self._autoencoder.wrap, self.pipe.vae.dtype)
        return self._latents.get(key, lambda: self.encode_anew(pixels))

    def encode_anew(self, picture: Array, tell: Tell = nothing) -> torch.Tensor:
        """Return the latents of a picture as `encode` does, none kept; tell is given the share done, as of tiles."""
        return self._autoencoder.encode(picture, tell)

    def use_vae(self, name: str) -> None:
        """Read and draw pictures by the VAE in that file or folder from now on, or by the model's own for "".

        Raises as load_vae does; the model is left with its own then.
        """
        wanted = name.strip()
        if wanted == self._vae:
            return
        self._vae = ""
        self._put_vae(self._own_vae)
        if wanted:
            vae = load_vae(wanted, self._own_vae)
            watch_forward(vae, lambda: self.watch())
            _lay_out(vae, self.device)
            self._put_vae(vae)
            self._vae = wanted

    def use_ip_adapter(self, name: str, scale: float, picture: Array | None) -> None:
        """Prompt the denoiser with a picture too, through the IP-Adapter in that file; raises as IpAdapter.apply."""
        before = self._ip_adapter.active
        if name.strip() or before:  # diffusers moves all of a denoiser to where its first weight lies
            self.savings.placement.put_back()
        try:
            self._ip_adapter.apply(name.strip(), scale, picture)
        finally:
            if self._ip_adapter.active != before:
                self.savings.placement.renew()

    def _put_vae(self, vae: Any) -> None:
        family = self.family
        family.seamless_by = tuple(vae if part is self.pipe.vae else part for part in family.seamless_by)
        self.pipe.vae = vae
        self.savings.placement.replace("vae", [vae])
        self._latents.clear()

    @contextmanager
    def seeing(self, picture: Array, mask: Array, latent_mask: torch.Tensor, strength: float = 1.0) -> Iterator[None]:
        """Show an inpainting or editing model what it takes beside the sample and the prompt; others take no notice.

        picture: uint8 H×W×3; mask: float32 H×W, 1 repainted; latent_mask: 1×1×h×w; strength: how grey the masked part
        is, 0–1, the web UI's conditioning mask strength.
        """
        self.extra_channels = self.family.shown(Shown(picture, mask, latent_mask, strength, self.encode))
        self.picture = picture
        try:
            yield
        finally:
            self.extra_channels = self.picture = None

    @contextmanager
    def seamless(self, x: bool, y: bool) -> Iterator[None]:
        """Let pictures go on beyond their edges from the opposite ones, along x and y, inside a with block.

        Every convolution of UNet and VAE pads with the other side's values instead of zeros. Raises InvalidRequest
        where the denoiser has none.
        """
        if (x or y) and not self.family.seamless_by:
            raise InvalidRequest(
                f"{self.name} can't make seamless pictures.", "Turn Seamless off, or use a UNet's model."
            )
        wanted = [] if not (x or y) else [m for network in self.family.seamless_by for m in network.modules()]
        convolutions = [m for m in wanted if isinstance(m, torch.nn.Conv2d) and any(m.padding)]
        for convolution in convolutions:
            convolution._conv_forward = functools.partial(_wrapped, convolution, x, y)  # type: ignore[method-assign]
        self._autoencoder.wrap = (x, y)
        try:
            yield
        finally:
            self._autoencoder.wrap = (False, False)
            for convolution in convolutions:
                del convolution._conv_forward

    def decode(self, latents: torch.Tensor, tell: Tell = nothing) -> Array:
        """Return the pictures (uint8 B×H×W×3 sRGB) of latents; where half precision gives NaN, decode in float32."""
        return self._autoencoder.decode(latents, tell)

    def encode_prompts(self, prompt: str, negative_prompt: str, steps: int, clip_skip: int) -> Prompts:
        """Return the prompts as the denoiser takes them, at each step; their parts are kept for the next call.

        The LoRAs that the prompt names as <lora:name:weight> are put into the model, in place of the last prompt's.
        """
        text, weights = read_tags(prompt)
        embeddings = find_embeddings((text, negative_prompt), self._embedding_folders)
        versions = [embedding.version for embedding in embeddings.values()]

        def read() -> Prompts:
            before = self._loras.active
            self._loras.apply(weights)
            if self._loras.active != before:
                self.savings.placement.renew()
                self.savings.placement.use("text")
            read_with = (self._loras.active, versions)
            if read_with != self._read_with:
                self._prompts.clear()
            self._read_with = read_with
            prompts = encode_prompts(
                self.pipe, text, negative_prompt, steps, clip_skip, self.device, self._prompts, embeddings, self.picture
            )
            return self._ip_adapter.added_to(prompts)

        return self.savings.attempt("read the prompt", "text", read)


def _lay_out(module: torch.nn.Module, device: str) -> None:
    """Store a module's convolutions with the channels innermost, as processors and CUDA's tensor cores read them.

    Measured for Stable Diffusion 1 in bfloat16 on a processor: 7 % less time in the UNet, 12 % in the VAE.
    """
    if not device.startswith("mps"):
        for convolution in (part for part in module.modules() if isinstance(part, torch.nn.Conv2d)):
            convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _same_length(conditionings: list[Conditioning], most: int) -> list[list[int]]:
    """Return the indices of conditionings in groups that one call can take: at most so many, with as many tokens."""
    groups: dict[int, list[int]] = {}
    for index, conditioning in enumerate(conditionings):
        groups.setdefault(conditioning.embeds.shape[1], []).append(index)
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]


def _wrapped(
    convolution: torch.nn.Conv2d,
    x: bool,
    y: bool,
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Do a convolution whose padding comes from the opposite edge along x, y or both."""
    high, wide = (int(amount) for amount in convolution.padding)
    values = functional.pad(values, (wide, wide, 0, 0), mode="circular" if x else "constant")
    values = functional.pad(values, (0, 0, high, high), mode="circular" if y else "constant")
    return functional.conv2d(values, weight, bias, convolution.stride, 0, convolution.dilation, convolution.groups)


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Turn running out of memory into a sentence that says at what."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not ran_out(error):
            raise
        raise OutOfMemory(f"There was not enough memory to {doing}.", "Choose a smaller size.") from error

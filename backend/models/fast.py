"""Steps that cost less and are less exact: deep layers that run only when they must, and similar tokens as one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn import functional

Sized = tuple[int, int]  # height and width in latents


class Shortcut(NamedTuple):
    """How much is left out.

    interval, merged: of a UNet, the deep layers run once in so many calls, and that share of the tokens (0–0.75) is
    merged. change: of a transformer, the deep layers run where the first one's answer has changed by more than that.
    """

    interval: int = 1
    merged: float = 0.0
    change: float = 0.0


NOTHING = Shortcut()
# The changes are those between which users of first-block caches choose for Flux.
MODES = {"off": NOTHING, "balanced": Shortcut(2, 0.0, 0.08), "fastest": Shortcut(3, 0.5, 0.15)}


def shortcut_of(mode: str, merging_ratio: float) -> Shortcut:
    """Return what a fast mode and a token merging ratio leave out together."""
    shortcut = MODES[mode]
    return shortcut._replace(merged=max(shortcut.merged, merging_ratio))


class Fast(Protocol):
    """A denoiser that takes a shortcut, for one denoising from its first step to its last."""

    def hooked(self) -> AbstractContextManager[None]:
        """Look into the denoiser inside a with block."""

    def denoise(self, key: Hashable, sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        """Return a tuple that begins with the prediction for a sample; key: what tells one picture's calls apart."""


def fast(network: Any, forward: Any, shortcut: Shortcut) -> Fast | None:
    """Return a denoiser that answers as its own forward, about; None where it knows no such shortcut."""
    if hasattr(network, "mid_block"):
        return FastUNet(network, forward, shortcut)
    if hasattr(network, "enable_cache") and shortcut.change:
        return FastTransformer(network, forward, shortcut.change)
    return None


class FastTransformer:
    """A transformer whose blocks but the first are left out while that one's answer stays much the same.

    diffusers' first-block cache: what the other blocks added at their last run is added again.
    """

    def __init__(self, network: Any, forward: Any, change: float) -> None:
        self._network = network
        self._forward = forward
        self._change = change

    @contextmanager
    def hooked(self) -> Iterator[None]:
        from diffusers import FirstBlockCacheConfig

        self._network.enable_cache(FirstBlockCacheConfig(threshold=self._change))
        try:
            yield
        finally:
            self._network.disable_cache()

    def denoise(self, key: Hashable, sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        with self._network.cache_context(repr(key)):
            return self._forward(sample, timestep, *args, **kwargs)


class FastUNet:
    """A UNet whose deep layers run every few calls, and whose attention sees merged tokens."""

    def __init__(self, unet: Any, forward: Any, shortcut: Shortcut) -> None:
        self._unet = unet
        self._forward = forward
        self._interval, self._merged = shortcut.interval, shortcut.merged
        self._calls: dict[Hashable, int] = {}
        self._deep: dict[Hashable, torch.Tensor] = {}  # what came out of the deep layers at the last full call
        self._size: Sized = (0, 0)
        self._hooks: list[Any] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        unet = self._unet
        if self._merged > 0:
            level = next(i for i, block in enumerate(unet.down_blocks) if hasattr(block, "attentions"))
            for block in (unet.down_blocks[level], unet.up_blocks[-1 - level]):
                for layer in (layer for group in block.attentions for layer in group.transformer_blocks):
                    self._merge_around(layer.attn1, level)
        try:
            yield
        finally:
            for hook in self._hooks:
                hook.remove()

    def denoise(self, key: Hashable, sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        self._size = (sample.shape[2], sample.shape[3])
        call, deep = self._calls.get(key, 0), self._deep.get(key)
        if call % self._interval and deep is not None and len(deep) == len(sample):
            found = (self._shallow(deep, sample, timestep, **kwargs),)
        else:
            found = self._full(key, sample, timestep, *args, **kwargs)
        self._calls[key] = call + 1
        return found

    def _full(self, key: Hashable, *args: Any, **kwargs: Any) -> Any:
        """Return the UNet's own answer, and keep what comes out of its deep layers."""
        if self._interval == 1:
            return self._forward(*args, **kwargs)
        last: Any = self._unet.up_blocks[-1].resnets[-1]
        skipped = self._unet.conv_in.out_channels

        def note(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            self._deep[key] = given[0][:, :-skipped]

        hook = last.register_forward_pre_hook(note)
        try:
            return self._forward(*args, **kwargs)
        finally:
            hook.remove()

    def _shallow(
        self,
        deep: torch.Tensor,
        sample: torch.Tensor,
        timestep: Any,
        encoder_hidden_states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        added_cond_kwargs: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        """Return the prediction of the first and the last layer, with the deep ones' output from an earlier call.

        DeepCache (Ma, Fang and Wang 2023): what the deep layers make of a sample hardly changes from step to step.
        """
        unet = self._unet
        time = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep), timestep_cond)
        text = {"encoder_hidden_states": encoder_hidden_states, "added_cond_kwargs": added_cond_kwargs}
        added = unet.get_aug_embed(emb=time, **text)
        time = time if added is None else time + added
        inputs = {"hidden_states": deep, "temb": time, "res_hidden_states_tuple": (unet.conv_in(sample),)}
        with _last_layer_of(unet.up_blocks[-1]) as block:
            if hasattr(block, "attentions"):
                inputs["encoder_hidden_states"] = unet.process_encoder_hidden_states(**text)
            hidden = block(**inputs)
        found: torch.Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return found

    def _merge_around(self, attention: torch.nn.Module, level: int) -> None:
        """Have a layer of self-attention see merged tokens, and give its answer to each of them."""
        merging: list[Merging] = []

        def before(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            height, width = (-(-side // 2**level) for side in self._size)
            merging.append(Merging(given[0], height, width, self._merged))
            return (merging[-1].merge(given[0]), *given[1:])

        def after(_: Any, given: Any, found: torch.Tensor) -> torch.Tensor:
            return merging.pop().spread(found)

        self._hooks += [attention.register_forward_pre_hook(before), attention.register_forward_hook(after)]


@contextmanager
def _last_layer_of(block: Any) -> Iterator[Any]:
    """Give a block of a UNet that is its last layer alone inside a with block; its hooks stay, which place weights."""
    names = [name for name in ("resnets", "attentions") if hasattr(block, name)]
    whole = {name: getattr(block, name) for name in names}
    for name, layers in whole.items():
        setattr(block, name, layers[-1:])
    try:
        yield block
    finally:
        for name, layers in whole.items():
            setattr(block, name, layers)


class Merging:
    """Which tokens (B×N×C, rows of an image) are merged into which: ToMe (Bolya and Hoffman 2023).

    One token in each square of 2×2 stays; of the others, the given share of all that are most like one of those are
    merged into it, by the mean.
    """

    def __init__(self, tokens: torch.Tensor, height: int, width: int, share: float) -> None:
        places = torch.arange(height * width, device=tokens.device).view(height, width)
        stays = torch.zeros_like(places, dtype=torch.bool)
        stays[::2, ::2] = True
        self._kept, self._others = places[stays], places[~stays]
        count = min(len(self._others), int(height * width * share))
        directions = functional.normalize(tokens, dim=-1)
        likeness = directions[:, self._others] @ directions[:, self._kept].transpose(1, 2)
        closest, where = likeness.max(dim=-1)
        order = closest.argsort(dim=-1, descending=True, stable=True)
        self._merged, self._alone = order[:, :count], order[:, count:]
        self._into = where.gather(1, self._merged)

    def merge(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return fewer tokens: those left alone, then those that others are merged into."""
        others, kept = tokens[:, self._others], tokens[:, self._kept]
        alone, merged = (others.gather(1, _wide(index, tokens)) for index in (self._alone, self._merged))
        kept = kept.scatter_reduce(1, _wide(self._into, tokens), merged, "mean", include_self=True)
        return torch.cat([alone, kept], dim=1)

    def spread(self, fewer: torch.Tensor) -> torch.Tensor:
        """Return as many tokens as there were: the merged ones get what they were merged into."""
        alone = self._alone.shape[1]
        source = torch.empty(len(fewer), len(self._kept) + len(self._others), dtype=torch.long, device=fewer.device)
        source[:, self._kept] = torch.arange(alone, fewer.shape[1], device=fewer.device)
        source.scatter_(1, self._others[self._merged], self._into + alone)
        ranks = torch.arange(alone, device=fewer.device).expand(len(fewer), -1)
        source.scatter_(1, self._others[self._alone], ranks)
        return fewer.gather(1, _wide(source, fewer))


def _wide(index: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return an index of tokens (B×n) as one of all their values (B×n×C)."""
    return index[..., None].expand(-1, -1, tokens.shape[-1])

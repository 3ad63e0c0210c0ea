"""The optimisers of the UNet's training, as one: Muon for matrices and convolutions, AdamW for all else.

What reads features keeps its size: every filter is set back to the length that it began with, as in EDM2 (Karras and
others, arXiv 2312.02696). Left free at three times these rates, filters grew five to ten times as long, and what the
blocks hand on from a root mean square of 1.5 at the first scale to 3,558 at the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.denoiser import FINER, Denoiser

# Rates. The last convolution must reach velocities of five and more; the text encoder has been taught beforehand.
MATRICES, REST, LAST, WORDS, READERS = 1e-3, 5e-4, 5e-3, 1e-4, 8e-4
DECAY = 1e-3
KEPT = (".conv1.", ".conv2.", ".conv_shortcut.", "samplers.", "attentions.")  # whose filters keep their length


def as_matrix(weights: Tensor) -> Tensor:
    """Return a view (out×in) of a matrix, or of a convolution's weights (out×in×k×k, channels last)."""
    return weights.permute(0, 2, 3, 1).view(len(weights), -1) if weights.dim() == 4 else weights


def keeps_length(name: str) -> bool:
    """Return whether these filters are set back to the length that they began with; what began as nothing has none."""
    nothing_at_first = name.startswith(FINER) and name.endswith(".proj_out.weight")
    return any(part in name for part in KEPT) and not nothing_at_first


class Together:
    """Several optimisers whose states are kept as one."""

    def __init__(self, *optimisers: torch.optim.Optimizer) -> None:
        self._all = optimisers

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {type(one).__name__: one.state_dict() for one in self._all}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        for one in self._all:
            one.load_state_dict(state[type(one).__name__])


class Optimisers(Together):
    """Muon and AdamW on a denoiser and what reads beside it."""

    def __init__(self, model: Denoiser, readers: nn.Module) -> None:
        last, first = list(model.unet.conv_out.parameters()), list(model.unet.conv_in.parameters())
        inner = {name: p for name, p in model.unet.named_parameters() if p not in {*first, *last}}
        matrices = {name: p for name, p in inner.items() if p.dim() > 1}
        self._matrices = list(matrices.values())
        self._views = [nn.Parameter(as_matrix(p.detach())) for p in self._matrices]
        of_kept = zip(self._views, matrices, strict=True)
        self._kept = [view.detach() for view, name in of_kept if keeps_length(name)]
        self._lengths = [view.norm(dim=1, keepdim=True) for view in self._kept]
        rest = first + [p for p in inner.values() if p.dim() == 1]
        parts = (rest, last, list(model.text.parameters()), list(readers.parameters()))
        groups = [{"params": part} for part in parts]  # every step sets the rates
        super().__init__(
            torch.optim.Muon(self._views, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=DECAY, fused=True),
        )

    def step(self, pace: float, readers_pace: float) -> None:
        """Learn from the gradients, at shares of the usual rates."""
        for view, whole in zip(self._views, self._matrices, strict=True):
            view.grad = None if whole.grad is None else as_matrix(whole.grad)
        *groups, beside = (group for one in self._all for group in one.param_groups)
        for group, rate in zip(groups, (MATRICES, REST, LAST, WORDS), strict=True):
            group["lr"] = rate * pace
        beside["lr"] = READERS * readers_pace
        for one in self._all:
            one.step()
        for filters, length in zip(self._kept, self._lengths, strict=True):
            filters *= length / filters.norm(dim=1, keepdim=True)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return super().state_dict() | {"lengths": self._lengths}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        super().load_state_dict(state)
        self._lengths = state["lengths"]

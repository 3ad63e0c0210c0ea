"""The optimisers of the UNet's training, as one: Muon for matrices and convolutions, AdamW for all else.

From nothing, on a processor, Muon came in 148 steps further than AdamW in 211 (the error of a half-strength redraw's
first call, of a deviation squared: 0.228 and 0.239), and so paid for its steps, which take longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.denoiser import Denoiser

# Rates. The last convolution must reach velocities of five and more; the text encoder has been taught beforehand.
MATRICES, REST, LAST, WORDS, READERS = 3e-3, 1.5e-3, 4.5e-2, 3e-4, 8e-4
DECAY = 1e-3


def as_matrix(weights: Tensor) -> Tensor:
    """Return a view (out×in) of a matrix, or of a convolution's weights (out×in×k×k, channels last)."""
    return weights.permute(0, 2, 3, 1).view(len(weights), -1) if weights.dim() == 4 else weights


class Optimisers:
    """Muon and AdamW on a denoiser and what reads beside it."""

    def __init__(self, model: Denoiser, readers: nn.Module) -> None:
        last, first = list(model.unet.conv_out.parameters()), list(model.unet.conv_in.parameters())
        inner = [p for p in model.unet.parameters() if p not in {*first, *last}]
        self._matrices = [p for p in inner if p.dim() > 1]
        rest = first + [p for p in inner if p.dim() == 1]
        self._views = [nn.Parameter(as_matrix(p.detach())) for p in self._matrices]
        parts = (rest, last, list(model.text.parameters()), list(readers.parameters()))
        groups = [{"params": part} for part in parts]  # every step sets the rates
        self._all: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(self._views, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
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

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {type(one).__name__: one.state_dict() for one in self._all}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        for one in self._all:
            one.load_state_dict(state[type(one).__name__])

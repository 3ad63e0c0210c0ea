"""The optimisers of the UNet's training, as one: Muon for matrices and convolutions, AdamW for all else.

What reads features keeps its size: every filter is set back to the length that it began with, as in EDM2 (Karras and
others, arXiv 2312.02696). Without it what the blocks hand on grew from one scale to the next up to 300,000 times, the
latents' own detail was lost beside it, and after 2,700 steps no line was drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoints import PRECISION
from training.denoiser import Denoiser

# Rates. The last convolution must reach velocities of five and more; the text encoder has been taught beforehand.
MATRICES, REST, LAST, WORDS, READERS = 1e-3, 5e-4, 5e-3, 1e-4, 8e-4
MOMENTUM, DECAY = 0.95, 1e-3
# Muon's iteration to the nearest orthogonal matrix (Jordan and others 2024), and its count.
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
AS_ADAM = 0.2  # a step's root mean square, as a share of the rate (Liu and others, arXiv 2502.16982)
KEPT = (".conv1.", ".conv2.", ".conv_shortcut.", "samplers.", "attentions.")  # whose filters keep their length


def as_matrix(weights: Tensor) -> Tensor:
    """Return a view (out×in) of a matrix, or of a convolution's weights (out×in×k×k, channels last)."""
    return weights.permute(0, 2, 3, 1).view(len(weights), -1) if weights.dim() == 4 else weights


def orthogonal(matrices: Tensor) -> Tensor:
    """Return about the nearest matrices (K×M×N) whose singular values are all one."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(PRECISION)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Muon on matrices (out×in each), those of one shape together, some of them with rows of a kept length."""

    def __init__(self, matrices: list[tuple[Tensor, bool]]) -> None:
        by_shape: dict[tuple[torch.Size, bool], list[Tensor]] = {}
        for matrix, kept in matrices:
            by_shape.setdefault((matrix.shape, kept), []).append(matrix)
        self._groups = list(by_shape.values())
        self._lengths = [
            torch.stack([matrix.norm(dim=1).mean() for matrix in group]).view(-1, 1, 1) if kept else None
            for (_, kept), group in by_shape.items()
        ]
        self._momenta = [torch.zeros(len(group), *group[0].shape) for group in self._groups]

    @torch.no_grad()
    def step(self, gradients: dict[Tensor, Tensor], rate: float) -> None:
        """Take a step; gradients by matrix."""
        for group, length, momentum in zip(self._groups, self._lengths, self._momenta, strict=True):
            gradient = torch.stack([gradients[matrix] for matrix in group])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            way = orthogonal(gradient.lerp_(momentum, MOMENTUM))  # Nesterov's
            rows, columns = momentum.shape[1:]
            new = torch.stack(group).add_(way, alpha=-rate * AS_ADAM * max(rows, columns) ** 0.5)
            if length is not None:
                new *= length / new.norm(dim=2, keepdim=True).clamp(min=1e-7)
            torch._foreach_copy_(group, list(new))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"momenta": self._momenta, "lengths": self._lengths}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        self._momenta, self._lengths = state["momenta"], state["lengths"]


class Optimisers:
    """Muon and AdamW on a denoiser and what reads beside it."""

    def __init__(self, model: Denoiser, readers: nn.Module) -> None:
        last, first = list(model.unet.conv_out.parameters()), list(model.unet.conv_in.parameters())
        inner = {name: p for name, p in model.unet.named_parameters() if all(p is not other for other in last + first)}
        self._matrices = [p for p in inner.values() if p.dim() > 1]
        kept = [any(part in name for part in KEPT) for name, p in inner.items() if p.dim() > 1]
        self._views = [as_matrix(p.detach()) for p in self._matrices]
        self._muon = Muon(list(zip(self._views, kept, strict=True)))
        rest = first + [p for p in inner.values() if p.dim() == 1]
        parts = (rest, last, list(model.text.parameters()), list(readers.parameters()))
        groups = [{"params": part} for part in parts]  # every step sets the rates
        self._adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=DECAY, fused=True)

    def step(self, pace: float, readers_pace: float) -> None:
        """Learn from the gradients, at shares of the usual rates."""
        *groups, beside = self._adam.param_groups
        for group, rate in zip(groups, (REST, LAST, WORDS), strict=True):
            group["lr"] = rate * pace
        beside["lr"] = READERS * readers_pace
        self._adam.step()
        found = {v: as_matrix(p.grad) for v, p in zip(self._views, self._matrices, strict=True) if p.grad is not None}
        self._muon.step(found, MATRICES * pace)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])

"""The optimisers as one: views of weights that are shared later, rates by part, and a state that goes on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from training.optimiser import MATRICES, Optimisers, as_matrix, keeps_length  # noqa: E402


@dataclass
class Parts:
    """What stands for a denoiser: a UNet of an inner convolution between two ends, and a text encoder."""

    unet: Any
    text: Any


def parts() -> tuple[Any, Any]:
    torch.manual_seed(0)
    unet = torch.nn.ModuleDict(
        {"conv_in": torch.nn.Conv2d(4, 8, 3), "inner": torch.nn.Conv2d(8, 8, 3), "conv_out": torch.nn.Conv2d(8, 4, 3)}
    ).to(memory_format=torch.channels_last)
    unet.conv_in, unet.conv_out = unet["conv_in"], unet["conv_out"]
    return Parts(unet, torch.nn.Linear(4, 4)), torch.nn.Linear(4, 4)


def give_gradients(*modules: Any) -> None:
    torch.manual_seed(1)
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)


def moved(module: Any, before: dict[str, Any]) -> float:
    return max(float((value - before[name]).abs().max()) for name, value in module.state_dict().items())


def test_a_convolution_is_seen_as_a_matrix_without_a_copy() -> None:
    weights = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    matrix = as_matrix(weights)
    assert matrix.shape == (8, 36)
    assert matrix.data_ptr() == weights.data_ptr()


def test_every_part_learns_at_its_share_even_if_shared_afterwards() -> None:
    model, readers = parts()
    optimiser = Optimisers(model, readers)
    for module in (model.unet, model.text, readers):
        module.share_memory()
    before = [copy.deepcopy(module.state_dict()) for module in (*model.unet.values(), model.text, readers)]
    give_gradients(model.unet, model.text, readers)
    optimiser.step(0.0, 1.0)
    now = [moved(*pair) for pair in zip((*model.unet.values(), model.text, readers), before, strict=True)]
    assert now[:4] == [0.0] * 4
    assert now[4] > 0
    optimiser.step(1.0, 0.0)
    assert all(moved(*pair) > 0 for pair in zip((*model.unet.values(), model.text), before, strict=False))


def test_what_goes_on_from_a_state_takes_the_same_step() -> None:
    model, readers = parts()
    optimiser = Optimisers(model, readers)
    give_gradients(model.unet, model.text, readers)
    optimiser.step(1.0, 1.0)
    twin, twins = copy.deepcopy((model, readers))
    twin.unet.conv_in, twin.unet.conv_out = twin.unet["conv_in"], twin.unet["conv_out"]
    other = Optimisers(twin, twins)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for one, modules in ((optimiser, (model.unet, model.text, readers)), (other, (twin.unet, twin.text, twins))):
        give_gradients(*modules)
        one.step(1.0, 1.0)
    for first, second in zip(model.unet.parameters(), twin.unet.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_step_has_no_preferred_direction() -> None:
    model, readers = parts()
    for shape in ((6, 40), (40, 6)):
        model.unet["inner"] = torch.nn.Linear(*shape[::-1])
        optimiser, before = Optimisers(model, readers), model.unet["inner"].weight.detach().clone()
        give_gradients(model.unet, model.text, readers)
        optimiser.step(1.0, 1.0)
        way = (model.unet["inner"].weight.detach() - before) / (MATRICES * 0.2 * 40**0.5)
        strengths = torch.linalg.svdvals(way)
        assert strengths.shape == (6,)
        assert 0.6 < float(strengths.min()) <= float(strengths.max()) < 1.3


def test_filters_that_read_features_keep_their_length() -> None:
    model, readers = parts()
    model.unet["attentions"] = torch.nn.ModuleList([torch.nn.Conv2d(8, 8, 3)]).to(memory_format=torch.channels_last)
    weights = [model.unet["attentions"][0].weight, model.unet["inner"].weight]
    optimiser = Optimisers(model, readers)
    before = [weight.detach().clone() for weight in weights]
    for _ in range(3):
        give_gradients(model.unet, model.text, readers)
        optimiser.step(30.0, 1.0)
    kept, free = (
        (now.flatten(1).norm(dim=1), then.flatten(1).norm(dim=1)) for now, then in zip(weights, before, strict=True)
    )
    assert not torch.allclose(weights[0], before[0], atol=0.01)
    assert torch.allclose(kept[0], kept[1], rtol=1e-4)
    assert not torch.allclose(free[0], free[1], rtol=0.01)


def test_filters_keep_their_length_but_those_that_began_as_nothing() -> None:
    assert keeps_length("down_blocks.0.resnets.1.conv2.weight")
    assert keeps_length("up_blocks.0.attentions.2.proj_out.weight")
    assert keeps_length("up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q.weight")
    assert not keeps_length("up_blocks.1.attentions.0.proj_out.weight")
    assert not keeps_length("time_embedding.linear_1.weight")


def test_what_learns_no_more_stays_as_it_is() -> None:
    model, readers = parts()
    model.unet["attentions"] = torch.nn.ModuleList([torch.nn.Conv2d(8, 8, 3)]).to(memory_format=torch.channels_last)
    optimiser = Optimisers(model, readers)
    give_gradients(model.unet, model.text, readers)
    optimiser.step(1.0, 1.0)  # from here on it has momentum
    for part in (*model.unet["attentions"].parameters(), *readers.parameters()):
        part.grad = None
    before = [part.detach().clone() for part in (*model.unet["attentions"].parameters(), *readers.parameters())]
    inner = model.unet["inner"].weight.detach().clone()
    optimiser.step(1.0, 1.0)
    after = (*model.unet["attentions"].parameters(), *readers.parameters())
    assert all(torch.allclose(*pair, rtol=1e-6) for pair in zip(after, before, strict=True))
    assert not torch.equal(model.unet["inner"].weight, inner)

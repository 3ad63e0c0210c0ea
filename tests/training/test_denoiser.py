"""The networks, and how those of a folder grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diffusers import UNet2DConditionModel  # noqa: E402
from transformers import CLIPTokenizer  # noqa: E402

from training.denoiser import Denoiser, build, grown  # noqa: E402
from training.unet import FINEST  # noqa: E402

FOLDER = Path("backend/models/embedded")


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")


def drawn(model: Denoiser) -> Any:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        sample = torch.randn(2, 4, 16, 16, generator=generator)
        return model.eval()(sample, torch.tensor([300, 700]), torch.arange(2 * 77).view(2, 77))


def without_finer_attention(folder: Path, tokenizer: CLIPTokenizer) -> Denoiser:
    """Write the folder of a model as it was before words were heeded at two scales, and return it."""
    model = build(tokenizer)
    torch.nn.init.normal_(model.unet.conv_out.weight)
    config = dict(model.unet.config) | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D")}
    before = UNet2DConditionModel.from_config(config | {"only_cross_attention": False})
    before.load_state_dict(model.unet.state_dict(), strict=False)
    before.save_pretrained(folder / "unet")
    model.text.save_pretrained(folder / "text_encoder")
    return Denoiser(before, model.text)


def test_a_model_that_grows_draws_as_before(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    before = without_finer_attention(tmp_path, tokenizer)
    torch.testing.assert_close(drawn(grown(tmp_path, tokenizer)), drawn(before))


def test_the_finer_attention_of_a_folder_is_kept(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    model = build(tokenizer)
    torch.nn.init.normal_(model.unet.conv_out.weight)
    torch.nn.init.normal_(model.unet.up_blocks[1].attentions[0].proj_out.weight)
    model.unet.save_pretrained(tmp_path / "unet")
    model.text.save_pretrained(tmp_path / "text_encoder")
    torch.testing.assert_close(drawn(grown(tmp_path, tokenizer)), drawn(model))


def test_a_folder_of_another_shape_is_refused(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    before = without_finer_attention(tmp_path, tokenizer)
    config = dict(before.unet.config) | {"layers_per_block": 1}
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match="another shape"):
        grown(tmp_path, tokenizer)


def test_the_finest_scale_learns_alone(tokenizer: CLIPTokenizer) -> None:
    model = build(tokenizer)
    for name, part in model.named_parameters():
        part.requires_grad_(name.startswith(FINEST))
    sample = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    (
        model.eval()(sample, torch.tensor([300, 700]), torch.arange(2 * 77).view(2, 77)) - sample
    ).square().mean().backward()
    learnt = {name for name, part in model.named_parameters() if part.grad is not None}
    assert learnt == {name for name, _ in model.named_parameters() if name.startswith(FINEST)}
    assert all(any(name.startswith(prefix) for name in learnt) for prefix in FINEST)

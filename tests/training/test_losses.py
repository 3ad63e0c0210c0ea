"""How errors of latents are weighed, and what of a picture is read from latents without decoding them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("pytorch_msssim")

from diffusers import AutoencoderKL  # noqa: E402
from torch.nn.functional import avg_pool2d  # noqa: E402

from backend.models.load import EMBEDDED_FOLDER  # noqa: E402
from training.losses import BROADLY, Eye, disorder, look, misfit  # noqa: E402

PLAIN = Eye(torch.eye(4), torch.eye(3, 4), torch.zeros(3))


def test_broad_errors_count_by_the_mean_weight_of_their_area() -> None:
    wrong, weight = torch.zeros(1, 4, 8, 8), torch.ones(1, 1, 8, 8)
    wrong[..., :4, :4] = 1.0
    plain = float(misfit(PLAIN, wrong, weight))
    assert plain == pytest.approx((1 + BROADLY) / 4)
    weight[..., :4, :2] = 4.0
    assert float(misfit(PLAIN, wrong, weight)) == pytest.approx(2.5 * plain)


def test_grain_on_a_plain_area_is_disorder_and_the_same_grain_among_strong_marks_hardly() -> None:
    torch.manual_seed(0)
    plain, marked = torch.zeros(1, 4, 32, 32), torch.randn(1, 4, 32, 32)
    grain = 0.1 * torch.randn(1, 4, 32, 32)
    assert float(disorder(PLAIN, plain, plain)) == pytest.approx(0, abs=1e-6)
    assert float(disorder(PLAIN, plain + grain, plain)) > 10 * float(disorder(PLAIN, marked + grain, marked)) > 0


def test_the_eye_sees_in_latents_what_the_decoder_draws() -> None:
    vae = AutoencoderKL.from_pretrained(EMBEDDED_FOLDER, subfolder="vae", torch_dtype=torch.float32).eval()
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3) * 1.6 - 0.8
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean
        drawn = avg_pool2d(vae.decode(latents).sample, 4)
    eye = look(vae, latents)
    assert eye.preview(latents).shape == drawn.shape
    assert float((eye.preview(latents) - drawn).abs().mean()) < 0.08
    assert float((eye.preview(latents) - drawn.flip(3)).abs().mean()) > 0.3
    assert float(eye.errors(latents).square().mean()) > 0

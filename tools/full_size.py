"""Write a model of Stable Diffusion 1's size with random weights: it says what a picture costs, and paints none."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FOLDER = ROOT / "build" / "full-size"  # 2.1 GB


def full_size_model() -> Path:
    """Return the folder of the model, written in half precision, as such models are shared, on the first call."""
    if not (FOLDER / "model_index.json").is_file():
        _write(FOLDER)
    return FOLDER


def _write(folder: Path) -> None:
    import diffusers
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    from backend.models.single_file import CONFIGS, build_tokenizer

    torch.manual_seed(0)
    source = CONFIGS / "sd1"

    def made(cls: type, part: str) -> torch.nn.Module:
        module: torch.nn.Module = cls.from_config(cls.load_config(source / part)).half()  # type: ignore[attr-defined]
        return module

    diffusers.StableDiffusionPipeline(
        unet=made(diffusers.UNet2DConditionModel, "unet"),
        vae=made(diffusers.AutoencoderKL, "vae"),
        text_encoder=CLIPTextModel(CLIPTextConfig.from_pretrained(source / "text_encoder")).half(),
        tokenizer=build_tokenizer(source / "tokenizer"),
        scheduler=diffusers.PNDMScheduler.from_pretrained(source / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


if __name__ == "__main__":
    print(full_size_model())

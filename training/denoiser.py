"""The networks that are trained: UNet and text encoder, and what they begin as."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.checkpoints import QUICK_BFLOAT16
from training.tokenizer import LENGTH

# A line lies within one latent, so most layers work at the latents' own scale.
CHANNELS = (64, 96, 128)
LAYERS = 2  # a block
SIDE = 80  # latents a side that the pipeline is told; 256 to 512 px are as good, faces need the larger
TEXT_WIDTH, TEXT_LAYERS, HEADS = 192, 3, 4
TIME_WIDTH = 256
FINER = "up_blocks.1.attentions."  # which the models before had not


def in_turn(of_prompts: Tensor, samples: int) -> Tensor:
    """Return what belongs to prompts (first dimension) for each sample, as many in turn as share a prompt."""
    return of_prompts.repeat_interleave(samples // len(of_prompts), 0)


class Denoiser(nn.Module):
    """UNet and text encoder together, as they are trained and averaged."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text = unet, text
        # Written out. The fused kernel's gradients took a quarter of a step on processors.
        unet.set_attn_processor(AttnProcessor())
        text.set_attn_implementation("eager")

    def forward(self, sample: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Return the velocity (N×4×H×W float32) for samples, levels (N) and tokens (N×77 or fewer, in turn)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            words = self.text(tokens).last_hidden_state
            words = in_turn(words, len(sample))
            velocity: Tensor = self.unet(sample, level, words).sample
        return velocity.float()


def build(tokenizer: CLIPTokenizer) -> Denoiser:
    """Return fresh networks; the UNet's output starts at zero, which leaves a sample as it is."""
    end = tokenizer.eos_token_id
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        # A place of the coarsest scale is 16 pixels wide, as a small figure's shirt; words are heeded at 8 as well, but
        # without self-attention there, whose cost grows with the fourth power of a picture's side.
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        only_cross_attention=[False, True, False],
        layers_per_block=LAYERS,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        # The whole prompt also scales and shifts every block, beside the step's level: styles are told apart far sooner
        # than by cross-attention alone. Plain pipelines feed it, as they do for DeepFloyd IF.
        addition_embed_type="text",
        addition_embed_type_num_heads=HEADS,
        time_embedding_dim=TIME_WIDTH,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=4,  # small groups would lose the colour of broad areas
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    for layer in unet.up_blocks[1].attentions:  # begin as nothing, so that a model can grow them later
        nn.init.zeros_(layer.proj_out.weight)
        nn.init.zeros_(layer.proj_out.bias)
    return Denoiser(unet, text)


def grown(folder: Path, tokenizer: CLIPTokenizer) -> Denoiser:
    """Return the networks of a diffusers folder; the finer cross-attention begins as nothing where it has none."""
    model = build(tokenizer)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", torch_dtype=torch.float32)
    own, given = model.unet.state_dict(), unet.state_dict()
    new = {name for name in own if name.startswith(FINER)} - given.keys()
    if {name: own[name].shape for name in own.keys() - new} != {name: part.shape for name, part in given.items()}:
        raise ValueError(f"The UNet of {folder} has another shape than this recipe's.")
    model.unet.load_state_dict(given, strict=not new)
    model.text.load_state_dict(text.state_dict())
    return model

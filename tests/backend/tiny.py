"""Tiny random models of every family that runs here, as diffusers folders: 80 pixels a side, a step of milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from backend.models.families.qwen_image import StillProcessor
from backend.models.load import EMBEDDED_FOLDER

NATIVE = 80  # pixels a side: canvases of 64 to 128 run at their own size
FACTOR = 8  # pixels a latent, as of the real models
WIDTH = 32  # channels of a text encoder's output
WORDS = ("<pad>", "</s>", "<unk>", "a", "cat", "dog", "in", "the", "rain")  # all that the tiny T5 knows

VISION_WORDS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")  # after those, Qwen2-VL's
VISION_MOST = 200  # tokens that a picture takes at most in Qwen-Image-Edit's language model; the real one has 16384

Parts = dict[str, Any]


def folder(family: str, root: Path) -> str:
    """Return the folder of a family's tiny model under `root`, built there on the first call."""
    path = root / "tiny" / family
    if not path.exists():
        torch.manual_seed(0)
        FAMILIES[family]().save_pretrained(path)
    return str(path)


def sd1(**scheduler: Any) -> Any:
    """Return a Stable Diffusion 1 pipeline."""
    parts = _parts(**scheduler)
    unet = _unet(cross_attention_dim=WIDTH, attention_head_dim=4)
    return diffusers.StableDiffusionPipeline(**parts, unet=unet, **_clip(parts), **_UNCHECKED)


def inpainting() -> Any:
    """Return an inpainting pipeline, whose UNet takes nine channels."""
    parts = _parts()
    unet = _unet(in_channels=9, cross_attention_dim=WIDTH, attention_head_dim=4)
    return diffusers.StableDiffusionInpaintPipeline(**parts, unet=unet, **_clip(parts), **_UNCHECKED)


def sdxl() -> Any:
    """Return a Stable Diffusion XL pipeline, with two text encoders."""
    parts = _parts()
    unet = _unet(
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )
    second = _text_encoder(CLIPTextModelWithProjection, parts["tokenizer"])
    return diffusers.StableDiffusionXLPipeline(
        **parts, unet=unet, **_clip(parts), tokenizer_2=parts["tokenizer"], text_encoder_2=second, add_watermarker=False
    )


def flux(guidance_embeds: bool = True, kind: str = "FluxPipeline", in_channels: int = 64) -> Any:
    """Return a Flux pipeline; guidance_embeds: as of dev, which takes its guidance as a number, not as of schnell."""
    parts = _parts(16, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False)
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
    )
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=in_channels,
        out_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=guidance_embeds,
    )
    tokenizer, encoder = _t5()
    return getattr(diffusers, kind)(
        **parts, transformer=transformer, **_clip(parts), tokenizer_2=tokenizer, text_encoder_2=encoder
    )


def flux2(klein: bool = False, is_distilled: bool = False) -> Any:
    """Return a Flux 2 pipeline, or Klein's, whose text encoder is a smaller one."""
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=NATIVE,
    )
    vae.bn.running_mean.uniform_(-1, 1)
    vae.bn.running_var.uniform_(0.5, 2)
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_guidance_channels=16,
        guidance_embeds=not klein,
    )
    tokenizer = _word_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.content is string %}{{ message.content }}"
        "{% else %}{{ message.content[0].text }}{% endif %} </s>{% endfor %}"
    )
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 31,  # of which the pipelines take out up to the thirtieth
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    common = {"vae": vae, "transformer": transformer, "tokenizer": tokenizer, "scheduler": scheduler}
    if klein:
        encoder = Qwen3ForCausalLM(Qwen3Config(**text)).eval()
        return diffusers.Flux2KleinPipeline(**common, text_encoder=encoder, is_distilled=is_distilled)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Mistral3Config(
        text_config={"model_type": "mistral", **text}, vision_config={"model_type": "pixtral", **vision}
    )
    return diffusers.Flux2Pipeline(**common, text_encoder=Mistral3ForConditionalGeneration(config).eval())


def sd3() -> Any:
    """Return a Stable Diffusion 3 pipeline, with three text encoders."""
    parts = _parts(16, shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False)
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=NATIVE // FACTOR,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=32,
        qk_norm="rms_norm",
    )
    clip = parts.pop("tokenizer")
    first, second = (_text_encoder(CLIPTextModelWithProjection, clip) for _ in range(2))
    tokenizer, third = _t5(2 * WIDTH)
    return diffusers.StableDiffusion3Pipeline(
        **parts,
        transformer=transformer,
        text_encoder=first,
        tokenizer=clip,
        text_encoder_2=second,
        tokenizer_2=clip,
        text_encoder_3=third,
        tokenizer_3=tokenizer,
    )


def refiner() -> Any:
    """Return Stable Diffusion XL's refiner, which has the second text encoder alone."""
    parts = _parts()
    unet = _unet(
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 5 * 8,
    )
    clip = parts.pop("tokenizer")
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        **parts,
        unet=unet,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=_text_encoder(CLIPTextModelWithProjection, clip),
        tokenizer_2=clip,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def z_image() -> Any:
    """Return a Z-Image pipeline, whose text encoder is a language model."""
    parts = _parts(16, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False)
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    transformer = diffusers.ZImageTransformer2DModel(
        dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH, axes_dims=[4, 6, 6]
    )
    tokenizer = _word_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} </s>{% endfor %}"
    config = Qwen3Config(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    parts |= {"text_encoder": Qwen3Model(config).eval(), "tokenizer": tokenizer}
    return diffusers.ZImagePipeline(**parts, transformer=transformer)


def qwen_image(kind: str = "QwenImagePipeline", zero_cond_t: bool = False) -> Any:
    """Return a Qwen-Image pipeline, whose VAE is a video model's; zero_cond_t: as of Edit 2511."""
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        zero_cond_t=zero_cond_t,
    )
    edits = "Edit" in kind
    language = {
        "vocab_size": len(WORDS) + len(VISION_WORDS),
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    tokenizer = _word_tokenizer()
    tokenizer.model_max_length = 2048
    tokenizer.add_tokens(list(VISION_WORDS), special_tokens=True)
    start, picture, _, film = tokenizer.convert_tokens_to_ids(VISION_WORDS)
    config = Qwen2_5_VLConfig(
        text_config=language,
        vision_config=vision,
        vision_start_token_id=start,
        image_token_id=picture,
        video_token_id=film,
    )
    vae = diffusers.AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1)
    vae.register_to_config(sample_size=NATIVE)  # which the real one doesn't say
    parts = {"processor": _still_processor(tokenizer)} if edits else {}
    return getattr(diffusers, kind)(
        **parts,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=1.0),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd1": sd1,
    "velocity": lambda: sd1(prediction_type="v_prediction"),
    "inpainting": inpainting,
    "sdxl": sdxl,
    "flux": flux,
    "sd3": sd3,
    "z_image": z_image,
    "qwen_image": qwen_image,
    "qwen_edit": lambda: qwen_image("QwenImageEditPipeline"),
    "qwen_edit_plus": lambda: qwen_image("QwenImageEditPlusPipeline", zero_cond_t=True),
    "refiner": refiner,
    "schnell": lambda: flux(guidance_embeds=False),
    "kontext": lambda: flux(kind="FluxKontextPipeline"),
    "fill": lambda: flux(kind="FluxFillPipeline", in_channels=384),
    "flux2": flux2,
    "klein": lambda: flux2(klein=True),
    "distilled": lambda: flux2(klein=True, is_distilled=True),
}
# What diffusers' own pipelines are given of a family, since it can't be loaded without torchvision.
GIVEN: dict[str, Parts] = {name: {"processor": None} for name in ("qwen_edit", "qwen_edit_plus")}
_UNCHECKED: Parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _parts(channels: int = 4, prediction_type: str = "epsilon", **vae: Any) -> Parts:
    """Return an autoencoder, a tokenizer and a scheduler."""
    return {
        "vae": diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=4,
            sample_size=NATIVE,
            **vae,
        ),
        "tokenizer": CLIPTokenizer.from_pretrained(EMBEDDED_FOLDER / "tokenizer"),
        "scheduler": diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
    }


def _unet(**settings: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=NATIVE // FACTOR,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        **settings,
    )


def _clip(parts: Parts) -> Parts:
    return {"text_encoder": _text_encoder(CLIPTextModel, parts["tokenizer"])}


def _text_encoder(cls: Any, tokenizer: Any) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    module: torch.nn.Module = cls(config).eval()
    return module


def _t5(width: int = WIDTH) -> tuple[Any, Any]:
    """Return a tokenizer of few words and a T5 encoder."""
    config = T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return _word_tokenizer(), T5EncoderModel(config).eval()


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )


def _still_processor(tokenizer: Any) -> Any:
    """Return a reader of texts and pictures that is saved under the name of transformers' own."""
    kind = type(Qwen2VLProcessor.__name__, (StillProcessor,), {"__module__": Qwen2VLProcessor.__module__})
    pixels = {"shortest_edge": 28**2, "longest_edge": VISION_MOST * 28**2}  # a token is 28×28 of them
    return kind(Qwen2VLImageProcessorPil(size=pixels), tokenizer)

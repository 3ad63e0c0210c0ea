"""IP-Adapters: a picture beside the prompt, on tiny random models, adapters and image encoders."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from backend.engine import Engine
from backend.errors import InvalidRequest, ModelError
from backend.models.load import Options
from backend.operations.parameters import describe
from backend.request import Request
from backend.settings import Img2Img
from tests.backend import tiny
from tests.backend.helpers import Picture

READ = 12  # numbers that the image encoder makes of a picture
TOKENS = 4  # that the adapter makes of these


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def save_adapter(path: Path, model: str) -> None:
    """Write a random IP-Adapter for a model's UNet, in the layout of those that are shared."""
    torch.manual_seed(3)
    unet = diffusers.UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    width = unet.config.cross_attention_dim
    tensors = {
        "image_proj.proj.weight": torch.randn(TOKENS * width, READ),
        "image_proj.proj.bias": torch.zeros(TOKENS * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    for number, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            module = unet.get_submodule(name.removesuffix(".processor"))
            for part in ("k", "v"):
                shape = getattr(module, f"to_{part}").weight.shape
                tensors[f"ip_adapter.{number}.to_{part}_ip.weight"] = torch.randn(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def save_encoder(folder: Path, width: int = READ) -> None:
    torch.manual_seed(4)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=width,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)


def save_plus(path: Path, simple: Path) -> None:
    """Write an adapter with the attention of another, whose projection is that of the Plus kind."""
    tensors = {key: value for key, value in load_file(simple).items() if key.startswith("ip_adapter.")}
    width = next(iter(tensors.values())).shape[1]
    projection = IPAdapterPlusImageProjection(embed_dims=16, output_dims=width, hidden_dims=8, heads=1, num_queries=2)
    old = {"ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out"}
    old |= {"ff.0": "1.0", "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}
    state = projection.state_dict()
    for key, value in state.items():
        layer = re.fullmatch(r"(layers\.\d+)\.(.+)\.(weight|bias)", key)
        if layer is None:
            tensors[f"image_proj.{key}"] = value
        elif layer[2] == "attn.to_k":
            both = [value, state[key.replace("to_k", "to_v")]]
            tensors[f"image_proj.{layer[1]}.0.to_kv.weight"] = torch.cat(both)
        elif layer[2] != "attn.to_v":
            tensors[f"image_proj.{layer[1]}.{old[layer[2]]}.{layer[3]}"] = value
    save_file(tensors, path)


@pytest.fixture(scope="module")
def adapters(root: Path) -> Path:
    folder = root / "adapters"
    for family in ("sd1", "sdxl"):
        save_adapter(folder / "models" / f"{family}.safetensors", tiny.folder(family, root))
    save_encoder(folder / "image_encoder")
    save_file({"weight": torch.zeros(2)}, folder / "models" / "other.safetensors")
    (folder / "models" / "torn.safetensors").write_bytes((folder / "models" / "sd1.safetensors").read_bytes()[:-100])
    (folder / "models" / "words.safetensors").write_text("no weights")
    simple = load_file(folder / "models" / "sd1.safetensors")
    save_file({**simple, "ip_adapter.1.to_k_lora.up.weight": torch.zeros(2)}, folder / "models" / "face.safetensors")
    odd = {key: value for key, value in simple.items() if key != "image_proj.norm.bias"}
    save_file({**odd, "image_proj.proj.weight": torch.zeros(3)}, folder / "models" / "odd.safetensors")
    save_plus(folder / "models" / "plus.safetensors", folder / "models" / "sd1.safetensors")
    (folder / "alone" / "deep").mkdir(parents=True)
    (folder / "alone" / "deep" / "sd1.safetensors").write_bytes((folder / "models" / "sd1.safetensors").read_bytes())
    (folder / "wrong").mkdir()
    (folder / "wrong" / "sd1.safetensors").write_bytes((folder / "models" / "sd1.safetensors").read_bytes())
    save_encoder(folder / "wrong" / "image_encoder", READ + 1)
    return folder


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Options(device="cpu", precision="float32"))


@pytest.fixture
def make(engine: Engine, root: Path, picture: Picture) -> Callable[..., Picture]:
    def made(family: str = "sd1", reference: Picture | None = None, **settings: Any) -> Picture:
        images = {"init": picture} | ({} if reference is None else {"reference": reference})
        common = {"model": tiny.folder(family, root), "prompt": "a cat", "steps": 3, "seed": 5, "width": 64}
        request = Request(Img2Img(**{**common, "height": 64, "cfg_scale": 2.0, **settings}), images)
        pixels: Picture = engine.run(request, lambda share, text: None, lambda: False).pictures[0].pixels
        return pixels

    return made


def distance(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_reference_acts_as_strongly_as_is_asked(
    family: str, make: Callable[..., Picture], adapters: Path, picture: Picture
) -> None:
    name = str(adapters / "models" / f"{family}.safetensors")
    other = np.random.default_rng(0).integers(0, 255, (90, 70, 4), np.uint8)
    without = make(family)
    changed = [
        distance(make(family, picture, ip_adapter=name, ip_adapter_scale=scale), without) for scale in (0.0, 0.3, 1)
    ]
    assert changed[0] == 0 and 0 < changed[1] < changed[2]
    full = {"ip_adapter": name, "ip_adapter_scale": 1.0}
    assert distance(make(family, other, **full), make(family, picture, **full)) > 0
    assert np.array_equal(make(family), without)


def test_it_is_prompted_as_by_diffusers(engine: Engine, root: Path, adapters: Path, picture: Picture) -> None:
    """The guided prediction of each step is that of diffusers' own pipeline with the same adapter."""
    from backend.operations.noise import Seed
    from backend.operations.plan import plan_steps
    from backend.operations.sampling import Start, sample

    name = adapters / "models" / "sd1.safetensors"
    model = engine.models.get(tiny.folder("sd1", root))
    model.use_ip_adapter(str(name), 0.7, picture)
    latents = model.encode(picture[:64, :64].copy())
    settings = Img2Img(prompt="a cat", negative_prompt="a dog", steps=4, sampler="DDIM", cfg_scale=3.0)
    found = sample(model, settings, plan_steps(4, 1.0), Start(latents, [Seed(3)]), lambda done, total: None)
    scheduler = model.pipe.scheduler
    model.use_ip_adapter("", 0.0, None)
    pipe: Any = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(tiny.folder("sd1", root), safety_checker=None)
    encoder = CLIPVisionModelWithProjection.from_pretrained(adapters / "image_encoder")
    pipe.register_modules(image_encoder=encoder)
    pipe.load_ip_adapter(str(name.parent), subfolder="", weight_name=name.name, image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.7)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler
    from PIL import Image

    expected = pipe(
        "a cat",
        negative_prompt="a dog",
        image=latents,
        strength=1.0,
        num_inference_steps=4,
        guidance_scale=3.0,
        ip_adapter_image=Image.fromarray(picture),
        generator=[Seed(3).generator()],
        output_type="latent",
    ).images
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "name", "error", "words"),
    [
        ("sd1", "models/sdxl.safetensors", InvalidRequest, "doesn't fit"),
        ("sd1", "models/other.safetensors", InvalidRequest, "doesn't fit"),
        ("sd1", "models/odd.safetensors", InvalidRequest, "doesn't fit"),
        ("sd1", "models/face.safetensors", InvalidRequest, "FaceID"),
        ("sd1", "models/torn.safetensors", ModelError, "damaged"),
        ("sd1", "models/words.safetensors", ModelError, "damaged"),
        ("sd1", "models/none.safetensors", ModelError, "can't be reached"),
        ("sd1", "models/sd1.bin", InvalidRequest, "no .safetensors"),
        ("sd1", "alone/deep/sd1.safetensors", ModelError, "lacks its image encoder"),
        ("sd1", "wrong/sd1.safetensors", InvalidRequest, "doesn't belong"),
        ("flux", "models/sd1.safetensors", InvalidRequest, "takes no IP-Adapter"),
    ],
)
def test_what_does_not_serve_is_a_sentence_and_leaves_nothing(
    family: str,
    name: str,
    error: type[Exception],
    words: str,
    make: Callable[..., Picture],
    adapters: Path,
    picture: Picture,
) -> None:
    without = make(family)
    with pytest.raises(error, match=words):
        make(family, picture, ip_adapter=str(adapters / name))
    assert np.array_equal(make(family), without)


@pytest.mark.parametrize("memory", ["full", "low"])
def test_one_of_the_plus_kind_acts_in_half_precision(memory: str, root: Path, adapters: Path, picture: Picture) -> None:
    engine = Engine(Options(device="cpu", precision="bfloat16", memory=memory))
    name = str(adapters / "models" / "plus.safetensors")
    common: dict[str, Any] = {"model": tiny.folder("sd1", root), "steps": 2, "width": 64, "height": 64}
    made = [
        engine.run(
            Request(
                Img2Img(**common, ip_adapter=name, ip_adapter_scale=scale), {"init": picture, "reference": picture}
            ),
            lambda share, text: None,
            lambda: False,
        )
        for scale in (0.0, 1.0)
    ]
    assert distance(made[0].pictures[0].pixels, made[1].pictures[0].pixels) > 0


def test_without_a_reference_it_is_a_sentence(make: Callable[..., Picture], adapters: Path) -> None:
    with pytest.raises(InvalidRequest, match="no picture"):
        make(ip_adapter=str(adapters / "models" / "sd1.safetensors"))


def test_the_infotext_tells_it(engine: Engine, root: Path, adapters: Path, picture: Picture) -> None:
    settings = Img2Img(
        model=tiny.folder("sd1", root),
        ip_adapter=str(adapters / "models" / "sd1.safetensors"),
        steps=1,
        width=64,
        height=64,
    )
    request = Request(settings, {"init": picture, "reference": picture})
    made = engine.run(request, lambda share, text: None, lambda: False).pictures[0]
    assert "IP-Adapter: sd1" in describe(made) and "IP-Adapter scale: 0.6" in describe(made)

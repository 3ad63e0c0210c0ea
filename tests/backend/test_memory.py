"""A model within the memory that there is: parts in turn, tiles, overflow, and the ladder down to a sentence."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.engine import Engine
from backend.errors import ModelError, OutOfMemory
from backend.models.autoencoder import OVERFLOWED
from backend.models.load import MEMORY_MODES, Models, Options
from backend.models.memory import CACHES, free_memory
from backend.models.model import Model
from backend.models.needs import MODES
from backend.models.placement import CardShelf, DiskShelf, Placement, Shelf, Weight, blocks_of
from backend.models.savings import RUNGS, SAID
from backend.transport.worker import greeting
from tests.backend.helpers import Picture, img2img, run

ROOT = Path(__file__).resolve().parents[2]


def resident() -> int:
    """Return the bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


@pytest.fixture(scope="module")
def model() -> Model:
    return Models(Options()).get("embedded")


# --- Where weights lie ---


@pytest.mark.parametrize("mode", MODES[1:])
def test_every_mode_makes_the_same_picture(engine: Engine, picture: Picture, mode: str) -> None:
    sparing = Engine(Options(memory=mode))
    request = img2img(picture, batch_size=2)
    made, expected = (
        [one.pixels for one in each.run(request, lambda share, text: None, lambda: False).pictures]
        for each in (sparing, engine)
    )
    assert sparing.models.get("embedded").savings.placement.mode == mode
    assert len(made) == 2
    for one, other in zip(made, expected, strict=True):
        # Alone or in a batch, convolutions add up in another order: half precision rounds that to a level or two.
        assert np.abs(one.astype(int) - other).mean() < (0.01 if mode == "medium" else 1.0)


def test_weights_lie_as_they_did_after_all_modes(model: Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.pipe.unet.state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in model.pipe.unet.state_dict().items()}
    placement = model.savings.placement
    for mode in ("medium", "low", "full", "low", "medium", "full"):
        placement.change(mode)
        for part in ("text", "denoiser", "vae"):
            placement.use(part)
    for name, tensor in model.pipe.unet.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.stride() == strides[name], name


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to tell what a process holds")
def test_a_part_whose_turn_is_over_gives_its_memory_back() -> None:
    parts = {name: [torch.nn.Linear(6000, 6000, bias=False)] for name in ("text", "denoiser", "vae")}  # 144 MB each
    placement = Placement(parts, [], "cpu")
    full = resident()
    placement.change("medium")
    assert full - resident() > 400e6
    for name in ("text", "vae", "denoiser"):
        placement.use(name)
        parts[name][0](torch.ones(1, 6000))
    assert full - resident() > 250e6
    placement.change("full")
    assert abs(full - resident()) < 50e6


def test_on_a_card_only_what_is_used_is_there() -> None:
    """The device "meta" takes weights and works without numbers; whatever is not there raises an error."""
    model = Models(Options()).get("embedded")
    vae, unet, text = model.pipe.vae, model.pipe.unet, model.pipe.text_encoder
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    placement = Placement({"text": [text], "denoiser": [unet], "vae": [vae]}, blocks_of([text, unet]), "meta")

    def devices(module: torch.nn.Module) -> set[str]:
        return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}

    def step() -> str:
        values = torch.empty(2, 4, 16, 16, dtype=model.dtype, device="meta")
        prompts = torch.empty(2, 77, 192, dtype=model.dtype, device="meta")
        with torch.inference_mode():
            found = model.family.denoise(values, torch.ones((), device="meta"), encoder_hidden_states=prompts)[0]
        return str(found.device)

    placement.use("denoiser")
    assert (devices(unet), devices(vae), devices(text)) == ({"meta"}, {"cpu"}, {"cpu"}) and step() == "meta"
    placement.use("vae")
    assert (devices(unet), devices(vae), devices(text)) == ({"cpu"}, {"meta"}, {"cpu"})
    placement.change("low")
    placement.use("denoiser")
    assert devices(unet.conv_in) == {"meta"} and devices(unet.down_blocks[1]) == {"cpu"}
    assert step() == "meta" and devices(unet.down_blocks[1]) == {"cpu"}
    placement.use("text")
    assert devices(unet) == {"cpu"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    placement.change("full")
    assert devices(unet) == devices(vae) == devices(text) == {"meta"}


def test_a_part_that_a_lora_was_put_into_is_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Models(Options()).get("embedded")
    encoder, vae = model.pipe.text_encoder, model.pipe.vae
    parts = {"text": [encoder], "denoiser": [model.pipe.unet], "vae": [vae]}
    placement = model.savings.placement = Placement(parts, blocks_of([encoder, model.pipe.unet]), "meta")
    seen: list[torch.Tensor] = []

    def put_in(weights: object) -> None:
        model._loras.active, encoder.added = ((("a LoRA", 0, 0), 1.0),), torch.nn.Linear(2, 2)

    def look(*_: object) -> None:
        seen.extend((*encoder.parameters(), *encoder.buffers()))
        raise InterruptedError

    monkeypatch.setattr(model._loras, "apply", put_in)
    encoder.register_forward_pre_hook(look)
    with pytest.raises(InterruptedError):
        model.encode_prompts("a cat", "", 1, 1)
    assert {tensor.device.type for tensor in seen} == {"meta"}
    assert model.savings.held() == sum(tensor.nbytes for tensor in seen)
    placement.put_back()
    assert model.savings.held() == 0 and next(encoder.parameters()).device.type == "cpu"


def test_a_part_that_was_put_aside_comes_back_to_where_all_parts_stay() -> None:
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    placement = Placement({"vae": [first]}, [], "meta")
    placement.use("vae")
    placement.replace("vae", [second])
    placement.change("full")
    assert (first.weight.device.type, second.weight.device.type) == ("meta", "meta")
    third = torch.nn.Linear(2, 2)
    placement.replace("vae", [third])
    assert third.weight.device.type == "meta"


def test_a_disk_that_refuses_leaves_all_parts_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: [torch.nn.Linear(2, 2)] for name in ("text", "vae")}
    before = parts["text"][0].weight.clone()
    placement = Placement(parts, [], "cpu")

    def refuse(**_: object) -> None:
        raise OSError("no space")

    placement.change("medium")
    monkeypatch.setattr("backend.models.placement.tempfile.TemporaryFile", refuse)
    with pytest.raises(OutOfMemory, match="laid aside on the disk"):
        placement.change("low")
    assert placement.mode == "full" and torch.equal(parts["text"][0].weight, before)
    placement.use("vae")


def test_a_device_that_tells_nothing_is_unknown_and_a_kept_preview_network_is_let_go() -> None:
    assert torch.cuda.is_available() or free_memory("cuda") == 0
    assert torch.xpu.is_available() or free_memory("xpu") == 0
    assert torch.cuda.is_available() or greeting(Options(device="cuda"))["device"] == ""
    for module, functions in CACHES.items():
        loaded = importlib.import_module(f"backend.models.{module}")
        assert all(hasattr(getattr(loaded, function), "cache_clear") for function in functions)


def test_a_block_that_was_cancelled_gives_its_memory_back_too() -> None:
    block = torch.nn.Linear(2, 2)
    network = torch.nn.Sequential(torch.nn.ModuleList([block])[0])
    placement = Placement({"denoiser": [network]}, [block], "meta")
    placement.change("low")
    placement.use("denoiser")
    with pytest.raises(RuntimeError):
        network(torch.empty(1, 3, device="meta"))
    assert block.weight.device.type == "cpu"


@pytest.mark.parametrize("make", [DiskShelf, lambda weights: CardShelf(weights, "cpu")])
def test_a_shelf_gives_back_what_was_put_on_it(make: Callable[[list[Weight]], Shelf]) -> None:
    odd = torch.arange(24.0).reshape(2, 3, 2, 2)
    tensors = [
        odd.clone(),
        odd.to(memory_format=torch.channels_last),
        torch.tensor(3.0, dtype=torch.bfloat16),
        torch.arange(5),
        odd.permute(3, 1, 0, 2),
        torch.empty(0),
    ]
    weights = [Weight(tensor) for tensor in tensors]
    for weight, tensor in zip(weights, tensors, strict=True):
        weight.found_in({"": tensor}, "")
    shelf = make(weights)
    for _ in range(2):
        shelf.fetch()
        assert all(torch.equal(weight.value, tensor) for weight, tensor in zip(weights, tensors, strict=True))
        shelf.put_back()
    shelf.empty()
    weights[0].value += 1
    assert weights[0].value[0, 0, 0, 1] == 2


# --- Overflow ---


@pytest.fixture
def overflowing() -> Engine:
    """An engine whose VAE, in half precision, overflows in its first convolutions and not in full."""
    engine = Engine(Options(device="cpu", precision="float16"))
    vae = engine.models.get("embedded").pipe.vae
    with torch.no_grad():
        for convolution in (vae.decoder.conv_in, vae.encoder.conv_in):
            # As far as half precision holds the weights themselves.
            scale = 6e4 / max(part.abs().max() for part in (convolution.weight, convolution.bias))
            convolution.weight *= scale
            convolution.bias *= scale
    vae.to(torch.float16)
    return engine


def test_a_vae_that_overflows_is_run_in_full_precision_and_says_so(overflowing: Engine, picture: Picture) -> None:
    model = overflowing.models.get("embedded")
    half = model.pipe.vae.decode(torch.randn(1, 4, 8, 8).half(), return_dict=False)[0]
    assert not torch.isfinite(half).all()
    output = overflowing.run(img2img(picture, steps=1), lambda share, text: None, lambda: False)
    assert OVERFLOWED in output.notice and model.pipe.vae.dtype == torch.float32
    assert output.pictures[0].pixels.std() > 5
    again = overflowing.run(img2img(picture, steps=1), lambda share, text: None, lambda: False)
    assert again.notice == "" and np.array_equal(again.pictures[0].pixels, output.pictures[0].pixels)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_vae_overflows_in_every_mode(overflowing: Engine, mode: str) -> None:
    model = overflowing.models.get("embedded")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    model.savings.placement.change(mode)
    sparing = model.decode(latents)
    model.savings.placement.change("full")
    assert np.array_equal(sparing, model.decode(latents)) and sparing.std() > 5


def test_a_denoiser_that_overflows_is_a_sentence(picture: Picture) -> None:
    engine = Engine(Options(device="cpu", precision="float32"))
    with torch.no_grad():
        engine.models.get("embedded").pipe.unet.conv_out.weight *= 1e38
    with pytest.raises(ModelError, match="NaN") as caught:
        run(engine, img2img(picture))
    assert "Precision" in caught.value.remedy


# --- The ladder ---


def test_each_failure_goes_down_one_rung_and_only_the_failed_work_is_done_again(model: Model) -> None:
    savings, told, done = Models(Options()).get("embedded").savings, list[str](), list[int]()
    savings.tell = told.append

    def failing(times: int) -> str:
        done.append(times)
        if done.count(times) <= times:
            raise torch.OutOfMemoryError("out of memory")
        return "made"

    assert savings.attempt("work", "vae", lambda: failing(0)) == "made" and told == []
    assert savings.attempt("work", "vae", lambda: failing(2)) == "made"
    assert told == [SAID[rung] for rung in RUNGS[:2]] and savings.tiled
    assert savings.attempt("work", "denoiser", lambda: failing(1)) == "made"
    assert savings.placement.mode == "medium" and done == [0, 2, 2, 2, 1, 1]
    with pytest.raises(OutOfMemory, match="not enough memory to draw it"):
        savings.attempt("draw it", "vae", lambda: failing(99))
    assert told == [SAID[rung] for rung in RUNGS] and savings.one_at_a_time
    assert savings.attempt("work", "vae", lambda: "made") == "made"


def test_other_errors_are_no_lack_of_memory(model: Model) -> None:
    def broken() -> None:
        raise RuntimeError("shapes don't fit")

    with pytest.raises(RuntimeError, match="shapes"):
        model.savings.attempt("work", "vae", broken)


# In a process whose address space ends so many bytes after what it took to draw the picture in tiles.
LIMITED = """
import json, resource
import numpy as np
from backend.engine import Engine
from backend.errors import OutOfMemory
from backend.models import tiled_vae
from backend.models.load import Options

tiled_vae.TILE = 256
model = Engine(Options(precision="float32")).models.get("embedded")
picture = np.random.default_rng(0).integers(0, 255, (512, 512, 3)).astype(np.uint8)
picture[:256] //= 2
model.savings.tiled = True
latents = model.encode_anew(picture)
expected = model.decode(latents)
model.prepare(512, 512)
told = []
model.savings.tell = told.append
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for room, tiled_vae.TILE in ((55_000_000, 256), (20_000_000, 512)):
    resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
    result = {"error": "", "same": False}
    try:
        result["same"] = bool(np.array_equal(model.decode(latents), expected))
    except OutOfMemory as error:
        result["error"] = str(error)
    print(json.dumps({**result, "told": told}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space that is heeded")
def test_a_real_lack_of_memory_is_survived_by_tiles_or_ends_in_a_sentence_with_numbers() -> None:
    command = [sys.executable, "-c", LIMITED]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}  # what is let go of is given back at once
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    enough, nothing = map(json.loads, done.stdout.splitlines())
    assert enough == {"error": "", "same": True, "told": [SAID["caches"], SAID["tiles"]]}
    assert "are needed, " in nothing["error"] and "Choose a smaller size" in nothing["error"]
    assert nothing["told"][-2:] == [SAID["medium"], SAID["low"]]


def test_a_picture_for_which_there_is_no_room_is_refused_before_it_is_begun(
    picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(Options(device="cpu"))
    engine.models.get("embedded")
    for module in ("memory", "savings"):
        monkeypatch.setattr(f"backend.models.{module}.free_memory", lambda device: 10_000_000)
    began: list[str] = []
    with pytest.raises(OutOfMemory, match="are needed, "):
        engine.run(img2img(picture, width=384, height=384), lambda share, text: began.append(text), lambda: False)
    assert not any(text.startswith(("Reading", "Step")) for text in began)
    chosen = Engine(Options(device="cpu", memory="low"))
    assert run(chosen, img2img(picture, steps=1)).shape == picture.shape  # whose will is done


def test_the_modes_are_those_that_can_be_chosen() -> None:
    assert tuple(MEMORY_MODES) == ("automatic", *MODES)

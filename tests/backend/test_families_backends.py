"""Every family, inside this process and in one of its own: img2img, inpaint, LoRA, cancel; the same pixels by both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from backend.events import Event
from backend.imaging.pictures import load
from backend.models.load import Options
from backend.request import Request
from backend.settings import Img2Img, Inpaint
from backend.transport.embedded import EmbeddedBackend
from backend.transport.protocol import Backend
from backend.transport.subprocess import SubprocessBackend
from tests.backend import tiny
from tests.backend.helpers import Picture
from tests.backend.test_transports import follow

FAMILIES = [
    name for name in tiny.FAMILIES if name not in ("velocity", "distilled", "qwen_edit_plus")
]  # kinds of those that are there
WITH_LORA = [name for name in FAMILIES if name != "refiner"]  # which nobody makes LoRAs for
SIZE = {"width": 96, "height": 80}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def loras(root: Path) -> Path:
    """A folder with a random LoRA for each family, of its name."""
    folder = root / "family loras"
    for family in WITH_LORA:
        torch.manual_seed(1)
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(tiny.folder(family, root), **tiny.GIVEN.get(family, {}))
        part = "unet" if hasattr(pipe, "unet") else "transformer"
        network = getattr(pipe, part)
        network.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v"]))
        weights = {key: torch.randn_like(value) * 0.5 for key, value in get_peft_model_state_dict(network).items()}
        layers = {f"{part}_lora_layers": weights}
        saver = diffusers.FluxPipeline if family == "fill" else pipe  # whose own pipeline can't save one
        saver.save_lora_weights(folder, weight_name=f"{family}.safetensors", **layers)
    return folder


@pytest.fixture(scope="module")
def backends(root: Path, loras: Path) -> Iterator[tuple[Backend, Backend]]:
    options = Options(device="cpu", precision="float32", lora_folders=(str(loras),))
    embedded = EmbeddedBackend(root / "embedded jobs", options)
    separate = SubprocessBackend(sys.executable, root / "separate jobs", options)
    yield embedded, separate
    embedded.close()
    separate.close()


def settings_of(family: str, root: Path, **changes: Any) -> dict[str, Any]:
    common = {"model": tiny.folder(family, root), "prompt": "a cat", "steps": 2, "seed": 5, "cfg_scale": 2.0, **SIZE}
    return {**common, **changes}


def made(backend: Backend, request: Request) -> Picture:
    """Return the picture that a backend makes of a request."""
    last: Event = follow(backend, backend.submit(request))[-1]
    assert last.kind == "finished", f"{last.message} {last.remedy}"
    return load(Path(last.results[0].path))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_by_each_backend(
    family: str, backends: tuple[Backend, Backend], root: Path, picture: Picture
) -> None:
    source = picture[60:140, 80:176].copy()
    mask = np.zeros((80, 96), np.float32)
    mask[30:52, 34:60] = 1
    given = settings_of(family, root)
    requests = [Request(Img2Img(**given), {"init": source})]
    requests.append(Request(Inpaint(**given, mask_blur=0), {"init": source, "mask": mask}))
    if family in WITH_LORA:
        with_lora = settings_of(family, root, prompt=f"a cat <lora:{family}:1>")
        requests.append(Request(Img2Img(**with_lora), {"init": source}))
    inside, outside = ([made(backend, request) for request in requests] for backend in backends)
    for one, other in zip(inside, outside, strict=True):
        assert one.shape == (80, 96, 3) and np.array_equal(one, other)
    repainted, masked = inside[0], inside[1]
    assert np.abs(repainted.astype(int) - source).mean() > 1
    assert np.array_equal(masked[mask == 0], source[mask == 0])
    assert not np.array_equal(masked[mask == 1], source[mask == 1])
    if family in WITH_LORA:
        assert not np.array_equal(inside[2], repainted)
    for backend in backends:
        job = backend.submit(Request(Img2Img(**{**given, "steps": 150}), {"init": source}))
        follow(backend, job, lambda event: event.message.startswith("Step"))
        backend.cancel(job)
        assert follow(backend, job)[-1].kind == "cancelled"

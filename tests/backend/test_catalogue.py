"""The catalogue of models: every kind told by its own files, what can't be used named, thousands listed at once."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backend.models import catalogue
from backend.models.catalogue import Entry, find_models
from backend.models.folders import split_folders
from backend.models.load import EMBEDDED_FOLDER
from backend.models.previews import OWN
from backend.models.recognise import INPUT
from tests.backend.tiny import folder as tiny_folder

ROOT = Path(__file__).resolve().parents[2]
MANY = 2000  # files
LOOK_AGAIN = 2.0  # seconds that listing them once more may take, on a busy machine

Shapes = dict[str, tuple[int, ...]]
SD1: Shapes = {INPUT: (2, 4, 1, 1), "cond_stage_model.transformer.x": (1,), "first_stage_model.x": (1,)}
SD2: Shapes = {INPUT: (2, 4, 1, 1), "cond_stage_model.model.x": (1,), "first_stage_model.x": (1,)}
SDXL: Shapes = {INPUT: (2, 4, 1, 1), "conditioner.embedders.1.x": (1,), "first_stage_model.x": (1,)}
WHOLE = {
    "sd1": (SD1, "Stable Diffusion 1"),
    "sd1 inpaint": ({**SD1, INPUT: (2, 9, 1, 1)}, "Stable Diffusion 1 inpainting"),
    "sd2": (SD2, "Stable Diffusion 2"),
    "sdxl": (SDXL, "Stable Diffusion XL"),
    "sdxl inpaint": ({**SDXL, INPUT: (2, 9, 1, 1)}, "Stable Diffusion XL inpainting"),
}
FOLDERS = {
    "sd1": "Stable Diffusion 1",
    "inpainting": "Stable Diffusion 1 inpainting",
    "sdxl": "Stable Diffusion XL",
    "flux": "Flux",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no memory of earlier looks."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    catalogue._known.clear()
    return tmp_path / "home" / "hub"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny models are built."""
    return tmp_path_factory.mktemp("tiny")


def save(path: Path, shapes: Shapes) -> Path:
    """Save a .safetensors file with these keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path)
    return path


def models_in(*folders: Path) -> dict[str, Entry]:
    """Return what is found by its title, less the embedded model."""
    return {entry.title: entry for entry in find_models(folders) if entry.kind != "embedded"}


def test_the_embedded_model_comes_first() -> None:
    first = find_models()[0]
    assert (first.name, first.kind, first.problem) == ("embedded", "embedded", "")
    assert first.family == "Stable Diffusion 1"
    own = [path for path in EMBEDDED_FOLDER.rglob("*.safetensors") if path.parent.name != OWN]
    weights = sum(path.stat().st_size for path in own)
    assert weights <= first.bytes < 2 * weights


@pytest.mark.parametrize("name", WHOLE)
def test_single_files_are_told_by_their_keys(name: str, tmp_path: Path) -> None:
    shapes, family = WHOLE[name]
    path = save(tmp_path / "models" / "deep" / "Some Model.safetensors", shapes)
    assert models_in(tmp_path / "models") == {
        "Some Model": Entry(str(path), "Some Model", family, "single file", path.stat().st_size)
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_diffusers_folders_are_told_by_their_configuration(name: str, tiny: Path) -> None:
    folder = Path(tiny_folder(name, tiny))
    (entry,) = models_in(folder).values()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert entry == Entry(str(folder), name, entry.family, "diffusers folder", size)
    assert entry.family == FOLDERS[name]
    assert models_in(folder.parent)[name] == entry


def test_what_cant_be_used_says_why_and_comes_last(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    whole = save(folder / "whole.safetensors", SD1)
    content = whole.read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-4])
    (folder / "long.safetensors").write_bytes(content + b"more")
    (folder / "words.safetensors").write_text("Not found\n")
    (folder / "page.safetensors").write_text("<!DOCTYPE html><html>")
    (folder / "pointer.ckpt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "old.ckpt").write_bytes(pickle.dumps({"state_dict": {}}, protocol=2))
    save(folder / "lora.safetensors", {"lora_unet_x.lora_up.weight": (2, 2)})
    save(folder / "flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": (2, 2)})
    save(folder / "sd3.safetensors", {"model.diffusion_model.joint_blocks.0.x.weight": (2, 2)})
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("nothing")
    found = models_in(folder, tmp_path / "none")
    assert {title: entry.family for title, entry in found.items() if not entry.problem} == {
        "whole": "Stable Diffusion 1",
        "old": "unknown until loaded",
    }
    assert list(found)[:2] == ["old", "whole"]
    words = {
        "cut": "cut.safetensors is damaged or was copied only in part",
        "long": "long.safetensors is damaged",
        "words": "is a text file",
        "page": "is a web page",
        "pointer": "is only a Git LFS pointer",
        "lora": "is a LoRA",
        "flux": "Flux",
        "sd3": "Stable Diffusion 3",
        "none": "There is no folder",
    }
    assert {title for title, entry in found.items() if entry.problem} == set(words)
    for title, part in words.items():
        assert part in found[title].problem and found[title].problem.endswith(".")
    assert (found["flux"].family, found["sd3"].family) == ("Flux", "Stable Diffusion 3")


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"{" + b'"a":{' * 50_000,
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 5000 + b"]}}",
        b'{"__metadata__": 3}',
        b"{\xff}",
    ],
)
def test_hostile_headers_are_a_sentence(header: bytes, tmp_path: Path) -> None:
    start = b"{" if header[:1] != b"{" else b""
    content = start + header
    (tmp_path / "bad.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + bytes(4))
    assert "bad.safetensors is damaged" in models_in(tmp_path)["bad"].problem


def test_a_header_that_claims_to_be_huge_isnt_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.write((10**12).to_bytes(8, "little") + b"{")
    with (tmp_path / "holes.safetensors").open("wb") as file:
        file.write((10**9).to_bytes(8, "little") + b"{")
        file.truncate(2 * 10**9)
    started = time.monotonic()
    found = models_in(tmp_path)
    assert "longer than the file" in found["huge"].problem
    assert "longer than that of any model" in found["holes"].problem
    assert time.monotonic() - started < 1


def test_folders_that_are_damaged_or_of_another_kind_say_why(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for name in ("cut", "lacking", "pickled", "other", "nonsense", "half"):
        shutil.copytree(tiny_folder("sd1", tiny), folder / name)
    weights = "unet/diffusion_pytorch_model.safetensors"
    (folder / "cut" / weights).write_bytes((folder / "cut" / weights).read_bytes()[:-1])
    shutil.rmtree(folder / "lacking" / "vae")
    (folder / "pickled" / weights).rename(folder / "pickled" / "unet" / "diffusion_pytorch_model.bin")
    index = json.loads((folder / "other" / "model_index.json").read_text())
    (folder / "other" / "model_index.json").write_text(json.dumps({**index, "_class_name": "AudioLDMPipeline"}))
    (folder / "nonsense" / "model_index.json").write_text("[" * 100_000)
    (folder / "half" / weights).rename(folder / "half" / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    found = models_in(folder)
    assert "damaged or was copied only in part" in found["cut"].problem
    assert "lacks its vae" in found["lacking"].problem
    assert "only as pickles" in found["pickled"].problem
    assert "is a AudioLDMPipeline" in found["other"].problem and found["other"].family == "unknown"
    assert "makes no sense" in found["nonsense"].problem
    assert not found["half"].problem


def test_other_tools_are_looked_into_where_they_keep_whole_models(tiny: Path, tmp_path: Path) -> None:
    webui, comfy, forge = tmp_path / "webui", tmp_path / "comfy", tmp_path / "forge"
    save(webui / "models" / "Stable-diffusion" / "a.safetensors", SD1)
    save(webui / "models" / "Lora" / "no.safetensors", SD1)
    save(comfy / "models" / "checkpoints" / "sub" / "b.safetensors", SDXL)
    shutil.copytree(tiny_folder("sd1", tiny), comfy / "models" / "diffusers" / "c")
    save(comfy / "models" / "vae" / "no.safetensors", SD1)
    save(forge / "Stable-diffusion" / "d.safetensors", SD2)
    save(forge / "VAE" / "no.safetensors", SD1)
    assert set(models_in(webui, comfy, forge)) == {"a", "b", "c", "d"}
    assert set(models_in(webui / "models" / "Lora")) == {"no"}


def test_the_hubs_cache_is_listed_without_network(cache: Path, tiny: Path) -> None:
    repository = cache / "models--owner--some--name"
    folder = repository / "snapshots" / "abc"
    shutil.copytree(tiny_folder("sdxl", tiny), folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    other = cache / "models--owner--captions" / "snapshots" / "abc"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    found = models_in()
    assert set(found) == {"owner/some--name"}
    entry = found["owner/some--name"]
    assert (entry.name, entry.family, entry.kind) == ("owner/some--name", "Stable Diffusion XL", "hub cache")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "Fetch it again" in models_in()["owner/some--name"].problem
    assert set(models_in(cache)) == {"owner/some--name"}


def test_links_in_circles_end(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    save(folder / "a" / "model.safetensors", SD1)
    (folder / "a" / "up").symlink_to(folder)
    (folder / "twice").symlink_to(folder / "a")
    elsewhere = save(tmp_path / "elsewhere" / "linked.safetensors", SD2)
    (folder / "elsewhere").symlink_to(elsewhere.parent)
    assert {Path(entry.name) for entry in models_in(folder).values()} == {
        folder / "a" / "model.safetensors",
        folder / "elsewhere" / "linked.safetensors",
    }


def test_thousands_are_listed_fast_and_read_again_only_if_changed(tmp_path: Path) -> None:
    first = save(tmp_path / "0.safetensors", {**SD1, **{f"model.diffusion_model.{i}": (1,) for i in range(100)}})
    for i in range(1, MANY):
        (tmp_path / f"{i}.safetensors").write_bytes(first.read_bytes())
    assert len(models_in(tmp_path)) == MANY
    started = time.monotonic()
    assert len(models_in(tmp_path)) == MANY
    assert time.monotonic() - started < LOOK_AGAIN
    content = first.read_bytes()
    about = first.stat()
    first.write_bytes(bytes(len(content)))
    os.utime(first, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert not models_in(tmp_path)["0"].problem  # as it was, by the look of it
    os.utime(first, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert "zeros" in models_in(tmp_path)["0"].problem


def test_several_folders_are_one_preference() -> None:
    assert split_folders("") == []
    assert split_folders(f"/one; /two{os.pathsep}/three") == ["/one", "/two", "/three"]


def test_listing_needs_neither_torch_nor_the_hubs_library() -> None:
    code = "import sys; from backend.models.catalogue import find_models; find_models(['.'])\n"
    code += "assert not {'torch', 'huggingface_hub', 'diffusers', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

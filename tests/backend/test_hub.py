"""Fetching models from a hub on this machine: sizes, progress, cancel, resume, the token, and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from backend.engine import Engine
from backend.errors import Cancelled, ModelError
from backend.models import hub
from backend.models.load import Options
from backend.models.pipeline_files import needed_files
from tests.backend.fake_hub import FakeHub, serve
from tests.backend.helpers import Picture, img2img, run
from tests.backend.tiny import folder as tiny_folder

ONLINE = Options(device="cpu", precision="float32", online=True)
HALF = Options(device="cpu", precision="float16", online=True)
OFFLINE = Options(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as authors upload one: with pickles, half precision, a checker, a picture and a single file too."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    shutil.copytree(tiny_folder("sd1", tmp_path_factory.mktemp("tiny")), folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    for place in ("safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "whole.safetensors"):
        (folder / place).write_bytes(b"not wanted")
    (folder / "picture.png").write_bytes(b"not wanted")
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = load_file(folder / part / f"{name}.safetensors")
        save_file({key: value.half() for key, value in weights.items()}, folder / part / f"{name}.fp16.safetensors")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub"


@pytest.fixture
def server(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that has the model as owner/tiny."""
    with serve({"owner/tiny": model}) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found


def no_check() -> None:
    """Never cancel."""


def fetch(name: str = "owner/tiny", options: Options = ONLINE, check: Callable[[], None] = no_check) -> Path:
    """Fetch a model."""
    return hub.fetch(name, options, lambda share, message: None, check)


def bytes_of(folder: Path, names: set[str]) -> int:
    """Return how large these files of a folder are."""
    return sum((folder / name).stat().st_size for name in names)


FULL = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}
IN_HALF = {name.replace(".safetensors", ".fp16.safetensors") if "vae" not in name else name for name in FULL}


@pytest.mark.parametrize(("options", "expected"), [(ONLINE, FULL), (HALF, IN_HALF)])
def test_the_size_is_that_of_the_files_that_are_then_fetched(
    options: Options, expected: set[str], server: FakeHub, cache: Path, model: Path
) -> None:
    size = hub.size_of("owner/tiny", options)
    assert not cache.exists() and not server.fetched(".safetensors")
    folder = fetch(options=options)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("tokenizer/")} == expected
    assert (size.files, size.total, size.left) == (len(found), bytes_of(model, found), bytes_of(model, found))
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in found)
    assert hub.size_of("owner/tiny", options).left == 0
    assert hub.find_pipeline("owner/tiny") == folder
    server.asked.clear()
    assert hub.ensure_fetched("owner/tiny", OFFLINE, lambda share, message: None, no_check) == folder
    assert not server.asked


def test_progress_never_falls_and_ends_near_one(server: FakeHub, model: Path) -> None:
    server.pace = 0.003
    told: list[tuple[float, str]] = []
    hub.fetch("owner/tiny", ONLINE, lambda share, message: told.append((share, message)), no_check)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] > 0.5 and len(set(shares)) > 3
    assert any("Fetching owner/tiny: 0.00 of 0.00 GB" in text for _, text in told)


def test_a_cancel_ends_it_at_once_and_the_next_one_goes_on(server: FakeHub, cache: Path, model: Path) -> None:
    server.pace = 0.02
    weights = sum(path.stat().st_size for path in model.rglob("*.safetensors") if path.name[:5] in ("model", "diffu"))
    asked_at = 0.0

    def check() -> None:
        nonlocal asked_at
        if server.sent > weights / 4:
            asked_at = time.monotonic()
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch(check=check)
    assert time.monotonic() - asked_at < 1
    assert hub.find_pipeline("owner/tiny") is None
    (partial,) = cache.rglob("*.resumed.incomplete")
    kept = partial.stat().st_size
    assert kept > 0
    size = hub.size_of("owner/tiny", ONLINE)
    assert size.left <= size.total - kept
    server.pace, server.sent = 0.0, 0
    server.ranges.clear()
    folder = fetch()
    assert server.ranges == [f"bytes={kept}-"]
    assert server.sent < weights
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (folder / name).read_bytes() == (model / name).read_bytes()
    assert not list(cache.rglob("*.incomplete"))


def test_a_connection_that_breaks_is_taken_up_again(server: FakeHub, model: Path) -> None:
    server.breaks_after = 40_000
    folder = fetch()
    assert len(server.ranges) == 1
    for path in folder.rglob("*.safetensors"):
        assert path.read_bytes() == (model / path.relative_to(folder)).read_bytes()


def test_bytes_that_arrive_damaged_are_thrown_away(server: FakeHub, cache: Path) -> None:
    server.damages = True
    with pytest.raises(ModelError, match="arrived damaged"):
        fetch()
    assert not list(cache.rglob("*.incomplete")) and hub.find_pipeline("owner/tiny") is None


def test_the_token_is_taken_from_where_the_library_keeps_it(server: FakeHub, cache: Path) -> None:
    server.token = "hf_ours"
    with pytest.raises(ModelError, match="no model owner/tiny, or it is private"):
        fetch()
    cache.parent.mkdir(parents=True, exist_ok=True)
    (cache.parent / "token").write_text("hf_ours")
    assert (fetch() / "model_index.json").is_file()


def test_what_can_go_wrong_is_one_sentence(
    server: FakeHub, cache: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="The hub has no model owner/none, or it is private"):
        hub.size_of("owner/none", ONLINE)
    with pytest.raises(ModelError, match="online access is off"):
        hub.size_of("owner/tiny", OFFLINE)
    with pytest.raises(ModelError, match="online access is off"):
        hub.ensure_fetched("owner/tiny", OFFLINE, lambda share, message: None, no_check)
    with pytest.raises(ModelError, match="no name of the hub"):
        hub.size_of("../../etc/passwd", ONLINE)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.safetensors").write_bytes(b"weights")
    pickled = tmp_path / "pickled"
    shutil.copytree(model, pickled)
    for path in (pickled / "unet").glob("*.safetensors"):
        path.unlink()
    server.repositories |= {"owner/plain": plain, "owner/pickled": pickled}
    with pytest.raises(ModelError, match="owner/plain is no diffusers model"):
        fetch("owner/plain")
    with pytest.raises(ModelError, match="has its unet only as pickles"):
        fetch("owner/pickled")
    server.gated = {"owner/tiny"}
    with pytest.raises(ModelError, match="gated: its authors ask") as caught:
        fetch()
    assert f"{server.address}/owner/tiny" in caught.value.remedy and "HF_TOKEN" in caught.value.remedy
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="could not be reached"):
        fetch()


def test_a_full_disk_is_told_before_anything_is_fetched(server: FakeHub, tmp_path: Path) -> None:
    server.sizes = {"vae/diffusion_pytorch_model.safetensors": shutil.disk_usage(tmp_path).free + 10**9}
    with pytest.raises(ModelError, match=r"needs .* GB, and the disk with .* has .* GB left"):
        fetch()
    assert not server.fetched(".safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cant_be_written_to_is_named(server: FakeHub, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    with pytest.raises(ModelError, match="can't be written to"):
        fetch()


def test_settings_that_name_no_hub_model_are_left_alone(cache: Path, tmp_path: Path) -> None:
    for name in ("embedded", str(tmp_path), "models/some.safetensors", "no such model", ""):
        assert hub.ensure_fetched(name, ONLINE, lambda share, message: None, no_check) is None


def test_shards_count_only_if_all_of_them_are_there() -> None:
    index = {"_class_name": "P", "unet": ["diffusers", "UNet2DConditionModel"], "tokenizer": ["transformers", "T"]}
    shards = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    about = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.json", "tokenizer/spiece.model"]
    half = ["unet/diffusion_pytorch_model.fp16.safetensors"]
    extra = [
        "unet/diffusion_flax_model.msgpack",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "tokenizer/a/b.txt",
    ]
    everything = [*shards, *about, *half, *extra]
    assert set(needed_files(index, everything, False, "m")) == {"model_index.json", *shards, *about}
    assert set(needed_files(index, everything, True, "m")) == {"model_index.json", about[0], about[2], *half}
    assert set(needed_files(index, everything[1:], False, "m")) == {"model_index.json", about[0], about[2], *half}
    with pytest.raises(ModelError, match="nowhere as safetensors"):
        needed_files(index, [*shards[:1], *about, *extra], False, "m")


def test_the_engine_fetches_and_paints_and_can_be_cancelled(server: FakeHub, model: Path, picture: Picture) -> None:
    server.pace = 0.02
    request = img2img(picture, model="owner/tiny", width=64, height=64, prompt="a cat")
    with pytest.raises(Cancelled):
        Engine(ONLINE).run(request, lambda share, text: None, lambda: server.sent > 50_000)
    server.pace = 0.0
    told: list[str] = []
    painted = Engine(ONLINE).run(request, lambda share, text: told.append(text), lambda: False).pictures[0].pixels
    assert any(text.startswith("Fetching owner/tiny") for text in told)
    local = run(Engine(ONLINE), img2img(picture, model=str(model), width=64, height=64, prompt="a cat"))
    assert (painted == local).all()
    server.asked.clear()
    again = Engine(OFFLINE).run(request, lambda share, text: None, lambda: False).pictures[0].pixels
    assert (again == painted).all() and not server.asked


def test_what_was_fetched_in_half_precision_is_loaded(server: FakeHub, cache: Path, picture: Picture) -> None:
    fetch(options=HALF)
    request = img2img(picture, model="owner/tiny", width=64, height=64, prompt="a cat")
    assert run(Engine(OFFLINE), request).shape == (64, 64, 3)


def test_the_process_ends_when_its_parent_is_gone(server: FakeHub) -> None:
    server.pace = 0.5
    fetching = hub.Fetching("owner/tiny", ONLINE)
    until = time.monotonic() + 60
    while not server.sent and time.monotonic() < until:
        fetching.poll(0.05)
    assert fetching._child.process.stdin is not None
    fetching._child.process.stdin.close()  # as the system does for a parent that was killed
    assert fetching._child.process.wait(5) != 0
    fetching.close()

"""The list of models in real Blender: found, chosen, refused with a reason, and fetched from a hub on this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import pytest

from tests.backend.fake_hub import FakeHub, serve
from tests.backend.test_catalogue import SD1, save
from tests.backend.tiny import folder as tiny_folder
from tests.blender.test_main_job import part
from tools.extension import EXTENSION

PATIENCE = 60.0  # seconds; only a hang takes this long


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with one that can be used and one that can't, and an empty hub cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    save(tmp_path / "models" / "Good One.safetensors", SD1)
    (tmp_path / "models" / "words.safetensors").write_text("no model")
    return tmp_path / "models"


@pytest.fixture
def found(scene: bpy.types.Scene, folder: Path) -> Iterator[list[Any]]:
    """The entries after a look at that folder."""
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    preferences.model_folders = f"{folder};{folder / 'none'}"
    part("addon.catalogue").wait()  # other folders are looked at of themselves
    assert bpy.ops.viewport_diffusion.refresh_models() == {"FINISHED"}
    yield list(part("addon.catalogue").entries())
    preferences.model_folders = ""


@pytest.fixture
def online() -> Iterator[None]:
    """Online access, as the artist allows it."""
    system = bpy.context.preferences.system
    before = system.use_online_access
    system.use_online_access = True
    yield
    system.use_online_access = before


@pytest.fixture
def hub(folder: Path, online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that has a tiny model as owner/tiny."""
    model = Path(tiny_folder("sd1", folder.parent))
    with serve({"owner/tiny": model}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
    part("addon.catalogue").shut_down()
    part("addon.catalogue").forget()


def place_of(title: str) -> int:
    """Return where the list has a model."""
    return next(i for i, item in enumerate(bpy.context.window_manager.viewport_diffusion_models) if item.name == title)


def wait_until(is_so: Any) -> None:
    """Let the timer's work be done until something is so."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        part("addon.catalogue").drain()
        time.sleep(0.01)


def test_the_list_has_what_the_catalogue_found(found: list[Any]) -> None:
    titles = [item.name for item in bpy.context.window_manager.viewport_diffusion_models]
    assert titles == [entry.title for entry in found] == ["Embedded", "Good One", "none", "words"]
    assert [bool(entry.problem) for entry in found] == [False, False, True, True]


def test_choosing_sets_the_model_and_the_list_follows_the_setting(found: list[Any], folder: Path) -> None:
    manager, diffusion = bpy.context.window_manager, bpy.context.scene.viewport_diffusion.diffusion
    assert manager.viewport_diffusion_model == place_of("Embedded")
    manager.viewport_diffusion_model = place_of("Good One")
    assert diffusion.model == str(folder / "Good One.safetensors")
    diffusion.model = "embedded"
    assert manager.viewport_diffusion_model == place_of("Embedded")
    diffusion.model = "owner/elsewhere"
    assert manager.viewport_diffusion_model == -1


def test_what_cant_be_used_is_shown_but_not_chosen(found: list[Any]) -> None:
    manager, diffusion = bpy.context.window_manager, bpy.context.scene.viewport_diffusion.diffusion
    manager.viewport_diffusion_model = place_of("words")
    assert diffusion.model == "embedded" and manager.viewport_diffusion_model == place_of("words")
    diffusion.model = "owner/elsewhere"
    assert manager.viewport_diffusion_model == -1
    manager.viewport_diffusion_model = 1000
    assert diffusion.model == "owner/elsewhere"


def test_the_list_stays_as_it_was_found_until_the_next_look(found: list[Any], folder: Path) -> None:
    panels = part("addon.panels.models")
    shutil.rmtree(folder)
    assert [entry.title for entry in part("addon.catalogue").entries()] == [entry.title for entry in found]
    assert panels.short("Stable Diffusion XL inpainting") == "SD XL inpainting"
    assert panels.short("unknown until loaded") == ""


def test_fetching_is_off_without_online_access(found: list[Any]) -> None:
    assert not bpy.app.online_access
    assert not bpy.ops.viewport_diffusion.fetch_model.poll()
    with pytest.raises(RuntimeError, match="Allow Online Access"):
        bpy.ops.viewport_diffusion.fetch_model(repo="owner/tiny")


def test_the_size_is_asked_before_anything_is_fetched(found: list[Any], hub: FakeHub) -> None:
    catalogue = part("addon.catalogue")
    asked: list[Any] = []
    catalogue.ask("owner/tiny", asked.append)
    assert catalogue.asking().message == "Asking the hub for owner/tiny"
    catalogue.wait()
    size = asked[0].size
    assert size.total > 100_000 and size.files > 5 and f"in {size.files} files" in str(size)
    assert not hub.fetched(".safetensors")
    catalogue.ask("owner/none")
    catalogue.wait()
    assert "no model owner/none" in catalogue.failure() and catalogue.asking() is None


def test_what_was_fetched_is_in_the_list(found: list[Any], hub: FakeHub) -> None:
    assert bpy.ops.viewport_diffusion.fetch_model(repo="owner/tiny") == {"FINISHED"}
    entries = {entry.name: entry for entry in part("addon.catalogue").entries()}
    assert entries["owner/tiny"].kind == "hub cache" and not entries["owner/tiny"].problem
    bpy.context.window_manager.viewport_diffusion_model = place_of("owner/tiny")
    assert bpy.context.scene.viewport_diffusion.diffusion.model == "owner/tiny"
    with pytest.raises(RuntimeError, match="no model owner/none"):
        bpy.ops.viewport_diffusion.fetch_model(repo="owner/none")


def test_a_cancel_ends_the_process_at_once(found: list[Any], hub: FakeHub) -> None:
    catalogue = part("addon.catalogue")
    hub.pace = 0.5
    catalogue.fetch("owner/tiny")
    process = catalogue.fetching()._child.process
    wait_until(lambda: hub.sent > 0)
    assert not bpy.ops.viewport_diffusion.fetch_model.poll()
    started = time.monotonic()
    assert bpy.ops.viewport_diffusion.cancel_fetch() == {"FINISHED"}
    assert time.monotonic() - started < 1 and process.poll() is not None
    assert catalogue.fetching() is None and not catalogue.failure()


def test_the_icons_are_blenders(addon: object) -> None:
    known = bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys()
    used = {*part("addon.panels.models").KIND_ICONS.values(), "FILE_REFRESH", "IMPORT", "INTERNET_OFFLINE", "CANCEL"}
    assert used <= set(known)


def test_loras_and_embeddings_are_found_and_added_to_the_prompt(found: list[Any], folder: Path) -> None:
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    save(folder / "Lora" / "ink.safetensors", {"lora_unet_attn2_to_k.lora_down.weight": (4, 768)})
    save(folder.parent / "own" / "glow.safetensors", {"emb_params": (2, 1024)})
    (folder / "Lora" / "torn.safetensors").write_bytes(b"\0" * 50)
    preferences.embedding_folders = str(folder.parent / "own")
    part("addon.catalogue").wait()
    catalogue = part("addon.catalogue")
    assert [(one.name, one.family) for one in catalogue.additions("embeddings")] == [("glow", "Stable Diffusion 2")]
    ink, torn = catalogue.additions("LoRAs")
    assert ink.family == "Stable Diffusion 1" and "damaged" in torn.problem
    diffusion = bpy.context.scene.viewport_diffusion.diffusion
    diffusion.prompt, diffusion.negative_prompt = "a cat", ""
    add = bpy.ops.viewport_diffusion.add_to_prompt
    for weight in (1.0, 0.8):
        assert add(addition="LoRAs/ink", weight=weight) == {"FINISHED"}
    assert diffusion.prompt == "a cat <lora:ink:0.8>"
    assert add(addition="embeddings/glow", negative=True) == add(addition="embeddings/glow", weight=1.2) == {"FINISHED"}
    assert (diffusion.prompt, diffusion.negative_prompt) == ("a cat <lora:ink:0.8>, (glow:1.2)", "glow")
    options = part("addon.preferences").engine_options()
    assert (options.embedding_folders, options.model_folders[0]) == ((str(folder.parent / "own"),), str(folder))
    preferences.embedding_folders = ""


def test_a_model_that_a_sampler_cant_solve_takes_it_away_with_a_word(folder: Path, found: list[Any]) -> None:
    tiny_folder("flux", folder)
    bpy.ops.viewport_diffusion.refresh_models()
    manager, diffusion = bpy.context.window_manager, bpy.context.scene.viewport_diffusion.diffusion
    diffusion.sampler, diffusion.schedule = "Euler a", "Karras"
    manager.viewport_diffusion_model = place_of("flux")
    assert (diffusion.sampler, diffusion.schedule) == ("Automatic", "Karras")
    assert "Euler a can't be had with Flux" in part("addon.catalogue").notice()
    limits = part("addon.catalogue").model_traits(diffusion).limits
    assert "no negative prompt" in limits["negative_prompt"]
    assert {"clip_skip", "seamless_x", "token_merging_ratio"} <= limits.keys()
    manager.viewport_diffusion_model = place_of("Embedded")
    assert not part("addon.catalogue").notice()
    assert set(part("addon.catalogue").model_traits(diffusion).limits) == {"conditioning_mask_strength"}


def test_a_model_or_a_lora_of_few_steps_is_told_so(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "few"
    shutil.copytree(tiny_folder("sd1", folder), own)
    config = own / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("EulerDiscreteScheduler", "LCMScheduler"))
    settings = bpy.context.scene.viewport_diffusion
    diffusion = settings.diffusion
    told = "needs few steps: 4 to 8 by LCM"
    for model, prompt, steps, expected in (
        (str(own), "a cat", 20, True),
        (str(own), "a cat", 6, False),
        ("embedded", "a cat<lora:lcm-lora-sdv1-5:1>", 20, True),
        ("embedded", "a cat<lora:calcmania:1>", 20, False),
    ):
        diffusion.model, diffusion.prompt, diffusion.steps, diffusion.sampler = model, prompt, steps, "LCM"
        assert any(told in sentence for sentence in part("addon.scene.advice").advice(settings)) is expected
    for name in ("model", "prompt", "steps", "sampler"):
        diffusion.property_unset(name)

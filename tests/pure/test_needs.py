"""What a picture takes of memory, by value, and what is free, from what a system says."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from backend.models import memory
from backend.models.load import EMBEDDED_FOLDER
from backend.models.needs import MODES, Anatomy, Job, Part, anatomy_of, bytes_needed, item_bytes, part_of, plan_memory
from backend.models.recognise import INPUT, is_pickle
from backend.settings import EMBEDDED

GIGABYTE = 1_000_000_000
# Stable Diffusion 1: its parts, the largest blocks of them, and what they work with.
SD1 = Anatomy(
    Part(123_000_000, 38_000_000, 7_100_000),
    Part(860_000_000, 3_000_000, 258_000_000),
    Part(84_000_000, 0, 84_000_000),
    0.41 * 320,
    3 * 256,
    5 * 128,
    512,
)


def test_what_a_picture_takes_is_weights_and_the_most_that_works_at_once() -> None:
    job, pixels = Job(512, 512), 512 * 512
    decode, denoise = 768 * 1.6 * pixels * 2, 131.2 * 1.9 * pixels * 2 * 2
    canvas = 40 * pixels
    assert bytes_needed(SD1, job, "full", False) == int((123 + 860 + 84) * 2e6 + decode + canvas)
    on_card = job._replace(on_card=True)
    decode_on_card = 2200 * pixels * 2
    assert bytes_needed(SD1, on_card, "medium", False) == int(860 * 2e6 + denoise + canvas)
    assert bytes_needed(SD1, on_card, "low", False) == int(84 * 2e6 + decode_on_card + canvas)
    copies = 0.3 * (123 + 860 + 84) * 2e6  # that a processor's libraries make
    assert bytes_needed(SD1, job, "medium", False) == int(860 * 2e6 + denoise + copies + canvas)


def test_the_plan_is_the_first_way_that_fits_and_else_the_most_sparing_one() -> None:
    job = Job(1024, 1024, on_card=True)
    found = [plan_memory(SD1, job, int(room * GIGABYTE)) for room in (0, 9, 4, 3.1, 1.9, 0.5)]
    assert [(plan.mode, plan.tiled) for plan in found] == [
        ("full", False),
        ("full", False),
        ("full", True),
        ("medium", True),
        ("low", True),
        ("low", True),
    ]
    assert [plan.fits for plan in found] == [True] * 5 + [False]
    assert plan_memory(SD1, job, GIGABYTE, "full").mode == "full" and not plan_memory(SD1, job, GIGABYTE, "full").fits
    assert plan_memory(SD1, job, 9 * GIGABYTE, "low").mode == "low"


@given(
    st.integers(64, 4096),
    st.integers(64, 4096),
    st.integers(1, 8),
    st.sampled_from([2, 4]),
    st.booleans(),
)
def test_each_mode_takes_no_more_than_the_one_before_and_more_pixels_no_less(
    width: int, height: int, batch: int, item: int, on_card: bool
) -> None:
    job = Job(width, height, batch, item, on_card)
    for tiled in (False, True):
        needs = [bytes_needed(SD1, job, mode, tiled) for mode in MODES]
        assert needs == sorted(needs, reverse=True)
        assert bytes_needed(SD1, job._replace(width=width + 64), "full", tiled) >= needs[0]
    assert bytes_needed(SD1, job, "full", True) <= bytes_needed(SD1, job, "full", False)


def test_a_models_files_tell_what_it_is_made_of_without_torch() -> None:
    program = (
        "import sys; from backend.models.needs import anatomy_of; found = anatomy_of('embedded'); "
        "print(found.text.numbers, found.denoiser.numbers, found.vae.numbers, 'torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    *numbers, has_torch = done.stdout.split()
    assert has_torch == "False" and all(int(number) > 1_000_000 for number in numbers)
    found = anatomy_of(EMBEDDED)
    assert found is not None and (found.denoise, found.decode, found.encode) == (64.0, 144.0, 80.0)
    assert anatomy_of("/nowhere") is None and anatomy_of("nobody/nothing") is None


@pytest.mark.parametrize(
    ("text", "native"), [("cond_stage_model.transformer.x", 512), ("conditioner.embedders.1.x", 1024)]
)
def test_a_single_files_native_size_is_its_familys(text: str, native: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: np.zeros((1, 4, 1, 1), np.float32) for name in (INPUT, text, "first_stage_model.x")}, path)
    found = anatomy_of(str(path))
    assert found is not None and found.native == native


def test_a_damaged_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("Not found")
    read = []

    def counted(path: Path) -> bool:
        read.append(path)
        return is_pickle(path)

    monkeypatch.setattr("backend.models.needs.is_pickle", counted)
    assert [anatomy_of(str(path)) for _ in range(3)] == [None] * 3 and len(read) == 1
    path.write_text("Still not found")
    assert anatomy_of(str(path)) is None and len(read) == 2


def test_a_folder_whose_files_arrive_one_by_one_is_looked_into_again(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model"))
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.rename(tmp_path / weights.name)
    assert anatomy_of(str(folder)) is None
    (tmp_path / weights.name).rename(weights)
    assert anatomy_of(str(folder)) == anatomy_of(EMBEDDED)


def test_blocks_are_told_by_their_names() -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "conv_in.weight": (2, 3),
        "down_blocks.0.resnets.0.weight": (10,),
        "down_blocks.0.resnets.1.weight": (10,),
        "mid_block.attentions.0.weight": (5,),
        "up_blocks.1.weight": (7,),
    }
    assert part_of(shapes) == Part(38, 6, 20)
    assert part_of({f"transformer.text_model.encoder.layers.{n}.weight": (4,) for n in range(3)}) == Part(12, 0, 4)


@pytest.mark.parametrize(("precision", "item"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_a_precision_is_so_many_bytes(precision: str, item: int) -> None:
    assert item_bytes(precision, "cpu") == item_bytes(precision, "cuda") == item
    assert item_bytes("automatic", "cuda:1") == 2


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that says 8 GB are there to be had, and knows no control groups."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    monkeypatch.setattr(memory, "PROCESSES", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    return tmp_path


def _group(machine: Path, line: str, files: dict[str, str]) -> None:
    (machine / "proc" / "self" / "cgroup").write_text(line)
    for name, text in files.items():
        path = machine / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_free_is_what_the_system_says_less_a_reserve(machine: Path) -> None:
    assert memory.free_memory("cpu") == 8_192_000_000
    assert memory.memory_for_models("cpu") == 7_192_000_000
    assert memory.memory_for_models("cpu", held=2_000_000_000) == 9_192_000_000


def test_a_containers_limit_counts_and_its_files_can_be_taken_back(machine: Path) -> None:
    used = {"memory.current": "2500000000\n", "memory.stat": "anon 1\ninactive_file 500000000\n"}
    inside = {f"a/b/{name}": text for name, text in used.items()}
    _group(machine, "0::/a/b\n", {**inside, "a/b/memory.max": "max\n", "a/memory.max": "4000000000\n"})
    assert memory.free_memory("cpu") == 8_192_000_000  # the outer one doesn't say what is used
    _group(machine, "0::/a/b\n", {"a/memory.current": "2500000000", "a/memory.stat": "inactive_file 500000000\n"})
    assert memory.free_memory("cpu") == 2_000_000_000


def test_a_container_of_the_old_kind_counts_too(machine: Path) -> None:
    files = {"memory.limit_in_bytes": "3000000000", "memory.usage_in_bytes": "1000000000"}
    _group(machine, "9:cpu:/x\n4:memory:/x\n", {f"memory/x/{name}": text for name, text in files.items()})
    assert memory.free_memory("cpu") == 2_000_000_000


def test_a_machine_that_says_nothing_is_unknown(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "proc" / "meminfo").unlink()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert memory.free_memory("cpu") == 0
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))  # brings psutil along, which asks otherwise
    assert memory.free_memory("cpu") > 0


def test_bytes_are_told_as_an_artist_reads_them() -> None:
    assert memory.in_words(53_000_000) == "53 MB" and memory.in_words(3_140_000_000) == "3.1 GB"

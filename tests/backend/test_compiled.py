"""Compiled blocks by value, on a processor: what they draw, what goes through them, and what becomes of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.__main__ import main
from backend.engine import Engine
from backend.errors import Cancelled, OutOfMemory
from backend.imaging.files import save
from backend.models.compiled import repeated_blocks
from backend.models.load import Options, compiles_on
from backend.transport.subprocess import worker_command
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run
from tests.backend.test_adapters import save_lora

SMALL: dict[str, Any] = {"width": 96, "height": 64, "steps": 3, "denoising_strength": 0.9}
CLOSE = 2  # levels of 255


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counting:
    """Stands in for a compiler: counts what it is given, and runs it as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def compiled(name: str, compiler: Any, **options: Any) -> Engine:
    engine = Engine(Options(device="cpu", precision="float32", **options))
    engine.models.get(name).compile(compiler)
    return engine


@pytest.mark.parametrize(("family", "memory"), [("sd1", "full"), ("sd3", "low")])
def test_a_compiled_model_draws_the_same(family: str, memory: str, root: Path, picture: Picture) -> None:
    name = tiny.folder(family, root)
    compiler = Counting()
    engine = compiled(name, compiler, memory=memory)
    exact = Engine(Options(device="cpu", precision="float32", memory=memory))
    for size in ({}, {"width": 64, "height": 128}, {"width": 128, "height": 128}):
        request = img2img(picture, **{**SMALL, **size, "model": name})
        assert np.abs(run(engine, request).astype(int) - run(exact, request)).max() <= CLOSE
    assert compiler.graphs > 0
    graphs = compiler.graphs
    assert run(engine, img2img(picture, **{**SMALL, "width": 112, "height": 80, "model": name})).shape == (80, 112, 3)
    assert compiler.graphs - graphs <= len(repeated_blocks(engine.models.get(name).family.network))


def test_loras_and_fast_modes_come_and_go(root: Path, picture: Picture) -> None:
    name = tiny.folder("sd1", root)
    folder = root / "compiled_loras"
    folder.mkdir()
    save_lora(folder / "ink.safetensors", name, 0, False)
    compiler = Counting()
    engine = compiled(name, compiler, lora_folders=(str(folder),))
    exact = Engine(Options(device="cpu", precision="float32", lora_folders=(str(folder),)))
    pictures = []
    for settings in (
        {"prompt": "a cat"},
        {"prompt": "a cat <lora:ink:1>"},
        {"prompt": "a cat <lora:ink:0.5>"},
        {"prompt": "a cat", "fast_mode": "balanced"},
        {"prompt": "a cat", "token_merging_ratio": 0.5},
        {"prompt": "a cat"},
    ):
        request = img2img(picture, **SMALL, model=name, **settings)
        pictures.append(run(engine, request))
        assert np.abs(pictures[-1].astype(int) - run(exact, request)).max() <= CLOSE, settings
    assert np.array_equal(pictures[0], pictures[-1])
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[4])
    assert compiler.graphs > 0


def test_a_whole_block_is_one_graph_that_looks_before_it(root: Path) -> None:
    name = tiny.folder("flux", root)
    compiler = Counting()
    model = compiled(name, compiler).models.get(name)
    looks: list[int] = []
    model.watch = lambda: looks.append(1)
    block: Any = repeated_blocks(model.family.network)[0]
    hidden, text, time = torch.randn(1, 6, 32), torch.randn(1, 3, 32), torch.randn(1, 32)
    with torch.no_grad():
        try:
            block(hidden_states=hidden, encoder_hidden_states=text, temb=time)
        except RuntimeError as error:
            pytest.fail(str(error))
    assert compiler.graphs == 1 and looks


def test_a_cancel_and_a_lack_of_memory_come_through_as_themselves(root: Path, picture: Picture) -> None:
    name = tiny.folder("sd1", root)
    request = img2img(picture, **SMALL, model=name)

    def lacking(graph: Any, inputs: Any) -> Any:
        def work(*_: Any) -> Any:
            raise torch.OutOfMemoryError("out of memory")

        return work

    with pytest.raises(OutOfMemory):
        run(compiled(name, lacking), request)
    engine = compiled(name, "eager")
    run(engine, request)
    steps: list[str] = []
    with pytest.raises(Cancelled):
        engine.run(request, lambda share, text: steps.append(text), lambda: any("Step 1" in text for text in steps))


def test_where_compiling_fails_the_model_runs_uncompiled_and_says_so(root: Path, picture: Picture) -> None:
    name = tiny.folder("sd1", root)
    calls = []

    def failing(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        raise OSError("There is no C compiler.\nMore on that")

    engine, request = compiled(name, failing), img2img(picture, **SMALL, model=name)
    output = engine.run(request, lambda share, text: None, lambda: False)
    assert "There is no C compiler." in output.notice and "uncompiled" in output.notice
    exact = Engine(Options(device="cpu", precision="float32"))
    assert np.array_equal(output.pictures[0].pixels, run(exact, request))
    assert engine.run(request, lambda share, text: None, lambda: False).notice == "" and len(calls) == 1


def test_a_processor_is_not_compiled_for(root: Path, picture: Picture) -> None:
    name = tiny.folder("sd1", root)
    assert [compiles_on(device) for device in ("cuda", "cuda:1", "xpu", "mps", "cpu")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    model = Engine(Options(device="cpu", compiled=True)).models.get(name)
    assert all("forward" not in vars(block) for block in repeated_blocks(model.family.network))


def test_the_command_lines_pass_it_on(tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--compile" in worker_command("python", Options(compiled=True))
    assert "--compile" not in worker_command("python", Options())
    path = tmp_path / "init.png"
    save(picture, path)
    assert main(["run", "img2img", "--init", str(path), "--output", str(tmp_path), "--device", "cpu", "--compile"]) == 2
    assert "graphics cards alone, not for cpu" in capsys.readouterr().err

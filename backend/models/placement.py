"""Where a model's weights lie while it works: all where they are used, or there only in their turn.

On a graphics card the others wait in the machine's memory. On a processor, whose memory that is, they wait in a file
that is mapped: a weight comes in when it is looked at, and its memory is given back when its turn is over.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any, Protocol

import torch

from ..errors import OutOfMemory

ALIGNED = 64  # bytes: where a tensor begins in the file, so that the processor's widest loads are whole
# Where a file lies on a disk; elsewhere the system's folder for such files. /tmp itself is often in memory.
DISK = Path("/var/tmp")

Module = torch.nn.Module


class Shelf(Protocol):
    """Keeps the weights of some modules while they aren't used."""

    def fetch(self) -> None:
        """Bring them to where they are used."""

    def put_back(self) -> None:
        """Give their memory there back."""

    def empty(self) -> None:
        """Leave them where they are used for good."""


class Weight:
    """One parameter or buffer, wherever modules have it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._is_parameter = isinstance(tensor, torch.nn.Parameter)
        self._places: list[tuple[dict[str, Any], str]] = []

    def found_in(self, place: dict[str, Any], name: str) -> None:
        """Note one more place: a module's dictionary, and the name there."""
        self._places.append((place, name))

    @property
    def value(self) -> torch.Tensor:
        """What it is now."""
        place, name = self._places[0]
        tensor: torch.Tensor = place[name].detach()
        return tensor

    @value.setter
    def value(self, tensor: torch.Tensor) -> None:
        held = torch.nn.Parameter(tensor, requires_grad=False) if self._is_parameter else tensor
        for place, name in self._places:
            place[name] = held


class CardShelf:
    """Keeps weights in the machine's memory, and puts copies of them onto a card; see Shelf.

    Nothing is ever copied back: weights stay as they are while pictures are made.
    """

    def __init__(self, weights: Sequence[Weight], device: str) -> None:
        self._weights = weights
        self._device = device
        self._homes = [weight.value.to("cpu") for weight in weights]
        self.put_back()

    @torch.inference_mode(False)
    def fetch(self) -> None:
        for weight, home in zip(self._weights, self._homes, strict=True):
            weight.value = home.to(self._device)

    @torch.inference_mode(False)
    def put_back(self) -> None:
        for weight, home in zip(self._weights, self._homes, strict=True):
            weight.value = home

    def empty(self) -> None:
        self.fetch()
        self._homes = []


class DiskShelf:
    """Keeps weights in a file that is gone with this object, whose pages come into memory as they are read; see Shelf.

    Raises OutOfMemory where the disk refuses.
    """

    def __init__(self, weights: Sequence[Weight]) -> None:
        self._weights = [weight for weight in weights if weight.value.numel()]
        self._places: list[int] = []
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=DISK if DISK.is_dir() else None)  # noqa: SIM115
            self._write()
        except OSError as error:
            raise OutOfMemory(
                f"The weights could not be laid aside on the disk: {error.strerror or error}.",
                "Make room on it, or set Memory to Full in the preferences.",
            ) from error
        self.put_back()

    def _write(self) -> None:
        end = 0
        for weight in self._weights:
            self._file.seek(end)
            self._places.append(end)
            tensor = weight.value
            if not tensor.is_contiguous() and not tensor.is_contiguous(memory_format=torch.channels_last):
                tensor = weight.value = tensor.contiguous()
            _in_memory_order(tensor).cpu().view(torch.uint8).numpy().tofile(self._file)
            end = -(-self._file.tell() // ALIGNED) * ALIGNED
        self._file.truncate(max(end, 1))
        self._file.flush()

    def fetch(self) -> None:
        """Do nothing: what is mapped comes as it is looked at."""

    @torch.inference_mode(False)
    def put_back(self) -> None:
        try:
            pages = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError:  # a limit of this process's own: they stay where they are
            return
        for weight, place in zip(self._weights, self._places, strict=True):
            tensor = weight.value
            found = torch.frombuffer(pages, dtype=tensor.dtype, count=tensor.numel(), offset=place)
            weight.value = found.as_strided(tensor.shape, tensor.stride())  # such as channels last

    @torch.inference_mode(False)
    def empty(self) -> None:
        for weight in self._weights:
            weight.value = weight.value.clone()
        self._file.close()


class Placement:
    """The parts of a model, of which one is used at a time, and where their weights are meanwhile.

    parts: modules by the part's name. blocks: modules in them that run one after another. Modes are those of needs.py:
    "full", where all parts stay; "medium", where they take turns; "low", where their blocks do too.
    """

    def __init__(self, parts: Mapping[str, Sequence[Module]], blocks: Iterable[Module], device: str) -> None:
        self.mode = "full" if device == "cpu" else "medium"  # for a card, weights come into the machine's memory first
        self.device = device
        self._parts = dict(parts)
        self._blocks = list(blocks)
        self._shelves: dict[str, Shelf] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._here = ""  # the part that is being used
        self._lying: dict[str, int] = {}  # bytes that parts took on a card when they were last used
        self.bytes = 0  # of all weights, wherever they are
        self._count()

    def use(self, part: str) -> None:
        """Have a part ready to work; the one before makes room for it."""
        if self.mode == "full" or self._here == part:
            return
        self.put_back()
        self._shelf(part).fetch()
        self._lying[part] = sum(_size(w.value) for w in _weights(self._parts[part]) if w.value.device.type != "cpu")
        self._here = part

    def put_back(self) -> None:
        """Let the part that is being used wait like the others."""
        if self._here:
            self._shelf(self._here).put_back()
        self._here = ""

    def held(self) -> int:
        """Return the bytes of the weights that lie where they are used; for a processor, of those that stay there."""
        return self.bytes if self.mode == "full" else self._lying.get(self._here, 0)

    def change(self, mode: str) -> None:
        """Go over to another mode; raises OutOfMemory where a disk is needed and refuses: all parts stay then."""
        if mode == self.mode:
            return
        if mode == "full" or self.device == "cpu":
            self._settle()
        else:
            self._rest()
        self.mode = mode
        if mode == "full":
            return
        try:
            if mode == "low":
                self._hook_blocks()
            for part in self._parts:
                self._shelf(part)
        except OutOfMemory:
            self._settle()
            self.mode = "full"
            raise

    def _settle(self) -> None:
        """Bring all weights to where they are used, to stay."""
        for shelf in self._shelves.values():
            shelf.empty()
        for modules in self._parts.values():
            self._bring(modules)
        self._forget()

    @torch.inference_mode(False)
    def _bring(self, modules: Sequence[Module]) -> None:
        """Bring the weights that are on no shelf to where they are used."""
        for weight in _weights(modules):
            waiting = weight.value
            there = waiting.to(self.device)
            if there is not waiting:
                weight.value = there

    def _rest(self) -> None:
        """Put all weights back to where they wait."""
        for shelf in self._shelves.values():
            shelf.put_back()
        self._forget()

    def _forget(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._here = [], ""
        self._shelves.clear()

    def settle_part(self, part: str) -> None:
        """Bring the weights of one part to where they are used, to be changed; `replace` follows."""
        self.use(part)
        if part in self._shelves:
            self._shelves.pop(part).empty()
        self._here = ""

    def renew(self) -> None:
        """Look anew at which weights there are, once others have been added to modules; on a card all wait then."""
        if self.mode == "full" or self.device == "cpu":  # where what is added lies where it is used
            return
        mode, self.mode = self.mode, ""
        self.change(mode)

    def replace(self, part: str, modules: Sequence[Module]) -> None:
        """Let other modules, wherever their weights are, take the place of a part."""
        self._parts[part] = modules
        self._shelves.pop(part, None)
        self._here = "" if self._here == part else self._here
        self._count()
        if self.mode == "full":
            self._bring(modules)
        else:
            self._shelf(part)

    def _count(self) -> None:
        self.bytes = sum(_size(weight.value) for modules in self._parts.values() for weight in _weights(modules))

    def _shelf(self, part: str) -> Shelf:
        """Return the shelf of a part's weights, less those of its blocks that have their own."""
        if part not in self._shelves:
            apart = {id(module) for block in self._blocks for module in block.modules()} if self._hooks else set()
            own = _weights(self._parts[part], apart)
            self._shelves[part] = self._make(own)
        return self._shelves[part]

    def _make(self, weights: Sequence[Weight]) -> Shelf:
        if self.device == "cpu":
            return DiskShelf(weights)
        if self.device.startswith("mps"):  # whose memory is the machine's own: no second copy there
            DiskShelf(weights)
        return CardShelf(weights, self.device)

    def _hook_blocks(self) -> None:
        for number, block in enumerate(self._blocks):
            shelf = self._shelves[f"block {number}"] = self._make(_weights([block]))
            fetch = block.register_forward_pre_hook(lambda *_, shelf=shelf: shelf.fetch())
            put_back = block.register_forward_hook(lambda *_, shelf=shelf: shelf.put_back(), always_call=True)
            self._hooks += [fetch, put_back]


def blocks_of(networks: Iterable[Module]) -> list[Module]:
    """Return the parts of networks that run one after another: what stands in their outermost lists."""
    found: list[Module] = []
    for network in networks:
        for child in network.children():
            found += [item for item in child] if isinstance(child, torch.nn.ModuleList) else blocks_of([child])
    return found


def work_on(pipe: Any, device: str) -> None:
    """Have a pipeline make its own tensors on a device, where it would make them where its weights happen to lie."""
    kind, there = type(pipe), torch.device(device)
    places = {name: property(lambda _: there) for name in ("device", "_execution_device")}
    pipe.__class__ = type(kind.__name__, (kind,), places)


def _size(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()


def _in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a dense tensor as they lie in memory: one dimension."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _weights(modules: Iterable[Module], apart: Set[int] = frozenset()) -> list[Weight]:
    """Return the parameters and buffers of modules, each once, less those of the modules with the ids in `apart`."""
    found: dict[int, Weight] = {}
    for module in (inner for outer in modules for inner in outer.modules() if id(inner) not in apart):
        for place in (module._parameters, module._buffers):
            for name, tensor in place.items():
                if tensor is not None:
                    found.setdefault(id(tensor), Weight(tensor)).found_in(place, name)
    return list(found.values())

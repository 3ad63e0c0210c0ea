"""From prompts in the web UI's syntax to what the denoiser takes: chunks of tokens, weights, one text a step."""

from __future__ import annotations

import inspect
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import InvalidRequest, ModelError
from ..prompts import BREAK, plain, plan, schedule, weigh
from ..request import Array
from .adapters import Embedding, pattern
from .kept import Kept, sign

# Of texts as the denoiser takes them: 100 of Stable Diffusion XL's, 7 of Flux's, 3 of Qwen-Image-Edit's.
KEPT_BYTES = 64 * 2**20
COMMA_REACH = 20  # tokens at a chunk's end in which a comma moves the break, the web UI's default
Cache = Kept[tuple[str, int, Hashable], "Conditioning"]

# What encode_prompt of a pipeline that takes texts whole returns, by the start of its class's name.
WHOLE_TEXT = {
    r"StableDiffusion3(?!\d)": ("embeds", "", "pooled", ""),
    r"Flux2": ("embeds", ""),
    r"Flux(?!\d)": ("embeds", "pooled", "text_ids"),
    r"QwenImage(?!Layered)": ("embeds", ""),
    r"ZImage(?!Omni)": ("embeds", ""),  # lists, one item a text
}


class Conditioning(NamedTuple):
    """A text as the denoiser takes it: embeds (1×T×D float32), pooled (1×P float32), other tensors by their names.

    T is 77 for each chunk of a text in CLIP's models. Only some families have pooled, or anything else. is_negative:
    the picture is led away from it.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    extra: Mapping[str, torch.Tensor] = MappingProxyType({})
    is_negative: bool = False

    def silenced(self) -> Conditioning:
        """Return nothing but zeros, as Stable Diffusion XL was taught to take a text that says nothing."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return self._replace(embeds=torch.zeros_like(self.embeds), pooled=pooled)


Embeddings = Mapping[str, Embedding]  # by their names in lower case
NO_EMBEDDINGS: Embeddings = MappingProxyType({})
Texts = list[tuple[int, Conditioning]]  # each with the last step that it holds for, from 1


@dataclass(frozen=True)
class Prompts:
    """A negative prompt and the parts of a prompt that AND joins, with their weights, each as it is at which step."""

    negative: Texts
    positives: list[tuple[float, Texts]]

    def at(self, step: int) -> tuple[Conditioning, list[tuple[float, Conditioning]]]:
        """Return the negative, and the positives with their weights, at a step, from 0; the last text holds on."""
        return _at(self.negative, step), [(weight, _at(texts, step)) for weight, texts in self.positives]

    def arguments(self, count: int) -> dict[str, torch.Tensor]:
        """Return a diffusers pipeline's arguments in place of `count` prompts: the first part as it starts."""
        first = _at(self.positives[0][1], 0)
        result = {"prompt_embeds": first.embeds.repeat(count, 1, 1)}
        if first.pooled is not None:
            result["pooled_prompt_embeds"] = first.pooled.repeat(count, 1)
        return result


def _at(texts: Texts, step: int) -> Conditioning:
    return next((conditioning for last, conditioning in texts if step < last), texts[-1][1])


@torch.inference_mode()
def encode_prompts(
    pipe: Any,
    prompt: str,
    negative: str,
    steps: int,
    clip_skip: int,
    device: str | torch.device,
    cache: Cache,
    embeddings: Embeddings = NO_EMBEDDINGS,
    picture: Array | None = None,
) -> Prompts:
    """Return a prompt, and a negative one, encoded for each of `steps` steps; AND joins parts of the first alone.

    cache holds the texts last encoded with this pipeline and these embeddings, as they are now. picture: uint8 H×W×3,
    which pipelines that look at one read the texts beside. Raises as encode does.
    """
    looks = "image" in inspect.signature(pipe.encode_prompt).parameters
    seen = np.ascontiguousarray(picture) if picture is not None and looks else None
    signature = None if seen is None else sign(seen)

    def encoded(texts: list[tuple[int, str]]) -> Texts:
        def read(text: str) -> Conditioning:
            key = (text, clip_skip, signature)
            return cache.get(key, lambda: encode(pipe, text, clip_skip, device, embeddings, seen))

        return [(last, read(text)) for last, text in texts]

    against = [(last, text._replace(is_negative=True)) for last, text in encoded(schedule(negative, steps))]
    if pipe.config.get("force_zeros_for_empty_prompt") and not negative.strip():
        against = [(last, conditioning.silenced()) for last, conditioning in against]
    return Prompts(against, [(part.weight, encoded(part.texts)) for part in plan(prompt, steps)])


@torch.inference_mode()
def encode(
    pipe: Any,
    text: str,
    clip_skip: int = 1,
    device: str | torch.device = "cpu",
    embeddings: Embeddings = NO_EMBEDDINGS,
    picture: Array | None = None,
) -> Conditioning:
    """Return a text with the web UI's marks of attention, encoded by a diffusers pipeline's text encoders.

    CLIP's models (Stable Diffusion 1, 2, XL) take texts of any length, in chunks of tokens, and weights. For others the
    text is taken whole, without weights. clip_skip counts as in the web UI: 1 skips nothing, and XL skips 1 itself, so
    that 2 changes nothing there, which most of its models are shown with. embeddings stand for the
    words that are their names. picture: as for encode_prompts. Raises InvalidRequest where clip_skip leaves no layer,
    or an embedding was made for another family, ModelError for pipelines of an unknown family.
    """
    encoders = {name: part for name, part in pipe.components.items() if name.startswith("text_encoder")}
    parts = [(name, part) for name, part in encoders.items() if part is not None]
    if "unet" not in pipe.components or not all("CLIPText" in type(part).__name__ for _, part in parts):
        if embeddings and pattern(embeddings).search(text):
            raise InvalidRequest("This model takes no embeddings.", "Take their names out of the prompts.")
        return _encode_whole(pipe, text, clip_skip, device, picture)
    is_xl = "text_encoder_2" in encoders
    pieces = weigh(text)
    found = []
    for name, encoder in parts:
        tokenizer = getattr(pipe, name.replace("text_encoder", "tokenizer"))
        room = min(tokenizer.model_max_length, encoder.config.max_position_embeddings) - 2
        vectors: list[torch.Tensor] = []
        learnt = _learnt(embeddings, name, encoder, vectors)
        chunks = split_chunks(_tokens(pipe, tokenizer, pieces, learnt), room, _ids(tokenizer, ","))
        with _inserted(encoder, vectors):
            found.append(_encode_chunks(encoder, _with_ends(tokenizer, chunks, room), clip_skip, is_xl, device))
    return Conditioning(torch.cat([embeds for embeds, _ in found], dim=-1), found[-1][1])


# --- Tokens ---

Token = tuple[int, float]  # its id and its weight
Chunk = list[Token]


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return found


def _tokens(
    pipe: Any, tokenizer: Any, pieces: list[tuple[str, float]], learnt: Mapping[str, list[int]]
) -> list[Token | None]:
    """Return the tokens of pieces of text, each read on its own, with None for BREAK.

    Words that are names in `learnt` become the tokens there, names of textual inversions that were loaded into the
    pipeline all of theirs.
    """
    result: list[Token | None] = []
    for piece in pieces:
        if piece == BREAK:
            result.append(None)
            continue
        for part in pattern(learnt).split(piece[0]) if learnt else [piece[0]]:
            ids = learnt.get(part.lower())
            if ids is None:
                words = pipe.maybe_convert_prompt(part, tokenizer) if hasattr(pipe, "maybe_convert_prompt") else part
                ids = _ids(tokenizer, words)
            result += [(token, piece[1]) for token in ids]
    return result


def _learnt(embeddings: Embeddings, place: str, encoder: Any, vectors: list[torch.Tensor]) -> dict[str, list[int]]:
    """Return the tokens of each embedding, below 0: -1 for the first of the vectors, which are added to the list."""
    learnt: dict[str, list[int]] = {}
    for name, embedding in embeddings.items():
        found = embedding.for_encoder(place, encoder.get_input_embeddings().embedding_dim)
        learnt[name] = [-1 - len(vectors) - index for index in range(len(found))]
        vectors += found
    return learnt


@contextmanager
def _inserted(encoder: Any, vectors: list[torch.Tensor]) -> Iterator[None]:
    """Let tokens below 0 stand for the vectors (-1 for the first) inside a with block."""
    if not vectors:
        yield
        return
    table = encoder.get_input_embeddings()
    all_vectors = torch.stack(vectors).to(table.weight)
    asked: list[torch.Tensor] = []

    def before(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        asked.append(inputs[0])
        return (inputs[0].clamp(min=0),)

    def after(module: Any, inputs: Any, found: torch.Tensor) -> torch.Tensor:
        ids = asked.pop()
        return torch.where((ids < 0)[..., None], all_vectors[(-1 - ids).clamp(min=0)], found)

    hooks = [table.register_forward_pre_hook(before), table.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def split_chunks(tokens: Sequence[Token | None], room: int, commas: Sequence[int]) -> list[Chunk]:
    """Return tokens in chunks of at most `room`; None starts a new one.

    What follows a comma (any of those ids) among a full chunk's last 20 tokens goes to the next chunk, so as not to be
    torn apart.
    """
    chunks: list[Chunk] = [[]]
    for token in tokens:
        if token is None:
            chunks.append([])
            continue
        if len(chunks[-1]) == room:
            chunks.append([] if token[0] in commas else _cut_after_comma(chunks[-1], commas))
        chunks[-1].append(token)
    if len(chunks) > 1 and not chunks[-1]:  # a BREAK at the end breaks from nothing
        chunks.pop()
    return chunks


def _cut_after_comma(chunk: Chunk, commas: Sequence[int]) -> Chunk:
    """Take what follows a chunk's last comma off its end, where that is near, and return it."""
    for index in reversed(range(max(0, len(chunk) - COMMA_REACH), len(chunk))):
        if chunk[index][0] in commas:
            rest = chunk[index + 1 :]
            del chunk[index + 1 :]
            return rest
    return []


def _with_ends(tokenizer: Any, chunks: list[Chunk], room: int) -> list[Chunk]:
    """Return chunks between the tokenizer's marks of a text's start and end, padded to one length."""
    start, end = (tokenizer.bos_token_id, 1.0), (tokenizer.eos_token_id, 1.0)
    padding = end if tokenizer.pad_token_id is None else (tokenizer.pad_token_id, 1.0)
    return [[start, *chunk, end, *[padding] * (room - len(chunk))] for chunk in chunks]


# --- Encoding ---


def _encode_chunks(
    encoder: Any, chunks: list[Chunk], clip_skip: int, is_xl: bool, device: str | torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the embeddings (1×T×D float32) of chunks one after the other, and the first one's pooled, if it has that.

    Stable Diffusion 1 and 2 take the last hidden state but `clip_skip` − 1, normalised as the last would be; XL takes
    it as it is, and never the last, for which 1 stands beside 2.
    """
    most = encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= most:
        raise InvalidRequest(
            f"Clip skip {clip_skip} leaves nothing of this model's text encoder.",
            f"Set Clip skip to a value from 1 to {most}.",
        )
    ids = torch.tensor([[token for token, _ in chunk] for chunk in chunks], device=device)
    weights = torch.tensor([[weight for _, weight in chunk] for chunk in chunks], device=device)
    output = encoder(ids, output_hidden_states=True)
    if is_xl:
        hidden = output.hidden_states[-max(clip_skip, 2)]
    elif clip_skip == 1:
        hidden = output.last_hidden_state
    else:
        hidden = getattr(encoder, "text_model", encoder).final_layer_norm(output.hidden_states[-clip_skip])
    embeds = torch.cat([emphasise(*pair) for pair in zip(hidden.float(), weights, strict=True)])
    pooled = output.get("text_embeds")
    return embeds[None].to(device), None if pooled is None else pooled[:1].float().to(device)


def emphasise(embeds: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return a chunk's embeddings (T×D) times its tokens' weights (T), with the mean of all values as it was.

    The web UI's emphasis “Original”.
    """
    if (weights == 1).all():
        return embeds
    weighted = embeds * weights[:, None]
    return weighted * (embeds.mean() / weighted.mean())


def _encode_whole(
    pipe: Any, text: str, clip_skip: int, device: str | torch.device, picture: Array | None
) -> Conditioning:
    """Return a text encoded by the pipeline's own means, without marks of attention."""
    kind = type(pipe).__name__
    names = next((names for start, names in WHOLE_TEXT.items() if re.match(start, kind)), None)
    if names is None:
        raise ModelError(f"Prompts can't be given to a {kind} here.", "Choose a model of another family.")
    known = inspect.signature(pipe.encode_prompt).parameters
    if clip_skip != 1 and "clip_skip" not in known:
        raise InvalidRequest("This model's text encoder knows no clip skip.", "Set Clip Skip to 1.")
    asked: dict[str, Any] = {
        "prompt": plain(text),
        "prompt_2": None,
        "prompt_3": None,
        "device": device,
        "image": picture,
    }
    asked |= {"do_classifier_free_guidance": False, "clip_skip": None if clip_skip == 1 else clip_skip - 1}
    try:
        values = pipe.encode_prompt(**{name: value for name, value in asked.items() if name in known})
    except IndexError as error:
        raise InvalidRequest(
            f"Clip skip {clip_skip} leaves nothing of this model's text encoder.", "Set Clip Skip to a lower value."
        ) from error
    named = {name: value for name, value in zip(names, values, strict=True) if name}
    found = {name: (torch.stack(value) if isinstance(value, list) else value).float() for name, value in named.items()}
    return Conditioning(found.pop("embeds"), found.pop("pooled", None), found)

"""Prompts in the web UI's syntax, encoded: as diffusers does what has no syntax, else by the web UI's rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from backend.errors import InvalidRequest, ModelError
from backend.models.conditioning import KEPT_BYTES, Cache, Conditioning, emphasise, encode, encode_prompts, split_chunks
from backend.models.kept import Kept, size_of
from backend.models.load import EMBEDDED_FOLDER, quiet_libraries
from backend.models.single_file import CONFIGS, build_tokenizer

PLAIN = "anime illustration of a woman in a forest, masterpiece!"
LONG = ", ".join(["a woman in a red dress"] * 40)
ROOM = 75
COMMA = 0  # a token's id in the tests of chunks


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small lose more by waiting for other threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def text_config(side: int, vocabulary: int, **changes: Any) -> CLIPTextConfig:
    settings = {"hidden_size": side, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}
    return CLIPTextConfig(**settings, vocab_size=vocabulary, projection_dim=side, eos_token_id=2, **changes)


@pytest.fixture(scope="module")
def sd1() -> Any:
    quiet_libraries(online=False)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(EMBEDDED_FOLDER, dtype=torch.float32)
    # diffusers' own clip_skip looks for the norm where transformers 4 had it.
    object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    return pipe


@pytest.fixture(scope="module")
def sdxl() -> Any:
    quiet_libraries(online=False)
    torch.manual_seed(0)
    tokenizers = [build_tokenizer(CONFIGS / "sdxl" / name) for name in ("tokenizer", "tokenizer_2")]
    size = len(tokenizers[0])
    return diffusers.StableDiffusionXLPipeline(
        vae=None,
        unet=None,
        scheduler=diffusers.EulerDiscreteScheduler(),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        text_encoder=CLIPTextModel(text_config(32, size)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(48, size, hidden_act="gelu")).eval(),
        add_watermarker=False,
    )


@pytest.fixture(params=["sd1", "sdxl"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def by_diffusers(pipe: Any, text: str, clip_skip: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a plain text's embeddings and pooled ones as diffusers makes them, which counts layers left out.

    Of XL's encoders it never takes the last layer, and doesn't count that.
    """
    skipped = max(0, clip_skip - (2 if hasattr(pipe, "text_encoder_2") else 1))
    with torch.inference_mode():
        found = pipe.encode_prompt(
            text,
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            clip_skip=skipped or None,
        )
    return found[0].float(), found[2].float() if len(found) > 2 else None


def same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


# --- Plain text ---


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
@pytest.mark.parametrize("text", ["", PLAIN, "a cat! a dog!", " two  spaces, 16:9"])
def test_plain_text_is_encoded_as_by_diffusers(pipe: Any, text: str, clip_skip: int) -> None:
    expected, pooled = by_diffusers(pipe, text, clip_skip)
    found = encode(pipe, text, clip_skip)
    assert torch.equal(found.embeds, expected)
    assert same(found.pooled, pooled)


def test_half_precision_is_the_encoders_own_and_float32_comes_back(sd1: Any) -> None:
    sd1.text_encoder.to(torch.bfloat16)
    try:
        expected, _ = by_diffusers(sd1, PLAIN, 2)
        found = encode(sd1, PLAIN, 2).embeds
    finally:
        sd1.text_encoder.to(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert not torch.equal(found, encode(sd1, PLAIN, 2).embeds)


def test_escaped_brackets_are_encoded_as_brackets(pipe: Any) -> None:
    assert torch.equal(encode(pipe, r"a cat \(grey\)").embeds, by_diffusers(pipe, "a cat (grey)", 1)[0])


def test_clip_skip_beyond_the_encoder_is_a_sentence(sd1: Any, sdxl: Any) -> None:
    assert encode(sd1, "a", 3).embeds.shape == (1, 77, 192)
    with pytest.raises(InvalidRequest, match=r"Clip skip 4 .* from 1 to 3"):
        encode(sd1, "a", 4)
    with pytest.raises(InvalidRequest, match="from 1 to 4"):
        encode(sdxl, "a", 5)


# --- Weights ---


def test_emphasis_multiplies_the_tokens_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    embeds, weights = torch.randn(77, 8) + 0.3, torch.ones(77)
    weights[3:5] = 1.5
    found = emphasise(embeds, weights)
    assert torch.allclose(found.mean(), embeds.mean(), atol=1e-6)
    share = found / embeds
    assert torch.allclose(share[3:5] / share[0, 0], torch.tensor(1.5))
    assert torch.allclose(share[5:], share[0, 0])
    assert emphasise(embeds, torch.ones(77)) is embeds


def test_weights_act_on_their_own_tokens_of_the_plain_text(sdxl: Any) -> None:
    text = "a photo of a (cat:1.5) in the [rain]"
    weights = torch.ones(77)
    weights[5], weights[8] = 1.5, 1 / 1.1
    expected = encode(sdxl, "a photo of a cat in the rain").embeds[0]
    parts = [
        emphasise(part, weights) for part in torch.split_with_sizes(expected, [32, 48], dim=-1)
    ]  # each encoder for itself
    found = encode(sdxl, text)
    assert torch.allclose(found.embeds[0], torch.cat(parts, dim=-1), atol=1e-6)
    assert not torch.allclose(found.embeds[0], expected, atol=1e-3)
    assert same(found.pooled, by_diffusers(sdxl, "a photo of a cat in the rain", 1)[1])


def test_the_mean_of_each_chunk_is_kept(pipe: Any) -> None:
    weighted = encode(pipe, "a (cat:1.3) BREAK a dog").embeds
    unweighted = encode(pipe, "a cat BREAK a dog").embeds
    widths = [weighted.shape[-1]] if weighted.shape[-1] == 192 else [32, 48]
    for one, other in zip(*(torch.split_with_sizes(part, widths, -1) for part in (weighted, unweighted)), strict=True):
        assert torch.allclose(one[:, :77].mean(), other[:, :77].mean(), atol=1e-6)
        assert not torch.allclose(one[:, :77], other[:, :77], atol=1e-3)
    assert torch.allclose(weighted[:, 77:], unweighted[:, 77:], atol=1e-6)


# --- Chunks ---


def tokens(*ids: int) -> list[tuple[int, float] | None]:
    return [(token, 1.0) for token in ids]


def lengths(chunks: list[list[tuple[int, float]]]) -> list[int]:
    return [len(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    ("comma", "expected"),
    [
        (None, [75, 15]),
        (10, [75, 15]),
        (54, [75, 15]),
        (55, [56, 34]),
        (70, [71, 19]),
        (74, [75, 15]),
        (75, [75, 15]),
        (80, [75, 15]),
    ],
)
def test_a_comma_near_the_end_of_a_chunk_moves_the_break(comma: int | None, expected: list[int]) -> None:
    ids = [COMMA if index == comma else 1 + index for index in range(90)]
    chunks = split_chunks(tokens(*ids), ROOM, [COMMA])
    assert lengths(chunks) == expected
    assert [token for chunk in chunks for token, _ in chunk] == ids


def test_the_last_comma_counts() -> None:
    ids = [COMMA if index in (58, 66) else 1 for index in range(80)]
    assert lengths(split_chunks(tokens(*ids), ROOM, [COMMA])) == [67, 13]


def test_a_comma_right_after_a_full_chunk_tears_nothing_apart() -> None:
    ids = [COMMA if index in (66, 75) else 1 for index in range(80)]
    assert lengths(split_chunks(tokens(*ids), ROOM, [COMMA])) == [75, 5]


def test_break_starts_a_chunk() -> None:
    assert lengths(split_chunks([*tokens(1, 2), None, *tokens(3)], ROOM, [COMMA])) == [2, 1]
    assert lengths(split_chunks([*tokens(*range(1, 76)), None, *tokens(3)], ROOM, [COMMA])) == [75, 1]
    assert lengths(split_chunks([*tokens(1), None], ROOM, [COMMA])) == [1]
    assert lengths(split_chunks([*tokens(1), None, None, *tokens(2)], ROOM, [COMMA])) == [1, 0, 1]
    assert lengths(split_chunks([], ROOM, [COMMA])) == [0]


def test_chunks_are_encoded_for_themselves_and_put_one_after_the_other(pipe: Any) -> None:
    found = encode(pipe, "a cat BREAK a dog")
    cat, dog = encode(pipe, "a cat"), encode(pipe, "a dog")
    assert torch.allclose(found.embeds, torch.cat([cat.embeds, dog.embeds], dim=1), atol=1e-5)
    if cat.pooled is not None and found.pooled is not None:
        assert torch.allclose(found.pooled, cat.pooled, atol=1e-5)  # the first chunk's


def test_long_text_is_not_cut_off(pipe: Any) -> None:
    count = len(pipe.tokenizer(LONG, add_special_tokens=False).input_ids)
    found = encode(pipe, LONG).embeds
    assert found.shape[1] % 77 == 0
    assert -(-count // 75) <= found.shape[1] // 77 <= -(-count // 56)
    changed = encode(pipe, LONG + " at night").embeds
    assert torch.equal(found[:, :-77], changed[:, :-77])
    assert not torch.equal(found[:, -77:], changed[:, -77:])


def test_seventy_five_tokens_are_one_chunk(pipe: Any) -> None:
    word = next(w for w in ("a", "of", "in") if len(pipe.tokenizer(w, add_special_tokens=False).input_ids) == 1)
    full = " ".join([word] * 75)
    assert torch.equal(encode(pipe, full).embeds, by_diffusers(pipe, full, 1)[0])
    assert encode(pipe, f"{full} {word}").embeds.shape[1] == 154


def test_a_textual_inversion_becomes_all_of_its_tokens(sdxl: Any) -> None:
    pipe = diffusers.StableDiffusionPipeline(
        vae=None,
        unet=None,
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        tokenizer=build_tokenizer(CONFIGS / "sd1" / "tokenizer"),
        text_encoder=CLIPTextModel(text_config(32, len(sdxl.tokenizer))).eval(),
    )
    pipe.load_textual_inversion({"mystyle": torch.ones(2, 32)}, token="mystyle")
    assert torch.equal(encode(pipe, "a cat, mystyle").embeds, by_diffusers(pipe, "a cat, mystyle", 1)[0])
    assert not torch.allclose(encode(pipe, "a cat, (mystyle:1.2)").embeds, encode(pipe, "a cat, mystyle").embeds)


# --- Prompts ---


def prompts_of(pipe: Any, prompt: str, negative: str = "", cache: Cache | None = None, clip_skip: int = 1) -> Any:
    return encode_prompts(pipe, prompt, negative, 20, clip_skip, "cpu", Kept(KEPT_BYTES) if cache is None else cache)


def test_each_step_has_its_texts(sd1: Any) -> None:
    prompts = prompts_of(sd1, "[cat:dog:0.25] :1.2 AND a [forest|lake]", "[rain::5]")
    embeds = {text: encode(sd1, text).embeds for text in ("cat", "dog", "a forest", "a lake", "rain", "")}
    expected = {
        0: ("rain", "cat", "a forest"),
        1: ("rain", "cat", "a lake"),
        4: ("rain", "cat", "a forest"),
        5: ("", "dog", "a lake"),
        19: ("", "dog", "a lake"),
        25: ("", "dog", "a lake"),
    }
    for step, texts in expected.items():
        negative, positives = prompts.at(step)
        assert [weight for weight, _ in positives] == [1.2, 1]
        found = [negative.embeds, *(conditioning.embeds for _, conditioning in positives)]
        assert [bool(torch.equal(one, embeds[text])) for one, text in zip(found, texts, strict=True)] == [True] * 3, (
            step
        )


def test_and_in_a_negative_prompt_is_text(sd1: Any) -> None:
    negative, _ = prompts_of(sd1, "a", "cat AND dog:0.5").at(0)
    assert torch.equal(negative.embeds, encode(sd1, "cat AND dog:0.5").embeds)


def test_an_empty_negative_prompt_is_nothing_to_xl(sd1: Any, sdxl: Any) -> None:
    with torch.inference_mode():
        expected = sdxl.encode_prompt("a", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    negative, [(_, positive)] = prompts_of(sdxl, "a").at(0)
    assert torch.equal(negative.embeds, expected[1]) and torch.equal(negative.pooled, expected[3])
    assert not negative.embeds.any() and not negative.pooled.any() and positive.embeds.any()
    said, _ = prompts_of(sdxl, "a", "[:rain:5]").at(0)
    assert torch.equal(said.embeds, encode(sdxl, "").embeds), "where words follow it is an empty text"
    _, [(_, empty)] = prompts_of(sdxl, "").at(0)
    assert torch.equal(empty.embeds, encode(sdxl, "").embeds)
    assert torch.equal(prompts_of(sd1, "a").at(0)[0].embeds, encode(sd1, "").embeds)


@pytest.fixture
def encoded(sd1: Any) -> Iterator[list[int]]:
    """The number of times that the text encoder ran, one item each."""
    runs: list[int] = []
    hook = sd1.text_encoder.register_forward_pre_hook(lambda *_: runs.append(1))
    yield runs
    hook.remove()


def test_nothing_is_encoded_twice(sd1: Any, encoded: list[int]) -> None:
    cache: Cache = Kept(KEPT_BYTES)
    prompts_of(sd1, "[cat|dog]", "rain", cache)
    assert len(encoded) == 3
    prompts_of(sd1, "[dog|cat|rain]", "", cache)
    assert len(encoded) == 4
    prompts_of(sd1, "cat", "", cache, clip_skip=2)
    assert len(encoded) == 6


def test_the_cache_keeps_what_was_used_last(sd1: Any, encoded: list[int]) -> None:
    cache: Cache = Kept(5 * size_of(encode(sd1, "cat")))
    encoded.clear()
    prompts_of(sd1, "cat", "rain", cache)
    for number in range(7):
        prompts_of(sd1, f"{number}", "rain", cache)
    assert len(encoded) == 9
    assert len(cache) == 5
    prompts_of(sd1, "6", "rain", cache)
    assert len(encoded) == 9
    prompts_of(sd1, "cat", "rain", cache)
    assert len(encoded) == 10


def test_arguments_are_those_of_a_pipeline(sdxl: Any, sd1: Any) -> None:
    found = prompts_of(sdxl, "[cat:dog:5] AND bird").arguments(3)
    cat = encode(sdxl, "cat")
    assert found["prompt_embeds"].shape == (3, 77, 80)
    assert found["pooled_prompt_embeds"].shape == (3, 48)
    assert torch.equal(found["prompt_embeds"][2], cat.embeds[0])
    assert prompts_of(sd1, "cat").arguments(1).keys() == {"prompt_embeds"}


# --- Pipelines that take texts whole ---


def t5() -> tuple[Any, Any]:
    """Return a tokenizer of few words and a tiny T5 encoder."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", "a", "cat", "(", ")", ":", "1.5"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.model_max_length = 16
    config = T5Config(vocab_size=len(words), d_model=80, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return fast, T5EncoderModel(config).eval()


def whole_text_pipeline(kind: str, sdxl: Any) -> Any:
    tokenizer, encoder = t5()
    none: dict[str, Any] = {"vae": None, "transformer": None, "scheduler": sdxl.scheduler}
    if kind == "flux":
        return diffusers.FluxPipeline(
            tokenizer=sdxl.tokenizer,
            text_encoder=sdxl.text_encoder,
            tokenizer_2=tokenizer,
            text_encoder_2=encoder,
            **none,
        )
    clip = CLIPTextModelWithProjection(text_config(32, len(sdxl.tokenizer))).eval()
    parts = {"text_encoder": clip, "text_encoder_2": sdxl.text_encoder_2, "text_encoder_3": encoder}
    tokenizers = {"tokenizer": sdxl.tokenizer, "tokenizer_2": sdxl.tokenizer_2, "tokenizer_3": tokenizer}
    return diffusers.StableDiffusion3Pipeline(**parts, **tokenizers, **none)


@pytest.mark.parametrize(("kind", "pooled"), [("flux", (1, 32)), ("sd3", (1, 80))])
def test_other_families_take_a_text_whole_without_marks(kind: str, pooled: tuple[int, int], sdxl: Any) -> None:
    pipe = whole_text_pipeline(kind, sdxl)
    found = encode(pipe, "a (cat:1.5)")
    plain = encode(pipe, "a cat")
    assert isinstance(found, Conditioning)
    assert found.embeds.ndim == 3
    assert found.pooled is not None
    assert plain.pooled is not None
    assert found.pooled.shape == pooled
    assert torch.equal(found.embeds, plain.embeds)
    assert torch.equal(found.pooled, plain.pooled)
    assert not torch.equal(found.embeds, encode(pipe, "a").embeds)
    assert set(found.extra) == ({"text_ids"} if kind == "flux" else set())


def test_an_unknown_family_is_a_sentence(sdxl: Any) -> None:
    tokenizer, encoder = t5()
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=None, transformer=None, scheduler=sdxl.scheduler
    )
    with pytest.raises(ModelError, match="PixArtAlphaPipeline"):
        encode(pipe, "a")

"""The web UI's prompt syntax, by its values."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.prompts import BREAK, Part, plain, plan, schedule, split_and, weigh

MARKS = st.text(alphabet="ab :|()[]\\.,015-\n", max_size=60) | st.text(max_size=40)
PLAIN = st.text(alphabet="abc ,.:|!\n5", max_size=40)


def rounded(text: str) -> list[tuple[str, float]]:
    return [(words, round(weight, 6)) for words, weight in weigh(text)]


# --- Attention ---


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [("", 1)]),
        ("a cat, 16:9", [("a cat, 16:9", 1)]),
        ("(x)", [("x", 1.1)]),
        ("[x]", [("x", 0.909091)]),
        ("(x:1.5)", [("x", 1.5)]),
        ("(x: 1.5 )", [("x", 1.5)]),
        ("(x:.5)", [("x", 0.5)]),
        ("(x:2)", [("x", 2)]),
        ("(x:-1)", [("x", -1)]),
        ("a (b) c", [("a ", 1), ("b", 1.1), (" c", 1)]),
        ("((x))", [("x", 1.21)]),
        ("[[x]]", [("x", 0.826446)]),
        ("((a:1.2))", [("a", 1.32)]),
        ("(a (b:1.5) c:2)", [("a ", 2), ("b", 3), (" c", 2)]),
        ("([x])", [("x", 1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("[a:1.2]", [("a:1.2", 0.909091)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:)", [("a:", 1.1)]),
        ("()", [("", 1)]),
        ("(:1.5)", [("", 1)]),
    ],
)
def test_brackets_weigh_what_they_hold(text: str, pieces: list[tuple[str, float]]) -> None:
    assert rounded(text) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("(a", [("a", 1.1)]),
        ("b (a", [("b ", 1), ("a", 1.1)]),
        ("((a", [("a", 1.21)]),
        ("[a", [("a", 0.909091)]),
        ("(a:1.5", [("a:1.5", 1.1)]),
        ("a)", [("a)", 1)]),
        ("a]", [("a]", 1)]),
        ("a:1.5)", [("a:1.5)", 1)]),
        ("((a:1.2)", [("a", 1.32)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 0.909091)]),
    ],
)
def test_unbalanced_brackets_still_act(text: str, pieces: list[tuple[str, float]]) -> None:
    assert rounded(text) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (r"\(x\)", [("(x)", 1)]),
        (r"\[x\]", [("[x]", 1)]),
        (r"(\(x\):1.5)", [("(x)", 1.5)]),
        (r"(a\:1.5)", [("a\\", 1.5)]),
        (r"\\(x)", [("\\", 1), ("x", 1.1)]),
        (r"a\b", [(r"a\b", 1)]),
        ("a\\", [("a\\", 1)]),
    ],
)
def test_escaped_brackets_are_text(text: str, pieces: list[tuple[str, float]]) -> None:
    assert rounded(text) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a BREAK b", [("a", 1), BREAK, ("b", 1)]),
        ("a, BREAK\n(b)", [("a,", 1), BREAK, ("b", 1.1)]),
        ("(a BREAK b:1.5)", [("a", 1.5), BREAK, ("b", 1.5)]),
        ("BREAK", [BREAK]),
        ("a BREAK BREAK b", [("a", 1), BREAK, BREAK, ("b", 1)]),
        ("BREAKFAST break", [("BREAKFAST break", 1)]),
    ],
)
def test_break_is_a_piece_of_its_own(text: str, pieces: list[tuple[str, float]]) -> None:
    assert rounded(text) == pieces


@given(PLAIN)
def test_text_without_marks_is_one_piece(text: str) -> None:
    assert weigh(text) == [(text, 1)]


@given(MARKS)
def test_no_two_neighbours_weigh_the_same(text: str) -> None:
    pieces = weigh(text)
    assert pieces
    assert all(one[1] != other[1] or BREAK in (one, other) for one, other in pairwise(pieces))


def test_plain_text_has_no_marks_left() -> None:
    assert plain(r"a (cat:1.5) BREAK [on] \(a\) mat") == "a cat on (a) mat"


# --- Editing and alternation ---


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("a", [(20, "a")]),
        ("", [(20, "")]),
        ("[a:b:0.25]", [(5, "a"), (20, "b")]),
        ("[a:b:.25]", [(5, "a"), (20, "b")]),
        ("[a:b:5]", [(5, "a"), (20, "b")]),
        ("[a:b: 5 ]", [(5, "a"), (20, "b")]),
        ("a [cat:dog:5] b", [(5, "a cat b"), (20, "a dog b")]),
        ("[a:5]", [(5, ""), (20, "a")]),
        ("[:a:5]", [(5, ""), (20, "a")]),
        ("[a::5]", [(5, "a"), (20, "")]),
        ("[a:0.5]", [(10, ""), (20, "a")]),
        ("[a:b:1]", [(1, "a"), (20, "b")]),
        ("[a:b:1.0]", [(20, "a")]),
        ("[a:b:1.]", [(20, "a")]),
        ("[a:b:5.0]", [(20, "a")]),
        ("[a:1.0]", [(20, "")]),
        ("[a:b:0]", [(20, "b")]),
        ("[a:b:0.0]", [(20, "b")]),
        ("[a:b:20]", [(20, "a")]),
        ("[a:b:900]", [(20, "a")]),
        ("[a:b:0.33]", [(6, "a"), (20, "b")]),
        ("[a:a:5]", [(20, "a")]),
        ("[a:b:" + "9" * 5000 + "]", [(20, "a")]),
    ],
)
def test_prompts_are_edited_after_the_step(text: str, texts: list[tuple[int, str]]) -> None:
    assert schedule(text, 20) == texts


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("[a|b]", ["a", "b", "a", "b", "a"]),
        ("[a|b|c] x", ["a x", "b x", "c x", "a x", "b x"]),
        ("[a|]", ["a", "", "a", "", "a"]),
        ("[a|[b|c]]", ["a", "c", "a", "c", "a"]),
        ("[[a|b]:c:3]", ["a", "b", "a", "c", "c"]),
        ("[a:[b|c]:1]", ["a", "c", "b", "c", "b"]),
        ("[(a:1.3)|b]", ["(a:1.3)", "b", "(a:1.3)", "b", "(a:1.3)"]),
    ],
)
def test_alternatives_take_turns(text: str, texts: list[str]) -> None:
    last = 0
    found = []
    for until, words in schedule(text, 5):
        found += [words] * (until - last)
        last = until
    assert found == texts


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("[a:[b:c:10]:5]", [(5, "a"), (10, "b"), (20, "c")]),
        ("[[a:b:5]:c:10]", [(5, "a"), (10, "b"), (20, "c")]),
        ("[(a:1.3):(b:0.5):5]", [(5, "(a:1.3)"), (20, "(b:0.5)")]),
        ("(x [a:b:5]:1.3)", [(5, "(x a:1.3)"), (20, "(x b:1.3)")]),
        ("[[a]:b:5]", [(5, "[a]"), (20, "b")]),
        (r"[a\:b:c:5]", [(5, r"a\:b"), (20, "c")]),
        (r"[\[a\]:b:5]", [(5, r"\[a\]"), (20, "b")]),
        ("[:) a:b:5]", [(20, "[:) a:b:5]")]),
        ("[(a:5])", [(5, ")"), (20, "(a)")]),
        ("[a:(b:5]", [(5, "a"), (20, "(b")]),
        ("[a (:b:5]", [(5, "a ("), (20, "b")]),
        ("[a [b:c:5]", [(5, "[a b"), (20, "[a c")]),
        ("[b:c:5]] d", [(5, "b] d"), (20, "c] d")]),
    ],
)
def test_edits_nest(text: str, texts: list[tuple[int, str]]) -> None:
    assert schedule(text, 20) == texts


@pytest.mark.parametrize(
    "text",
    [
        "[a]",
        "[a:1.2]",
        "[a:b]",
        "[a:b:c]",
        "[a:b:-5]",
        "[a:b:c:5]",
        "[a:b:5",
        "a:b:5]",
        "[a:b:1.2.3]",
        "[a:b:[5]]",
        "[a:b:]",
        "[]",
        "a:b",
        "a|b",
        "(a|b)",
    ],
)
def test_all_else_is_literal(text: str) -> None:
    assert schedule(text, 20) == [(20, text)]


@pytest.mark.parametrize("text", ["(a:b:5)", r"\[a:b:5\]", "a photo in 16:9", "a\\", "(", ")("])
def test_only_square_brackets_edit(text: str) -> None:
    assert schedule(text, 20) == [(20, text)]


def test_a_weight_in_square_brackets_is_text_from_end_to_end() -> None:
    ((_, text),) = schedule("[a:1.2]", 20)
    assert rounded(text) == [("a:1.2", 0.909091)]


@given(MARKS, st.integers(1, 30))
def test_any_text_has_a_schedule_that_ends_with_the_last_step(text: str, steps: int) -> None:
    texts = schedule(text, steps)
    lasts = [last for last, _ in texts]
    assert lasts == sorted(set(lasts))
    assert lasts[0] >= 1
    assert lasts[-1] == steps
    assert all(one[1] != other[1] for one, other in pairwise(texts))


def test_deep_nesting_is_no_error() -> None:
    assert schedule("[" * 3000 + "a" + "]" * 3000, 5) == [(5, "[" * 3000 + "a" + "]" * 3000)]
    assert schedule("[" * 500 + "a:b:2" + ":2]" * 500, 5)[-1][0] == 5


# --- AND ---


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a", [(1, "a")]),
        ("a :1.2 AND b:0.5", [(1.2, "a"), (0.5, "b")]),
        ("a AND b", [(1, "a"), (1, "b")]),
        ("a\nAND b: 2 AND c", [(1, "a"), (2, "b"), (1, "c")]),
        ("a AND b:-0.5", [(1, "a"), (-0.5, "b")]),
        ("(a:1.2) AND [b:0.5]", [(1, "(a:1.2)"), (1, "[b:0.5]")]),
        ("a AND b:c", [(1, "a"), (1, "b:c")]),
        ("SAND and ANDROID", [(1, "SAND and ANDROID")]),
        ("a photo in 16:9", [(1, "a photo in 16:9")]),
    ],
)
def test_and_joins_prompts_of_a_weight_each(text: str, prompts: list[tuple[float, str]]) -> None:
    assert split_and(text) == prompts


def test_each_part_has_its_own_schedule() -> None:
    assert plan("[a:b:0.25] :1.2 AND (c)", 20) == [Part(1.2, [(5, "a"), (20, "b")]), Part(1, [(20, "(c)")])]

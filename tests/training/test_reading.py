"""What the readers learn from, on a fresh denoiser."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from transformers import CLIPTokenizer  # noqa: E402

from training.denoiser import build  # noqa: E402
from training.reading import Readers, told_by  # noqa: E402


def test_where_all_captions_are_empty_nothing_is_misread() -> None:
    tokenizer = CLIPTokenizer.from_pretrained("backend/models/embedded/tokenizer")
    model = build(tokenizer)
    readers = Readers(model)
    told = told_by(tokenizer, ["", ""], [None, None])
    with torch.no_grad():
        model(torch.zeros(2, 4, 8, 8), torch.tensor([500, 500]), told.tokens)
        assert float(readers.misread(told)) == 0

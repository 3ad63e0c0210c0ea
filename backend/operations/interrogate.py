"""Interrogate: a picture read into a prompt, by a caption and by the words of each list that fit it best."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidRequest
from ..imaging.pictures import flatten
from ..models.interrogators import fetch_model, load_captioner, load_ranker, require_models
from ..models.load import quiet_libraries
from ..request import Request
from ..settings.interrogate import CATEGORIES, Interrogate
from .run import Output, Run

WORDS = Path(__file__).parents[1] / "models" / "words"
LINES = 1500  # of a list that are read, the web UI's limit
FILE_NAME = re.compile(r"(?P<name>.+?)(\.top(?P<best>\d{1,4}))?", re.IGNORECASE)
SPELLINGS = {"flavors": "flavours"}  # the name of a list in the web UI → ours


@dataclass(frozen=True)
class Category:
    """One list of words, and how many of them that fit best go into the prompt."""

    name: str
    words: tuple[str, ...]
    best: int = 1


def interrogate(request: Request, run: Run) -> Output:
    """Return the prompt that a picture reads as: "caption, match, match…"."""
    settings = request.settings
    assert isinstance(settings, Interrogate)
    categories = read_categories(settings) if settings.ranks else []
    options = run.models.options
    quiet_libraries(options.online)
    require_models(settings, options.online)
    picture = flatten(request.images["init"])
    with run.part(0, 1 + bool(categories)):
        folder = fetch_model(settings.caption_model, options, run.check, run.share)
        run.say("Loading the caption model")
        captioner = load_captioner(folder, options)
        captioner.watch = run.check
        run.say("Describing the picture")
        caption = captioner.caption(picture, settings.beams, settings.minimum_length, settings.maximum_length)
    parts = [caption]
    if categories:
        with run.part(1, 2):
            folder = fetch_model(settings.ranking_model, options, run.check, run.share)
            run.say("Loading the ranking model")
            ranker = load_ranker(folder, options)
            ranker.watch = run.check
            run.say("Looking at the picture")
            look = ranker.look(picture)
            for index, category in enumerate(categories):
                with run.part(index, len(categories)):
                    title = f"Trying the {len(category.words)} words of {category.name}"
                    ranked = ranker.rank(look, category.words, functools.partial(run.share, message=title))
                matches = ranked[: category.best]
                parts += [f"({word}:{rank:.3f})" if settings.show_ranks else word for word, rank in matches]
    return Output(text=", ".join(part for part in parts if part))


def read_categories(settings: Interrogate) -> list[Category]:
    """Return the lists to try: ours that are switched on, and those of the artist's folder after or in place of them.

    Raises InvalidRequest where that folder or a list in it can't be read.
    """
    found = {name: read_category(WORDS / f"{name}.txt") for name in CATEGORIES}
    if settings.words_folder:
        for path in own_lists(settings.words_folder):
            category = read_category(path)
            found[category.name] = category
    return [
        category
        for name, category in found.items()
        if category.words and (name not in CATEGORIES or getattr(settings, name))
    ]


def own_lists(folder: str) -> list[Path]:
    """Return the .txt files of the artist's folder in the order of their names; raises InvalidRequest without any."""
    try:
        inside = sorted(Path(folder).expanduser().iterdir())
    except (OSError, RuntimeError) as error:  # RuntimeError: "~name" of no user
        raise InvalidRequest(f"The Words Folder {folder} can't be read.", "Choose a folder of .txt files.") from error
    paths = [path for path in inside if path.suffix.lower() == ".txt" and not path.name.startswith(".")]
    if not paths:
        raise InvalidRequest(f"The Words Folder {folder} holds no .txt file.", "Write one there, a line a match.")
    return paths


def read_category(path: Path) -> Category:
    """Return the list of a file such as mediums.txt or mediums.top3.txt: its first 1500 lines, the empty ones left out.

    Raises InvalidRequest where it can't be read, or asks for no match at all.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()[:LINES]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"The list {path} can't be read as text (UTF-8).", "Save it again, or remove it."
        ) from error
    match = FILE_NAME.fullmatch(path.stem)
    assert match is not None  # a stem has a character at least
    name, best = match["name"].lower(), int(match["best"] or 1)
    if best < 1:
        raise InvalidRequest(f"The list {path} asks for the 0 best.", "Name it .top1.txt or higher, or remove it.")
    words = dict.fromkeys(line.strip() for line in lines)
    return Category(SPELLINGS.get(name, name), tuple(word for word in words if word), best)

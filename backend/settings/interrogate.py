"""The settings of reading a picture: which models say what it shows, and which words are tried on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import InvalidRequest
from .declare import Settings, setting
from .diffusion import EMBEDDED

CAPTION_MODELS = (EMBEDDED, "Salesforce/blip-image-captioning-large", "Salesforce/blip-image-captioning-base")
RANKING_MODELS = ("openai/clip-vit-large-patch14", "openai/clip-vit-base-patch32")
CATEGORIES = ("artists", "flavours", "mediums", "movements")  # switch and word list each, in the order of the prompt


@dataclass(frozen=True)
class Interrogate(Settings):
    """A prompt read from a picture: what it shows, and the words for its style that fit it best."""

    operation: ClassVar[str] = "interrogate"
    label: ClassVar[str] = "Interrogate"

    caption_model: str = setting(
        EMBEDDED,
        "Caption Model",
        "What says what the picture shows: embedded, for figures alone, or any BLIP model: a folder or a hub name",
        is_path=True,
        suggestions=CAPTION_MODELS,
    )
    ranking_model: str = setting(
        "",
        "Ranking Model",
        "The CLIP model that picks the words for its style: a folder or a hub name; none, and no word is tried",
        is_path=True,
        suggestions=RANKING_MODELS,
    )
    beams: int = setting(
        1, "Beams", "How many captions are followed at once: more are better and slower", minimum=1, maximum=16
    )
    minimum_length: int = setting(
        24, "Minimum Length", "The fewest tokens of the caption; short words are one token", minimum=1, maximum=128
    )
    maximum_length: int = setting(
        48, "Maximum Length", "The most tokens of the caption; short words are one token", minimum=4, maximum=256
    )
    artists: bool = setting(True, "Artists", "Add the artist whose pictures look most like it")
    flavours: bool = setting(True, "Flavours", "Add the words on light, mood and finish that fit it best")
    mediums: bool = setting(True, "Mediums", "Add what it looks drawn, painted or made with")
    movements: bool = setting(True, "Movements", "Add the style or school of art that it looks like")
    show_ranks: bool = setting(
        False, "Show Ranks", "Write each match as (match:0.123): how sure the model is of it in its list"
    )
    words_folder: str = setting(
        "",
        "Words Folder",
        "A folder of your own lists, one .txt a category; name.top3.txt adds the 3 best, mediums.txt replaces ours",
        is_path=True,
    )

    @property
    def ranks(self) -> bool:
        """Whether any words are tried on the picture at all."""
        named = bool(self.words_folder) or any(getattr(self, name) for name in CATEGORIES)
        return named and bool(self.ranking_model)

    def check(self) -> None:
        """Raise InvalidRequest for a value out of range, or a shortest caption that is longer than the longest."""
        super().check()
        if self.minimum_length > self.maximum_length:
            raise InvalidRequest(
                f"Minimum Length is {self.minimum_length}, more than the Maximum Length of {self.maximum_length}.",
                "Lower one or raise the other.",
            )

"""The one family of errors that an artist is shown: a sentence on what is wrong, and one on what to do."""

from __future__ import annotations


class DiffusionError(Exception):
    """Base of every error that is the product's own answer to bad input or a bad machine, never a bug."""

    def __init__(self, sentence: str, remedy: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".strip()


class InvalidRequest(DiffusionError):
    """The settings or the images of a request can't make a picture."""


class ModelError(DiffusionError):
    """A model is missing, damaged, of an unknown family, or can't do what is asked of it."""


class OutOfMemory(DiffusionError):
    """The picture needs more memory than the device has."""


class BackendError(DiffusionError):
    """The process that makes the pictures could not be started, died, or spoke another protocol."""


class Cancelled(Exception):
    """Raised inside a running operation once its job has been cancelled."""

"""What an attack did, as evidence.json has it: accuracy by radius, and rows before and after."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Attacked(TypedDict):
    """Accuracy at one share of the attack's radius."""

    share: float
    radius: float
    value: float
    low: float
    high: float


class Picture(TypedDict):
    """A public image before and after an attack."""

    shape: list[int]
    """`[channels, height, width]` or `[height, width]`."""
    clean: list[Any]
    """Pixels from 0 to 1, nested or flat, in the order of `shape`."""
    attacked: list[Any]
    label: str | int
    before: str | int
    """The model's answer to the clean image."""
    after: str | int
    share: NotRequired[float]
    """Share of the radius that sufficed."""


class Change(TypedDict):
    """How far an attack moved one feature, in the feature's own unit."""

    feature: str
    before: float
    after: float
    scaled: NotRequired[list[float]]
    """Before and after in the model's units: of public scaling, standard deviations."""


class AttackedRowFacts(TypedDict):
    """A public row before and after an attack: the features that moved the most."""

    label: str | int
    before: str | int
    after: str | int
    changes: list[Change]
    share: NotRequired[float]


class TextPart(TypedDict):
    """A stretch of a text."""

    text: str
    now: str | None
    """The word that an attack put in its place; null where nothing changed."""


class AttackedTextFacts(TypedDict):
    """A public text before and after an attack."""

    label: str | int
    before: str | int
    """The model's answer to the clean text."""
    after: str | int
    words: list[TextPart]
    """The text in its order; a changed word is a part by itself."""
    share: NotRequired[float]
    """Share of the words that could change that sufficed."""

"""Attacked texts, with the words that were replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nacre.report.facts import AttackedTextFacts, FindingFacts
from nacre.report.sections.blocks import AnyBlock, ChangedText, ChangedTexts, TextBlock
from nacre.report.sections.numbers import count_in_words, number_text, whole


def changed_texts(texts: Sequence[AttackedTextFacts]) -> list[AnyBlock]:
    """Public texts whose right answer an attack changed, for people to look at."""
    return [
        TextBlock(
            "Public test texts whose right answer an attack changed. Each replaced word is struck "
            "out, with the new one behind it: whether the text still says the same is for a reader "
            "to judge."
        ),
        ChangedTexts([_example(text) for text in texts]),
    ]


def _example(text: AttackedTextFacts) -> ChangedText:
    parts = [(part["text"], part["now"]) for part in text["words"]]
    changed = sum(now is not None for _, now in parts)
    words = count_in_words(changed, "words") if changed != 1 else "one word"
    caption = (
        f"Label {text['label']}: answered {text['before']}, then {text['after']}; {words} replaced."
    )
    return ChangedText(parts, caption)


def radius_axis(entry: FindingFacts) -> tuple[str, tuple[str, Callable[[float], str]]]:
    """(title, (label, form) of the axis) of accuracies over radii, or over shares of words."""
    if entry["details"].get("ball", {}).get("kind") == "words":
        return "Accuracy by words replaced", ("share of the words that may change", whole)
    return "Accuracy by radius", ("radius", number_text)

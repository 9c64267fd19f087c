"""What a recipe says of rows and attacks, in words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from nacre.audit.model_security.facts import AttackedTextFacts
from nacre.core.errors import RecipeError
from nacre.recipe.document import parse
from nacre.report.facts import Evidence, FindingFacts, PartyFacts
from nacre.report.sections.blocks import AnyBlock, ChangedText, ChangedTexts, TextBlock
from nacre.report.sections.drawing import TickFormat
from nacre.report.sections.numbers import count_in_words, number_text, whole

NOT_FOR_OTHERS = "on private rows: not for others"
"""Stands beside each figure that private rows gave."""

UNIT = {
    "example": "one row",
    "group": "all rows of one person or group",
    "client": "everything of one party",
}


@cache
def _values(recipe: str) -> Mapping[str, Any]:
    try:
        return parse(recipe.encode(), "recipe.yaml").values
    except RecipeError:  # of another version: then the page says less, and no figure hangs on it
        return {}


def recipe_section(evidence: Evidence, name: str) -> Mapping[str, Any]:
    """A section of the recipe as plain values; {} where it has none or cannot be read."""
    found: Any = _values(evidence["recipe"]).get(name)
    return cast(Mapping[str, Any], found) if isinstance(found, dict) else {}


def recipe_audits(evidence: Evidence) -> set[str] | None:
    """The kinds of audits that the recipe names; None where it cannot be read."""
    values = _values(evidence["recipe"])
    asked: Any = values.get("audit") or ()
    try:
        found = {audit if isinstance(audit, str) else str(audit["kind"]) for audit in asked}
    except (TypeError, KeyError):
        return None
    return found if values else None


def public_demonstration(evidence: Evidence) -> bool:
    """Whether the owner declares every row public."""
    return recipe_section(evidence, "data").get("public_demonstration") is True


def variant_words(evidence: Evidence, name: str) -> str:
    """What a model that is compared is called: `protected` only where epsilon is bounded."""
    return "the model" if name == "protected" and not evidence["plan"]["private"] else name


def price_words(evidence: Evidence) -> str:
    """What a model is held against its unprotected twin for."""
    if evidence["plan"]["private"]:
        return "Price of protection"
    robust = evidence["plan"]["techniques"]["adversarial_training"] is not None
    return "Price of robust training" if robust else "Against its twin"


def unit_words(evidence: Evidence, party: PartyFacts) -> str:
    """Whom epsilon protects, as `one row` or `all rows of one author`."""
    column = recipe_section(evidence, "data").get("unit")
    if party["unit"] == "group" and isinstance(column, str):
        return f"all rows of one {column}"
    return UNIT[party["unit"]]


def units_declared(evidence: Evidence, party: PartyFacts) -> str:
    """What a party's size counts."""
    column = recipe_section(evidence, "data").get("unit")
    if party["unit"] == "group":
        return f"values of {column}" if isinstance(column, str) else "people or groups"
    return {"example": "rows", "client": "parties"}[party["unit"]]


def parties_by_unit(parties: Sequence[PartyFacts]) -> list[list[PartyFacts]]:
    """The parties of each unit that is protected: one list, or whole parties and then the rows
    within them. Epsilons of different units are no figures of one kind."""
    units = dict.fromkeys(party["unit"] for party in parties)
    return [[party for party in parties if party["unit"] == unit] for unit in units]


def promised(evidence: Evidence) -> list[list[PartyFacts]]:
    """The parties that are promised something, by unit."""
    found = [party for party in evidence["plan"]["parties"] if party["epsilon"] is not None]
    return parties_by_unit(found)


def largest(parties: Sequence[PartyFacts]) -> PartyFacts:
    """The party of the largest epsilon, of those of one unit."""
    return max(parties, key=lambda party: party["epsilon"] or 0.0)


def holders(parties: list[PartyFacts]) -> str:
    """Of whom a figure is that all parties share, as `all 24 parties`; one holder is not named."""
    return f"all {count_in_words(len(parties), 'parties')}" if len(parties) > 1 else ""


def party_names(parties: Sequence[PartyFacts]) -> list[str]:
    """The names of the parties of a federation; [] where they have none in the plan."""
    parties = parties_by_unit(parties)[-1]
    each = [party["name"] for party in parties]
    return each if parties[0]["unit"] != "client" and party_count(parties) == len(each) else []


def party_count(parties: Sequence[PartyFacts]) -> int:
    """How many parties took part in a federation."""
    if parties[0]["unit"] == "client":
        return parties[0]["size"]
    return sum(party.get("parties", 1) for party in parties)


def moved_by(evidence: Evidence, found: FindingFacts) -> str | None:
    """How far an attack could move an input, as `each measurement moved by up to 0.4 standard
    deviations`; None where the finding does not say."""
    ball = found["details"].get("ball")
    if ball is None or not isinstance(ball.get("radius"), int | float):
        return None
    if ball.get("kind") == "words":
        return f"up to {whole(ball['radius'])} of each text's words replaced by near ones"
    if ball.get("kind") == "table":
        return "rows changed within all declared constraints"
    picture = len(list(evidence["model"].get("shape") or ())) > 1
    one, many = ("pixel", "pixels") if picture else ("measurement", "measurements")
    size = _size(evidence, float(ball["radius"]), ball)
    if ball.get("kind") == "linf":
        return f"each {one} moved by up to {size}"
    return f"all {many} together moved by a distance of up to {size}"


def radius_axis(evidence: Evidence, found: FindingFacts) -> tuple[str, TickFormat]:
    """The label of an axis of radii and how its numbers are written: on the scale of `moved_by`."""
    ball = found["details"].get("ball")
    if ball is None:
        return "radius", number_text
    if ball.get("kind") == "words":
        return "share of the words that may change", whole
    if ball.get("kind") == "table":
        return "share of every declared move", whole
    unit, form = _scale(evidence, ball)
    return f"radius, {_AXES.get(unit, unit)}", form


_AXES = {"of its declared range": "share of the declared range"}


def _size(evidence: Evidence, radius: float, ball: Mapping[str, Any]) -> str:
    """The radius with its unit."""
    unit, form = _scale(evidence, ball)
    return f"{form(radius)} {unit}"


def _scale(evidence: Evidence, ball: Mapping[str, Any]) -> tuple[str, TickFormat]:
    """What a radius is measured in, and how it is written; a declared range is two units long in
    the model's."""
    if ball.get("unit") == "features":
        return "in its own unit", number_text
    scaling = recipe_section(evidence, "data").get("scaling")
    kind: Any = cast(Mapping[str, Any], scaling).get("kind") if isinstance(scaling, dict) else None
    if kind == "public":
        return "standard deviations", number_text
    if kind == "declared" and ball.get("kind") == "linf":
        return "of its declared range", lambda radius: f"{number_text(50 * radius)}%"
    return "in the model's units", number_text


_STAGES = {
    "APGD": "APGD climbs a loss by the gradient and halves its step where the loss no longer rises "
    "(Croce & Hein 2020)",
    "APGD-PMA": "PMA is the margin between the probabilities of the best wrong and the right class",
    "APGD-CE": "CE is the cross-entropy",
    "APGD-DLR": "DLR is a ratio of score differences, so scores of another scale give the same",
    "APGD-DLR towards": "how likely a wrong class is goes by its score at the clean row, so it is "
    "another class from row to row",
    "constrained APGD": "constrained APGD climbs by the gradient and repairs each point onto what "
    "is declared of the columns before it is tried",
    "Square": "Square uses no gradient: it changes patches at random and keeps what lowers the "
    "margin, for at most as many queries a row as its name says",
    "column search": "column search uses no gradient: it mixes rows from the best ones so far",
}
"""By how the name of a stage begins."""


def stage_words(names: Sequence[str]) -> str:
    """What the names of attacks stand for, each once; empty where none is known."""
    known = [
        text for start, text in _STAGES.items() if any(name.startswith(start) for name in names)
    ]
    return "; ".join(known) + "." if known else ""


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

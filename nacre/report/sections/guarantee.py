"""Sections on what was promised: protection and privacy."""

from __future__ import annotations

from typing import Literal

from nacre.planning.shares_of_noise import observers
from nacre.report.facts import Evidence, PartyFacts
from nacre.report.sections import charts
from nacre.report.sections.blocks import (
    AnyBlock,
    Figure,
    Figures,
    Fold,
    Listing,
    Section,
    Terms,
    TextBlock,
)
from nacre.report.sections.drawing import Caption
from nacre.report.sections.mechanism import mechanism
from nacre.report.sections.numbers import epsilon_text, listed, number_text
from nacre.report.sections.odds import odds
from nacre.report.sections.words import largest, promised

Technique = Literal[
    "gradient_clipping",
    "fine_tuning",
    "federated_learning",
    "differential_privacy",
    "adversarial_training",
]
_PAPER = 50  # heights that an eye can tell apart in a chart
_TECHNIQUES: dict[Technique, tuple[str, str]] = {
    "gradient_clipping": ("Gradient clipping", "Gradients were used as they came."),
    "fine_tuning": ("Fine-tuning", "The model started from random weights."),
    "federated_learning": ("Federated learning", "All rows lay in one place."),
    "differential_privacy": (
        "Differential privacy",
        "Nothing bounds what the model gives away.",
    ),
    "adversarial_training": ("Adversarial training", "The model saw clean inputs only."),
}
"""Technique -> (its name, what it means that it is off)."""


def protection(evidence: Evidence) -> Section:
    """The five techniques, on or off, each with its sentence."""
    said = evidence["plan"]["techniques"]
    items: list[tuple[str, bool, str]] = []
    for name, (label, off) in _TECHNIQUES.items():
        sentence = said[name]
        items.append((label, sentence is not None, sentence if sentence is not None else off))
    private = evidence["plan"]["private"]
    title = "What was protected, and how" if private else "What was trained, and how"
    return Section("protection", title, [Terms(items)])


def privacy(evidence: Evidence) -> Section:
    """Epsilon as odds, the mechanism that it is computed from, and what it rests on."""
    found = promised(evidence)
    blocks: list[AnyBlock] = []
    if not found:
        blocks.append(
            TextBlock("This run has no differential privacy, so there is no epsilon to state.")
        )
    for place, parties in enumerate(found):
        within = "within-parties-" if place else ""
        blocks += [odds(evidence, largest(parties), within), *_observers(parties)]
        blocks += [*mechanism(evidence, parties), *_growth(parties, within)]
    lead = "This holds as long as:" if found else "Assumed:"
    blocks += [TextBlock(lead), Listing(evidence["plan"]["assumptions"])]
    return Section("privacy", "Privacy", blocks)


def _observers(parties: list[PartyFacts]) -> list[AnyBlock]:
    """Against whom each epsilon of noise in shares holds; nothing of other noise."""
    said = [observers(against) for p in parties if (against := p.get("epsilon_against"))]
    return [TextBlock(f"By who looks: {sentence}.") for sentence in dict.fromkeys(said)]


def _growth(parties: list[PartyFacts], within: str) -> list[AnyBlock]:
    """Epsilon by step, curves that coincide on paper drawn once; nothing without points."""
    found = {p["name"]: p["epsilon_by_step"] for p in parties if p["epsilon_by_step"]}
    last = max((points[-1][1] for points in found.values()), default=0.0)
    if last <= 0:
        return []
    curves: dict[tuple[tuple[float, int], ...], list[str]] = {}
    for name, points in found.items():
        seen = tuple((step, round(_PAPER * bound / last)) for step, bound in points)
        curves.setdefault(seen, []).append(name)
    series = [
        charts.LineChart(
            label=listed(names),
            points=[(step, bound) for step, bound in found[names[0]]],
            tone=tone % 4,
        )
        for tone, names in enumerate(curves.values())
    ]
    svg = charts.lines(
        Caption(
            name=f"{within}growth",
            title="Epsilon by step",
            description=f"Epsilon rises with every step and ends at {epsilon_text(last)}.",
        ),
        series,
        x=("rounds" if parties[0]["unit"] == "client" else "steps over rows", number_text),
        y=("epsilon", number_text),
        floor=0.0,
    )
    caption = "What would have been promised had the run ended earlier."
    return [Fold("Epsilon by step", [Figures([Figure(svg, "", caption)])])]

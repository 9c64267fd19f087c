"""Accuracy by radius, under attack and as it is proved."""

from __future__ import annotations

from collections.abc import Sequence

from nacre.report.facts import Attacked, Evidence, FindingFacts
from nacre.report.sections import charts
from nacre.report.sections.blocks import Figure
from nacre.report.sections.drawing import Caption
from nacre.report.sections.numbers import percent, whole
from nacre.report.sections.words import moved_by, radius_axis

PROOF = "certificate"
"""The audit that attacks nothing."""


def by_radius(evidence: Evidence, entry: FindingFacts) -> list[Figure]:
    """Accuracy by radius: under attack, with what is proved of the same model below it; or as
    proved, where no attack's figure shows it. [] for a finding without a curve."""
    curve, proved = entry["details"].get("curve"), entry["audit"] == PROOF
    shown = proved and any(_proof_below(evidence, other) is entry for other in evidence["findings"])
    if not curve or shown:
        return []
    drawn = [_radii("certified", curve, tone=1) if proved else _radii("under attack", curve)]
    if below := _proof_below(evidence, entry):
        drawn.append(_radii("certified", below["details"].get("curve", []), tone=1))
    ends = f"from {percent(curve[0]['value'])} to {percent(curve[-1]['value'])}"
    moved = moved_by(evidence, entry) or "as inputs move further"
    title = "Certified accuracy by radius" if proved else "Accuracy by radius"
    caption = f"{'Certified accuracy' if proved else 'Accuracy'} {ends}, {moved}."
    words = Caption(name=f"{entry['audit']}-curve", title=title, description=caption)
    svg = charts.lines(
        words,
        drawn,
        x=radius_axis(evidence, entry),
        y=(f"{'certified ' if proved else ''}accuracy", whole),
    )
    proven = " Below it what a certificate proves." if below else ""
    return [Figure(svg, title, f"{caption}{proven} The axis is cut.")]


def _proof_below(evidence: Evidence, entry: FindingFacts) -> FindingFacts | None:
    """The certificate of the model that this evasion attacked, over the same ball: one of votes
    under noise speaks of another model."""
    if entry["audit"] == PROOF:
        return None
    for other in evidence["findings"]:
        if (
            other["audit"] == PROOF
            and other["details"].get("smoothed") is False
            and other["details"].get("ball") == entry["details"].get("ball")
        ):
            return other
    return None


def _radii(label: str, points: Sequence[Attacked], tone: int = 0) -> charts.LineChart:
    return charts.LineChart(
        label=label,
        points=[(point["radius"], point["value"]) for point in points],
        intervals=[(point["low"], point["high"]) for point in points],
        tone=tone,
    )

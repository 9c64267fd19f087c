"""What epsilon allows, as odds. People understand this form best of those that were tested
(Nanayakkara, Smart, Cummings, Kaptchuk and Redmiles 2023, "What Are the Chances? Explaining the
Epsilon Parameter in Differential Privacy", USENIX Security): out of a hundred possible outcomes,
how many would lead an observer to believe that somebody took part, if they did and if not."""

from __future__ import annotations

import math

from nacre.report.facts import Evidence, PartyFacts
from nacre.report.sections.blocks import Beside, Figure
from nacre.report.sections.dots import hundreds
from nacre.report.sections.drawing import Caption
from nacre.report.sections.numbers import delta, epsilon_text
from nacre.report.sections.words import unit_words

_WITHOUT = 1
"""Of a hundred outcomes, how many mislead the observer where the unit did not take part."""
_LARGEST = 700.0  # exp of more is no float


def detected(epsilon: float, slack: float, rate: float) -> float:
    """The largest share of outcomes that point to a unit which took part, where `rate` of them do
    though it did not: both sides of (epsilon, delta) bound it.

    >>> round(detected(4.0, 0.0, 0.01), 3), round(detected(0.0, 0.0, 0.01), 3)
    (0.546, 0.01)
    """
    grown = math.exp(min(epsilon, _LARGEST)) * rate + slack
    return min(1.0, grown, 1 - math.exp(-epsilon) * (1 - slack - rate))


def sure(epsilon: float) -> float:
    """How sure an observer can become for whom the odds were even: exp(epsilon) to 1.

    >>> round(sure(4.0), 3)
    0.982
    """
    return 1 / (1 + math.exp(-epsilon))


def odds(evidence: Evidence, party: PartyFacts, within: str = "") -> Beside:
    """Epsilon in one plain sentence with its picture, and what it does not rule out. `within`
    begins the picture's name where it is not the page's first one."""
    bound, slack, who = party["epsilon"] or 0.0, party["delta"] or 0.0, unit_words(evidence, party)
    with_it = math.ceil(100 * detected(bound, slack, _WITHOUT / 100) - 1e-9)
    replaced, many = party["adjacency"] == "replace_one", party["unit"] == "group"
    it, them = ("they", "them") if many else ("it", "it")
    without, belief, there = (
        (f"with other values in place of {who}", f"that {it} had not", f"with {them} as {it} are")
        if replaced
        else (f"with {who} left out", f"that {it} took part", f"with {them} taking part")
    )
    other = 1.0 if bound > 1 else 4.0  # something to compare with
    texts = [
        f"Suppose that, {without}, {_WITHOUT} out of 100 possible outcomes of this training would "
        f"lead an observer, who knows everything else, to believe {belief}. Then, {there}, at most "
        f"{with_it} out of 100 would.",
        "What this does not rule out: somebody for whom it was even odds can become "
        f"{_sure(bound)} sure. Epsilon {epsilon_text(bound)} allows that, and epsilon {other:g} "
        f"{_sure(other)}. With a probability of up to δ = {delta(slack)} nothing is promised.",
    ]
    counts = [
        ("other values" if replaced else "left out", _WITHOUT),
        ("these values" if replaced else "taking part", with_it),
    ]
    said = "; ".join(f"{label}: {count} out of 100" for label, count in counts)
    title = "Outcomes that point to it, at most"
    words = Caption(name=f"{within}odds", title=title, description=said)
    shown = [(f"{label}: {count} of 100", count) for label, count in counts]
    return Beside(texts, Figure(hundreds(words, shown), title, ""))


def _sure(epsilon: float) -> str:
    """How sure, in words: whole percents, and near 1 no number that rounds to certainty."""
    found = sure(epsilon)
    return f"about {100 * found:.0f}%" if found < 0.99 else "more than 99%"

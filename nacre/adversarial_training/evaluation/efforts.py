"""How much is tried: three cascades by name."""

from __future__ import annotations

from typing import Literal

from nacre.adversarial_training.evaluation.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.cascade import Cascade, Series
from nacre.adversarial_training.evaluation.square import Square
from nacre.adversarial_training.evaluation.stage import Stage

Effort = Literal["quick", "standard", "full"]
"""How much of a cascade is run."""

TARGETS = 9
"""Classes that are climbed towards at most, the likeliest first (Croce & Hein 2020, section 4)."""


def cascade(
    effort: Effort = "full",
    classes: int = 10,  # columns of the scores; a single output has 2
    towards: int | None = None,  # the class that the attacker wants
    width: int = 256,  # rows a step
) -> Cascade:
    """The stages of an effort, cheapest first.

    - `quick`: one short APGD on each of two losses, for a curve during development.
    - `standard`: the white-box stages at half length, with the three likeliest classes.
    - `full`: stands for AutoAttack (Croce & Hein 2020): APGD on the cross-entropy and on the
      probability margin, APGD-DLR towards up to nine classes, Square. FAB is left out: on the nets
      of `benchmarks/attacks.py` it breaks nothing that these leave standing.

    With `towards` every stage climbs towards that class, and none towards others. With two classes
    there is one wrong class, and so one target.
    """
    others = classes - 1 if towards is None else 0
    return Cascade(_STAGES[effort](others), width)


def _quick(others: int) -> list[Stage | Series]:
    return [
        AutoPGD(loss="probability_margin", steps=20),
        AutoPGD(loss="cross_entropy", steps=20),
    ]


def _standard(others: int) -> list[Stage | Series]:
    return [
        AutoPGD(loss="probability_margin", steps=50),
        AutoPGD(loss="cross_entropy", steps=50),
        *_towards(others, 3, 50, 1),
        Square(queries=500, patience=100),
    ]


def _full(others: int) -> list[Stage | Series]:
    return [
        AutoPGD(loss="cross_entropy"),
        AutoPGD(loss="probability_margin"),
        *_towards(others, TARGETS, 100, 2),
        Square(queries=5000, patience=500),
    ]


def _towards(others: int, most: int, steps: int, patience: int) -> list[Stage | Series]:
    """APGD-DLR towards each of the likeliest wrong classes; without any, away from the right one.

    *Rule:* it ends once `patience` targets in a row have broken no row.
    """
    if not others:
        return [AutoPGD(loss="logit_ratio", steps=steps)]
    ranks = range(1, min(others, most) + 1)
    targets = [AutoPGD(loss="logit_ratio", rank=rank, steps=steps) for rank in ranks]
    return [Series(targets, patience)]


_STAGES = {"quick": _quick, "standard": _standard, "full": _full}

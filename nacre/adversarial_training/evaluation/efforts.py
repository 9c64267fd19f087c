"""How much is tried: three cascades by name."""

from __future__ import annotations

from typing import Literal

from nacre.adversarial_training.evaluation.cascade import Cascade, Series
from nacre.adversarial_training.evaluation.stage import Stage
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.column_search import ColumnSearch
from nacre.adversarial_training.evaluation.stages.constrained import ConstrainedAPGD
from nacre.adversarial_training.evaluation.stages.square import Square

Effort = Literal["quick", "standard", "full"]
"""How much of a cascade is run."""

TARGETS = 9
"""Classes that are climbed towards at most, the likeliest first (Croce & Hein 2020, section 4)."""


CLIMBED, SEARCHED, PATIENCE, BEHIND = 0.5, 0.42, 1000, 0.25
"""The rules' settings: `AutoPGD.way`, `Square.way`, `Series.patience`, `AutoPGD.behind`; on which
rows they were chosen, and on which others they were checked, is in `docs/notebook.md`. Where 1,000
rows in a row were climbed towards a class in vain, the classes that are less likely are not worth a
tenth of a point."""


def cascade(
    effort: Effort = "full",
    classes: int = 10,  # columns of the scores; a single output has 2
    towards: int | None = None,  # the class that the attacker wants
    width: int = 256,  # rows a step
    ruled: bool = True,  # whether rows and targets without prospect end early
    steps: int | None = None,  # of each climb; those of the effort where absent
    restarts: int | None = None,  # starts of the climbs away from the right class; 1 where absent
) -> Cascade:
    """The stages of an effort, those that break most a gradient first.

    - `quick`: 20 steps of APGD on each of two losses, for a curve during development.
    - `standard`: 50 steps of APGD on each of two losses and towards each of the three likeliest
      wrong classes, then 1,000 queries of Square.
    - `full`: stands for AutoAttack (Croce & Hein 2020): 100 steps of APGD on the probability margin
      and on the cross-entropy, 100 of APGD-DLR towards each of up to nine wrong classes, then 5,000
      queries of Square. FAB is left out: it takes half of the reference's time, and broke none of
      the 350 rows that this left standing of 600 of three nets (`docs/notebook.md`).

    With `towards` every stage climbs towards that class, and none towards others. With two classes
    there is one wrong class, and so one target.

    *Rules:* `way` and `behind` of `AutoPGD` and `way` of `Square`, in Linf, and `Series`, with the
    settings above. Without them (`ruled: False`) a row is left when it is broken or all is tried.
    """
    others = classes - 1 if towards is None else 0
    usual, targets, queries = _SIZES[effort]
    steps = usual if steps is None else steps
    way, searched, behind = (CLIMBED, SEARCHED, BEHIND) if ruled else (None, None, None)
    stages: list[Stage | Series] = [
        AutoPGD(loss=loss, steps=steps, start=start, way=way, behind=behind)
        for start in range(restarts or 1)
        for loss in ("probability_margin", "cross_entropy")
    ]
    ranks = range(1, min(others, targets) + 1)
    ranked: list[Stage] = [
        AutoPGD(loss="logit_ratio", rank=rank, steps=steps, way=way, behind=behind)
        for rank in ranks
    ]
    if ranked:
        stages.append(Series(ranked, PATIENCE if ruled else None))
    elif targets:
        stages.append(AutoPGD(loss="logit_ratio", steps=steps, way=way, behind=behind))
    if queries:
        stages.append(Square(queries=queries, way=searched))
    return Cascade(stages, width)


def table_cascade(
    effort: Effort = "full",
    width: int = 256,
    steps: int | None = None,
    restarts: int | None = None,
) -> Cascade:
    """The stages of an effort against a table's rows, whose numbers may be whole and whose
    categories are separate points: constrained APGD from the clean row and from random ones, then a
    search that needs no gradient."""
    usual, starts, queries = _TABLE_SIZES[effort]
    steps, starts = (usual if steps is None else steps), (starts if restarts is None else restarts)
    stages: list[Stage | Series] = [
        ConstrainedAPGD(steps=steps),
        *(ConstrainedAPGD(steps=steps, from_clean=False, start=start) for start in range(starts)),
    ]
    if queries:
        stages.append(ColumnSearch(queries=queries))
    return Cascade(stages, width)


_TABLE_SIZES: dict[Effort, tuple[int, int, int]] = {
    "quick": (20, 0, 0),
    "standard": (50, 1, 300),
    "full": (100, 2, 1000),
}
"""Steps of constrained APGD, random starts, queries of the search."""

_SIZES: dict[Effort, tuple[int, int, int]] = {
    "quick": (20, 0, 0),
    "standard": (50, 3, 1000),
    "full": (100, TARGETS, 5000),
}
"""Steps of APGD, targets, queries of Square."""

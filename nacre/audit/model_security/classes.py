"""The evasion of models that answer classes: portions of rows, a cascade, and its probes."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import Scorer, WhiteBox
from nacre.adversarial_training.evaluation.cascade import WRONG, Cascade, Series
from nacre.adversarial_training.evaluation.efforts import cascade, table_cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.efforts import word_cascade
from nacre.adversarial_training.text.words import Substitutions, Words
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.table import TableThreat
from nacre.audit.answers import row_outputs
from nacre.audit.bounds import Interval, at_any_time, clopper_pearson
from nacre.audit.model_security.beside import afresh
from nacre.audit.model_security.curve import RadiusSearch, RobustRows, both_portions
from nacre.audit.model_security.search import AttackSearch
from nacre.audit.model_security.signs import Probed, doubts, signs, unconfirmed_notes
from nacre.audit.model_security.words import (
    WordBudgets,
    substitutions,
    word_notes,
    word_signs,
)
from nacre.audit.target import AuditProgress, Target
from nacre.core.errors import DataError, Incompatible
from nacre.core.rows import select
from nacre.core.types import Batch, FeatureSpace
from nacre.recipe.audits import Evasion

PORTION = 128
"""Rows between two looks at the interval, where the audit may stop early."""


@dataclass(frozen=True, eq=False)
class ClassAttack:
    """What a cascade found, and how its shares are to be read."""

    robust: RobustRows
    search: AttackSearch  # the same by row, as examples are drawn of it
    interval: Callable[[int, int, float], Interval]
    details: dict[str, Any]
    width: int  # rows at a time when the points were confirmed
    words: Substitutions | None  # of texts: what could stand for what


def attack_classes(
    target: Target,
    batch: Batch,
    ball: ThreatOption | Words,
    option: Evasion,
    shares: Sequence[float],
    advance: AuditProgress,
) -> ClassAttack:
    """Attacks the rows in a random order, all of them or until the interval is narrow enough, and
    probes whether the attack can be believed."""
    scorer = Scorer(row_outputs(target.model, target.task), target.outputs)
    source = target.source.child("evasion")
    with untouched(target.model):
        classes = _classes(scorer, batch)  # a part that is made when first asked is there now
        fresh = afresh(target.model)
        towards = _class_named(option.towards, target.classes, classes)
        rows = _rows(batch, towards)
        rows = rows.take(source.child("order").stream().permutation(len(rows)))
        if isinstance(ball, Words):
            words = substitutions(target, ball, rows)
            radii = WordBudgets(word_cascade(option.effort, rows.clean.shape[1]), words, shares)
        else:
            words = None
            stages = (
                table_cascade(option.effort, steps=option.steps, restarts=option.restarts)
                if isinstance(ball, TableThreat)
                else cascade(
                    option.effort, classes, towards, steps=option.steps, restarts=option.restarts
                )
            )
            radii = RadiusSearch(stages, ball, target.space, shares)
        found = _portions(radii, scorer, rows, source, option, advance)
        black_box = _black_box(radii.cascade)
        probed = Probed(
            scorer, radii.region(), found, source.child("signs"), black_box,
            None if fresh is None else row_outputs(fresh, target.task),
        )  # fmt: skip
        seen = signs(probed) if words is None else word_signs(probed)
    search = AttackSearch(select(batch, found.rows.place), found.points, found.broken_at)
    tried = found.rows.place
    named = None if towards is None else _name(towards, target.classes)
    details: dict[str, Any] = {
        "towards": named,
        "stop": None
        if option.stop is None
        else {"interval": option.stop.interval, "early": len(tried) < len(rows)},
        **_facts(found, search.batch.get("place", tried)),
        "signs": seen,
        "warnings": doubts(seen),
        "notes": [
            *(_notes(rows, target.space) if words is None else word_notes(seen)),
            *(_without_answer(found) if words is None else []),
            *unconfirmed_notes(seen["unconfirmed_points"]),
        ],
    }
    rule = clopper_pearson if option.stop is None else at_any_time
    width = radii.cascade.width
    width = width if option.stop is None else min(width, PORTION)
    return ClassAttack(found, search, rule, details, width, words)


def _portions(
    radii: RadiusSearch | WordBudgets,
    scorer: Scorer,
    rows: Inputs,
    source: Any,
    option: Evasion,
    advance: AuditProgress,
) -> RobustRows:
    """All rows at once, or `PORTION` at a time until the interval at the whole radius is at most
    as wide as asked: the interval allows for looking after each portion."""
    size = len(rows) if option.stop is None else PORTION
    total = math.ceil(len(rows) / size) * radii.attacks
    found: RobustRows | None = None
    for number, index in enumerate(torch.arange(len(rows)).split(size)):
        before = number * radii.attacks

        def counted(done: int, words: str, before: int = before) -> None:
            advance(before + done, total, words)

        part = rows.take(index)
        numbered = Inputs(torch.arange(len(part)), part.unit, part.clean, part.label, part.towards)
        found = both_portions(found, radii(scorer, numbered, source, counted))
        advance(before + radii.attacks, total, f"{len(found.standing):,} rows stand")
        low, high = at_any_time(len(found.standing), len(found.rows), option.confidence)
        if option.stop is not None and high - low <= option.stop.interval:
            break
    assert found is not None
    return _with_places(found, rows.place)


def _with_places(found: RobustRows, place: Tensor) -> RobustRows:
    """The rows with their places in the whole batch."""
    rows = found.rows
    named = Inputs(place[: len(rows)], rows.unit, rows.clean, rows.label, rows.towards)
    return replace(found, rows=named)


def _classes(scorer: Scorer, batch: Batch) -> int:
    """How many classes the model scores; refused where the labels are not among them."""
    with torch.no_grad():
        classes = scorer(batch["features"][:1]).shape[1]
    label = batch["label"]
    if label.dim() != 1 or label.is_floating_point():
        raise DataError("the evasion audit needs one whole number a row as its label")
    if classes < 2 or int(label.min()) < 0 or int(label.max()) >= classes:
        raise Incompatible(
            f"the labels go from {int(label.min())} to {int(label.max())} and the model scores "
            f"{classes} classes, numbered from 0: give the labels as the model numbers them"
        )
    return classes


def _class_named(towards: str | None, names: Sequence[str], classes: int) -> int | None:
    """The number of a class that the recipe names."""
    if towards is None:
        return None
    known = list(names) or [str(number) for number in range(classes)]
    if towards not in known:
        raise Incompatible(
            f"towards={towards!r} is no class of the model: they are {', '.join(known)}"
        )
    return known.index(towards)


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if names else str(number)


def _rows(batch: Batch, towards: int | None) -> Inputs:
    """The rows to attack; none has the label that the attacker wants already."""
    place = torch.arange(len(batch["label"]))
    rows = Inputs(place, batch["unit"], batch["features"].detach(), batch["label"], towards)
    rows = rows if towards is None else rows.take(rows.label != towards)
    if not len(rows):
        raise DataError(
            "every test row has the class that `towards` names: nothing is left to attack"
        )
    return rows


def _black_box(stages: Cascade) -> frozenset[str]:
    """The names of the stages that use no gradient."""
    each = [
        stage
        for entry in stages.stages
        for stage in (entry.stages if isinstance(entry, Series) else (entry,))
    ]
    return frozenset(stage.name for stage in each if stage.access is not WhiteBox)


def _facts(
    found: RobustRows,
    place: Tensor,  # (R,) int64: the rows' numbers, for people
) -> dict[str, Any]:
    """The stage table, what broke each row and when, and margins."""
    whole = found.whole
    stages: list[dict[str, Any]] = []
    for number, stage in enumerate(whole.stages):
        steps = whole.steps[whole.by == number]
        stages.append(
            {
                "name": stage.name,
                "tried": stage.tried,
                "broke": stage.broke,
                "forwards": stage.forwards,
                "backwards": stage.backwards,
                "median_steps": float(steps.double().median()) if len(steps) else None,
            }
        )
    broken = (whole.by >= 0).nonzero().squeeze(1)
    margins = whole.margins.double()
    return {
        "stages": stages,
        "smaller_radii": {
            "forwards": found.smaller.forwards,
            "backwards": found.smaller.backwards,
        },
        "margins": {
            "broken": _quantiles(margins[broken]),
            "standing": _quantiles(margins[found.standing]),
        },
        "each": [
            {
                "row": int(place[i]),
                "share": float(found.broken_at[i]),
                "stage": int(whole.by[i]),
                "steps": int(whole.steps[i]),
            }
            for i in sorted(broken.tolist(), key=lambda i: int(place[i]))
        ],
    }


def _quantiles(values: Tensor) -> list[float] | None:
    """The 5th, 50th and 95th percentile of the finite values; None without any."""
    values = values[values.isfinite()]
    if not len(values):
        return None
    found = torch.quantile(values, torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype))
    return [float(value) for value in found]


def _notes(rows: Inputs, space: FeatureSpace) -> list[str]:
    """What is odd about the inputs."""
    outside = ((rows.clean < space.low) | (rows.clean > space.high)).flatten(1).any(1)
    if not bool(outside.any()):
        return []
    return [
        f"{int(outside.sum()):,} of {len(rows):,} rows lie outside the legal range by themselves; "
        "for each the range was widened to hold it"
    ]


def _without_answer(found: RobustRows) -> list[str]:
    """Where scores are no numbers."""
    odd = ~found.whole.margins.isfinite()
    counts = {
        "are": int((odd & (found.whole.by == WRONG)).sum()),
        "become": int((odd & (found.whole.by >= 0)).sum()),
    }
    return [
        f"the scores of {count:,} of {len(found.rows):,} rows {verb} no finite numbers: that is no "
        "answer, and counted as a wrong one"
        for verb, count in counts.items()
        if count
    ]

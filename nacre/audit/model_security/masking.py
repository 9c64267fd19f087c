"""Is the attack blind? Signs that a model hides its gradient instead of being robust.

A search by gradient that fails proves little where the gradient says nothing. Each sign below is
one that Athalye, Carlini & Wagner 2018 (section 3.1) list: weaker attacks do better than PGD, a
larger ball is no easier, random points break what gradients do not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.adversarial_training.attacks.evaluate import attacked
from nacre.adversarial_training.attacks.fgsm import FGSM
from nacre.adversarial_training.attacks.pgd import PGD
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.audit.model_security.beside import asked_otherwise, otherwise
from nacre.audit.model_security.search import AttackSearch, scaled
from nacre.audit.target import Target
from nacre.core.parts import Attack
from nacre.core.random import Source
from nacre.core.rows import select
from nacre.core.types import Batch

ROWS = 128
"""The most rows that are asked in other ways."""

FAR = 8.0
"""Radii of the larger ball."""

ZERO_SHARE = 0.1
"""Share of rows with a zero gradient from which the search is called blind."""


def examine(
    target: Target, ball: ThreatOption, found: AttackSearch, *, steps: int, draws: int
) -> tuple[AttackSearch, dict[str, Any]]:
    """(search, signs): what the weaker attacks broke as well is broken, and what they show.

    Counts are of the rows that the clean model answers rightly. `draws` random points stand
    beside as many starts of PGD.
    """
    index = (found.broken_at > 0).nonzero().squeeze(1)
    batch = select(found.batch, index)
    by_gradient = _fallen(found, index)
    source = target.source.child("masking")
    alone = AttackSearch.begin(target, found.batch)
    noisy, found = alone, found
    for points in _random_points(batch, target, ball, draws, source):
        noisy = noisy.tried(target, index, points, 1.0)
        found = found.tried(target, index, points, 1.0)
    fast = _attack(target, batch, ball, FGSM(ball=ball).build(target.space), source)
    far = scaled(ball, FAR)
    wide = _attack(target, batch, far, PGD(ball=far, steps=steps).build(target.space), source)
    signs: dict[str, Any] = {
        "rows": len(index),
        "broken_by_pgd": by_gradient,
        "broken_by_fgsm": _fallen(alone.tried(target, index, fast, 1.0), index),
        "broken_by_noise": _fallen(noisy, index),
        "broken_far_away": _fallen(alone.tried(target, index, wide, FAR), index),
        "far": FAR,
        "zero_gradients": zero_gradients(target, batch, ball),
        "other_answers": _other_answers(target, found),
    }
    signs["suspicions"] = suspicions(signs)
    return found.tried(target, index, fast, 1.0), signs


def suspicions(signs: dict[str, Any]) -> list[str]:
    """What speaks against believing the attacked accuracy, a sentence each; [] where nothing."""
    pgd, rows = signs["broken_by_pgd"], signs["rows"]
    result: list[str] = []
    if signs["broken_by_fgsm"] > pgd:
        result.append("one step breaks more rows than many steps do")
    if signs["broken_by_noise"] > pgd:
        result.append("random points break more rows than the gradient does")
    if signs["broken_far_away"] < pgd:
        result.append(f"a ball {signs['far']:g} times as large is harder to break")
    if rows and signs["zero_gradients"] > ZERO_SHARE * rows:
        result.append(f"the gradient is zero at {signs['zero_gradients']} of {rows} rows")
    if said := otherwise(signs["other_answers"]):
        result.append(said)
    return result


def _other_answers(target: Target, found: AttackSearch) -> dict[str, Any]:
    """The points that were found, and rows that stand, asked alone, turned and with gradients."""
    at = found.broken_at
    broken = (at.isfinite() & (at > 0)).nonzero().squeeze(1)
    index = torch.cat([broken, found.standing])[:ROWS]
    with evaluating(target.model):
        return asked_otherwise(
            lambda x: target.task.predict(target.model, x), found.features[index]
        )


def _fallen(search: AttackSearch, index: Tensor) -> int:
    return int(search.broken_at[index].isfinite().sum())


def _attack(
    target: Target, batch: Batch, ball: ThreatOption, attack: Attack, source: Source
) -> Tensor:
    """(R, *shape): what one attack finds, re-projected and re-scored."""
    region = ball.region(target.space)
    return attacked(target.model, batch, target.task.losses, attack, region, source)["features"]


def _random_points(
    batch: Batch, target: Target, ball: ThreatOption, draws: int, source: Source
) -> list[Tensor]:
    """`draws` times (R, *shape): uniformly random points of each row's region."""
    region = ball.region(target.space)
    streams = [source.child("noise", draw).stream() for draw in range(draws)]
    return [
        region.start(batch["features"], stream.rows(batch["unit"], region.draws))
        for stream in streams
    ]


def zero_gradients(target: Target, batch: Batch, ball: ThreatOption) -> int:
    """How many rows have a zero loss gradient on every entry that may move."""
    if not len(batch["features"]):
        return 0
    features = batch["features"].detach().requires_grad_()
    with torch.enable_grad(), evaluating(target.model):
        total = target.task.losses(target.model, {**batch, "features": features}).sum()
        (gradient,) = torch.autograd.grad(
            total, features, allow_unused=True, materialize_grads=True
        )
    free = ball.region(target.space).radii.to(gradient.device) > 0
    return int((gradient * free == 0).flatten(1).all(1).sum())

"""What an evasion found as a batch to keep."""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.cascade import STANDING, WRONG, Cascade
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.words import Substitutions, Words
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.audit.model_security.batch import (
    AS_GIVEN,
    IN_FILE,
    AdversarialBatch,
    PointsAsked,
    weights_digest,
)
from nacre.audit.model_security.classes import ClassAttack
from nacre.audit.model_security.search import AttackSearch
from nacre.audit.model_security.words import text_changes
from nacre.audit.target import Target


def of_classes(
    target: Target, threat: ThreatOption | Words, found: ClassAttack
) -> AdversarialBatch:
    """What a cascade found, each point scored once more."""
    whole, rows = found.robust.whole, found.robust.rows
    return _gathered(
        target,
        threat,
        found.search,
        stage=whole.by,
        step=whole.steps,
        stages=tuple(stage.name for stage in whole.stages),
        place=rows.place,
        towards=rows.towards,
        width=found.width,
        words=found.words,
    )


def of_numbers(
    target: Target, threat: ThreatOption, found: AttackSearch, steps: int
) -> AdversarialBatch:
    """What PGD found for a model that answers numbers, each point scored once more."""
    fallen = found.broken_at.isfinite() & (found.broken_at > 0)
    return _gathered(
        target,
        threat,
        found,
        stage=fallen.long() - 1,
        step=fallen.long() * steps,
        stages=("PGD",),
        place=torch.arange(len(fallen)),
        towards=None,
        width=Cascade(()).width,
    )


def _gathered(
    target: Target,
    threat: ThreatOption | Words,
    found: AttackSearch,
    *,
    stage: Tensor,
    step: Tensor,
    stages: tuple[str, ...],
    place: Tensor,
    towards: int | None,
    width: int,
    words: Substitutions | None = None,
) -> AdversarialBatch:
    share, clean, label = found.broken_at, found.batch["features"].detach(), found.batch["label"]
    fallen = (share > 0) & share.isfinite()
    attacked = torch.where(fallen.reshape(-1, *[1] * (clean.dim() - 1)), found.features, clean)
    with untouched(target.model):
        asked = PointsAsked(target.task, target.outputs, attacked, label, towards, width)
        answer, margin, _ = asked(target.model)
    text = None if words is None else target.text
    texts = [] if text is None else [
        text_changes(text, one, other) if bool(broken) else []
        for one, other, broken in zip(clean, attacked, fallen, strict=True)
    ]  # fmt: skip
    return AdversarialBatch(
        place=found.batch.get("place", place),
        row_numbers=IN_FILE if "place" in found.batch else AS_GIVEN,
        public=target.test_public,
        clean=clean,
        attacked=attacked,
        label=label,
        answer=answer,
        share=share,
        stage=stage.masked_fill(share.isinf(), STANDING).masked_fill(share == 0, WRONG),
        step=step.masked_fill(~fallen, 0),
        margin=margin,
        stages=stages,
        space=target.space,
        threat=threat,
        task=target.task,
        outputs=target.outputs,
        towards=towards,
        classes=target.classes,
        width=width,
        weights=weights_digest(target.model),
        value=float(share.isinf().double().mean()),
        words=words,
        texts=tuple(texts),
    )

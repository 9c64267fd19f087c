"""Attack a model in hand on tensors in hand: the evasion of `nacre audit --model` as one call."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nacre.adversarial_training.evaluation.access import Outputs
from nacre.adversarial_training.evaluation.efforts import Effort
from nacre.adversarial_training.threats.options import THREATS, ThreatOption
from nacre.audit.finding import AttackStageFacts, Finding
from nacre.audit.model_security.batch import AdversarialBatch
from nacre.audit.outside import LabelledRows, audit_model
from nacre.core.errors import BadArgument
from nacre.core.theirs import cause
from nacre.core.types import FeatureSpace
from nacre.recipe.audits import Evasion

ArrayLike = Tensor | NDArray[Any] | Sequence[Any]
"""What rows or labels may be handed in as."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack found. Tensors have one entry for each row of `rows`, in that order."""

    accuracy: float
    """Accuracy under attack: the share of rows that are answered rightly and that no attack broke.
    With `towards`, the share of rows that no attack turned into that class."""
    low: float
    high: float
    """The interval around `accuracy`, at `confidence`, for rows drawn as these."""
    confidence: float
    clean_accuracy: float
    rows: Tensor  # (R,) int64: numbers among the rows given, rising; with `towards` not all
    adversarial: Tensor  # (R, *shape) float32: the point that broke the row, or the clean row
    robust: Tensor  # (R,) bool
    answers: Tensor  # (R,) int64: the class answered to `adversarial`
    margins: Tensor  # (R,) float32: best other score minus the right one at `adversarial`
    share: Tensor  # (R,) float64: of the radius that broke it; 0 wrong from the start, inf robust
    broken_by: tuple[str | None, ...]  # by row: the attack; None where none did, or none had to
    steps: Tensor  # (R,) int64: evaluations of the row in that attack
    stages: tuple[AttackStageFacts, ...]
    """What each attack was tried on, what it broke and what it cost, in their order."""
    warnings: tuple[str, ...]
    """Why the figure is no evidence of robustness; () where no probe found a reason."""
    finding: Finding
    """The same as an audit reports it, with the accuracy at smaller radii."""
    batch: AdversarialBatch
    """For `save_batch`, and for `reproduced`, which asks a model again."""

    def sentence(self) -> str:
        """The figures in a line, and whether they are evidence."""
        clean, left, count = self.clean_accuracy, self.accuracy, len(self.rows)
        said = f"{clean:.1%} clean, {left:.1%} under attack ({self.low:.1%} to {self.high:.1%})"
        doubt = f"; not evidence: {'; '.join(self.warnings)}" if self.warnings else ""
        return f"{said}, {count:,} rows{doubt}"


def attack(
    model: nn.Module,
    features: ArrayLike,  # (R, *shape) floating point, as the model reads them
    labels: ArrayLike,  # (R,) whole numbers of classes, from 0
    *,
    ball: ThreatOption,
    effort: Effort = "standard",
    outputs: Outputs = "logits",
    low: float = 0.0,
    high: float = 1.0,
    names: Sequence[str] = (),  # of the entries of a row, where `ball` names some
    towards: int | None = None,
    confidence: float = 0.95,
) -> AttackResult:
    """How many rows a classifier answers rightly when each may be moved inside its ball.

    `model` maps rows to one column of logits a class, or to probabilities with
    `outputs="probabilities"`; what is sigmoid or softmax already hides its slope otherwise. The
    legal inputs go from `low` to `high`; infinite ends are allowed, as for a table in standard
    deviations. `effort="full"` stands for AutoAttack. With `towards` the attacker wants that class.

    The same model, rows and options give the same result, and rows do not depend on each other.
    The model is attacked in evaluation mode and left as it was. Everything runs on the CPU.

    Raises `BadArgument` for what is no row, no label or no number, and for rows outside the range;
    `Incompatible` for labels that the model has no score for, and for a model that does not take
    these rows.

    *Source:* Croce & Hein 2020, https://arxiv.org/abs/2003.01690; see `evasion`.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[0.0, 0.0], [1.0, -1.0]])})
    >>> rows = torch.tensor([[0.9, 0.1], [0.6, 0.5]])
    >>> from nacre.adversarial_training import Ball
    >>> found = attack(model, rows, [1, 1], ball=Ball(radius=0.1), effort="quick")
    >>> found.clean_accuracy, found.accuracy, found.robust.tolist()
    (1.0, 0.5, [True, False])
    """
    _require_module(model)
    if outputs not in get_args(Outputs):
        raise BadArgument(f"outputs={outputs!r} must be one of {', '.join(get_args(Outputs))}")
    _require_threat(ball)
    x, label = _rows(features, names), _labels(labels)
    if len(x) != len(label):
        raise BadArgument(f"{len(x):,} rows and {len(label):,} labels; give one label a row")
    space = FeatureSpace(
        tuple(x.shape[1:]), tuple(names), low=torch.tensor(low), high=torch.tensor(high)
    )
    _require_range(x, low, high)
    option = Evasion(
        ball=ball,
        effort=effort,
        towards=None if towards is None else str(towards),
        confidence=confidence,
    )
    kept: list[AdversarialBatch] = []
    given = LabelledRows(x, label, tuple(names), space)
    found = audit_model(model, given, option, outputs=outputs, keep=kept.append)
    return _in_order(found, kept[0])


def _require_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise BadArgument(
            f"model is a {type(model).__name__} and no torch.nn.Module; put what it calls in the "
            "`forward` of one, so that its mode and gradients can be put back"
        )
    held = [*model.parameters(), *model.buffers()]
    away = next((tensor.device for tensor in held if tensor.device.type != "cpu"), None)
    if away is not None:
        raise BadArgument(f"the model lies on {away} and attacks run on the CPU: give model.cpu()")


def _require_threat(ball: object) -> None:
    if not isinstance(ball, THREATS):
        raise BadArgument(
            f"ball={str(ball)[:40]} is no threat; give `Ball(radius=…)`, or a `TableThreat`"
        )


def _rows(features: ArrayLike, names: Sequence[str]) -> Tensor:
    """(R, *shape) float32."""
    x = _tensor("features", features)
    if x.dim() < 2 or not x.numel():
        raise BadArgument(f"features have shape {tuple(x.shape)}; give rows, (rows, …)")
    if not x.is_floating_point():
        raise BadArgument(
            f"features are {_dtype(x)}; give floating point, scaled as the model reads it"
        )
    if bad := int((~x.isfinite()).flatten(1).any(1).sum()):
        raise BadArgument(
            f"{bad:,} of {len(x):,} rows hold NaN or infinite features; drop or fill these rows"
        )
    if names and len(names) != x[0].numel():
        raise BadArgument(f"{len(names)} names for rows of {x[0].numel()} features; give each one")
    return x.float().contiguous()


def _labels(labels: ArrayLike) -> Tensor:
    """(R,) int64."""
    label = _tensor("labels", labels)
    if label.dim() != 1:
        raise BadArgument(f"labels have shape {tuple(label.shape)}; give one class a row, (rows,)")
    if label.is_floating_point() or label.is_complex():
        raise BadArgument(f"labels are {_dtype(label)}; give whole numbers of classes, from 0")
    if len(label) and int(label.min()) < 0:
        raise BadArgument(f"labels hold {int(label.min())}; classes are numbered from 0")
    return label.long()


def _require_range(x: Tensor, low: float, high: float) -> None:
    if not low < high:
        raise BadArgument(f"low={low:g} must be below high={high:g}")
    ends = torch.tensor([low, high], dtype=x.dtype)
    least, most = x.min(), x.max()
    if bool(least < ends[0]) or bool(most > ends[1]):
        raise BadArgument(
            f"features go from {float(least):g} to {float(most):g}, outside low={low:g} to "
            f"high={high:g}; scale them as the model reads them, or give the range that is legal"
        )


def _tensor(name: str, value: ArrayLike) -> Tensor:
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadArgument(f"{name} are no numbers ({cause(error)}); give a tensor") from error


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _in_order(found: Finding, batch: AdversarialBatch) -> AttackResult:
    """The result by row as given: an attack takes the rows in a random order."""
    order = batch.place.argsort()
    by: list[int] = batch.stage[order].tolist()
    details = found.details
    return AttackResult(
        accuracy=found.value,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        clean_accuracy=details["clean"]["value"],
        rows=batch.place[order],
        adversarial=batch.attacked[order],
        robust=batch.share[order].isinf(),
        answers=batch.answer[order],
        margins=batch.margin[order],
        share=batch.share[order],
        broken_by=tuple(batch.stages[number] if number >= 0 else None for number in by),
        steps=batch.step[order],
        stages=tuple(details["stages"]),
        warnings=tuple(details["warnings"]),
        finding=found,
        batch=batch,
    )

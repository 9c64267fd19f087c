"""What an attacker sees of a model: labels, scores, or everything.

An attack states the least that it needs (`Stage.access`) and is handed exactly that, so that an
auditor cannot measure with a gradient what an attacker would not have had.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from nacre.core.errors import Incompatible
from nacre.core.theirs import theirs

Outputs = Literal["logits", "probabilities"]
"""What the model puts out."""

Predict = Callable[[Tensor], Tensor]
"""(R, *shape) -> (R, K) or (R, 1) or (R,): the model, in evaluation mode."""

RowLoss = Callable[[Tensor], Tensor]
"""(R, K) scores -> (R,): what an attack raises."""


REMEMBERED = 1 << 17
"""Answers that a scorer remembers at most, about 300 bytes each for two classes; the oldest go. It
is enough for 128 rows that are asked a thousand times each."""


@dataclass
class QueryCounts:
    """How many rows went through the model."""

    forwards: int = 0
    backwards: int = 0

    def since(self, before: QueryCounts) -> QueryCounts:
        """What came on top of `before`."""
        return QueryCounts(self.forwards - before.forwards, self.backwards - before.backwards)

    def copy(self) -> QueryCounts:
        """The counts as they are now."""
        return QueryCounts(self.forwards, self.backwards)


@dataclass(frozen=True, eq=False)
class Scorer:
    """A model read as scores: one column a class, the larger the likelier.

    A single output z becomes the columns (-z / 2, z / 2), whose softmax is (1 - sigmoid(z),
    sigmoid(z)); probabilities become their logarithms.
    """

    predict: Predict
    outputs: Outputs = "logits"
    queries: QueryCounts = field(default_factory=QueryCounts)
    remembered: dict[bytes, list[float]] = field(default_factory=dict[bytes, list[float]])
    """The scores of inputs that were asked through `RememberedScores`, by a digest of each."""

    def __call__(self, x: Tensor) -> Tensor:
        """(R, *shape) -> (R, K), K >= 2, with a graph where `x` has one.

        Raises `Incompatible` for outputs of another form.
        """
        with theirs("the model", "it was attacked", surely=False):
            answer: Any = self.predict(x)
        self.queries.forwards += len(x)
        if not isinstance(answer, Tensor) or not answer.is_floating_point():
            kind = answer.dtype if isinstance(answer, Tensor) else type(answer).__name__
            raise Incompatible(
                f"the model put out {kind} where an attack reads scores: return one tensor of "
                "floating point, a column a class (rows, classes), or a single score a row"
            )
        raw = answer.float()  # the same numbers, whose differences keep their digits
        if raw.dim() == 1:
            raw = raw[:, None]
        if raw.dim() != 2 or len(raw) != len(x) or not raw.shape[1]:
            raise Incompatible(
                f"the model put out shape={tuple(raw.shape)} for {len(x)} rows; an attack reads "
                "one column of scores a class, (rows, classes), or a single score a row"
            )
        if self.outputs == "probabilities":
            raw = raw.clamp(min=torch.finfo(raw.dtype).tiny)
            one = raw.shape[1] == 1
            return torch.cat([(1 - raw).clamp(min=1e-30), raw], 1).log() if one else raw.log()
        return torch.cat([-raw / 2, raw / 2], 1) if raw.shape[1] == 1 else raw


class LabelOnly:
    """An attacker who sees which class is answered."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def queries(self) -> QueryCounts:
        """Inputs asked so far, by all attackers of this model together."""
        return self._scorer.queries

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """(R, *shape) -> (R,) int64: the answer; -1 where a score is not finite."""
        scores = self._scorer(x)
        finite = scores.isfinite().all(1)
        return torch.where(finite, scores.argmax(1), torch.full_like(finite, -1, dtype=torch.int64))


class ScoreOnly(LabelOnly):
    """An attacker who sees the scores of all classes."""

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """(R, *shape) -> (R, K)"""
        return self._scorer(x).detach()


class RememberedScores(ScoreOnly):
    """An attacker who sees the scores of all classes and remembers them: what it has asked before,
    in any stage, takes no pass.

    *Guarantee:* the scores of an input are those that the model gave when it was first asked: the
    same, up to how they are rounded beside other rows. Nothing is remembered of what is asked
    otherwise, so a point that is confirmed is asked anew.
    """

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        if not len(x):
            return super().scores(x)
        known = self._scorer.remembered
        keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x.numpy()]
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in known:
                first.setdefault(key, place)
        if first:
            scores = super().scores(x[list(first.values())])
            known |= zip(first, scores.tolist(), strict=True)
        found = torch.tensor([known[key] for key in keys])
        while len(known) > REMEMBERED:
            del known[next(iter(known))]
        return found


class WhiteBox(ScoreOnly):
    """An attacker who has the model, and so its gradients."""

    def slopes(
        self,
        x: Tensor,  # (R, *shape)
        loss: RowLoss,
    ) -> tuple[Tensor, Tensor, Tensor]:  # (R, K), (R,), (R, *shape)
        """(scores, losses, gradients of the losses by `x`), the losses in the type of `x`.

        Rows do not depend on each other, so one backward pass of the sum holds all gradients. A
        loss that nothing connects with `x` has gradient 0.
        """
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            scores = self._scorer(leaf)
            losses = loss(scores).to(x.dtype)
            if not losses.requires_grad:
                return scores.detach(), losses.detach(), torch.zeros_like(leaf)
            (gradient,) = torch.autograd.grad(
                losses.sum(), leaf, allow_unused=True, materialize_grads=True
            )
        self.queries.backwards += len(x)
        return scores.detach(), losses.detach(), gradient


AccessType = type[LabelOnly] | type[ScoreOnly] | type[WhiteBox]

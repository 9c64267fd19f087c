"""The rows of an evasion with the points that broke them: the evidence behind its figures.

An `AdversarialBatch` needs no file of rows and no recipe to be scored again: it holds the points,
what the inputs mean and how far each could move; of texts, what could stand for which token.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nacre.adversarial_training.evaluation.access import Outputs, Scorer
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.losses import score_margin
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.table import token_table
from nacre.adversarial_training.text.words import Substitutions, Words
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.region import Region
from nacre.audit.answers import require_reads, row_outputs
from nacre.audit.model_security.facts import TextPart
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.parts import Task
from nacre.core.random import digest
from nacre.core.types import Batch, FeatureSpace
from nacre.models.scoring import outputs_of

IN_FILE = "in the file of the test rows, from 0"
AS_GIVEN = "among the rows as they were handed in, from 0"
"""What the numbers of rows count."""


@dataclass(frozen=True, eq=False)
class AdversarialBatch:
    """Every row that an evasion tried, in the order in which it tried them.

    *Guarantee:* the share of rows whose `attacked` point is answered rightly is the accuracy under
    attack that the finding reports; of a row that stands, or was wrong from the start, `attacked`
    is its clean input. Each point lies within `threat` around its clean input.
    """

    place: Tensor  # (R,) int64: the row's number, from 0, as `row_numbers` says
    clean: Tensor  # (R, *shape) float32, in the model's scaled units; of texts int64 tokens
    attacked: Tensor  # (R, *shape): at the smallest radius that broke the row
    label: Tensor  # (R,) int64 classes, or float32
    answer: Tensor  # (R,) int64 or float32: the answer of the model at `attacked`
    share: Tensor  # (R,) float64 of the radius; 0 wrong from the start, inf standing
    stage: Tensor  # (R,) int64: which of `stages` broke it; -1 standing, -2 wrong from the start
    step: Tensor  # (R,) int64: evaluations of the row in that stage
    margin: Tensor  # (R,) float32: best other score minus the right one at `attacked`; the error
    # of a number
    stages: tuple[str, ...]
    space: FeatureSpace
    threat: ThreatOption | Words
    task: Task
    outputs: Outputs
    towards: int | None  # the class that the attacker wanted; None: any wrong one
    classes: tuple[str, ...]  # their names; () where they have none
    width: int  # rows at a time: a row keeps its place among others, and so its rounding
    weights: str  # SHA-256 of the model's weights and buffers, in hex
    value: float  # the accuracy under attack that the finding reports
    row_numbers: str  # what they count: `IN_FILE` or `AS_GIVEN`
    public: bool  # whether others may see the rows
    words: Substitutions | None = None  # of texts: what could stand for what, as it was found
    texts: tuple[Sequence[TextPart], ...] = ()  # of texts, a row each: how it reads, if broken

    def __len__(self) -> int:
        return len(self.place)

    def rows(self) -> Batch:
        """The attacked rows with their labels."""
        return {"features": self.attacked, "label": self.label, "unit": self.place}

    def region(self) -> Region | Substitutions:
        """The points that the attacker could choose."""
        if self.words is not None:
            return self.words
        if isinstance(self.threat, Words):
            raise BadArgument("a batch of texts needs `words`: what could stand for what")
        return self.threat.region(self.space)

    def attacked_raw(self) -> Tensor:
        """(R, *shape) float64: the attacked rows in the features' own units."""
        return self.attacked.double() * self.space.scale.double() + self.space.offset.double()


@dataclass(frozen=True)
class Reproduced:
    """A batch scored again."""

    rows: int
    reported: float  # the accuracy under attack that was reported
    value: float  # the share of rows that stand now
    same_weights: bool  # whether the model is the one that was attacked
    outside: tuple[int, ...]  # places of rows whose point the threat does not allow
    changed: tuple[int, ...]  # places of rows that stood and fall, or fell and stand
    row_numbers: str  # what the places count
    public: bool  # whether others may see the rows
    other_candidates: tuple[int, ...] = ()
    """Of texts under the same weights: tokens whose candidates are not those that the model's own
    embeddings give."""

    @property
    def holds(self) -> bool:
        """Whether the report is borne out: the weights are those that were attacked, the rows that
        stand are those that stood, no point lies outside the threat, and the candidates of words
        are the model's own."""
        return self.same_weights and not self.refuted

    @property
    def refuted(self) -> bool:
        """Whether the files contradict themselves or the model. Of other weights the figures and
        the candidates may differ."""
        forged = bool(self.outside or self.other_candidates)
        return forged or (self.same_weights and bool(self.changed))

    def sentence(self, numbers: bool = True) -> str:
        """What is wrong where it does not hold, with the numbers of rows and tokens or with how
        many there are."""
        named = _listed if numbers else _counted
        said: list[str] = []
        if self.outside:
            said.append(f"the threat does not allow the points of {named(self.outside, 'row')}")
        if self.other_candidates:
            tokens = named(self.other_candidates, "token")
            said.append(f"the words that may replace {tokens} are not those that lie nearest in "
                        "the model's own embeddings")  # fmt: skip
        if self.changed:
            same = "the same weights answer" if self.same_weights else "other weights answer"
            said.append(f"{same} {named(self.changed, 'row')} otherwise")
        if not said:
            return "every row is as reported"
        return "; ".join(said) + (f" (rows are numbered {self.row_numbers})" if numbers else "")

    def to_json(self, numbers: bool = True) -> dict[str, Any]:
        """The figures as plain JSON values; without `numbers` no row is named, nor a token, which
        stands in one."""
        return {
            "rows": self.rows,
            "reported": self.reported,
            "value": self.value,
            "same_weights": self.same_weights,
            "row_numbers": self.row_numbers,
            "outside": list(self.outside) if numbers else [],
            "changed": list(self.changed) if numbers else [],
            "other_candidates": list(self.other_candidates) if numbers else [],
            "holds": self.holds,
        }


def reproduced(batch: AdversarialBatch, model: nn.Module) -> Reproduced:
    """Scores the batch again: how many rows stand, and whether the threat allows each point; of
    texts under the same weights also whether the candidates of words are those of the model.

    The same weights give the same answers, bit for bit, on the same machine; elsewhere a row whose
    margin is a few roundings wide may change. The model is left as it was. Raises `Incompatible`
    for a model that does not take these rows.
    """
    asked = PointsAsked(
        batch.task, batch.outputs, batch.attacked, batch.label, batch.towards, batch.width
    )
    require_reads(model, batch.attacked)
    with untouched(model):
        _, _, broken = asked(model)
    inside = batch.region().contains(batch.attacked, batch.clean)
    same = weights_digest(model) == batch.weights
    return Reproduced(
        rows=len(batch),
        reported=batch.value,
        value=float((~broken).double().mean()),
        same_weights=same,
        outside=_numbers(batch.place[~inside]),
        changed=_numbers(batch.place[batch.share.isinf() == broken]),
        row_numbers=batch.row_numbers,
        public=batch.public,
        other_candidates=_other_candidates(batch, model) if same else (),
    )


def _other_candidates(batch: AdversarialBatch, model: nn.Module) -> tuple[int, ...]:
    if batch.words is None or not isinstance(batch.threat, Words):
        return ()
    table = token_table(model).weight
    return _numbers(batch.threat.unlike(batch.words, table, batch.clean))


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the model's weights and buffers with their names, in hex."""
    return digest({name: t.detach().cpu() for name, t in model.state_dict().items()}).hex()


@dataclass(frozen=True, eq=False)
class PointsAsked:
    """Points that a model is asked about."""

    task: Task
    outputs: Outputs
    points: Tensor  # (R, *shape)
    label: Tensor  # (R,)
    towards: int | None
    width: int

    def __call__(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """((R,) answers, (R,) margins, (R,) whether the attacker has what it wants)."""
        return self._classes(model) if self.task.kind == "classification" else self._numbers(model)

    def _numbers(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        found = outputs_of(model, self.task, self.points)
        right = self.task.correct(found, self.label) & found.isfinite().flatten(1).all(1)
        answers = found.squeeze(-1)
        return answers, (answers - self.label).abs(), ~right

    def _classes(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        scorer = Scorer(row_outputs(model, self.task), self.outputs)
        answers: list[Tensor] = []
        margins: list[Tensor] = []
        broken: list[Tensor] = []
        with torch.no_grad():
            for part in torch.arange(len(self.points)).split(self.width):
                scores, label = scorer(self.points[part]), self.label[part]
                if int(label.max()) >= scores.shape[1]:
                    raise Incompatible(
                        f"the model scores {scores.shape[1]} classes and the batch has rows of "
                        f"class {int(label.max())}: name the model that was attacked"
                    )
                rows = Inputs(part, part, self.points[part], label, self.towards)
                answers.append(scores.argmax(1))
                margins.append(score_margin(scores, label).float())
                broken.append(rows.broken(scores))
        return torch.cat(answers), torch.cat(margins), torch.cat(broken)


def _numbers(found: Tensor) -> tuple[int, ...]:
    return tuple(sorted(int(number) for number in found))


def _counted(numbers: tuple[int, ...], kind: str) -> str:
    return f"{len(numbers)} {kind}{'s' if len(numbers) > 1 else ''}"


def _listed(numbers: tuple[int, ...], kind: str) -> str:
    """The first rows or tokens by number."""
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"{kind}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}{more}"

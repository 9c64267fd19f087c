"""What an auditor may touch: the finished model, rows, and what was claimed about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from nacre.adversarial_training.evaluation.access import Outputs
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.audit.federation.twins import Twins
from nacre.audit.model_security.batch import AdversarialBatch
from nacre.core.errors import BadArgument
from nacre.core.parts import Task
from nacre.core.random import Source
from nacre.core.rows import grouped
from nacre.core.types import Batch, FeatureSpace
from nacre.recipe.audits import Poisoning


class AuditProgress(Protocol):
    """Called with (done, total) parts of an audit's work and a few words, for a progress bar."""

    def __call__(self, done: int, total: int, words: str = "") -> None: ...


def no_progress(done: int, total: int, words: str = "") -> None:
    """An `AuditProgress` that shows nothing."""


@dataclass(frozen=True, kw_only=True)
class TokenText:
    """How rows of tokens read as text."""

    names: tuple[str, ...]
    """How the tokenizer writes each token, by its number; "" for special ones."""
    decode: Callable[[Sequence[int]], str]
    """What tokens say; special ones say nothing."""


@dataclass(frozen=True, kw_only=True)
class HeldCanaries:
    """Canaries as the model reads them."""

    inserted: tuple[bool, ...]  # by fair coins
    batches: tuple[Batch, ...]  # of each: itself, then `candidates` others of its form
    candidates: int
    claimed: tuple[float, float] | None  # (epsilon, delta) promised for one canary as a whole


@dataclass(frozen=True, kw_only=True)
class Target:
    """The finished model and everything an audit is allowed to see.

    Batches are scaled as the model wants them and hold one row an entry (`rows.flatten`).
    Nothing is public unless said so.
    """

    model: nn.Module
    task: Task
    space: FeatureSpace
    source: Source
    """Keys the random starts of attacks and the split of a membership audit."""
    members: Batch | None = None
    """Rows the model was trained on."""
    outsiders: Batch | None = None
    """Rows of the same population, drawn at random, that the model never saw."""
    drawn: Literal["row", "group", "apart"] = "row"
    """What decided who is a member: a coin for each row, one coin for all rows of a group (of which
    `members` and `outsiders` then hold one row each), or nothing random, as where the outsiders
    come from another file. Only the first lets a claim about one row be judged."""
    test: Batch | None = None
    """Rows to evade on."""
    references: tuple[nn.Module, ...] = ()
    """Models that were trained on neither members nor outsiders."""
    members_public: bool = False
    test_public: bool = False
    """Also of the outsiders, which are test rows."""
    held: bool = False
    """Whether what is found on private rows stays with their holder, in `local/`: then a few of the
    attacked ones may be shown there."""
    ball: ThreatOption | None = None
    """The ball of `adversarial_training`: what an evasion audit takes where it names none."""
    classes: tuple[str, ...] = ()
    """Names of the classes, () where they have none."""
    outputs: Outputs = "logits"
    """How the outputs of a model that answers classes are to be read."""
    claimed_epsilon: float | None = None
    """The epsilon promised to *one row* of `members` (the largest, where parties differ); None
    where nothing is promised, or where the protected unit is coarser than a row."""
    claimed_delta: float | None = None
    text: TokenText | None = None
    """Where the rows are tokens of words: what an evasion audit needs to replace some."""
    canaries: HeldCanaries | None = None
    """The random secrets of this run."""
    federation: Callable[[Poisoning], Twins] | None = None
    """How the run's federation is trained again; None where the run has none."""
    keep: Callable[[AdversarialBatch], None] | None = None
    """Is given the rows of an evasion with the points that broke them: for who may see the rows."""

    def __post_init__(self) -> None:
        batches = {"members": self.members, "outsiders": self.outsiders, "test": self.test}
        for name, batch in batches.items():
            if batch is not None and grouped(batch):
                raise BadArgument(f"{name} must hold one row an entry: pass rows.flatten({name})")
        if (self.claimed_epsilon is None) != (self.claimed_delta is None):
            raise BadArgument("claimed_epsilon and claimed_delta are given together or not at all")

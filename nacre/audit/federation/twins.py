"""Twins of a run's federation, as an audit of parties at fault sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from nacre.core.types import Batch
from nacre.data.dataset import Schema
from nacre.federated_learning import AggregateOption
from nacre.federated_learning.attackers import AttackerOption


class Twin(NamedTuple):
    """A model that a twin of the federation ended with."""

    model: nn.Module
    done: int  # rounds; fewer than were asked for where the attack ended the training
    reached: float | None  # largest distance of a round, in units of what the rule promises
    judged: int  # rounds in which the rule promises anything


@dataclass(frozen=True, kw_only=True)
class Twins:
    """How twins are trained and measured; all of it is public but the rows, where `public` says
    so."""

    schema: Schema
    parties: int
    expected: float
    """Parties a round."""
    bad: tuple[str, ...]
    """The parties at fault."""
    rounds: int
    rule: AggregateOption
    """How a twin's changes come together: the run's own rule, or the mean for a secure sum."""
    secure: bool
    """Whether the run's own sum is secure."""
    test: Batch
    """The rows that twins are measured on, and not trained on."""
    public: bool
    """Whether every row that a twin is trained or measured on is public."""
    on: str
    """Whose rows twins are trained on, in words."""
    train: Callable[[AttackerOption | None, Callable[[], None]], Twin]
    """Trains a twin with the attacker in it, or without one; the function is called after each
    round."""

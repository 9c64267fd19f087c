"""What a poisoning audit writes beside its figure, as evidence.json has it."""

from __future__ import annotations

from typing import TypedDict

from nacre.figures.intervals import IntervalFacts


class BackdoorFacts(TypedDict):
    """How often stamped rows of other classes are answered as a backdoor wants."""

    value: float
    low: float
    high: float
    without: float
    """In the twin without an attacker."""


class AttackerFacts(TypedDict):
    """A twin of the federation with one kind of attacker in it."""

    kind: str
    does: str
    """What its parties do, with the numbers."""
    accuracy: IntervalFacts
    drop: IntervalFacts
    """Accuracy that it takes, on the same rows; the intervals of all attackers hold at once."""
    backdoor: BackdoorFacts | None
    """Null for attackers that stamp nothing."""
    reached: float | None
    """The largest distance of a round from the mean of the honest changes, as a share of what the
    rule promises; null where no round is judged."""
    judged: int
    """Rounds in which the rule promises anything."""
    rounds: int
    """Fewer than the twins were to have where the attack ended the training."""


class PoisoningFacts(TypedDict):
    """Twins of the run's federation with parties at fault in them, beside one without."""

    parties: int
    bad: int
    """Of them at fault."""
    at_fault: list[str]
    """Their names, the first hundred."""
    rounds: int
    trained_on: str
    """Whose rows the twins were trained on."""
    rule: str
    """How changes come together: the kind of the aggregate."""
    rule_bad: int
    """How many at fault the rule reckons with."""
    kappa: float | None
    """What the rule promises of a round; null where it promises nothing here."""
    secure: bool
    """Whether the run's own sum is secure; the twins' is the mean that it adds up."""
    clean: IntervalFacts
    """Accuracy of the twin without an attacker."""
    attackers: list[AttackerFacts]
    worst: str
    """The kind that takes most accuracy."""

"""What a recipe can ask to be attacked. The audits themselves live in `nacre.audit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from nacre.adversarial_training.evaluation.efforts import Effort
from nacre.adversarial_training.threats.ball import Ball
from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.data import AnyData, Text

FigureUnit = Literal["share", "signed", "bits"]
"""What an audit's figure is: a share of rows, a difference that may be negative, or bits."""


class AuditOfRows:
    """What audits state that read inputs as they are."""

    moves_inputs: ClassVar[bool] = False
    """Whether it needs inputs that can be moved by a radius."""

    @property
    def own_ball(self) -> Ball | None:
        """The ball that the recipe names with the audit, or None."""
        return None


def without_test_rows(kind: str, data: AnyData) -> str | None:
    """Why an audit on rows that were not trained on cannot be done; None where there are such."""
    if data.has_test:
        return None
    return (
        f"{kind} measures on rows that were not trained on, and the data declare "
        "none; add `data: {holdout: {share: 0.2}}`"
    )


@dataclass(frozen=True, kw_only=True)
class WhenNarrow:
    """End an audit once its interval is narrow enough. The interval then allows for being looked at
    after every portion of rows, which makes it nearly twice as wide for the same rows."""

    interval: float = 0.02
    """How wide the interval on attacked accuracy may be, from its lower to its upper end."""

    def __post_init__(self) -> None:
        require.between(0, 1, interval=self.interval)


@dataclass(frozen=True, kw_only=True)
class Evasion:
    """Attack the finished model's inputs on the test rows: a cascade of attacks, each on what those
    before it left standing (after Croce & Hein 2020, AutoAttack)."""

    kind: Literal["evasion"] = "evasion"
    ball: Ball | None = None
    """How far an input may move; the ball of `adversarial_training` where absent."""
    effort: Effort = "standard"
    """How much is tried: `quick` for a look, `standard`, or `full`, which stands for AutoAttack."""
    stop: WhenNarrow | None = None
    """When to end before all rows were attacked; all are where absent."""
    towards: str | None = None
    """The class that an attacker wants, by name, or by its number in quotes where classes have no
    names; any wrong one where absent."""
    confidence: float = 0.95
    """Of the interval around each figure."""

    former: ClassVar[dict[str, str]] = {
        "steps": "`effort` says how much is tried",
        "restarts": "`effort` says how much is tried",
    }
    """Keys that it had once, and what has taken their place."""
    headline: ClassVar[str] = "Accuracy under attack"
    """What its figure is called."""
    unit: ClassVar[FigureUnit] = "share"
    moves_inputs: ClassVar[bool] = True

    @property
    def own_ball(self) -> Ball | None:
        """`ball`."""
        return self.ball

    def sentence(self) -> str:
        """The attack with its numbers."""
        moved = f" inside {self.ball.sentence()}" if self.ball is not None else ""
        wanted = f" towards class {self.towards}" if self.towards is not None else ""
        until = ""
        if self.stop is not None:
            until = f", until the interval is {self.stop.interval:g} wide"
        return f"evasion: test rows moved{moved}{wanted} by the {self.effort} cascade{until}"

    def lacks(self, data: AnyData, ball: Ball | None) -> str | None:
        """What the recipe does not give the audit, with the remedy; None where nothing is missing.

        `ball` is the one that the model is trained against.
        """
        if (missing := without_test_rows(self.kind, data)) is not None:
            return missing
        if self.ball is not None or ball is not None:
            return None
        return (
            "evasion needs to know how far an input may move; give it a ball: "
            "`audit: [{kind: evasion, ball: {kind: linf, radius: 0.1}}]`"
        )

    def __post_init__(self) -> None:
        if self.effort not in get_args(Effort):
            raise BadArgument(
                f"effort={self.effort!r} must be one of {', '.join(get_args(Effort))}"
            )
        require.between(0.5, 1, confidence=self.confidence)


@dataclass(frozen=True, kw_only=True)
class Membership(AuditOfRows):
    """Guess who was in the training data: loss threshold (Yeom 2018), calibrated by a reference
    model that never saw them (Watson 2022)."""

    kind: Literal["membership"] = "membership"
    rows: int = 10_000
    """The most rows of each cohort; of a larger cohort this number is drawn at random."""
    confidence: float = 0.95
    """Of the interval around each figure."""

    headline: ClassVar[str] = "Membership advantage"
    unit: ClassVar[FigureUnit] = "signed"

    def sentence(self) -> str:
        """The attack with its numbers."""
        return f"membership: losses of at most {self.rows:,} rows of each cohort"

    def lacks(self, data: AnyData, ball: Ball | None) -> str | None:
        """Test rows."""
        return without_test_rows(self.kind, data)

    def __post_init__(self) -> None:
        if self.rows < 4:
            raise BadArgument(f"rows={self.rows} must be at least 4: two to fix a rule on, and two")
        require.between(0.5, 1, confidence=self.confidence)


@dataclass(frozen=True, kw_only=True)
class CanaryAudit(AuditOfRows):
    """Look for the random secrets of `data.canaries`: exposure (Carlini 2019), and the epsilon
    that it shows in one run (Steinke 2023)."""

    kind: Literal["canaries"] = "canaries"
    candidates: int = 511
    """Documents of the same form that each canary is ranked among."""
    confidence: float = 0.95
    """Of the interval, and of the bound on epsilon."""

    headline: ClassVar[str] = "Canary exposure in bits"
    unit: ClassVar[FigureUnit] = "bits"

    def sentence(self) -> str:
        """The attack with its numbers."""
        return f"canaries: each random secret ranked among {self.candidates:,} others"

    def lacks(self, data: AnyData, ball: Ball | None) -> str | None:
        """Canaries, or other secrets to rank them among."""
        canaries = data.canaries if isinstance(data, Text) else None
        if canaries is None:
            return (
                "canaries looks for random secrets and the data hold none; add "
                "`canaries: {count: 32}` to data of kind text with task causal_lm"
            )
        if self.candidates >= 10**canaries.digits:
            return (
                f"{self.candidates} candidates are more than there are other secrets of "
                f"{canaries.digits} digits; raise `data.canaries.digits`"
            )
        return None

    def __post_init__(self) -> None:
        require.at_least(15, candidates=self.candidates)
        require.between(0.5, 1, confidence=self.confidence)


AuditOption = Evasion | Membership | CanaryAudit
NOT_BUILT = (
    "reconstruction", "extraction", "stealing", "inversion", "ownership", "backdoor",
    "poisoning",
)  # fmt: skip
"""Audits that a recipe may name one day; until they are built they are refused as such."""

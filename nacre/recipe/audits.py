"""What a recipe can ask to be attacked. The audits themselves live in `nacre.audit`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from nacre.adversarial_training.certificates import CROWN, CertificateOption
from nacre.adversarial_training.evaluation.efforts import Effort
from nacre.adversarial_training.text.words import Words
from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.data import AnyData, Text
from nacre.federated_learning.attackers import AttackerOption

FigureUnit = Literal["share", "signed", "bits"]
"""What an audit's figure is: a share of rows, a difference that may be negative, or bits."""


class AuditOfRows:
    """What audits state that read inputs as they are."""

    moves_inputs: ClassVar[bool] = False
    """Whether it needs inputs that can be moved by a radius."""
    trains: ClassVar[bool] = False
    """Whether it trains models of its own: then it is of the run, and not of each variant."""

    @property
    def own_ball(self) -> ThreatOption | None:
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
    ball: ThreatOption | Words | None = None
    """How far an input may move; where absent, the ball of `adversarial_training`, and of texts
    `words` with its defaults."""
    effort: Effort = "standard"
    """How much is tried: `quick` for a look, `standard`, or `full`, which stands for AutoAttack."""
    steps: int | None = None
    """Gradient steps of each climb; as many as the effort has where absent."""
    restarts: int | None = None
    """Starts of the climbs away from the right class; one, and of rows of a table as many as the
    effort has, where absent."""
    stop: WhenNarrow | None = None
    """When to end before all rows were attacked; all are where absent."""
    towards: str | None = None
    """The class that an attacker wants, by name, or by its number in quotes where classes have no
    names; any wrong one where absent."""
    confidence: float = 0.95
    """Of the interval around each figure."""

    headline: ClassVar[str] = "Accuracy under attack"
    """What its figure is called."""
    unit: ClassVar[FigureUnit] = "share"
    moves_inputs: ClassVar[bool] = True
    trains: ClassVar[bool] = False

    @property
    def own_ball(self) -> ThreatOption | None:
        """`ball`, where it moves numbers."""
        return None if isinstance(self.ball, Words) else self.ball

    def sentence(self) -> str:
        """The attack with its numbers."""
        moved = f" inside {self.ball.sentence()}" if self.ball is not None else ""
        if isinstance(self.ball, Words):
            moved = f" with {self.ball.sentence()}"
        wanted = f" towards class {self.towards}" if self.towards is not None else ""
        until = ""
        if self.stop is not None:
            until = f", until the interval is {self.stop.interval:g} wide"
        steps = f", {self.steps} steps a climb" if self.steps is not None else ""
        starts = f", {self.restarts} starts" if self.restarts is not None else ""
        cascade = f"the {self.effort} cascade{steps}{starts}"
        verb = "" if isinstance(self.ball, Words) else " moved"
        return f"evasion: test rows{verb}{moved}{wanted} by {cascade}{until}"

    def lacks(self, data: AnyData, ball: ThreatOption | None) -> str | None:
        """What the recipe does not give the audit, with the remedy; None where nothing is missing.

        `ball` is the one that the model is trained against.
        """
        if (missing := without_test_rows(self.kind, data)) is not None:
            return missing
        if self.ball is not None or ball is not None or isinstance(data, Text):
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
        require.at_least(1, steps=self.steps, restarts=self.restarts)
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

    def lacks(self, data: AnyData, ball: ThreatOption | None) -> str | None:
        """Test rows."""
        return without_test_rows(self.kind, data)

    def __post_init__(self) -> None:
        require.at_least(4, ": two to fix a rule on, and two", rows=self.rows)
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

    def lacks(self, data: AnyData, ball: ThreatOption | None) -> str | None:
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


@dataclass(frozen=True, kw_only=True)
class Poisoning(AuditOfRows):
    """Train twins of the federation with parties at fault in them, one for each attacker, beside a
    twin without: what the rule of the run lets through, and whether it keeps its promise."""

    kind: Literal["poisoning"] = "poisoning"
    bad: int | None = None
    """Parties at fault, drawn by the seed; as many as the rule reckons with where absent, or 1."""
    attackers: tuple[AttackerOption, ...] = ()
    """What they do, a twin each, by name or with options; where absent every one that these rows
    allow."""
    rounds: int | None = None
    """Rounds of each twin, under the noise of a whole run; those of the run where absent."""
    rows: Literal["public", "private"] = "public"
    """Whose rows the twins train on. `public`: all of a public demonstration, otherwise those of
    `data.public`, dealt to as many parties. `private`: the run's own; nothing of it leaves
    `local/`."""
    confidence: float = 0.95
    """Of the interval around each figure; of the drops together."""

    headline: ClassVar[str] = "Accuracy lost to parties at fault"
    unit: ClassVar[FigureUnit] = "signed"
    trains: ClassVar[bool] = True

    def sentence(self) -> str:
        """The twins with their numbers."""
        rounds = "" if self.rounds is None else f" of {self.rounds} rounds"
        bad = "the rule's number of" if self.bad is None else f"{self.bad}"
        named = ", ".join(attacker.kind for attacker in self.attackers)
        return (
            f"poisoning: twins of the federation{rounds} on {self.rows} rows with {bad} parties at "
            f"fault, one for each attacker ({named or 'every one that the rows allow'})"
        )

    def lacks(self, data: AnyData, ball: ThreatOption | None) -> str | None:
        """Rows that a twin may be trained on, and others that it is measured on."""
        if self.rows == "private" or data.public_demonstration:
            return without_test_rows(self.kind, data)
        if data.has_public:
            return None
        return (
            "poisoning trains the federation again, and on private rows every figure of that would "
            "be a second release; declare public rows (`data: {public: …}`), or say `rows: "
            "private` beside `kind: poisoning`, which keeps what is found in local/"
        )

    def __post_init__(self) -> None:
        require.at_least(1, bad=self.bad, rounds=self.rounds)
        require.between(0.5, 1, confidence=self.confidence)
        if len(set(self.attackers)) < len(self.attackers):
            raise BadArgument("attackers names the same attacker twice; remove one")


@dataclass(frozen=True, kw_only=True)
class CertificateAudit:
    """Prove for test rows that no move inside a ball changes their right answer: what no attack,
    known or not, can break."""

    kind: Literal["certificate"] = "certificate"
    method: CertificateOption = field(default_factory=CROWN)
    """How it is proved. `ibp` and `crown` read the layers; `smoothing` needs none and speaks of the
    answers that win a vote under noise."""
    ball: Ball | None = None
    """How far an input may move; where absent, the ball of `adversarial_training`. A threat of kind
    `table` is no ball: nothing is proved within it. `smoothing` proves an `linf` or `l1` ball by
    the smallest `l2` ball around it."""
    rows: int = 500
    """The most test rows; of more, this number is drawn at random."""
    confidence: float = 0.95
    """Of the interval around each figure."""

    headline: ClassVar[str] = "Certified accuracy"
    unit: ClassVar[FigureUnit] = "share"
    moves_inputs: ClassVar[bool] = True
    trains: ClassVar[bool] = False

    @property
    def own_ball(self) -> Ball | None:
        """`ball`."""
        return self.ball

    def sentence(self) -> str:
        """The proof with its numbers."""
        inside = f" inside {self.ball.sentence()}" if self.ball is not None else ""
        return f"certificate: at most {self.rows:,} test rows{inside} by {self.method.sentence()}"

    def lacks(self, data: AnyData, ball: ThreatOption | None) -> str | None:
        """Test rows and a ball."""
        if (missing := without_test_rows(self.kind, data)) is not None:
            return missing
        if self.ball is not None or isinstance(ball, Ball):
            return None
        if ball is not None:
            return (
                "certificate proves what holds inside a ball, and `adversarial_training` names a "
                f"threat of kind {ball.kind!r}, within which none of its methods proves anything; "
                "give it a ball of its own, `{kind: certificate, ball: {kind: l2, radius: 0.5}}`, "
                "or leave it out"
            )
        return (
            "certificate needs to know how far an input may move; give it a ball: "
            "`audit: [{kind: certificate, ball: {kind: l2, radius: 0.5}}]`"
        )

    def __post_init__(self) -> None:
        require.at_least(1, rows=self.rows)
        require.between(0.5, 1, confidence=self.confidence)


AuditOption = CertificateAudit | Evasion | Membership | CanaryAudit | Poisoning
NOT_BUILT = (
    "reconstruction", "extraction", "stealing", "inversion", "ownership", "backdoor",
)  # fmt: skip
"""Audits that a recipe may name one day; until they are built they are refused as such."""

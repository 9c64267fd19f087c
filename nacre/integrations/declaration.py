"""What a loop of one's own promises, declared before any row is read: refused or priced here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacre.core.errors import Incompatible
from nacre.core.parts import Clip
from nacre.data.sampling import PoissonSampling
from nacre.differential_privacy.accounting.price import Accountant
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.options import Privacy
from nacre.integrations.arguments import require_declared
from nacre.planning.protection import IN_RUN
from nacre.recipe.sections import LedgerChoice
from nacre.training.planned import CENTRAL


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Everything that decides what is promised, and the account that pays.

    *Guarantee:* every number in it is declared, none is counted; so it may be shown to anybody.
    Raises `Incompatible` for what no epsilon would cover, `BadArgument` for another form.
    """

    privacy: Privacy
    """Epsilon and delta of the whole run, for one row of the data or for all rows of one owner."""
    clip: Clip
    """How each unit's gradient is bounded."""
    ledger: LedgerChoice
    """Where the budget is kept, and the name of the account."""
    size: int
    """Units of the data, declared: what a draw's rate is computed from."""
    batch: int
    """Units expected a step, and what each sum is divided by."""
    steps: int
    """Steps of the whole run."""
    column: str = ""
    """What owners of rows are told apart by, in the account's words; "" where units are rows."""

    def __post_init__(self) -> None:
        require_declared(
            self.privacy, self.clip, self.ledger, size=self.size, batch=self.batch, steps=self.steps
        )
        self._require_units()
        if self.privacy.delta >= 1 / self.size:
            raise Incompatible(
                f"delta={self.privacy.delta:g} is not below 1 / size = {1 / self.size:.3g}, so "
                f"publishing one row whole would pass; use at most {0.1 / self.size:.0e}"
            )
        if IN_RUN in self.ledger.path:
            raise Incompatible(
                f"a ledger at {self.ledger.path} would give every run on these rows a fresh "
                "budget; keep one beside the data, as `path='privacy.db'`"
            )

    def _require_units(self) -> None:
        """Raises `Incompatible` where what is protected is not what is declared of the rows."""
        privacy = self.privacy
        if privacy.unit == "group" and self.column and privacy.rows_per_unit is None:
            raise Incompatible(
                "an owner's rows are taken together, and how many there may be is not declared: "
                "use `Privacy(unit='group', rows_per_unit=…)` (rows beyond it are left out by a "
                "keyed draw)"
            )
        if privacy.unit == "example" and self.column:
            raise Incompatible(
                "`groups` says whose each row is, and the promise protects single rows: use "
                "`Privacy(unit='group', rows_per_unit=…)`, or leave `groups` out"
            )
        if privacy.unit == "client" or (privacy.unit == "group" and not self.column):
            raise Incompatible(
                f"unit={privacy.unit} needs to know which rows belong together, and a data "
                "set of single rows does not say so: use `unit: example`, or for one person's rows "
                "`groups` and `column` of `nacre.integrations.torch.Private`, or a recipe, which "
                "gathers the rows of one person or party"
            )

    @property
    def accountant(self) -> Accountant:
        """Who computes epsilon: the one asked for, else the one of the grant's rule."""
        if self.privacy.accountant != "auto":
            return self.privacy.accountant
        grant = self.ledger.grant
        return "pld" if grant is not None and grant.rule == "pld" else "rdp"

    def declared(self, multiplier: float) -> dict[str, Any]:
        """What is promised of each release, in the form of plan.json: of these declarations and
        the calibrated multiplier, and of nothing that a step is taken with."""
        expected = float(self.batch)
        party = {
            "name": CENTRAL,
            "account": self.ledger.dataset,
            "size": self.size,
            "unit": self.privacy.unit,
            "adjacency": self.privacy.adjacency,
            "sampling": {"kind": "poisson", "expected": expected, "rate": expected / self.size},
            "clip": self.clip.facts(),
            "noise": {"kind": self.privacy.noise.kind, "multiplier": multiplier},
            "steps": self.steps,
            "epsilon": self.privacy.epsilon,
            "delta": self.privacy.delta,
            "accountant": self.accountant,
        }
        return {
            "private": True,
            "rounds": self.steps,
            "parties": [party],
            "techniques": {"federated_learning": None},
        }

    def mechanism(self) -> Mechanism:
        """The least noise that keeps all the steps within the budget.

        Raises `DataError` for a batch larger than the data, `Unbounded` for a rule that bounds
        nothing, `Incompatible` for a noise that remembers its steps.
        """
        if self.privacy.noise.kind != "gaussian":
            why = (
                "remembers earlier steps, and a loop of your own keeps nothing for it"
                if self.privacy.noise.correlated
                else "is added by the parties of a secure sum, and a loop of your own has none"
            )
            raise Incompatible(
                f"{self.privacy.noise.kind} noise {why}: use `noise: {{kind: gaussian}}`, or a "
                "recipe"
            )
        noise = self.privacy.noise.build(self.steps)
        uncalibrated = Mechanism(
            unit=self.privacy.unit,
            adjacency=self.privacy.adjacency,
            sampling=PoissonSampling().build(self.batch, self.size),
            clip=self.clip,
            noise=noise,
            steps=self.steps,
        )
        budget = Budget(epsilon=self.privacy.epsilon, delta=self.privacy.delta)
        return uncalibrated.calibrated(budget, self.accountant)

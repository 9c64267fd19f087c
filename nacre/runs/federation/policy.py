"""A party's policy: what it agrees to, whatever a job asks. A file of its own, read once at the
start of its own process; no recipe, request, roster or variable of the environment reaches it."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from nacre.core import require
from nacre.core.errors import BadArgument, PartyError
from nacre.core.types import Unit
from nacre.differential_privacy.upward import rounded_up
from nacre.federated_learning.secure import SecureGather
from nacre.planning.plan import Plan
from nacre.recipe.load import read_options
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.options import CentralNoise
from nacre.statistics.documents import each_party


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most that one run may spend on a unit."""

    epsilon: float
    """Of the whole run, as this party's own plan has it."""
    delta: float
    """The same."""

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon)
        require.between(0, 1, delta=self.delta)


@dataclass(frozen=True, kw_only=True)
class Hours:
    """When this party answers, by the clock of its own machine."""

    start: str
    """As 08:00."""
    end: str
    """As 18:00; an end before the start is on the next day."""

    def __post_init__(self) -> None:
        for name, text in (("start", self.start), ("end", self.end)):
            if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
                raise BadArgument(f"{name}={text!r} must be a time of day, as 08:00")
        if self.start == self.end:
            raise BadArgument(f"start and end are both {self.start!r}; leave `hours` out")

    def hold(self, now: datetime.time) -> bool:
        """Whether `now` lies between start and end.

        >>> Hours(start="22:00", end="06:00").hold(datetime.time(23, 30))
        True
        """
        text = now.strftime("%H:%M")
        if self.start < self.end:
            return self.start <= text < self.end
        return text >= self.start or text < self.end


class NotAgreed(PartyError):
    """A run that the policy of a party does not allow."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a party agrees to. What is not allowed here is refused."""

    nacre: Literal[1] = 1
    """The format of this file, which begins with it."""
    recipes: tuple[str, ...]
    """Digests of the recipes that it follows, as `nacre federate digest RECIPE` prints them."""
    units: dict[Unit, Ceiling]
    """Unit of privacy -> the most that a run may spend on it; a run for another unit is refused."""
    unprotected: bool = False
    """Whether a run without differential privacy may have its changes."""
    minimum_cohort: float
    """Parties a round that its change has to be mixed with, itself among them: in a secure sum at
    least, which is its threshold, since the server says who dropped out; elsewhere on average."""
    secure_sum: bool = True
    """Whether its change may leave only inside a sum that nobody can look into."""
    rules: tuple[str, ...] = ("mean",)
    """Kinds of `gather.aggregate` that it contributes to."""
    attacks: tuple[str, ...] = ()
    """Kinds of `audit` that a recipe may hold."""
    central_noise: bool = False
    """Whether a release of statistics may leave the noise to the server, which then sees exact sums
    over the parties."""
    hours: Hours | None = None
    """When it answers; at any time without."""

    def __post_init__(self) -> None:
        require.positive(minimum_cohort=self.minimum_cohort)
        if self.minimum_cohort < 1:
            raise BadArgument(f"minimum_cohort={self.minimum_cohort} must be at least 1")
        if not self.recipes:
            raise BadArgument("recipes must name at least one digest: nothing is allowed otherwise")
        for unit in self.units:
            if unit not in get_args(Unit):
                known = ", ".join(get_args(Unit))
                raise BadArgument(f"units: {unit!r} is no unit of privacy; use {known}")
        for text in self.recipes:
            if not re.fullmatch(r"[0-9a-f]{64}", text):
                raise BadArgument(f"recipes: {text!r} is no digest; it has 64 hex digits")

    def require(self, plan: Plan, digest: str, name: str) -> None:
        """Raises `NotAgreed`, in words that may leave the house, where this run is not agreed to.

        `plan` is that of the party's own recipe, whose digest is `digest`; `name` is the party's.
        Nothing is taken from what the server says.
        """
        self.require_recipe(digest)
        reason = self._against(plan, name)
        if reason is not None:
            raise _not_allowed(reason)

    def require_recipe(self, digest: str) -> None:
        """Raises `NotAgreed` unless a recipe of this digest is agreed to. Asked before it is
        planned, since planning builds the model, by code beside the recipe where it names some."""
        if digest not in self.recipes:
            raise _not_allowed(
                f"its `recipes` do not name the digest {digest}; once this party agrees to the "
                "recipe, add it there (`nacre federate digest` prints it)"
            )

    def require_release(self, asked: AgreedQueries) -> None:
        """Raises `NotAgreed` where this release of statistics is not agreed to; nothing is taken
        from what the server says."""
        self.require_recipe(asked.digest)
        across = asked.across
        if not across.threshold >= self.minimum_cohort:
            raise _not_allowed(f"a sum may be over {across.threshold} parties and it asks for more")
        if isinstance(across.noise, CentralNoise) and not self.central_noise:
            raise _not_allowed(
                "the server would see exact sums and add the noise, and `central_noise` is not on"
            )
        for unit, queries in (
            ("example", [query for query in asked.queries if query.unit is None]),
            ("group", [query for query in asked.queries if query.unit is not None]),
        ):
            price = each_party(queries)
            ceiling = self.units.get(cast(Unit, unit))
            if queries and ceiling is None:
                raise _not_allowed(f"its `units` do not name {unit!r}")
            if ceiling is not None and not price["epsilon"] <= ceiling.epsilon:
                raise _not_allowed(
                    f"the answers spend epsilon {rounded_up(price['epsilon'])}, more than it allows"
                )
            if ceiling is not None and not price["delta"] <= ceiling.delta:
                raise _not_allowed(
                    f"the answers spend delta {price['delta']:g}, more than it allows"
                )

    def require_now(self) -> None:
        """Raises `PartyError` outside the working hours."""
        if self.hours is not None and not self.hours.hold(datetime.datetime.now().time()):
            raise PartyError(
                f"the policy of this party answers from {self.hours.start} to {self.hours.end} of "
                "its own clock; resume then"
            )

    def _against(self, plan: Plan, name: str) -> str | None:
        federation = plan.recipe.federated_learning
        if federation is None:
            return "the recipe has no federation"
        gather = federation.gather
        if not federation.expected() >= self.minimum_cohort:
            return f"a round has {federation.expected():g} parties and it asks for more"
        if isinstance(gather, SecureGather) and not gather.threshold >= self.minimum_cohort:
            return f"a sum may be over {gather.threshold} parties and it asks for more"
        if self.secure_sum and not isinstance(gather, SecureGather):
            return "the server would see its change by itself, and it asks for a secure sum"
        rule = getattr(getattr(gather, "aggregate", None), "kind", "mean")
        if rule not in self.rules:
            return f"its `rules` do not name {rule!r}"
        for audit in plan.recipe.audit:
            if audit.kind not in self.attacks:
                return f"its `attacks` do not name {audit.kind!r}"
        return self._against_spending(plan, name)

    def _against_spending(self, plan: Plan, name: str) -> str | None:
        if not plan.private:
            return None if self.unprotected else "the run has no differential privacy"
        for level in plan.priced:
            if level.name not in ("", name):
                continue
            unit = level.mechanism.unit
            ceiling = self.units.get(unit)
            if ceiling is None:
                return f"its `units` do not name {unit!r}"
            if not level.price.epsilon <= ceiling.epsilon:
                spent = rounded_up(level.price.epsilon)
                return f"the run spends epsilon {spent} of unit {unit!r}, more than it allows"
            if not level.delta <= ceiling.delta:
                return f"the run spends delta {level.delta:g} of unit {unit!r}, more than it allows"
        return None


def _not_allowed(reason: str) -> NotAgreed:
    return NotAgreed(f"the policy of this party does not allow it: {reason}")


def read_policy(path: Path) -> Policy:
    """The policy in a file. Raises `RecipeError` with file, line and key for anything else, a key
    that does not exist among it."""
    return read_options(path, Policy)

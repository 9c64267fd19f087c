# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""Local differential privacy: every record is noised by itself, before anybody else sees it.

*Guarantee:* what is written of a record is epsilon-private for any two values that the record might
have had, epsilon being the sum over its columns; whoever holds all that is written, and knows all
other records, learns no more. Who is in the table, and how many they are, is *not* hidden: the
neighbours are tables in which one record is replaced by another.

It protects against the holder of the table too, and costs dearly: an estimate from n records is
about sqrt(n) times as far off as one that a trusted holder would noise once.

Sources: Warner 1965, "Randomized response"; Kairouz, Oh & Viswanath 2014, "Extremal mechanisms for
local differential privacy" (k-ary randomised response); Dwork & Roth 2014, section 12.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nacre.core.errors import BadArgument
from nacre.differential_privacy.leaves import pure_event
from nacre.differential_privacy.queries import check_range
from nacre.statistics.noisy_numbers import CONFIDENCE, opendp

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class RandomisedResponse:
    """The true category with a probability that epsilon allows, else one of the others."""

    kind: Literal["randomised_response"] = "randomised_response"
    categories: tuple[str, ...]
    """Every value there can be, known beforehand."""
    epsilon: float
    """Of this column of a record."""

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)
        if len(set(self.categories)) < max(2, len(self.categories)):
            raise BadArgument(f"categories={self.categories} must name at least two different ones")

    @property
    def truth(self) -> float:
        """The probability with which a category is kept."""
        return 1 / (1 + (len(self.categories) - 1) * math.exp(-self.epsilon))


@dataclass(frozen=True, kw_only=True)
class LocalLaplace:
    """The number, clamped to its range, plus Laplace noise as wide as the range over epsilon."""

    kind: Literal["laplace"] = "laplace"
    low: float
    """The smallest value that a record may have; smaller ones are raised to it."""
    high: float
    """The largest value that a record may have; larger ones are lowered to it."""
    epsilon: float
    """Of this column of a record."""

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)
        check_range(self.low, self.high)

    @property
    def scale(self) -> float:
        """Of the noise, but for what rounding adds to it."""
        return (self.high - self.low) / self.epsilon


LocalOption = RandomisedResponse | LocalLaplace
"""What can be done to a column of each record."""


def _check_epsilon(epsilon: float) -> None:
    if not 0 < epsilon <= 50:
        raise BadArgument(
            f"epsilon={epsilon} must be above 0 and at most 50; 0.5 to 4 is usual for a record"
        )


def record_event(columns: Mapping[str, LocalOption]) -> DpEvent:
    """What is written of one record reveals at most this of it; for adjacency replace_one."""
    import dp_accounting

    return dp_accounting.ComposedDpEvent([pure_event(c.epsilon) for c in columns.values()])


def responses(values: Sequence[str], option: RandomisedResponse) -> list[str]:
    """What is written of each category; all of `values` are in `option.categories`."""
    names = list(option.categories)
    with opendp() as dp:

        def measurement(truth: float) -> Any:
            return dp.m.make_randomized_response(names, truth)

        # The largest probability whose epsilon, rounded up, is within the budget.
        most = dp.binary_search_param(measurement, 1, option.epsilon, bounds=(1 / len(names), 1.0))
        respond = measurement(most)
        return [respond(value) for value in values]


def noised_numbers(values: Sequence[float], option: LocalLaplace) -> list[float]:
    """What is written of each number: clamped, then noised, each by itself."""
    clamped = [min(max(value, option.low), option.high) for value in values]
    with opendp() as dp:
        space = dp.atom_domain(T=float, nan=False), dp.absolute_distance(T=float)

        def measurement(scale: float) -> Any:
            return dp.m.make_laplace(*space, scale)

        reach = option.high - option.low
        noise = measurement(dp.binary_search_param(measurement, reach, option.epsilon))
        return [noise(value) for value in clamped]


@dataclass(frozen=True)
class LocalEstimate:
    """An estimate from written records, and an interval of 95 % around it."""

    value: float
    low: float
    high: float


def estimated_counts(
    written: Sequence[str], option: RandomisedResponse
) -> dict[str, LocalEstimate]:
    """How many records truly had each category, without bias.

    Of n records with true count c, a category is written c p + (n - c) q times on average, p being
    the chance to be kept and q that of each other one. The interval is a normal one for the noise
    of the responses, at the widest deviation that any c could have.
    """
    from scipy.special import ndtri

    truth, others = option.truth, len(option.categories) - 1
    lie = (1 - truth) / others
    spread = math.sqrt(len(written) * max(truth * (1 - truth), lie * (1 - lie))) / (truth - lie)
    margin = float(-ndtri((1 - CONFIDENCE) / 2)) * spread
    found: dict[str, LocalEstimate] = {}
    for category in option.categories:
        value = (written.count(category) - lie * len(written)) / (truth - lie)
        found[category] = LocalEstimate(value, value - margin, value + margin)
    return found


def estimated_mean(written: Sequence[float], option: LocalLaplace) -> LocalEstimate:
    """The mean of the clamped numbers, without bias; a normal interval for the noise. Raises
    `ValueError` for no records."""
    from scipy.special import ndtri

    if not written:
        raise ValueError("no records have no mean")
    value = math.fsum(written) / len(written)
    deviation = math.sqrt(2 / len(written)) * option.scale
    margin = float(-ndtri((1 - CONFIDENCE) / 2)) * deviation
    return LocalEstimate(value, value - margin, value + margin)

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""The same promise in other words, and the other ways to meet a budget: how many steps or units a
step it allows, the whole curve of epsilon over delta, and mu of Gaussian differential privacy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nacre.core.errors import Incompatible, UnsupportedEvent
from nacre.core.types import Adjacency
from nacre.differential_privacy.accounting.price import Accountant, Price, epsilon
from nacre.differential_privacy.accounting.rdp import zcdp_rho
from nacre.differential_privacy.leaves import leaves
from nacre.differential_privacy.upward import rounded_up

if TYPE_CHECKING:
    from dp_accounting import DpEvent


def most(
    event_of: Callable[[int], DpEvent],  # steps, or units a step -> event; epsilon rises with them
    target: float,  # epsilon
    delta: float,
    highest: int,  # the largest number that is of use
    accountant: Accountant = "auto",
    adjacency: Adjacency = "add_or_remove",
) -> tuple[int, Price]:
    """The largest number up to `highest` that keeps epsilon at most `target`, and its price.

    *Guarantee:* the price of the number is at most `target`; that of the next one is above it, or
    the number is `highest`. Raises `Incompatible` where one is too many already.
    """
    if not 0 < target < math.inf:
        raise ValueError(f"epsilon={target} must be > 0 and finite")
    if highest < 1:
        raise ValueError(f"highest={highest} must be at least 1")

    def price(number: int) -> Price:
        return epsilon(event_of(number), delta, accountant, adjacency)

    best = price(1)
    if best.epsilon > target:
        raise Incompatible(
            f"epsilon={rounded_up(best.epsilon)} at delta={delta:g} is spent by the first one "
            f"already, above {target:g}; use more noise, or a larger epsilon"
        )
    low, high = 1, highest + 1
    while high - low > 1:
        middle = min(max(_guess(low, best.epsilon, target), low + 1), high - 1)
        for number in (middle, (low + high) // 2):
            if not low < number < high:
                continue
            found = price(number)
            if found.epsilon <= target:
                low, best = number, found
            else:
                high = number
    return low, best


def _guess(number: int, paid: float, target: float) -> int:
    """Where the target lies if epsilon grows with the number's 0.6th power, as over many steps."""
    return int(min(number * (target / max(paid, 1e-9)) ** (1 / 0.6), 1e15))


def curve(
    event: DpEvent,
    deltas: Sequence[float],
    accountant: Accountant = "auto",
    adjacency: Adjacency = "add_or_remove",
) -> list[tuple[float, Price]]:
    """(delta, price) for each delta: the promise holds at all of them at once."""
    return [(delta, epsilon(event, delta, accountant, adjacency)) for delta in deltas]


DELTAS = (1e-4, 1e-6, 1e-8, 1e-10)
"""Where a report shows the curve."""


def in_other_words(event: DpEvent, accountant: Accountant, adjacency: Adjacency) -> dict[str, Any]:
    """The promise in the words of others, as plan.json has it: `epsilon_by_delta`, pairs over
    `DELTAS`; `mu` of Gaussian differential privacy and `rho` of zero-concentrated privacy, None
    where the event has none."""
    found = curve(event, DELTAS, accountant, adjacency)
    return {
        "epsilon_by_delta": [[delta, price.epsilon] for delta, price in found],
        "mu": _finite(gaussian_mu, event),
        "rho": _finite(zcdp_rho, event),
    }


def _finite(form: Callable[[DpEvent], float], event: DpEvent) -> float | None:
    try:
        value = form(event)
    except UnsupportedEvent:
        return None
    return value if math.isfinite(value) else None


def gaussian_mu(event: DpEvent) -> float:
    """The mu of an event that is mu-Gaussian differentially private, exactly; 0 for nothing.

    Only compositions of full-batch Gaussians have one: sampled steps are near such a curve, by a
    central limit theorem, but on the wrong side of it, and are refused. Raises `UnsupportedEvent`.

    Source: Dong, Roth & Su 2022, "Gaussian differential privacy", corollary 2.
    """
    import dp_accounting

    total = 0.0
    for leaf, count in leaves(event):
        if not isinstance(leaf, dp_accounting.GaussianDpEvent):
            raise UnsupportedEvent(
                f"{leaf} is not Gaussian differentially private for any mu, and an approximation "
                "by one would promise too much; use epsilon at a delta"
            )
        total += count * leaf.noise_multiplier**-2
    return math.sqrt(total)

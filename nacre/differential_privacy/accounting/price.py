# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""What an event costs: event -> epsilon at a delta, and the noise that a budget needs.

Every price is an upper bound on epsilon. Three accountants:

- `closed`: compositions of full-batch Gaussians, exact (`analytic.py`).
- `pld`: the tight price, with a proven lower bound beside it. The closed form where there is one,
  else the privacy loss distribution on a grid (`composition.py`), or of more than eight kinds of
  steps by their characteristic functions (`characteristic/`).
- `rdp`: through Rényi curves (`rdp.py`); instant, 5 to 20 % above for sampled Gaussians, what a
  Rényi filter adds up.

`auto` takes the tightest that knows the event. Where few steps decide (rates of 1e-6 with little
noise), `pld` keeps rare large losses apart (`jumps.py`) and proves the upper bound alone. Where a
grid would be too large (epsilon in the hundreds), or the Rényi price is smaller, it takes that and
says so in `Price.accountant`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from nacre.core.errors import Incompatible, UnsupportedEvent
from nacre.core.types import Adjacency
from nacre.differential_privacy.accounting.allocation import Allocated
from nacre.differential_privacy.accounting.analytic import (
    ROUNDING,
    gaussian_epsilon,
    gaussian_multiplier,
)
from nacre.differential_privacy.accounting.cache import remembered_numbers
from nacre.differential_privacy.accounting.composition import (
    Bounds,
    epsilon_bounds,
    epsilon_near,
)
from nacre.differential_privacy.accounting.loss_distribution import (
    Atoms,
    LossKind,
    Replaced,
    Step,
    Unsettled,
)
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, rdp_epsilon
from nacre.differential_privacy.describe import unknown
from nacre.differential_privacy.events import require_priced
from nacre.differential_privacy.leaves import (
    Leaf,
    either_events,
    failing_chance,
    is_binned_gaussian,
    is_fixed_size_gaussian,
    is_sampled_gaussian,
    is_unprotected,
    leaves,
    pure_epsilon,
    pure_event,
)

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Accountant = Literal["auto", "pld", "rdp", "closed"]

TOLERANCE = 1e-3
"""How far below its target a calibrated epsilon may stay, relative."""

_GAP = 1e-3
"""How far the bounds on epsilon may lie apart, relative."""

_START = 0.05
"""How near the Rényi price has to be where a calibration by PLD starts, relative."""

_ROUGH, _NEAR = 0.04, 0.01
"""How far the bounds may lie apart, and the price from its target, where a calibration looks around
before it asks for tight prices."""

_CLOSE = 8e-4
"""How wide the range of guesses is in which a search by guesses ends, relative."""

_STEEPNESS = 1.2

_ATTEMPTS = 60
"""Prices that a calibration may ask for; four to eight are usual."""

_CUT = 1e-4
"""What a round of bins may be cut off in all, as a share of delta."""

_JUMP = 1e-3
"""How near two multipliers lie, on the log scale, between which the price is said to jump."""

_FARTHEST = 50.0
"""The log multiplier, either way, at which a calibration gives up."""


@dataclass(frozen=True)
class Price:
    """An upper bound on epsilon, who computed it, and a proven lower bound where there is one."""

    epsilon: float
    accountant: Literal["closed", "pld", "rdp"]
    lower: float | None = None


def epsilon(
    event: DpEvent,
    delta: float,
    accountant: Accountant = "auto",
    adjacency: Adjacency | None = "add_or_remove",  # None: `require_priced` has been asked
) -> Price:
    """The price of `event` at `delta`; inf where something in it is not protected.

    Raises `UnsupportedEvent` where the accountant has no rule for the event, or the event no price
    under the adjacency.
    """
    _check_delta(delta)
    if adjacency is not None:
        require_priced(event, adjacency)
    name = _resolve(event, accountant)
    if name == "closed":
        exact = _closed(event, delta)
        return Price(exact, "closed", exact * (1 - 2 * ROUNDING))
    return Price(_renyi(event, delta), "rdp") if name == "rdp" else _priced(event, delta)


def calibrate(
    event_of: Callable[[float], DpEvent],  # multiplier -> event; epsilon falls as it grows
    target: float,  # epsilon
    delta: float,
    accountant: Accountant = "auto",
    adjacency: Adjacency = "add_or_remove",
) -> tuple[float, Price]:
    """The smallest multiplier that keeps epsilon at most `target`, and its price.

    *Guarantee:* the price, asked again with the same accountant, is at most `target`. It is at
    least `1 - TOLERANCE` of it, or, where prices jump past the target (a proven bound does where
    delta alone begins to cover what is left), a multiplier smaller by a thousandth costs more.
    """
    if not 0 < target < math.inf:
        raise ValueError(f"epsilon={target} must be > 0 and finite")
    _check_delta(delta)
    unit = event_of(1.0)
    require_priced(unit, adjacency)
    name = _resolve(unit, accountant)
    key = _key("calibrate", unit, delta, name) | {"target": float(target)}

    def compute() -> tuple[float, float]:
        found = _calibrated(event_of, float(target), delta, name)
        return found, epsilon(event_of(found), delta, accountant, adjacency).epsilon

    found, paid = remembered_numbers(key, 2, compute)
    price = epsilon(event_of(found), delta, accountant, adjacency)
    if price.epsilon != paid:
        # The key holds the event at one multiplier only: another event may agree with it there.
        found, _ = compute()
        price = epsilon(event_of(found), delta, accountant, adjacency)
    return found, price


def epsilon_by_step(
    event_of: Callable[[int], DpEvent],  # steps -> what so many reveal
    steps: int,
    delta: float,
    accountant: Accountant = "auto",
    points: int = 5,
    adjacency: Adjacency = "add_or_remove",
) -> list[tuple[int, float]]:
    """(steps done, epsilon so far) at about `points` evenly spaced steps; the last is `steps`."""
    if steps < 1 or points < 1:
        raise ValueError(f"steps={steps} and points={points} must be at least 1")
    places = sorted({math.ceil(steps * n / points) for n in range(1, points + 1)})
    prices = [epsilon(event_of(n), delta, accountant, adjacency).epsilon for n in places]
    return list(zip(places, prices, strict=True))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta} must lie between 0 and 1")


def _key(task: str, event: DpEvent, delta: float, accountant: str) -> dict[str, str | float]:
    """Everything that a number depends on; `repr` of a leaf shows every float in full."""
    pricer = f"nacre losses 8, gap {_GAP}"
    return {
        "task": task,
        "event": repr(leaves(event)),
        "delta": delta,
        "by": accountant,
        "with": pricer,
    }


def _resolve(event: DpEvent, accountant: Accountant) -> Literal["closed", "pld", "rdp"]:
    """The accountant that answers; `pld` and `auto` prefer the exact one."""
    import dp_accounting

    kinds = [leaf for leaf, _ in leaves(event)]
    closed = all(isinstance(leaf, dp_accounting.GaussianDpEvent) for leaf in kinds)
    if accountant == "rdp":
        return "rdp"
    if closed:
        return "closed"
    if accountant == "closed":
        raise UnsupportedEvent(
            f"{event} has no closed form: only full-batch Gaussian steps have; use "
            "`accountant: pld`"
        )
    by_curve = dp_accounting.ZCDpEvent | dp_accounting.dp_event.RepeatAndSelectDpEvent
    curved = any(isinstance(leaf, by_curve) or either_events(leaf) for leaf in kinds)
    return "rdp" if curved and accountant == "auto" else "pld"


def _renyi(event: DpEvent, delta: float) -> float:
    return rdp_epsilon(rdp_curve(event), ORDERS, delta)


def _priced(event: DpEvent, delta: float) -> Price:
    """The price by PLD, remembered on disk; by RDP where the grid would be too large and what it
    reached is no better."""
    if is_unprotected(event):
        return Price(math.inf, "pld")

    def compute() -> tuple[float, float, float]:
        try:
            found = _bounds(event, delta, _GAP)
        except Unsettled as error:
            upper = min(error.upper, renyi := _renyi(event, delta))
            return min(error.lower, upper), upper, float(error.upper < renyi)
        # Rounds are priced from above alone: the curve may be below.
        if _has_rounds(event) and not failing_chance(event):
            upper = _renyi(event, delta)
            return 0.0, min(upper, found.upper), float(found.upper <= upper)
        return found.lower, found.upper, 1.0

    lower, upper, settled = remembered_numbers(_key("epsilon", event, delta, "pld"), 3, compute)
    return Price(upper, "pld", lower or None) if settled else Price(upper, "rdp")


def _near(event: DpEvent, delta: float, aim: float) -> float:
    """A guess at the tight price. Raises `Unsettled` where there is none."""
    if is_unprotected(event):
        return math.inf
    rest = delta - failing_chance(event)
    steps = [(_step(leaf, 0.0), count) for leaf, count in leaves(event) if count]
    if not steps or rest <= 0:
        raise Unsettled("nothing to guess")
    return epsilon_near(steps, rest, aim)


def _rough(event: DpEvent, delta: float) -> float:
    """A price near the tight one, at a part of its cost."""
    try:
        return math.inf if is_unprotected(event) else _bounds(event, delta, _ROUGH).upper
    except Unsettled as error:
        return min(error.upper, _renyi(event, delta))


def _bounds(event: DpEvent, delta: float, gap: float) -> Bounds:
    """Of no event at all: zero. For draws of a fixed size the upper bound is that of a pair which
    is no pair of neighbours, so the lower one is taken of neighbours."""
    parts = [(leaf, count) for leaf, count in leaves(event) if count]
    tail = _CUT * delta / max(1, sum(count for _, count in parts))
    steps = [(_step(leaf, tail), count) for leaf, count in parts]
    if not steps:
        return Bounds(0.0, 0.0)
    if failing := failing_chance(event):
        # Each is a pure one but for an event of its delta (see ApproximateDpEvent).
        if failing > delta * (1 - 1e-9):  # what rounding leaves of delta is none to price by
            return Bounds(0.0, math.inf)
        upper = epsilon_bounds(steps, delta - failing, gap).upper
        return Bounds(min(epsilon_bounds(steps, delta, gap).lower, upper), upper)
    found = epsilon_bounds(steps, delta, gap)
    if not any(isinstance(kind, Replaced) for kind, _ in steps):
        return found
    real = [(k.attained if isinstance(k, Replaced) else k, count) for k, count in steps]
    return found._replace(lower=min(epsilon_bounds(real, delta, gap).lower, found.lower))


def _has_rounds(event: DpEvent) -> bool:
    return any(is_binned_gaussian(leaf) for leaf, _ in leaves(event))


def _step(leaf: Leaf, tail: float) -> LossKind:
    """The losses of one event, of which `tail` may be cut off where they are no closed form. Raises
    `UnsupportedEvent` where it has no rule."""
    import dp_accounting

    from nacre.differential_privacy.event_types import ApproximateDpEvent

    if isinstance(leaf, dp_accounting.GaussianDpEvent):
        return Step(leaf.noise_multiplier)
    if is_sampled_gaussian(leaf):
        return Step(leaf.event.noise_multiplier, leaf.sampling_probability)
    if is_binned_gaussian(leaf):
        return Allocated(leaf.bins, leaf.event.noise_multiplier, tail)
    if is_fixed_size_gaussian(leaf):
        rate = leaf.sample_size / leaf.source_dataset_size
        return Replaced(leaf.event.noise_multiplier, rate)
    if isinstance(leaf, ApproximateDpEvent):
        return _step(pure_event(leaf.epsilon), tail)
    if isinstance(leaf, dp_accounting.RandomizedResponseDpEvent):
        other = leaf.noise_parameter / leaf.num_buckets  # each of the answers that are not true
        loss = pure_epsilon(leaf)
        rest = (leaf.num_buckets - 2) * other
        return Atoms((loss, 0.0, -loss), (1 - other - rest, rest, other))
    remedy = (
        "use `accountant: rdp` and a grant under `rule: rdp` (the rule of an account never "
        "changes); a query of statistics may say `delta: 0` instead"
    )
    raise unknown(leaf, "PLD accounting", remedy)


def _closed(event: DpEvent, delta: float) -> float:
    """The exact epsilon of Gaussian steps; 0 for none."""
    inverse = sum(count * leaf.noise_multiplier**-2 for leaf, count in leaves(event))
    return gaussian_epsilon(inverse**-0.5, delta) if inverse else 0.0


def _calibrated(
    event_of: Callable[[float], DpEvent],
    target: float,
    delta: float,
    accountant: Literal["closed", "pld", "rdp"],
) -> float:
    """The multiplier; every candidate is priced exactly as `epsilon` prices it."""
    if accountant == "closed":
        inverse = sum(n * leaf.noise_multiplier**-2 for leaf, n in leaves(event_of(1.0)))
        found = gaussian_multiplier(target, delta) * inverse**0.5
        if (1 - TOLERANCE) * target < _closed(event_of(found), delta) <= target:
            return found  # as it is where every step scales with the multiplier
        return _search(lambda z: _closed(event_of(z), delta), target, found)[0]
    loose = TOLERANCE if accountant == "rdp" else _START
    start, slope = _search(lambda z: _renyi(event_of(z), delta), target, 1.0, tolerance=loose)
    if accountant == "rdp":
        return start
    try:
        middle = target * (1 - TOLERANCE / 2) * (1 + _CLOSE / 2)
        start, slope = _search(
            lambda z: _near(event_of(z), delta, target), middle, start, slope, _CLOSE
        )
    except (Unsettled, Incompatible):  # guesses do not decide what can be had
        start, slope = _search(lambda z: _rough(event_of(z), delta), target, start, slope, _NEAR)
    return _search(lambda z: _priced(event_of(z), delta).epsilon, target, start, slope)[0]


def _search(
    price: Callable[[float], float],
    target: float,
    start: float,
    slope: float = _STEEPNESS,  # how fast log epsilon falls over log multiplier, to begin with
    tolerance: float = TOLERANCE,
) -> tuple[float, float]:
    """A multiplier whose price lies in ((1 - tolerance) * target, target], and the slope there.

    Where the price jumps past that range, the end of the jump that keeps within the target. On log
    price over log multiplier, which is nearly a line: secant steps until one price lies on each
    side of the target, regula falsi (Illinois) from there.
    """
    x, before = math.log(start), None
    low: _Point | None = None  # too little noise
    high: _Point | None = None  # too much
    for _ in range(_ATTEMPTS):
        if abs(x) > _FARTHEST:
            break
        paid = price(math.exp(x))
        ratio = paid / (target * (1 - tolerance / 2))
        now = _Point(x, math.log(min(max(ratio, 1e-3), 1e3)))
        if before is not None and before.x != x:
            slope = min(max((before.excess - now.excess) / (x - before.x), 0.5), 20.0)
        if (1 - tolerance) * target < paid <= target:
            return math.exp(x), slope
        # Illinois: an end that stays twice counts half, or the line would never let it go.
        again = before is not None and before.excess * now.excess > 0
        low, high = (now, high) if now.excess > 0 else (low, now)
        if low and high:
            if abs(high.x - low.x) < _JUMP:
                return math.exp(high.x), slope
            kept, other = (high, low) if now is low else (low, high)
            x = _crossing(other, _Point(kept.x, kept.excess / 2) if again else kept)
        else:
            x = now.x + now.excess / slope
        before = now
    raise Incompatible(
        f"no amount of noise up to a multiplier of {math.exp(_FARTHEST):.0e} brings epsilon to "
        f"{target}, so another part of the run costs more; raise epsilon or delta"
    )


class _Point(NamedTuple):
    x: float  # log multiplier
    excess: float  # log of price over the target


def _crossing(a: _Point, b: _Point) -> float:
    """Where the line through two points of opposite sign crosses zero."""
    return a.x + (b.x - a.x) * a.excess / (a.excess - b.excess)

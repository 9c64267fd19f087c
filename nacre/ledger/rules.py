# pyright: reportMissingTypeStubs=false
"""How charges under one grant add up: the only module of the ledger that prices anything.

A rule holds what each run has taken, in a currency of its own, and never lets it pass `allowance`:

| rule | currency | may hold | a settled run keeps |
|---|---|---|---|
| `rdp` | Rényi divergence at one order | any runs, chosen adaptively | its journalled steps |
| `zcdp` | rho | any runs, chosen adaptively | its journalled steps |
| `pld` | epsilon at the grant's delta | one run, fixed beforehand | all; nothing without a step |

Events carry their noise in units of the sensitivity under the adjacency of the charge (see
`differential_privacy.events`), so no rule asks for the adjacency.

*Raising a grant.* Only epsilon can be raised. `rdp`: the allowance grows by the difference, at the
order that is fixed already. `zcdp`: the allowance is that of the new epsilon. `pld`: a run that
was refused may fit now; a run that stands is still the only one. The guarantee after a raise is
that of the new epsilon, if what was released had no say in raising it: filters need a bound that
outputs do not move.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from nacre.core.errors import UnsupportedEvent
from nacre.core.strict import canonical
from nacre.differential_privacy.accounting.price import epsilon as price_at
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, zcdp_rho
from nacre.differential_privacy.events_json import from_json, to_json

if TYPE_CHECKING:
    from dp_accounting import DpEvent

RuleName = Literal["rdp", "zcdp", "pld"]


class Rule(Protocol):
    """What a grant does with charges, in the rule's currency.

    `taken` has one entry for each run that has steps to its charge.
    """

    kind: ClassVar[RuleName]

    @property
    def allowance(self) -> float:
        """What may be taken in all."""
        ...

    def price(self, event: DpEvent, steps: int) -> float:
        """What is recorded for a run of `steps` times `event`: of a step, or of the whole run."""
        ...

    def take(self, price: float, steps: int) -> float:
        """What `steps` steps of a run take."""
        ...

    def settle(self, steps: int, journalled: int) -> int:
        """How many of a run's steps stay charged once it ends."""
        ...

    def fits(self, taken: Sequence[float], asked: float) -> bool:
        """Whether `asked` may be taken after `taken`."""
        ...

    def left(self, taken: Sequence[float]) -> float:
        """What may still be taken after `taken`."""
        ...

    def epsilon(self, taken: Sequence[float]) -> float:
        """The epsilon, at the grant's delta, that `taken` amounts to."""
        ...


class _Filter(ABC):
    """What privacy filters share: steps add up one by one, and the unused ones come back."""

    @property
    @abstractmethod
    def allowance(self) -> float: ...

    def take(self, price: float, steps: int) -> float:
        return price * steps

    def settle(self, steps: int, journalled: int) -> int:
        return journalled

    def fits(self, taken: Sequence[float], asked: float) -> bool:
        return math.fsum([*taken, asked]) <= self.allowance

    def left(self, taken: Sequence[float]) -> float:
        return max(0.0, self.allowance - math.fsum(taken))


@dataclass(frozen=True)
class Rdp(_Filter):
    """The fully adaptive Rényi filter at one order.

    *Guarantee:* whatever runs an analyst chooses, each after seeing all earlier releases, and
    wherever each of them stops, all releases together are (epsilon, delta)-private.

    *Why.* Let rho_t be the Rényi divergence of step t at the order `order`. Runs, their number and
    their steps may depend on earlier outputs; the filter stops before a step that would bring the
    sum of rho_t above B. Then all that was released has divergence at most B at that order
    (section 3 of the source; the steps of interleaved runs are one adaptive sequence), and with
    B = epsilon - conversion(order, delta) that is (epsilon, delta). The theorem wants the order
    and B to be constants, chosen before the first output. They are: the order is that at which
    the account's *first* reservation takes the smallest share of B, a function of the grant and of
    that reservation's declared numbers (noise, rate, steps), and the reservation stands before the
    account's first release. It is recorded in that row and never chosen again, also where that
    reservation ends without a step. Choosing the best order afterwards, as one may for a
    composition that is fixed beforehand, would let outputs choose it.

    Counting a step that was journalled but never released, and a whole reservation until it is
    settled, only makes the sum larger.

    *Source:* Feldman & Zrnic 2021, "Individual privacy accounting via a Rényi filter", fully
    adaptive composition (section 3); conversion: Canonne, Kamath & Steinke 2020, proposition 12.
    """

    kind: ClassVar[RuleName] = "rdp"
    granted: float  # epsilon
    delta: float
    order: float

    @property
    def allowance(self) -> float:
        return self.granted - conversion(self.order, self.delta)

    def price(self, event: DpEvent, steps: int) -> float:
        return _curve(_text(event), (self.order,))[0]

    def epsilon(self, taken: Sequence[float]) -> float:
        return max(0.0, math.fsum(taken) + conversion(self.order, self.delta)) if taken else 0.0


@dataclass(frozen=True)
class Zcdp(_Filter):
    """The filter in rho: it holds at every order at once. Sampling does not amplify.

    *Guarantee:* as `Rdp`'s. A step of rho_t has divergence order * rho_t at every order, so while
    the sum of rho_t stays below rho the Rényi filter of each order holds with the same stops, and
    the whole is rho-zCDP.

    So the epsilon of a sum may be read off at whatever order makes it smallest, afterwards too: no
    output chooses that order, since one bound on rho holds at all of them. At epsilon = 1 and delta
    = 1e-5 a grant holds 47 % more rho than by Bun & Steinke's rho + 2 sqrt(rho log(1 / delta)).

    *Source:* Whitehouse, Ramdas, Rogers & Wu 2023, "Fully-adaptive composition in differential
    privacy" (filters for zCDP); Feldman & Zrnic 2021, order by order; conversion: Canonne, Kamath
    & Steinke 2020, proposition 12.
    """

    kind: ClassVar[RuleName] = "zcdp"
    granted: float  # epsilon
    delta: float

    @property
    def allowance(self) -> float:
        return _most_rho(self.granted, self.delta)

    def price(self, event: DpEvent, steps: int) -> float:
        return zcdp_rho(event)

    def epsilon(self, taken: Sequence[float]) -> float:
        return _least_epsilon(math.fsum(taken), self.delta) if taken else 0.0


@dataclass(frozen=True)
class Pld:
    """One run, fixed beforehand and priced as a whole by privacy loss distributions.

    *Guarantee:* the run is (epsilon, delta)-private. It holds for a number of steps that no output
    decides, so a run that stops early has the price of the whole, and a second run never fits. A
    reservation that ends before its first journalled step has released nothing and is as if it had
    never been.

    *Source:* Koskela et al. 2020, "Computing tight differential privacy guarantees using FFT";
    Doroshenko et al. 2022, "Connect the dots".
    """

    kind: ClassVar[RuleName] = "pld"
    granted: float  # epsilon
    delta: float

    @property
    def allowance(self) -> float:
        return self.granted

    def price(self, event: DpEvent, steps: int) -> float:
        return _whole(_text(event), steps, self.delta)

    def take(self, price: float, steps: int) -> float:
        return price

    def settle(self, steps: int, journalled: int) -> int:
        return steps if journalled else 0

    def fits(self, taken: Sequence[float], asked: float) -> bool:
        # Counted in runs, not in epsilon: runs that cost 0 at this delta still use up delta.
        return not taken and asked <= self.allowance

    def left(self, taken: Sequence[float]) -> float:
        return 0.0 if taken else self.allowance

    def epsilon(self, taken: Sequence[float]) -> float:
        return math.fsum(taken)


def build_rule(kind: RuleName, epsilon: float, delta: float, order: float | None) -> Rule:
    """The rule of a grant; `order` is None but for `rdp`."""
    match kind:
        case "rdp":
            if order is None:
                raise ValueError("order=None: an rdp rule has one order")
            return Rdp(epsilon, delta, order)
        case "zcdp":
            return Zcdp(epsilon, delta)
        case "pld":
            return Pld(epsilon, delta)


def first_order(
    kind: RuleName, epsilon: float, delta: float, event: DpEvent, steps: int
) -> float | None:
    """The order that a first reservation of `steps` times `event` fixes; None but for `rdp`.

    Raises `UnsupportedEvent` for an event that costs nothing: it would fix an order at random.
    """
    if kind != "rdp":
        return None
    curve = _curve(_text(event), ORDERS)
    if max(curve) == 0:
        raise UnsupportedEvent("an event that costs nothing cannot be reserved, and need not be")
    allowed = [Rdp(epsilon, delta, order).allowance for order in ORDERS]
    shares = [
        (price * steps / allowance, order)
        for price, allowance, order in zip(curve, allowed, ORDERS, strict=True)
        if allowance > 0
    ]
    return min(shares)[1]


def conversion(order: float, delta: float) -> float:
    """What a Rényi divergence at `order` falls short of epsilon at `delta`; may be below 0.

    Source: Canonne, Kamath & Steinke 2020, "The discrete Gaussian for differential privacy",
    proposition 12 (v4).
    """
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def smallest_epsilon(kind: RuleName, delta: float) -> float:
    """Grants at or below this epsilon allow nothing under this rule."""
    return max(0.0, min(conversion(a, delta) for a in ORDERS)) if kind == "rdp" else 0.0


def _text(event: DpEvent) -> str:
    return canonical(to_json(event))


# Every order gives a valid bound, so that a search that misses the best one is safe.


@lru_cache(maxsize=256)
def _most_rho(epsilon: float, delta: float) -> float:
    """The largest rho of which some order shows that it is (epsilon, delta)-private."""
    return -_smallest(lambda order: (conversion(order, delta) - epsilon) / order)


def _least_epsilon(rho: float, delta: float) -> float:
    """The smallest epsilon that any order shows of rho-zCDP."""
    return max(0.0, _smallest(lambda order: order * rho + conversion(order, delta)))


def _smallest(value: Callable[[float], float]) -> float:
    """The smallest value over orders above 1, by a grid of orders and golden sections inside it.

    Orders run to 1e13, where a rho of 1e-24 is converted best.
    """

    def at(place: float) -> float:
        return value(1 + math.exp(place))

    middle = min(range(-40, 121), key=lambda place: at(place / 4)) / 4
    low, high = middle - 0.25, middle + 0.25
    for _ in range(40):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if at(left) <= at(right) else (left, high)
    return at((low + high) / 2)


_GOLDEN = (math.sqrt(5) - 1) / 2


# Prices depend on their arguments alone and are asked for again inside transactions, where other
# processes wait: they are remembered by the event's text, because some events do not hash.


@lru_cache(maxsize=256)
def _curve(text: str, orders: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(rdp_curve(from_json(json.loads(text)), orders))


@lru_cache(maxsize=256)
def _whole(text: str, steps: int, delta: float) -> float:
    import dp_accounting

    event = dp_accounting.SelfComposedDpEvent(from_json(json.loads(text)), steps)
    # The adjacency was judged when the run was asked for (`Request.of`).
    return price_at(event, delta, "pld", None).epsilon

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""`DpEvent` <-> JSON, for a closed list of kinds: what a ledger can keep and price again later.

Every number survives exactly. An event that is not on the list is refused, on the way in and on
the way out; `NonPrivateDpEvent` is refused because no allowance covers it. The list only grows,
and no kind or key ever changes its meaning: a ledger outlives the version that wrote it.

| kind | keys |
|---|---|
| `nothing` | |
| `gaussian`, `laplace` | `multiplier` |
| `randomized_response` | `noise`, `buckets` |
| `zcdp` | `rho`, `xi` |
| `poisson` | `rate`, `event` |
| `fixed_size` | `batch`, `size`, `event` |
| `binned` | `bins`, `event` |
| `repeated` | `count`, `event` |
| `composed` | `events` |
| `either` | `events` |
| `approximate` | `epsilon`, `delta` |
| `search` | `mean`, `shape` (null for Poisson's law), `event` |
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, cast

from nacre.core.errors import UnsupportedEvent
from nacre.differential_privacy.selection import Trials

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

Json = dict[str, Any]


def to_json(event: DpEvent) -> Json:
    """The event as JSON. Raises `UnsupportedEvent` for a kind or number that has no place here."""
    import dp_accounting as dp

    from nacre.differential_privacy.event_types import (
        ApproximateDpEvent,
        BinnedDpEvent,
        EitherDpEvent,
    )

    match event:
        case dp.NoOpDpEvent():
            return {"kind": "nothing"}
        case dp.GaussianDpEvent(noise_multiplier=z):
            return {"kind": "gaussian", "multiplier": _positive(z, "multiplier")}
        case dp.LaplaceDpEvent(noise_multiplier=b):
            return {"kind": "laplace", "multiplier": _positive(b, "multiplier")}
        case dp.RandomizedResponseDpEvent(noise_parameter=p, num_buckets=k):
            noise = _share(p, "noise")
            return {"kind": "randomized_response", "noise": noise, "buckets": _count(k, 2)}
        case ApproximateDpEvent(epsilon=epsilon, delta=delta):
            chance = _share(delta, "delta")
            return {
                "kind": "approximate",
                "epsilon": _positive(epsilon, "epsilon"),
                "delta": chance,
            }
        case dp.ZCDpEvent(rho=rho, xi=xi):
            return {"kind": "zcdp", "rho": _positive(rho, "rho"), "xi": _number(xi, "xi")}
        case dp.PoissonSampledDpEvent(sampling_probability=q, event=inner):
            return {"kind": "poisson", "rate": _share(q, "rate"), "event": to_json(inner)}
        case dp.SampledWithoutReplacementDpEvent(source_dataset_size=n, sample_size=m, event=inner):
            return _fixed_size_json(inner, m, n)
        case BinnedDpEvent(bins=bins, event=inner):
            return {"kind": "binned", "bins": _count(bins, 2), "event": to_json(inner)}
        case dp.SelfComposedDpEvent(event=inner, count=n):
            return {"kind": "repeated", "count": _count(n, 0), "event": to_json(inner)}
        case dp.ComposedDpEvent(events=parts):
            return {"kind": "composed", "events": [to_json(part) for part in parts]}
        case EitherDpEvent(events=parts):
            _count(len(parts), 1)
            return {"kind": "either", "events": [to_json(part) for part in parts]}
        case dp.dp_event.RepeatAndSelectDpEvent(event=inner, mean=mean, shape=shape):
            return _search_json(inner, mean, shape)
        case _:
            raise UnsupportedEvent(
                f"a ledger cannot keep {type(event).__name__}, so it cannot be charged; use "
                "Gaussian noise on a draw that has a price, or a query of nacre release"
            )


def from_json(value: object) -> DpEvent:
    """What `to_json` wrote. Raises `UnsupportedEvent` for everything else."""
    if not isinstance(value, dict):
        raise _unknown(value)
    fields = cast(Json, value)
    kind = fields.get("kind")
    build = _BUILDERS.get(kind) if isinstance(kind, str) else None
    if build is None:
        raise _unknown(value)
    try:
        event = build(fields)
    except (KeyError, TypeError) as error:  # a key is missing, or `events` is no list
        raise _unknown(value) from error
    # One round trip checks every range, and that nothing was left unread.
    if to_json(event) != fields:
        raise _unknown(value)
    return event


def _nothing(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.NoOpDpEvent()


def _gaussian(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.GaussianDpEvent(fields["multiplier"])


def _laplace(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.LaplaceDpEvent(fields["multiplier"])


def _randomized_response(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.RandomizedResponseDpEvent(fields["noise"], fields["buckets"])


def _approximate(fields: Json) -> DpEvent:
    from nacre.differential_privacy.event_types import ApproximateDpEvent

    return ApproximateDpEvent(fields["epsilon"], fields["delta"])


def _zcdp(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.ZCDpEvent(fields["rho"], fields["xi"])


def _poisson(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.PoissonSampledDpEvent(fields["rate"], from_json(fields["event"]))


def _fixed_size_json(inner: DpEvent, batch: object, size: object) -> Json:
    drawn, declared = _count(batch, 1), _count(size, 1)
    if drawn > declared:
        raise UnsupportedEvent(f"an event with batch={drawn} of size={declared} has no meaning")
    return {"kind": "fixed_size", "batch": drawn, "size": declared, "event": to_json(inner)}


def _fixed_size(fields: Json) -> DpEvent:
    import dp_accounting as dp

    inner = from_json(fields["event"])
    return dp.SampledWithoutReplacementDpEvent(fields["size"], fields["batch"], inner)


def _binned(fields: Json) -> DpEvent:
    from nacre.differential_privacy.event_types import BinnedDpEvent

    return BinnedDpEvent(fields["bins"], from_json(fields["event"]))


def _repeated(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.SelfComposedDpEvent(from_json(fields["event"]), fields["count"])


def _composed(fields: Json) -> DpEvent:
    import dp_accounting as dp

    return dp.ComposedDpEvent([from_json(part) for part in fields["events"]])


def _either(fields: Json) -> DpEvent:
    from nacre.differential_privacy.event_types import EitherDpEvent

    return EitherDpEvent(tuple(from_json(part) for part in fields["events"]))


def _search_json(trial: DpEvent, mean: object, shape: object) -> Json:
    number = _positive(mean, "mean")
    spread = math.inf if shape == math.inf else _shape(shape)
    try:
        Trials(mean=number, shape=spread)
    except ValueError as error:
        raise UnsupportedEvent(f"a search has no price: {error}") from error
    shown = None if spread == math.inf else spread
    return {"kind": "search", "mean": number, "shape": shown, "event": to_json(trial)}


def _shape(value: object) -> float:
    """A finite number, below 0 too, as the nearest double."""
    sign = -1.0 if isinstance(value, int | float | Real) and value < 0 else 1.0
    return sign * _number(-cast(float, value) if sign < 0 else value, "shape")


def _search(fields: Json) -> DpEvent:
    import dp_accounting as dp

    shape = math.inf if fields["shape"] is None else fields["shape"]
    return dp.dp_event.RepeatAndSelectDpEvent(from_json(fields["event"]), fields["mean"], shape)


_BUILDERS: Mapping[str, Callable[[Json], DpEvent]] = {
    "nothing": _nothing,
    "gaussian": _gaussian,
    "laplace": _laplace,
    "randomized_response": _randomized_response,
    "zcdp": _zcdp,
    "poisson": _poisson,
    "fixed_size": _fixed_size,
    "binned": _binned,
    "repeated": _repeated,
    "approximate": _approximate,
    "composed": _composed,
    "either": _either,
    "search": _search,
}


def _unknown(value: object) -> UnsupportedEvent:
    return UnsupportedEvent(
        f"{value!r} is no event that this version of Nacre knows; use the version that wrote it"
    )


def _number(value: object, name: str) -> float:
    """A finite number of at least 0, as the nearest double."""
    plain = isinstance(value, int | float | Real) and not isinstance(value, bool)
    number = math.nan
    with contextlib.suppress(OverflowError):  # an integer beyond all doubles
        number = float(cast(float, value)) if plain else math.nan
    if not 0 <= number < math.inf:
        raise UnsupportedEvent(f"an event with {name}={value!r} has no price")
    return number


def _positive(value: object, name: str) -> float:
    number = _number(value, name)
    if not number > 0:
        raise UnsupportedEvent(f"an event with {name}={value!r} has no finite price")
    return number


def _share(value: object, name: str) -> float:
    number = _positive(value, name)
    if not number <= 1:
        raise UnsupportedEvent(f"an event with {name}={value!r} has no meaning above 1")
    return number


def _count(value: object, least: int) -> int:
    whole = isinstance(value, int | Integral) and not isinstance(value, bool)
    if not whole or cast(int, value) < least:
        raise UnsupportedEvent(f"an event with a count of {value!r} has no meaning")
    return int(cast(int, value))

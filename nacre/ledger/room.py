"""What a grant still has room for, in the number that people plan with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from nacre.core.errors import UnsupportedEvent
from nacre.core.types import Unit
from nacre.differential_privacy.price import epsilon as price_at
from nacre.ledger.accounts import Account, Request
from nacre.ledger.events_json import from_json

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_SCALES = (0.25, 1e4)  # of the last run's noise, between which the run is looked for
_HALVINGS = 24


def room(account: Account, unit: Unit) -> float | None:
    """The epsilon, by itself and at the grant's delta, of the largest run that fits and is the last
    run of this unit but for its amount of noise; None where that cannot be told.

    *Guarantee:* a run of the same draws and steps with at least that noise fits. Runs of another
    shape share the grant otherwise: the plan tells.
    """
    grant, rule = account.grants[unit], account.rule(unit)
    if rule is None:
        return grant.epsilon
    taken = account.taken(unit, rule)
    if rule.kind == "pld":
        return rule.left(taken)
    if not rule.left(taken):
        return 0.0
    runs = [run.request for run in account.runs.values() if run.request.unit == unit]
    if not runs:
        return None

    def fits(scale: float) -> bool:
        price = rule.price(_noised(runs[-1], scale), runs[-1].count)
        return rule.fits(taken, rule.take(price, runs[-1].count))

    try:
        return _largest(runs[-1], grant.delta, fits(_SCALES[1]) and not fits(_SCALES[0]), fits)
    except (UnsupportedEvent, OverflowError, ValueError):
        return None  # an event whose noise cannot be scaled


def _largest(asked: Request, delta: float, brackets: bool, fits: Any) -> float | None:
    if not brackets:
        return None
    low, high = (math.log(scale) for scale in _SCALES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(math.exp(middle)) else (middle, high)
    import dp_accounting

    whole = dp_accounting.SelfComposedDpEvent(_noised(asked, math.exp(high)), asked.count)
    return price_at(whole, delta, "rdp", None).epsilon


def _noised(asked: Request, scale: float) -> DpEvent:
    """The event of the run with `scale` times its noise."""
    return from_json(_scaled(json.loads(asked.step), scale))


def _scaled(value: object, scale: float) -> object:
    if isinstance(value, dict):
        fields = cast(Mapping[str, Any], value)
        if fields.get("kind") in ("zcdp", "randomized_response", "approximate"):
            raise UnsupportedEvent("its noise is not a multiplier")
        return {
            key: part * scale if key == "multiplier" else _scaled(part, scale)
            for key, part in fields.items()
        }
    if isinstance(value, list):
        return [_scaled(part, scale) for part in cast(Sequence[object], value)]
    return value

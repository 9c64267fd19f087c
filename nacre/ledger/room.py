"""What a grant still has room for, in the number that people plan with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from nacre.core.errors import UnsupportedEvent
from nacre.core.types import Unit
from nacre.differential_privacy.accounting.price import epsilon as price_at
from nacre.differential_privacy.events_json import from_json
from nacre.differential_privacy.request import Request
from nacre.ledger.accounts import Account
from nacre.ledger.rules import Rule

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_SCALES = (0.25, 1e4)  # of the last run's noise, between which the run is looked for
_HALVINGS = 24


def room(account: Account, unit: Unit) -> float | None:
    """The epsilon of the largest run that fits, by itself and at the grant's delta.

    It is the last run of this unit whose noise is a multiplier, but for that multiplier; None
    where there is no such run.

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
    for run in reversed(account.runs.values()):
        found = (
            _largest(run.request, grant.delta, rule, taken) if run.request.unit == unit else None
        )
        if found is not None:
            return found
    return None


def _largest(asked: Request, delta: float, rule: Rule, taken: Sequence[float]) -> float | None:
    """The epsilon of the run that is `asked` with the least noise that fits; None where its noise
    cannot be scaled."""

    def fits(scale: float) -> bool:
        price = rule.price(_noised(asked, scale), asked.count)
        return rule.fits(taken, rule.take(price, asked.count))

    try:
        low, high = (math.log(scale) for scale in _SCALES)
        if fits(_SCALES[0]) or not fits(_SCALES[1]):
            return None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(math.exp(middle)) else (middle, high)
        import dp_accounting

        whole = dp_accounting.SelfComposedDpEvent(_noised(asked, math.exp(high)), asked.count)
        return price_at(whole, delta, "rdp", None).epsilon
    except UnsupportedEvent:
        return None


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

"""What the tests of private numbers share: OpenDP's search for a scale, once for each map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import opendp.prelude as dp
import pytest

_search = dp.binary_search_param
_found: dict[tuple[Any, ...], Any] = {}


@pytest.fixture
def searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search builds seventy measurements, which is nearly all that an answer takes. What it
    finds follows from the loss at one scale, so a hundred answers to a query search once."""

    def once(make: Callable[[float], Any], reach: int, budget: float) -> float:
        one = make(1.0)
        key = (str(one.output_measure), reach, budget, one.map(reach))
        if key not in _found:
            _found[key] = _search(make, reach, budget)
        return _found[key]

    monkeypatch.setattr(dp, "binary_search_param", once)

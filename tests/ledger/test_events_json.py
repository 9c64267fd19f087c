"""Events survive exactly, or are refused."""

from __future__ import annotations

import json
from typing import Any

import dp_accounting as dp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import UnsupportedEvent
from nacre.differential_privacy.event_types import ApproximateDpEvent, BinnedDpEvent, EitherDpEvent
from nacre.ledger.chain import canonical
from nacre.ledger.events_json import from_json, to_json

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
shares = st.floats(min_value=0, exclude_min=True, max_value=1)

plain = st.one_of(
    st.just(dp.NoOpDpEvent()),
    st.builds(dp.GaussianDpEvent, positive),
    st.builds(dp.LaplaceDpEvent, positive),
    st.builds(dp.RandomizedResponseDpEvent, shares, st.integers(2, 9)),
    st.builds(ApproximateDpEvent, positive, shares),
    st.builds(dp.ZCDpEvent, positive, st.floats(min_value=0, max_value=9)),
)
events = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds(dp.PoissonSampledDpEvent, shares, inner),
        st.builds(
            dp.SampledWithoutReplacementDpEvent, st.integers(9, 10**9), st.integers(1, 9), inner
        ),
        st.builds(dp.SelfComposedDpEvent, inner, st.integers(0, 10**6)),
        st.builds(BinnedDpEvent, st.integers(2, 10**6), inner),
        st.builds(EitherDpEvent, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(dp.ComposedDpEvent, st.lists(inner, max_size=3)),
        st.builds(
            dp.dp_event.RepeatAndSelectDpEvent,
            inner,
            st.floats(1.5, 50),
            st.one_of(st.floats(-0.4, 9), st.just(float("inf"))),
        ),
    ),
    max_leaves=4,
)


@given(events)
def test_events_survive_exactly(event: dp.DpEvent) -> None:
    text = canonical(to_json(event))
    assert from_json(json.loads(text)) == event
    assert canonical(to_json(from_json(json.loads(text)))) == text


@pytest.mark.parametrize(
    "event",
    [
        dp.NonPrivateDpEvent(),
        dp.UnsupportedDpEvent(),
        dp.SelfComposedDpEvent(dp.NonPrivateDpEvent(), 2),
        dp.GaussianDpEvent(0.0),
        dp.GaussianDpEvent(float("inf")),
        dp.GaussianDpEvent(float("nan")),
        dp.GaussianDpEvent("1"),  # type: ignore[arg-type]
        dp.GaussianDpEvent(True),
        dp.GaussianDpEvent(10**400),
        dp.LaplaceDpEvent(-1.0),
        dp.PoissonSampledDpEvent(1.5, dp.GaussianDpEvent(1.0)),
        dp.PoissonSampledDpEvent(0.0, dp.GaussianDpEvent(1.0)),
        BinnedDpEvent(1, dp.GaussianDpEvent(1.0)),
        EitherDpEvent(()),
        ApproximateDpEvent(0.0, 1e-6),
        ApproximateDpEvent(1.0, 0.0),
        EitherDpEvent((dp.GaussianDpEvent(1.0), dp.NonPrivateDpEvent())),
        dp.SampledWithoutReplacementDpEvent(5, 6, dp.GaussianDpEvent(1.0)),
        dp.SampledWithoutReplacementDpEvent(5, 0, dp.GaussianDpEvent(1.0)),
        dp.SampledWithoutReplacementDpEvent(5, 2.0, dp.GaussianDpEvent(1.0)),  # type: ignore[arg-type]
        dp.SelfComposedDpEvent(dp.GaussianDpEvent(1.0), -1),
        dp.SelfComposedDpEvent(dp.GaussianDpEvent(1.0), 1.5),  # type: ignore[arg-type]
        dp.RandomizedResponseDpEvent(0.5, 1),
        dp.ZCDpEvent(0.1, -1.0),
        dp.dp_event.RepeatAndSelectDpEvent(dp.GaussianDpEvent(1.0), 0.5, 1.0),
        dp.dp_event.RepeatAndSelectDpEvent(dp.GaussianDpEvent(1.0), 5.0, -1.0),
        dp.dp_event.RepeatAndSelectDpEvent(dp.GaussianDpEvent(1.0), 5.0, "1"),  # type: ignore[arg-type]
        dp.dp_event.RepeatAndSelectDpEvent(dp.NonPrivateDpEvent(), 5.0, 1.0),
        object(),
    ],
)
def test_other_events_and_numbers_are_refused(event: Any) -> None:
    with pytest.raises(UnsupportedEvent):
        to_json(event)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"kind": ["gaussian"]},
        {"kind": "tree", "multiplier": 1.0},
        {"kind": "gaussian"},
        {"kind": "gaussian", "multiplier": 1.0, "more": 2},
        {"kind": "gaussian", "multiplier": [1.0]},
        {"kind": "gaussian", "multiplier": True},
        {"kind": "repeated", "count": True, "event": {"kind": "nothing"}},
        {"kind": "composed", "events": 3},
        {"kind": "poisson", "rate": 0.5, "event": "gaussian"},
    ],
)
def test_other_json_is_refused(value: object) -> None:
    with pytest.raises(UnsupportedEvent):
        from_json(value)


def test_numbers_of_other_types_become_plain_ones() -> None:
    import numpy as np

    event = dp.SelfComposedDpEvent(dp.GaussianDpEvent(np.float32(0.5)), np.int64(3))
    assert canonical(to_json(event)) == (
        '{"count":3,"event":{"kind":"gaussian","multiplier":0.5},"kind":"repeated"}'
    )

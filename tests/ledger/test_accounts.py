"""Grants, and the price of a charge in every unit."""

from __future__ import annotations

from typing import Any

import dp_accounting as dp
import pytest

from nacre.core.errors import UnsupportedEvent
from nacre.core.types import Adjacency, Unit
from nacre.ledger import Request
from nacre.ledger.accounts import Grant, posted_event

from .conftest import SAMPLED

FULL = dp.GaussianDpEvent(3.0)


def asked(unit: Unit, rows: int | None = None, adjacency: Adjacency = "add_or_remove") -> Request:
    return Request.of("run", FULL, steps=10, unit=unit, adjacency=adjacency, rows_per_unit=rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0 must be > 0"),
        ({"epsilon": float("inf")}, "epsilon=inf"),
        ({"delta": 1.0}, "delta=1.0 must lie between 0 and 1"),
        ({"unit": "row"}, "unit='row' must be one of example, group, client"),
        ({"rule": "basic"}, "rule='basic'"),
        ({"adjacency": "other"}, "adjacency='other'"),
        ({"epsilon": 1e-6, "delta": 1e-300}, "must be > 0.00"),
    ],
)
def test_grants_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"unit": "example", "epsilon": 1.0, "delta": 1e-5} | change
    with pytest.raises(ValueError, match=message):
        Grant(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": ""}, "run=''"),
        ({"steps": 0}, "steps=0"),
        ({"rows_per_unit": 0}, "rows_per_unit=0"),
        ({"unit": "row"}, "unit='row'"),
    ],
)
def test_requests_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "run": "a", "event": FULL, "steps": 1, "unit": "example",
        "adjacency": "add_or_remove", "rows_per_unit": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Request.of(**(values | change))


def test_a_poisson_draw_under_replace_one_has_no_price() -> None:
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        Request.of("run", SAMPLED, unit="example", adjacency="replace_one")


def test_the_unit_of_the_charge_pays_the_price_of_the_event() -> None:
    assert posted_event(asked("group", 5), "group") == FULL


@pytest.mark.parametrize("adjacency", ["add_or_remove", "zero_out"])
def test_a_finer_unit_pays_for_the_group_that_goes_and_the_one_that_comes(
    adjacency: Adjacency,
) -> None:
    assert posted_event(asked("group", 5, adjacency), "example") == dp.GaussianDpEvent(1.5)
    assert posted_event(asked("client", None, adjacency), "group") == dp.GaussianDpEvent(1.5)


def test_a_finer_unit_pays_the_same_under_replace_one() -> None:
    assert posted_event(asked("group", 5, "replace_one"), "example") == FULL


def test_two_changes_bound_a_clipped_groups_sum_and_one_does_not() -> None:
    # Why the same price would be too low: a group whose rows cancel out but for one. Without that
    # row its clipped sum turns around, and moves by twice the bound.
    import torch

    rows = torch.tensor([[2.0], [-1.0]])
    clip = lambda total: total * min(1.0, 1.0 / float(total.norm()))  # noqa: E731
    moved = float((clip(rows.sum(0)) - clip(rows[1:].sum(0))).norm())
    assert moved == pytest.approx(2.0)


def test_a_coarser_unit_pays_for_its_declared_rows_or_without_bound() -> None:
    assert posted_event(asked("example", 6), "group") == dp.GaussianDpEvent(0.5)
    assert posted_event(asked("example"), "group") is None
    assert posted_event(asked("example", 6), "client") is None
    assert posted_event(asked("group", 6), "client") is None

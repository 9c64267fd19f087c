"""Reservations whose event covers several steps: what is charged, journalled, and given back."""

from __future__ import annotations

from pathlib import Path

import dp_accounting as dp
import pytest

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.differential_privacy.accounting.price import epsilon
from nacre.ledger import PLANNED, Ledger, Request
from nacre.ledger.rules import RuleName

TURN = dp.PoissonSampledDpEvent(0.2, dp.GaussianDpEvent(2.0))
DELTA = 1e-5


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    return tmp_path / "privacy.db"


def left(path: Path, rule: RuleName, steps: int, span: int, taken: int) -> tuple[float, float]:
    """(share reserved before, share spent after) of a run that ends after `taken` steps."""
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("clinic", "example", 8.0, DELTA, rule)
        event = TURN if rule != "zcdp" else TURN.event
        charge = ledger.reserve(
            "clinic",
            Request.of(
                "one", event, steps=steps, unit="example", adjacency="add_or_remove", span=span
            ),
        )
        reserved = ledger.summary("clinic").grants[0].reserved
        for step in range(1, taken + 1):
            charge.journal(step)
        charge.settle()
        (grant,) = ledger.summary("clinic").grants
        assert ledger.verify() == []
    return reserved, grant.spent


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["rdp", "zcdp"])
@pytest.mark.parametrize(("taken", "turns"), [(0, 0), (1, 1), (4, 1), (5, 2), (10, 3)])
def test_the_first_step_of_a_span_pays_for_all_of_it(
    tmp_path: Path, rule: RuleName, taken: int, turns: int
) -> None:
    spans = left(tmp_path / "a.db", rule, 10, 4, taken)
    steps = left(tmp_path / "b.db", rule, 3, 1, turns)
    assert spans == pytest.approx(steps)
    assert (spans[1] == 0) == (turns == 0)


@pytest.mark.slow
def test_a_whole_run_is_priced_by_its_turns(clinic: Path) -> None:
    left(clinic, "pld", 10, 4, 10)
    with Ledger.open(clinic) as ledger:
        (grant,) = ledger.summary("clinic").grants
        (run,) = ledger.summary("clinic").runs
    exact = epsilon(dp.SelfComposedDpEvent(TURN, 3), DELTA, "pld").epsilon
    assert grant.epsilon_spent == pytest.approx(exact)
    assert (run.steps, run.journalled) == (10, 10)


def test_a_span_is_part_of_what_was_reserved_and_survives_the_file(clinic: Path) -> None:
    with Ledger.open(clinic, create=True) as ledger:
        ledger.grant("clinic", "example", 8.0, DELTA)
        ledger.reserve(
            "clinic",
            Request.of("one", TURN, steps=10, unit="example", adjacency="add_or_remove", span=4),
        )
    with Ledger.open(clinic) as ledger:
        again = ledger.reserve(
            "clinic",
            Request.of("one", TURN, steps=10, unit="example", adjacency="add_or_remove", span=4),
        )
        assert (again.request.span, again.request.count, again.steps) == (4, 3, 10)
        with pytest.raises(LedgerError, match="other numbers"):
            ledger.reserve(
                "clinic",
                Request.of("one", TURN, steps=10, unit="example", adjacency="add_or_remove"),
            )
        assert "every 4 of them together are" in str(ledger.extract(["clinic"]))


def test_a_span_of_one_is_written_as_before() -> None:
    content = Request.of(
        "one", TURN, steps=10, unit="example", adjacency="add_or_remove"
    ).to_content()
    assert "span" not in content
    content = Request.of(
        "one", TURN, steps=10, unit="example", adjacency="add_or_remove", span=4
    ).to_content()
    assert content["span"] == 4


def test_more_turns_than_the_grant_covers_are_refused(clinic: Path) -> None:
    with Ledger.open(clinic, create=True) as ledger:
        ledger.grant("clinic", "example", 1.0, DELTA)
        ledger.preview(
            "clinic",
            Request.of(PLANNED, TURN, steps=10, unit="example", adjacency="add_or_remove", span=5),
        )
        with pytest.raises(BudgetExceeded, match="fewer steps"):
            ledger.reserve(
                "clinic",
                Request.of(
                    "one", TURN, steps=400, unit="example", adjacency="add_or_remove", span=4
                ),
            )


def test_spans_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="span=0"):
        Request.of("one", TURN, steps=10, unit="example", adjacency="add_or_remove", span=0)

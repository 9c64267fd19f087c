"""Grants, reservations, journals and settlements."""

from __future__ import annotations

from dataclasses import replace

import dp_accounting as dp
import pytest

from nacre.core.errors import BudgetExceeded, LedgerError, UnsupportedEvent
from nacre.core.types import Adjacency
from nacre.data.sketches.sketch import Sketch
from nacre.differential_privacy.leaves import pure_event
from nacre.ledger import PLANNED, Charge, Grant, Ledger, Request, preview_new
from nacre.ledger.rules import RuleName, Zcdp

from .conftest import GAUSSIAN, SAMPLED

RULES: list[RuleName] = ["rdp", "zcdp", "pld"]
A: Adjacency = "add_or_remove"


def granted(ledger: Ledger, rule: RuleName = "rdp", epsilon: float = 8.0) -> Ledger:
    ledger.grant("clinic", "example", epsilon, 1e-5, rule)
    return ledger


def reserve(ledger: Ledger, run: str = "one", steps: int = 8) -> Charge:
    return ledger.reserve("clinic", rows(run, steps))


def rows(run: str = PLANNED, steps: int = 8, event: dp.DpEvent = GAUSSIAN) -> Request:
    return Request.of(run, event, steps=steps, unit="example", adjacency=A)


def people(run: str, column: str = "") -> Request:
    return Request.of(run, GAUSSIAN, unit="group", adjacency=A, column=column)


# -- grants --------------------------------------------------------------------------------------


def test_a_recipe_grants_once_and_never_changes_what_stands(ledger: Ledger) -> None:
    assert ledger.grant_if_new("clinic", "example", 8, 1e-5)
    assert not ledger.grant_if_new("clinic", "example", 8.0, 1e-5)
    with pytest.raises(LedgerError, match=r"was granted epsilon=8, .*and not epsilon=9"):
        ledger.grant_if_new("clinic", "example", 9, 1e-5)
    assert ledger.head().number == 1


def test_the_owner_may_raise_epsilon_and_nothing_else(ledger: Ledger) -> None:
    granted(ledger)
    reserve(ledger)
    order = ledger.summary("clinic").grants[0].order
    assert ledger.grant("clinic", "example", 9.0, 1e-5)
    assert not ledger.grant("clinic", "example", 9.0, 1e-5)
    after = ledger.summary("clinic").grants[0]
    assert (after.epsilon, after.order) == (9.0, order)
    for changed in ((8.0, 1e-5, "rdp"), (10.0, 1e-6, "rdp"), (10.0, 1e-5, "zcdp")):
        with pytest.raises(LedgerError, match="was granted"):
            ledger.grant("clinic", "example", changed[0], changed[1], changed[2])  # type: ignore[arg-type]
    assert ledger.verify() == []


def test_grants_of_an_account_share_an_adjacency_and_come_before_runs(ledger: Ledger) -> None:
    granted(ledger)
    with pytest.raises(LedgerError, match="all grants of an account share one"):
        ledger.grant("clinic", "group", 8, 1e-5, adjacency="replace_one")
    reserve(ledger)
    with pytest.raises(LedgerError, match="grant all units before the first run"):
        ledger.grant("clinic", "group", 8, 1e-5)


def test_grants_that_make_no_sense_are_refused_in_a_sentence(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no such grant can be made: epsilon=-1"):
        ledger.grant("clinic", "example", -1, 1e-5)
    with pytest.raises(LedgerError, match="needs a name"):
        ledger.grant("", "example", 1, 1e-5)
    assert ledger.head().number == 0


# -- reservations --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_charged_whole_before_its_first_step(ledger: Ledger, rule: RuleName) -> None:
    reserve(granted(ledger, rule))
    grant = ledger.summary("clinic").grants[0]
    assert grant.spent == 0
    assert 0 < grant.reserved < 1


@pytest.mark.parametrize("rule", RULES)
def test_the_same_run_again_is_the_same_charge(ledger: Ledger, rule: RuleName) -> None:
    first = reserve(granted(ledger, rule))
    first.journal(2)
    again = reserve(ledger)
    assert (again.journalled, again.request) == (2, first.request)
    assert ledger.head().number == 3


@pytest.mark.parametrize("change", [{"steps": 9}, {"rows_per_unit": 4}])
def test_the_same_name_with_other_numbers_is_refused(
    ledger: Ledger, change: dict[str, int]
) -> None:
    reserve(granted(ledger))
    with pytest.raises(LedgerError, match="reserved in account 'clinic' with other numbers"):
        asked = Request.of("one", GAUSSIAN, unit="example", adjacency=A, **({"steps": 8} | change))
        ledger.reserve("clinic", asked)
    with pytest.raises(LedgerError, match="other numbers"):
        ledger.reserve("clinic", rows("one", 8, SAMPLED))


@pytest.mark.parametrize("rule", RULES)
def test_what_does_not_fit_is_refused_and_writes_nothing(ledger: Ledger, rule: RuleName) -> None:
    granted(ledger, rule)
    with pytest.raises(BudgetExceeded) as refusal:
        reserve(ledger, steps=10_000)
    for part in ("'one'", "'clinic'", "epsilon=8", "100.0% of it is left", "nacre ledger grant"):
        assert part in str(refusal.value)
    assert ledger.head().number == 1


def test_a_refusal_says_why_so_little_is_left(ledger: Ledger) -> None:
    reserve(granted(ledger))
    with pytest.raises(BudgetExceeded, match=r"is left \(open runs hold \d.*% until they end\)"):
        reserve(ledger, "two", steps=10_000)


def test_a_rule_that_counts_no_sampling_says_so(ledger: Ledger) -> None:
    granted(ledger, "zcdp")
    with pytest.raises(BudgetExceeded, match="zcdp counts no sampling, so take an account that"):
        ledger.reserve("clinic", rows("one", 10_000, SAMPLED))
    with pytest.raises(BudgetExceeded) as refusal:
        reserve(ledger, steps=10_000)
    assert "sampling" not in str(refusal.value)


def test_a_grant_that_stands_says_what_can_change(ledger: Ledger) -> None:
    granted(ledger, "zcdp")
    with pytest.raises(LedgerError, match="only epsilon can change, and only grow, by its owner"):
        granted(ledger, "rdp")


def test_an_event_without_a_price_is_named_in_words(ledger: Ledger) -> None:
    granted(ledger, "pld")
    with pytest.raises(UnsupportedEvent, match=r"cannot price a sum with rho 0\.5 .*`delta: 0`"):
        ledger.reserve("clinic", Request.of("one", dp.ZCDpEvent(0.5), unit="example", adjacency=A))


def test_filters_take_runs_until_nothing_is_left(ledger: Ledger) -> None:
    granted(ledger, "rdp")
    taken = 0
    with pytest.raises(BudgetExceeded):
        for number in range(100):
            reserve(ledger, f"run {number}", 1)
            taken += 1
    assert taken > 1
    assert ledger.summary("clinic").grants[0].left < 1 / taken


def test_a_pld_grant_is_for_one_run(ledger: Ledger) -> None:
    reserve(granted(ledger, "pld"))
    with pytest.raises(BudgetExceeded, match="for one run fixed beforehand"):
        reserve(ledger, "two", 1)


def test_a_pld_grant_takes_several_queries_as_one_reservation(ledger: Ledger) -> None:
    """Nothing is released before the one journal entry, and all of it is paid by it."""
    granted(ledger, "pld", 3.0)
    queries = dp.ComposedDpEvent([pure_event(0.5), pure_event(0.25), dp.GaussianDpEvent(4.0)])
    charge = ledger.reserve(
        "clinic", Request.of("file of queries", queries, unit="example", adjacency=A)
    )
    charge.journal(1)
    charge.settle()
    spent = ledger.summary("clinic").grants[0]
    assert 0.5 < spent.epsilon_spent < 3.0 and spent.left == 0
    assert "epsilon 0.5" in ledger.summary("clinic").runs[0].event
    assert ledger.verify() == []


def test_a_pld_run_without_a_step_is_as_if_it_had_never_been(ledger: Ledger) -> None:
    reserve(granted(ledger, "pld")).settle()
    assert reserve(ledger, "two").steps == 8


def test_the_order_stays_with_the_first_reservation_even_if_it_ends_without_a_step(
    ledger: Ledger,
) -> None:
    granted(ledger)
    reserve(ledger, "first", 1).settle()
    order = ledger.summary("clinic").grants[0].order
    later = ledger.preview("clinic", rows(PLANNED, 300, SAMPLED))
    assert later.order == order
    fresh = Grant(unit="example", epsilon=8.0, delta=1e-5)
    assert preview_new("x", fresh, rows(PLANNED, 300, SAMPLED)).order != order


def test_an_account_without_a_grant_pays_for_nothing(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded, match="account 'clinic' has no grant"):
        reserve(ledger)


def test_one_promise_is_not_charged_to_another(ledger: Ledger) -> None:
    granted(ledger)
    with pytest.raises(LedgerError, match="has adjacency=zero_out"):
        ledger.reserve(
            "clinic", Request.of("one", GAUSSIAN, steps=8, unit="example", adjacency="zero_out")
        )


def test_a_request_that_was_written_by_hand_is_refused_where_its_event_has_no_price(
    ledger: Ledger,
) -> None:
    """`Request.of` refuses it; the ledger does not take its word for that."""
    ledger.grant("clinic", "example", 8.0, 1e-5, adjacency="replace_one")
    sampled = rows("one", 1, SAMPLED)
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        ledger.reserve("clinic", replace(sampled, adjacency="replace_one"))
    assert ledger.head().number == 1


def test_events_without_a_price_are_refused(ledger: Ledger) -> None:
    granted(ledger)
    for event in (dp.NonPrivateDpEvent(), dp.LaplaceDpEvent(1.0), dp.NoOpDpEvent()):
        with pytest.raises(UnsupportedEvent):
            ledger.reserve("clinic", Request.of("one", event, unit="example", adjacency=A))
    assert ledger.head().number == 1


# -- units ---------------------------------------------------------------------------------------


def test_a_charge_is_posted_to_every_unit(ledger: Ledger) -> None:
    ledger.grant("clinic", "example", 50, 1e-5, "zcdp")
    ledger.grant("clinic", "group", 100, 1e-5, "zcdp")
    ledger.reserve(
        "clinic",
        Request.of("rows", GAUSSIAN, steps=4, unit="example", adjacency=A, rows_per_unit=3),
    )
    ledger.reserve("clinic", Request.of("people", GAUSSIAN, steps=4, unit="group", adjacency=A))
    rows, people = ledger.summary("clinic").grants
    rho = 4 / (2 * 2.0**2)
    assert rows.reserved * Zcdp(50, 1e-5).allowance == pytest.approx(rho * (1 + 2**2))
    assert people.reserved * Zcdp(100, 1e-5).allowance == pytest.approx(rho * (3**2 + 1))
    assert ledger.verify() == []


def test_a_coarser_grant_is_infinitely_dear_without_declared_rows(ledger: Ledger) -> None:
    granted(ledger)
    ledger.grant("clinic", "group", 100, 1e-5)
    with pytest.raises(BudgetExceeded, match="declare `rows_per_unit`"):
        reserve(ledger)
    assert ledger.preview("clinic", rows()).share_after == float("inf")
    ledger.grant("other", "client", 100, 1e-5)
    with pytest.raises(BudgetExceeded, match="unit: client"):
        ledger.reserve(
            "other",
            Request.of("one", GAUSSIAN, steps=8, unit="example", adjacency=A, rows_per_unit=3),
        )


# -- previews ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_preview_says_what_a_reservation_takes_and_writes_nothing(
    ledger: Ledger, rule: RuleName
) -> None:
    granted(ledger, rule)
    before = ledger.preview("clinic", rows())
    assert ledger.head().number == 1
    charge = reserve(ledger)
    grant = ledger.summary("clinic").grants[0]
    assert before.fits and before.refusal == "" and not before.known
    assert (before.share_after, before.order) == (pytest.approx(grant.reserved), grant.order)
    assert before.rule == rule
    again = ledger.preview("clinic", rows("one"))
    assert (again.known, again.fits, again.share) == (True, True, pytest.approx(before.share))
    charge.settle()
    assert ledger.preview("clinic", rows("one")).share == 0


def test_a_preview_takes_a_recipes_grant_as_made_where_it_would_be_new(ledger: Ledger) -> None:
    grant = Grant(unit="example", epsilon=8.0, delta=1e-5)
    new = ledger.preview("clinic", rows(), grant=grant)
    assert new == preview_new("clinic", grant, rows())
    granted(ledger)
    assert ledger.preview("clinic", rows(), grant=grant) == new
    with pytest.raises(LedgerError, match="was granted"):
        wider = Grant(unit="example", epsilon=9.0, delta=1e-5)
        ledger.preview("clinic", rows(), grant=wider)


# -- journal and settlement ----------------------------------------------------------------------


def test_a_journal_only_moves_forward_and_not_beyond_what_is_reserved(ledger: Ledger) -> None:
    charge = reserve(granted(ledger))
    charge.journal(3)
    charge.journal(3)
    charge.journal(1)
    assert (charge.journalled, ledger.head().number) == (3, 3)
    with pytest.raises(LedgerError, match="reserved 8 steps, so step 9 may not be taken"):
        charge.journal(9)


def test_accounts_are_journalled_together_in_order_and_by_one_commit(ledger: Ledger) -> None:
    """A ledger that is looked at has all of them or none, whichever of them was asked."""
    ledger.grant("clinic/east", "example", 8.0, 1e-5)
    charges = [reserve(granted(ledger)), ledger.reserve("clinic/east", rows("one"))]
    ledger.journal_together([(charges[1], 4), (charges[0], 2)], "a")
    before = ledger.head().number
    ledger.journal_together([(charges[1], 4), (charges[0], 2)], "a")
    assert ledger.head().number == before  # a step that is taken again costs nothing more
    assert [charge.journalled for charge in charges] == [2, 4]
    entries = ledger.extract(["clinic", "clinic/east"])["accounts"]
    last = {account["account"]: account["entries"][-1]["index"] for account in entries}
    assert last["clinic"] == last["clinic/east"] + 1 == before
    with pytest.raises(LedgerError, match="was taken before"):
        ledger.journal_together([(charges[1], 6), (charges[0], 2)], "b")
    with pytest.raises(LedgerError, match="reserved 8 steps, so step 9 may not be taken"):
        ledger.journal_together([(charges[1], 9), (charges[0], 3)], "c")


def test_a_step_may_be_computed_while_it_is_journalled(ledger: Ledger) -> None:
    charge = reserve(granted(ledger))
    for step in (1, 2):
        with charge.journalling(step, "a"):
            computed = step
        with Ledger.open(ledger.place) as other:  # once the block has ended it is durable
            assert other.run("clinic", "one").journalled == computed == step
    with pytest.raises(LedgerError, match="was taken before"), charge.journalling(2, "b"):
        computed = 3
    with pytest.raises(ZeroDivisionError), charge.journalling(3):
        computed = 1 // 0
    assert (computed, charge.journalled) == (3, 3)


@pytest.mark.parametrize("end", ["settled", "abandoned"])
def test_nothing_follows_the_end_of_a_run(ledger: Ledger, end: str) -> None:
    charge = reserve(granted(ledger))
    charge.journal(1)
    getattr(charge, {"settled": "settle", "abandoned": "abandon"}[end])()
    charge.settle()
    assert charge.end == end
    with pytest.raises(LedgerError, match=f"was {end}, so step 1 may not"):
        charge.journal(1)
    assert reserve(ledger).end == end
    assert ledger.head().number == 4


def test_a_known_step_is_answered_after_the_end_by_its_digest_alone(ledger: Ledger) -> None:
    charge = reserve(granted(ledger))
    charge.journal(1, "aa")
    charge.settle()
    charge.journal(1, "aa")
    with pytest.raises(LedgerError, match="from another state"):
        charge.journal(1, "bb")
    with pytest.raises(LedgerError, match="was settled, so step 2 may not"):
        charge.journal(2, "cc")
    assert ledger.head().number == 4


@pytest.mark.parametrize(
    ("rule", "journalled", "kept"),
    [("rdp", 2, 0.25), ("zcdp", 2, 0.25), ("rdp", 0, 0.0), ("pld", 1, 1.0), ("pld", 0, 0.0)],
)
def test_what_a_settlement_gives_back(
    ledger: Ledger, rule: RuleName, journalled: int, kept: float
) -> None:
    charge = reserve(granted(ledger, rule))
    whole = ledger.summary("clinic").grants[0].reserved
    if journalled:
        charge.journal(journalled)
    charge.settle()
    grant = ledger.summary("clinic").grants[0]
    assert grant.spent == pytest.approx(kept * whole)
    assert grant.reserved == 0


def test_a_run_that_nobody_reserved_cannot_be_journalled(ledger: Ledger) -> None:
    granted(ledger)
    for act in (lambda: ledger.journal("clinic", "x", 1), lambda: ledger.abandon("clinic", "x")):
        with pytest.raises(LedgerError, match="has no run 'x'"):
            act()


def test_two_openings_see_each_others_entries(ledger: Ledger) -> None:
    charge = reserve(granted(ledger))
    with Ledger.open(ledger.place) as other:
        reserve(other).journal(4)
        assert charge.journalled == 4
        charge.settle()
        assert reserve(other).end == "settled"


def test_a_charge_names_its_run(ledger: Ledger) -> None:
    charge = reserve(granted(ledger))
    assert (charge.account, charge.run, charge.steps) == ("clinic", "one", 8)
    with pytest.raises(LedgerError, match="has no account 'ward'; it has clinic"):
        ledger.run("ward", "one")


def test_the_same_rows_have_one_budget(ledger: Ledger) -> None:
    ours, theirs = (Sketch(i, frozenset(), frozenset(), frozenset(), 0, 1, 1) for i in (1, 2))
    ledger.record_rows({"clinic": ours})
    ledger.record_rows({"clinic": ours})
    ledger.record_rows({"clinic": theirs})
    for name in ("clinic-again", "clinic/east", "clinic/"):
        with pytest.raises(LedgerError, match="charged to account 'clinic' already"):
            ledger.record_rows({"ward": replace(ours, table=3), name: theirs})
    assert ledger.accounts() == ("clinic",), "all or none"
    assert ledger.head().number == 3, "an entry a run, whether the rows were new or not"
    assert ledger.verify() == []


def test_an_account_counts_units_by_one_column(ledger: Ledger) -> None:
    """A thousand visits of one patient would each have the epsilon of a patient."""
    ledger.grant("visits", "group", 8.0, 1e-5, column="patient")
    with pytest.raises(
        LedgerError, match=r"by column 'visit', but .* counts groups by column 'pat"
    ):
        ledger.reserve("visits", people("one", "visit"))
    with pytest.raises(LedgerError, match=r"by column 'visit'.*use `unit: patient`"):
        ledger.preview("visits", people(PLANNED, "visit"))
    with pytest.raises(LedgerError, match="by no column"):
        ledger.reserve("visits", people("one"))
    with pytest.raises(LedgerError, match=r"column 'patient'.*and not.*column 'visit'"):
        ledger.grant("visits", "group", 9.0, 1e-5, column="visit")
    ledger.reserve("visits", people("one", "patient")).journal(1)
    assert ledger.grant("visits", "group", 9.0, 1e-5, column="patient")
    assert ledger.verify() == []


def test_a_grant_without_a_column_is_bound_by_its_first_run(ledger: Ledger) -> None:
    """As ledgers of format 2 have them."""
    ledger.grant("visits", "group", 80.0, 1e-5)
    ledger.reserve("visits", people("old")).settle()
    ledger.reserve("visits", people("one", "patient"))
    assert not ledger.grant_if_new("visits", "group", 80.0, 1e-5, column="patient")
    with pytest.raises(LedgerError, match=r"by column 'patient'"):
        ledger.reserve("visits", people("two", "visit"))


def test_a_column_is_one_name_in_either_unicode_form(ledger: Ledger) -> None:
    ledger.grant("visits", "group", 8.0, 1e-5, column="caf\u00e9")
    ledger.reserve("visits", people("one", "cafe\u0301"))
    with pytest.raises(LedgerError, match="no meaning for unit=example"):
        ledger.grant("rows", "example", 8.0, 1e-5, column="patient")

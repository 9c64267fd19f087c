"""Figures for people and for the report."""

from __future__ import annotations

import functools
import json

import dp_accounting as dp
import pytest

from nacre.core.errors import LedgerError
from nacre.differential_privacy.accounting.price import epsilon
from nacre.ledger import Ledger, Request
from nacre.ledger.chain import START
from nacre.ledger.preview import _apart  # pyright: ignore[reportPrivateUsage]
from nacre.ledger.rules import RuleName

from .conftest import GAUSSIAN, SAMPLED

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rule", ["rdp", "zcdp", "pld"])
def test_shares_add_up_and_epsilon_never_passes_the_grant(ledger: Ledger, rule: RuleName) -> None:
    ledger.grant("clinic", "example", 8.0, 1e-5, rule)
    untouched = ledger.summary("clinic").grants[0]
    assert (untouched.left, untouched.epsilon_fits, untouched.order) == (1.0, 8.0, None)
    charge = ledger.reserve(
        "clinic", Request.of("one", GAUSSIAN, steps=4, unit="example", adjacency="add_or_remove")
    )
    charge.journal(1)
    grant = ledger.summary("clinic").grants[0]
    total = grant.spent + grant.reserved + grant.left
    assert total == pytest.approx(1.0) if rule != "pld" else grant.left == 0
    assert 0 < grant.epsilon_spent < 8.0
    assert grant.epsilon_spent <= grant.epsilon_taken < 8.0


def test_runs_are_told_in_words(ledger: Ledger) -> None:
    ledger.grant("clinic", "example", 8.0, 1e-5)
    ledger.reserve(
        "clinic", Request.of("one", SAMPLED, steps=4, unit="example", adjacency="add_or_remove")
    ).journal(2)
    run = ledger.summary("clinic").runs[0]
    assert (run.run, run.steps, run.journalled, run.end) == ("one", 4, 2, None)
    assert "Gaussian noise" in run.event and "drawn with probability 0.05" in run.event


def test_an_unknown_account_is_named_with_the_known_ones(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has no account 'clinic'; it has none"):
        ledger.summary("clinic")
    ledger.grant("ward", "example", 8.0, 1e-5)
    with pytest.raises(LedgerError, match="it has ward"):
        ledger.extract(["clinic"])


def test_the_extract_has_what_the_report_reads(ledger: Ledger) -> None:
    assert ledger.extract([]) == {"accounts": [], "head": START.hash, "verified": True}
    ledger.grant("clinic/a", "example", 8.0, 1e-5)
    ledger.grant("clinic/b", "example", 8.0, 1e-5)
    charge = ledger.reserve(
        "clinic/a", Request.of("one", GAUSSIAN, steps=4, unit="example", adjacency="add_or_remove")
    )
    for step in (1, 2, 3):
        charge.journal(step)
    charge.settle()
    ledger.note("clinic/a", "first run")
    found = ledger.extract(["clinic/a"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    account = found["accounts"][0]
    assert (account["account"], account["unit"], account["rule"]) == ("clinic/a", "example", "rdp")
    assert account["granted"] == {"epsilon": 8.0, "delta": 1e-5}
    assert 0 < account["spent"]["epsilon"] < 8.0
    fits = ledger.summary("clinic/a").grants[0].epsilon_fits
    assert account["left"]["epsilon"] == fits > 8.0 - account["spent"]["epsilon"]
    assert account["reserved"]["epsilon"] == 0
    listed = [(e["index"], e["kind"], e["run"]) for e in account["entries"]]
    assert listed == [
        (1, "grant", None), (3, "reserve", "one"), (6, "journal", "one"), (7, "settle", "one"),
        (8, "note", None),
    ]  # fmt: skip
    assert found["head"] == ledger.head().hash == account["entries"][-1]["hash"]
    words = [entry["summary"] for entry in account["entries"]]
    assert "epsilon=8" in words[0] and "4 steps reserved" in words[1]
    assert words[2:] == ["3 steps journalled", "settled", "first run"]


@pytest.mark.parametrize(
    ("rule", "event"),
    [("rdp", GAUSSIAN), ("rdp", SAMPLED), ("zcdp", GAUSSIAN)],
    ids=["rdp", "rdp-sampled", "zcdp"],
)
def test_what_is_said_to_fit_is_accepted_and_a_hair_more_is_not(
    ledger: Ledger, rule: RuleName, event: dp.DpEvent
) -> None:
    """After a run of half a grant `show` must not say less than the next run may take."""
    steps = 4 if event is GAUSSIAN else 100
    ledger.grant("clinic", "example", 8.0, 1e-5, rule)

    def asked(run: str, wanted: float) -> Request:
        step = noised(event, noise_of(event, steps, wanted))
        return Request.of(run, step, steps=steps, unit="example", adjacency="add_or_remove")

    first = ledger.reserve("clinic", asked("one", 4.0))
    first.journal(steps)
    first.settle()
    room = ledger.summary("clinic").grants[0].epsilon_fits
    assert room is not None
    if rule == "rdp":
        assert room >= 4.0, "the plan accepts another run of epsilon 4"
    more = ledger.preview("clinic", asked("more", room * 1.01))
    assert not more.fits
    ledger.reserve("clinic", asked("two", room * 0.9999))
    least = ledger.summary("clinic").grants[0].epsilon_fits
    assert least is not None and least < 0.2


@functools.cache  # both stores and both rules ask for the same
def noise_of(event: dp.DpEvent, steps: int, wanted: float) -> float:
    """The least multiplier, to a millionth, whose price by RDP is at most `wanted`."""
    low, high = 0.4, 1e4
    for _ in range(24):
        middle = (low * high) ** 0.5
        whole = dp.SelfComposedDpEvent(noised(event, middle), steps)
        more = epsilon(whole, 1e-5, "rdp", None).epsilon > wanted
        low, high = (middle, high) if more else (low, middle)
    return high


def noised(event: dp.DpEvent, multiplier: float) -> dp.DpEvent:
    noise = dp.GaussianDpEvent(multiplier)
    return noise if event is GAUSSIAN else dp.PoissonSampledDpEvent(0.05, noise)


def test_a_refusal_never_asks_for_what_is_left() -> None:
    assert _apart(0.5, 0.5 - 1e-9) == ("50.0000000%", "49.9999999%")
    assert _apart(0.7, 0.5) == ("70.0%", "50.0%")
    assert _apart(0.5, 0.5) == ("a hair more than 50.0%", "50.0%")

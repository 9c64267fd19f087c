"""Laws of every rule: never less charged than released, and no byte changes unseen."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dp_accounting as dp
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.differential_privacy.accounting.price import epsilon
from nacre.ledger import Ledger, Request
from nacre.ledger.rules import RuleName

pytestmark = pytest.mark.slow

RULES: list[RuleName] = ["rdp", "zcdp", "pld"]
EVENTS = [dp.GaussianDpEvent(2.0), dp.GaussianDpEvent(5.0), dp.GaussianDpEvent(9.5)]
GRANTED = 4.0
DELTA = 1e-5
PAGE = 4096


ORDERS = [1 + 10 ** (n / 2000) for n in range(-2000, 6001)]  # 1.1 to 1001, closely spaced


def _gap(order: float) -> float:
    """What epsilon exceeds the Rényi divergence of this order by (Canonne, Kamath & Steinke 2020,
    proposition 12)."""
    return math.log((order - 1) / order) - (math.log(DELTA) + math.log(order)) / (order - 1)


class Spending(RuleBasedStateMachine):
    """Runs come, step, end and come again, over two openings of one file.

    The model keeps what was *released*: for each run its event and the steps taken. Full-batch
    Gaussians have an exact price for any composition, which no rule may let pass the grant.
    """

    @initialize(name=st.sampled_from(RULES))
    def open(self, name: RuleName) -> None:
        self.rule = name
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "l.db"
        self.ledgers = [Ledger.open(path, create=True), Ledger.open(path)]
        self.ledgers[0].grant("a", "example", GRANTED, DELTA, name)
        self.released: dict[str, tuple[dp.DpEvent, int]] = {}
        self.ended: set[str] = set()
        self.head = 0

    @rule(which=st.integers(0, 1), run=st.integers(0, 5), steps=st.integers(1, 12))
    def reserve(self, which: int, run: int, steps: int) -> None:
        name = f"{run}-{steps}"
        event = EVENTS[run % len(EVENTS)]
        try:
            charge = self.ledgers[which].reserve(
                "a", Request.of(name, event, steps=steps, unit="example", adjacency="add_or_remove")
            )
        except BudgetExceeded:
            assert name not in self.released
            return
        assert charge.journalled == self.released.setdefault(name, (event, 0))[1]

    @rule(which=st.integers(0, 1), pick=st.integers(0, 99), step=st.integers(1, 12))
    def release(self, which: int, pick: int, step: int) -> None:
        if not self.released:
            return
        name = sorted(self.released)[pick % len(self.released)]
        allowed = name not in self.ended and step <= int(name.split("-")[1])
        try:
            self.ledgers[which].journal("a", name, step)
        except LedgerError:
            assert not allowed
            return
        assert allowed
        event, done = self.released[name]
        self.released[name] = (event, max(done, step))  # only now may the step leave

    @rule(which=st.integers(0, 1), pick=st.integers(0, 99))
    def settle(self, which: int, pick: int) -> None:
        if self.released:
            name = sorted(self.released)[pick % len(self.released)]
            self.ledgers[which].settle("a", name)
            self.ended.add(name)

    @invariant()
    def what_was_released_stays_within_the_grant(self) -> None:
        if not hasattr(self, "released"):
            return
        done = [dp.SelfComposedDpEvent(event, n) for event, n in self.released.values() if n]
        if done:
            assert epsilon(dp.ComposedDpEvent(done), DELTA, "closed").epsilon <= GRANTED

    @invariant()
    def what_is_charged_is_at_least_what_was_released(self) -> None:
        if not hasattr(self, "released"):
            return
        grant = self.ledgers[1].summary("a").grants[0]
        assert grant.spent + grant.reserved <= 1 + 1e-12
        rho = sum(n / (2 * event.noise_multiplier**2) for event, n in self.released.values())
        if self.rule == "pld":
            assert sum(bool(n) for _, n in self.released.values()) <= 1
            assert (grant.spent > 0) == (rho > 0)
        elif rho:
            order = grant.order or 1.0  # a full-batch Gaussian's divergence is order * rho
            share = self._share(order * rho, grant.order)
            assert grant.spent == pytest.approx(share)
            assert grant.left <= 1 - share + 1e-6  # as near as the grid of orders comes

    @invariant()
    def the_ledger_only_grows_and_verifies(self) -> None:
        if not hasattr(self, "released"):
            return
        head = self.ledgers[0].head()
        assert head.number >= self.head
        self.head = head.number
        assert self.ledgers[1].verify(head) == []

    def _share(self, taken: float, order: float | None) -> float:
        if order is None:
            return taken / max((GRANTED - _gap(a)) / a for a in ORDERS)
        return taken / (GRANTED - _gap(order))

    def teardown(self) -> None:
        if hasattr(self, "ledgers"):
            for ledger in self.ledgers:
                ledger.close()
            self.folder.cleanup()


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bytes]]:
    """A ledger of a few rows, closed, so that all of it lies in one file; and its bytes."""
    path = tmp_path_factory.mktemp("small") / "l.db"
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("clinic", "example", 8.0, 1e-5)
        charge = ledger.reserve(
            "clinic",
            Request.of("one", EVENTS[0], steps=9, unit="example", adjacency="add_or_remove"),
        )
        charge.journal(1)
        charge.journal(4)
        charge.settle()
    yield path, path.read_bytes()


def state(path: Path) -> Any:
    with Ledger.open(path) as ledger:
        return ledger.verify(), json.dumps(ledger.extract(["clinic"]))


def test_a_flipped_byte_is_found_or_changes_nothing(small: tuple[Path, bytes]) -> None:
    # Other positions on every run; all 20 000 bits were gone through once by hand.
    path, whole = small
    sound = state(path)
    draw = random.Random()
    written = [place for place in range(len(whole)) if whole[place]]
    entries = [place for place in written if place >= PAGE]  # the first page is SQLite's schema
    for place in draw.sample(entries, 140) + draw.sample(written, 40):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            findings, facts = state(path)
        except LedgerError as error:
            assert "\n" not in str(error)
            continue
        assert findings or (findings, facts) == sound, f"byte {place} of {len(whole)}"
    path.write_bytes(whole)

"""Statistics over parties: the numbers of one holder's release, each party charged, none seen."""

# Parts of pandas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nacre.cli.main import cli
from nacre.core.errors import (
    BudgetExceeded,
    DataError,
    LedgerError,
    NotAsPlanned,
    PartyError,
    RecipeError,
    Refusal,
)
from nacre.core.parts import Handler
from nacre.core.random import Source
from nacre.core.strict import canonical
from nacre.differential_privacy.events_json import to_json
from nacre.differential_privacy.noise.shares import NoiseShares
from nacre.differential_privacy.queries import (
    Contingency,
    Count,
    Histogram,
    Keys,
    Mean,
    Quantiles,
    QueryOption,
    Sum,
    Variance,
)
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.federated_learning.secure import wire
from nacre.federated_learning.secure.grids.grid import WholeNumbers
from nacre.federated_learning.signed import addressed
from nacre.federated_learning.transport import InProcess
from nacre.ledger import Ledger
from nacre.recipe.load import read_options
from nacre.statistics import noisy_numbers
from nacre.statistics.across import slots as slots_module
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.answering import Holder, charged_for
from nacre.statistics.across.in_process import release_together
from nacre.statistics.across.opening import TogetherAnswered, opened_together
from nacre.statistics.across.options import Across, CentralNoise, DistributedNoise
from nacre.statistics.across.slots import noise_shares, share_of_noise, slots_of, summed_at
from nacre.statistics.answers import joint_event
from nacre.statistics.frames import frame_for, opened_table
from nacre.statistics.query_file import Queries
from nacre.statistics.release import release

NAMES = ("east", "north", "south")
DELTA = 1e-6
CENTRAL, DISTRIBUTED = CentralNoise(), DistributedNoise()


def asked_of(epsilon: float = 1.0, delta: float = DELTA) -> tuple[QueryOption, ...]:
    """One query of each kind that is a sum, with and without groups and persons."""
    price: dict[str, Any] = {"epsilon": epsilon, "delta": delta}
    number: dict[str, Any] = {**price, "column": "x", "low": -2.0, "high": 5.0}
    groups: dict[str, Any] = {"by": "ward", "groups": ("a", "b")}
    return (
        Count(name="rows", **price),
        Count(name="by ward", **price, **groups),
        Count(name="persons", **price, unit="who", rows_per_unit=2),
        Sum(name="sum", **number, **groups),
        Mean(name="mean", **number),
        Mean(name="of persons", **number, unit="who", rows_per_unit=2),
        Mean(name="of many", **number, size=40),
        Variance(name="variance", **number),
        Quantiles(name="quantiles", **number, cells=7),
        Histogram(name="edges", **price, column="x", edges=(0.0, 1.0, 2.0)),
        Histogram(name="wards", **price, column="ward", categories=("a", "z")),
        Contingency(name="both", **price, columns={"ward": ("a",), "x": ("1",)}),
    )


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Rows of three parties, some values beyond the range and some missing."""
    draw = np.random.default_rng(seed)
    x = draw.normal(1.5, 3, rows)
    x[draw.uniform(size=rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "x": x,
            "ward": draw.choice(["a", "b", "c"], rows),
            "who": draw.choice([f"p{n}" for n in range(12)], rows),
            "party": draw.choice(NAMES, rows),
        }
    )


def together(queries: Sequence[QueryOption], noise: Any = CENTRAL, **more: Any) -> Queries:
    """A file of these queries to three parties."""
    said: dict[str, Any] = {"parties": NAMES, "column": "party", "threshold": 3, **more}
    return Queries(queries=tuple(queries), across=Across(noise=noise, **said))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A ledger in which each party is granted rows and persons, and all rows together."""
    return granted(tmp_path / "privacy.db")


def granted(path: Path, epsilon: float = 1e5) -> Path:
    with Ledger.open(path, create=True) as ledger:
        for account in (*(f"wards/{name}" for name in NAMES), "pooled"):
            ledger.grant(account, "example", epsilon=epsilon, delta=1e-2, rule="zcdp")
    return path


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of size nought, at the server and in the shares."""
    monkeypatch.setattr(
        noisy_numbers, "_drawn", lambda measurement, transformation, rows: transformation(rows)
    )
    monkeypatch.setattr(
        NoiseShares, "drawn", lambda self, source: np.zeros(self.dimension, np.int64)
    )


# -- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [CENTRAL, DISTRIBUTED], ids=lambda noise: noise.kind)
@pytest.mark.parametrize("dealt", [True, False])
def test_without_noise_it_is_the_release_of_the_pooled_table(
    book: Path, silent: None, tmp_path: Path, noise: Any, dealt: bool
) -> None:
    """The same answers but for the grid, whether a column deals one table or each party has its
    own. What a person keeps of its rows is drawn, so persons have no more than they keep."""
    rows = table()
    rows = rows.loc[rows.groupby("who").cumcount() < 2]  # also over all parties
    queries = asked_of()
    pooled = release(rows, queries, ledger=granted(tmp_path / "other.db"), account="pooled")
    given: Any = rows
    if not dealt:
        given = {name: rows[rows["party"] == name] for name in NAMES}
    found = release_together(given, together(queries, noise), ledger=book, account="wards")
    assert found.parties == NAMES and not found.missing
    for one, other in zip(pooled.answers, found.answers, strict=True):
        assert one.labels == other.labels
        assert one.values == pytest.approx(other.values, abs=1e-6), one.name
        assert one.event == other.event
        surplus = math.sqrt(3 / 2) if noise is DISTRIBUTED else 1.0
        assert other.scale == pytest.approx(one.scale * surplus, rel=1e-6)


def test_laplace_noise_is_added_by_the_server(tmp_path: Path, book: Path, silent: None) -> None:
    queries, other = asked_of(delta=0.0), granted(tmp_path / "other.db")
    pooled = release(table(), queries[:2], ledger=other, account="pooled")
    found = release_together(table(), together(queries[:2]), ledger=book, account="wards")
    for one, other in zip(pooled.answers, found.answers, strict=True):
        assert (one.values, one.scale, one.event) == (other.values, other.scale, other.event)


@pytest.mark.parametrize("noise", [CENTRAL, DISTRIBUTED], ids=lambda noise: noise.kind)
def test_the_interval_holds_the_number_without_noise(
    tmp_path: Path, noise: Any, searched_once: None
) -> None:
    """200 answers, each missed with probability 0.05: fewer than 24 misses, but for one run in
    10,000; and the answers scatter as their scale says."""
    asked = AgreedQueries.of(together([Count(name="rows", epsilon=1.0, delta=DELTA)], noise))
    (slot,) = asked.slots
    added: Any = slots_module.AddedHere()
    if noise is DISTRIBUTED:
        added = slots_module.AddedInShares(asked.across.counted, 3)
    misses, offs = 0, list[float]()
    for number in range(200):
        values = [100 * slot.cells]
        if noise is DISTRIBUTED:
            for party in range(3):
                source = Source(bytes([number, party]) + bytes(30))
                values[0] += int(share_of_noise(asked.slots, 2, source)[0])
        (found,) = slots_module.answered_from(values, asked.queries, asked.slots, added)
        misses += not found.low[0] <= 100 <= found.high[0]
        offs.append((found.value - 100) / found.scale)
    assert misses < 24
    assert 0.8 < np.std(offs) < 1.2 and abs(np.mean(offs)) < 0.3


@given(
    epsilon=st.floats(1e-3, 100),
    delta=st.floats(1e-12, 1e-2),
    rows=st.integers(1, 1000),
    parties=st.integers(3, 200),
    colluders=st.integers(0, 40),
)
def test_the_shares_of_honest_parties_pay_for_the_query(
    epsilon: float, delta: float, rows: int, parties: int, colluders: int
) -> None:
    """For every price that is drawn at all: at most what is charged, and no more than a millionth
    less, from shares that lie far above the half from which they are Gaussian."""
    colluders = min(colluders, parties - 2)
    across = Across(
        parties=tuple(f"p{n}" for n in range(parties)), threshold=parties, colluders=colluders,
        noise=DISTRIBUTED,
    )  # fmt: skip
    number: dict[str, Any] = {"column": "x", "low": -1.0, "high": 3.0, "unit": "who"}
    price: dict[str, Any] = {"epsilon": epsilon, "delta": delta, "rows_per_unit": rows}
    queries = [Mean(name="m", **number, **price), Count(name="c", unit="who", **price)]
    budget = noisy_numbers.rho(epsilon, delta)
    for slot in slots_of(queries, across):
        shares = noise_shares(slot, across.counted)
        assert budget * (1 - 1e-6) < shares.rho * slot.parts <= budget
        assert shares.variance >= 2.0**14
        assert parties * (2**_ROWS * slot.cells + shares.reach(1, 1e-30)) < 2**63


_ROWS = 26


def test_noise_that_no_share_can_have_is_refused() -> None:
    query = Count(name="q", epsilon=1e-9, delta=1e-9, unit="who", rows_per_unit=10**9)
    with pytest.raises(Refusal, match="cannot be drawn in shares"):
        slots_of([query], together([query], DISTRIBUTED).across or pytest.fail())


# -- what one unit moves -------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [CENTRAL, DISTRIBUTED], ids=lambda noise: noise.kind)
@pytest.mark.parametrize("query", asked_of(), ids=lambda query: query.name)
def test_one_unit_moves_the_numbers_of_a_party_by_what_the_noise_is_for(
    query: QueryOption, noise: Any
) -> None:
    """Brute force: a row, or a person with any three rows, is added to a table. The slots of one
    part of the query move by `moved` together at most, and where a row is worst by exactly that."""
    across = together([query], noise).across
    assert across is not None
    laid = slots_of([query], across)
    base = [("p", 0.3, "a"), ("q", -9.0, "b"), ("r", 1.0, "c")]
    rows = [(-2.0, "a"), (5.0, "b"), (0.1, "c"), (99.0, "b"), (math.inf, "a")]
    extras = itertools.combinations_with_replacement(rows, 1 if query.unit is None else 3)
    worst = 0.0
    for extra in extras:
        both = [base, [*base, *(("new", x, ward) for x, ward in extra)]]
        held = []
        for each in both:
            frame = pd.DataFrame(each, columns=["who", "x", "ward"], dtype=object)
            raw = frame_for(opened_table(frame), query)
            held.append(summed_at([raw], [query], laid, 2**60, Source(bytes(32))))
        moved = np.abs(held[1] - held[0])
        place, by_part = 0, dict[tuple[float, int], float]()
        for slot in laid:
            entries = moved[place : place + slot.size]
            place += slot.size
            part = (slot.reach, slot.cells)
            by_part[part] = by_part.get(part, 0.0) + float(entries.sum())
            assert by_part[part] <= slot.moved
            worst = max(worst, by_part[part] / slot.moved)
    assert worst == 1.0


def test_which_slots_are_asked_for_follows_from_the_queries_alone() -> None:
    """A table with rows fills exactly the slots that one without rows lays."""
    across = together(asked_of(), DISTRIBUTED).across
    assert across is not None
    laid = slots_of(asked_of(), across)
    for rows in (table(40), table(1), table(40)[:0].astype(object)):
        raw = [rows for _ in asked_of()]
        held = summed_at(raw, asked_of(), laid, 2**60, Source(bytes(32)))
        assert len(held) == sum(slot.size for slot in laid)


@given(
    parties=st.integers(1, 1000),
    draws=st.lists(st.integers(-999, 999), min_size=1, max_size=20),
)
def test_no_sum_wraps(parties: int, draws: list[int]) -> None:
    """Numbers at the very end of what is taken have the sum that integers have."""
    ring = WholeNumbers(parties=parties)
    values = [ring.most * draw // 1000 for draw in draws]
    values += [ring.most, -ring.most]
    total = ring.whole(np.array(values, dtype=np.int64)).copy()
    for _ in range(min(parties, 5) - 1):
        total += ring.whole(np.array(values, dtype=np.int64))
    assert ring.summed(total) == [min(parties, 5) * value for value in values]
    if ring.most < 2**63 - 1:
        with pytest.raises(ValueError, match="could wrap"):
            ring.whole(np.array([ring.most + 1], dtype=np.int64))


def test_a_number_beyond_the_room_of_a_party_is_clamped() -> None:
    query = Count(name="rows", epsilon=1.0)
    across = together([query]).across
    assert across is not None
    frame = frame_for(opened_table(table(50)), query)
    assert list(summed_at([frame], [query], slots_of([query], across), 7, Source(bytes(32)))) == [7]


# -- the sum, and who is missing from it ---------------------------------------------------------


class Lossy:
    """A transport that loses the messages that `lost` says."""

    def __init__(self, inner: InProcess, lost: Callable[[str, str], bool]) -> None:
        self.parties, self._inner, self._lost = inner.parties, inner, lost
        self.log: list[tuple[str, str, bytes]] = []

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        left = {n: d for n, d in requests.items() if not self._lost(n, addressed(d).kind)}
        found = self._inner.ask(left)
        self.log += [(name, addressed(data).kind, data) for name, data in found.items()]
        return found


class Parties:
    """Four parties with accounts of their own, and a server."""

    names = ("a", "b", "c", "d")

    def __init__(
        self, folder: Path, noise: Any, tables: Mapping[str, pd.DataFrame], threshold: int = 3
    ) -> None:
        across = Across(parties=self.names, threshold=threshold, colluders=1, noise=noise)
        queries = (
            Count(name="rows", epsilon=1.0, delta=DELTA),
            Sum(name="sum", epsilon=1.0, delta=DELTA, column="x", low=-2.0, high=5.0),
        )
        self.asked = AgreedQueries.of(Queries(queries=queries, across=across))
        self.folder, self.tables = folder, tables
        keys = {n: Identity.from_secret(n, n.encode().ljust(32)) for n in (*self.names, SERVER)}
        self.keys = keys
        roster = Roster(keys[SERVER].public, {n: keys[n].public for n in self.names})
        self.terms = self.asked.terms("release 1", roster)
        self._standing: list[Any] = []
        self.book = Ledger.open(folder / "parties.db", create=True)
        for name in self.names:
            self.book.grant(name, "example", epsilon=100, delta=1e-3, rule="zcdp")

    def handlers(self) -> dict[str, Handler]:
        """Of all parties, as after a start: the answers that were stored are there."""
        found: dict[str, Handler] = {}
        for name in self.names:
            charging = charged_for(self.book, name, "release 1", self.asked)
            self._standing.append(charging)  # until the run is over, which no test here waits for
            charges = charging.__enter__()
            holder = Holder(
                name, self.asked, opened_table(self.tables[name]),
                Source(name.encode().ljust(32)), charges,
            )  # fmt: skip
            party = holder.party(self.keys[name], self.terms, self.folder / name)
            found[name] = party.handle
        return found

    def opened(self, lost: Callable[[str, str], bool] = lambda name, kind: False) -> Any:
        """The answers over a lossy way, and the way."""
        way = Lossy(InProcess(self.handlers()), lost)
        return opened_together(way, self.keys[SERVER], self.asked, self.terms), way

    def journalled(self) -> dict[str, int]:
        """Steps that each account has been charged for."""
        return {n: self.book.summary(n).runs[0].journalled for n in self.names}


def four(seed: int = 0) -> dict[str, pd.DataFrame]:
    return {name: table(20 + place, seed + place) for place, name in enumerate(Parties.names)}


@pytest.mark.parametrize("noise", [CENTRAL, DISTRIBUTED], ids=lambda noise: noise.kind)
@pytest.mark.parametrize("kind", [wire.ADVERTISE, wire.SHARE, wire.MASK, wire.SIGN, wire.UNMASK])
def test_who_drops_out_is_left_out_and_known(
    tmp_path: Path, silent: None, noise: Any, kind: str
) -> None:
    """Of four parties three are enough, at every stage. Where there is a dropout at the last two
    stages, its numbers are in the sum."""
    parties = Parties(tmp_path, noise, four())
    lost = kind if kind != wire.SIGN else wire.UNMASK  # nobody signs where nobody dropped out
    found, _ = parties.opened(lambda name, kind: name == "c" and kind == lost)
    there = [n for n in Parties.names if n != "c" or lost == wire.UNMASK]
    assert list(found.parties) == there
    assert list(found.missing) == [n for n in Parties.names if n not in there]
    assert found["rows"].value == sum(len(parties.tables[name]) for name in there)
    assert found.noise.counted == (2 if noise is DISTRIBUTED else 1)
    assert found.noise.added == (len(there) if noise is DISTRIBUTED else 1)
    assert parties.journalled() == {n: int(n in there) for n in Parties.names}


@pytest.mark.parametrize("kind", [wire.ADVERTISE, wire.MASK, wire.UNMASK])
def test_below_the_threshold_there_is_no_answer_and_who_answered_is_charged(
    tmp_path: Path, kind: str
) -> None:
    parties = Parties(tmp_path, DISTRIBUTED, four())
    with pytest.raises(PartyError, match=r"`threshold` is 3|3 are needed"):
        parties.opened(lambda name, asked: name in "cd" and asked == kind)
    masked = {wire.ADVERTISE: "", wire.MASK: "ab", wire.UNMASK: "abcd"}[kind]
    assert parties.journalled() == {name: int(name in masked) for name in Parties.names}


def test_a_repeated_release_is_the_same_bytes_and_charged_once(tmp_path: Path) -> None:
    """Parties that are started anew give what they gave: noise and masks are those of the run."""
    parties = Parties(tmp_path, DISTRIBUTED, four())
    handlers = parties.handlers()
    way = Lossy(InProcess(handlers), lambda name, kind: False)
    first = opened_together(way, parties.keys[SERVER], parties.asked, parties.terms)
    again = parties.handlers()
    probe = Lossy(InProcess(again), lambda name, kind: False)
    second = opened_together(probe, parties.keys[SERVER], parties.asked, parties.terms)
    assert second == first
    assert probe.log == way.log
    assert parties.journalled() == dict.fromkeys(Parties.names, 1)
    assert all(len(parties.book.summary(name).runs) == 1 for name in Parties.names)


def test_another_question_under_a_used_number_is_refused(tmp_path: Path) -> None:
    """A server that asks another file of queries, or the same ones of another model, gets nothing,
    and the ledger refuses other numbers under the run's name."""
    parties = Parties(tmp_path, DISTRIBUTED, four())
    parties.opened()
    one = Count(name="rows", epsilon=1.0, delta=DELTA, by="ward", groups=("a",))
    asked = AgreedQueries.of(Queries(queries=(one,), across=parties.asked.across))
    roster = parties.terms.roster
    with pytest.raises(PartyError):
        opened_together(
            InProcess(parties.handlers()), parties.keys[SERVER], asked,
            asked.terms("release 1", roster),
        )  # fmt: skip
    costly = AgreedQueries.of(
        Queries(
            queries=tuple(replace(query, epsilon=2.0) for query in parties.asked.queries),
            across=parties.asked.across,
        )
    )
    with pytest.raises(LedgerError), charged_for(parties.book, "a", "release 1", costly):
        pass
    assert parties.journalled() == dict.fromkeys(Parties.names, 1)


def test_a_party_that_cannot_answer_is_not_asked_for_something_else(tmp_path: Path) -> None:
    """Nothing leaves where the ledger fails, and nothing is computed before it is charged."""
    parties = Parties(tmp_path, DISTRIBUTED, four())
    handlers = parties.handlers()
    parties.book.abandon("b", parties.book.summary("b").runs[0].run)
    with pytest.raises(LedgerError):
        opened_together(InProcess(handlers), parties.keys[SERVER], parties.asked, parties.terms)
    assert parties.journalled()["b"] == 0


@pytest.mark.parametrize("noise", [CENTRAL, DISTRIBUTED], ids=lambda noise: noise.kind)
def test_one_row_of_one_party_moves_the_sum_alone(tmp_path: Path, noise: Any) -> None:
    """With all keys and all noise the same, a row is taken from one party. What the others send is
    the same, and so is all that it sends but its masked numbers, which move by no more than the
    noise is made for; sizes and kinds of all messages are the same."""
    tables = four()
    sent, totals = [], []
    for number, each in enumerate((tables, {**tables, "b": tables["b"].iloc[:-1]})):
        folder = tmp_path / str(number)
        folder.mkdir()
        found, way = Parties(folder, noise, each).opened()
        sent.append(way.log)
        totals.append(found)
    for (name, kind, one), (name_too, kind_too, other) in zip(*sent, strict=True):
        assert (name, kind, len(one)) == (name_too, kind_too, len(other))
        if (name, kind) != ("b", wire.MASK):
            assert one == other
    if noise is DISTRIBUTED:  # whose noise is the same in both
        assert abs(totals[0]["rows"].value - totals[1]["rows"].value) == 1.0
        assert abs(totals[0]["sum"].value - totals[1]["sum"].value) <= 5.0


def test_masked_numbers_of_one_party_look_alike_whatever_they_are(tmp_path: Path) -> None:
    """Each bit of what the server holds of one party is set in about half of the entries."""
    asked = AgreedQueries.of(
        together([Histogram(name="h", epsilon=1.0, column="x", edges=tuple(range(2001)))])
    )
    names = asked.across.parties
    keys = {n: Identity.from_secret(n, n.encode().ljust(32)) for n in (*names, SERVER)}
    terms = asked.terms("r", Roster(keys[SERVER].public, {n: keys[n].public for n in names}))
    handlers = {
        name: Holder(name, asked, opened_table(table(9)), Source(name.encode().ljust(32)), ())
        .party(keys[name], terms)
        .handle
        for name in names
    }
    way = Lossy(InProcess(handlers), lambda name, kind: False)
    opened_together(way, keys[SERVER], asked, terms)
    for _, kind, data in way.log:
        if kind == wire.MASK:
            entries = np.frombuffer(data[-2000 * 8 - 64 : -64], dtype="<u8")
            bits = [(int((entries >> np.uint64(b) & np.uint64(1)).sum())) for b in range(64)]
            assert all(800 < count < 1200 for count in bits)


# -- the ledger ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [CENTRAL, DISTRIBUTED], ids=lambda noise: noise.kind)
def test_each_party_is_charged_for_all_answers_once(book: Path, noise: Any) -> None:
    queries = asked_of()
    release_together(table(), together(queries, noise), ledger=book, account="wards")
    with Ledger.open(book) as ledger:
        for name in NAMES:
            runs = ledger.summary(f"wards/{name}").runs
            assert [run.journalled for run in runs] == [1, 1], "rows and persons"
            events = [ledger.asked(f"wards/{name}", run.run).step for run in runs]
            rows = [query for query in queries if query.unit is None]
            persons = [query for query in queries if query.unit == "who"]
            due = [canonical(to_json(joint_event(part))) for part in (rows, persons)]
            assert sorted(events) == sorted(due)
            assert all(run.end == "settled" for run in runs)
        assert not ledger.summary("pooled").runs


def test_where_one_account_holds_too_little_nobody_is_charged(tmp_path: Path) -> None:
    path = tmp_path / "privacy.db"
    with Ledger.open(path, create=True) as ledger:
        for name, epsilon in zip(NAMES, (10.0, 10.0, 0.1), strict=True):
            ledger.grant(f"wards/{name}", "example", epsilon=epsilon, delta=1e-4)
    with pytest.raises(BudgetExceeded):
        release_together(table(), together(asked_of()[:1]), ledger=path, account="wards")
    with Ledger.open(path) as ledger:
        for name in NAMES:
            assert all(not run.journalled for run in ledger.summary(f"wards/{name}").runs)
            assert ledger.summary(f"wards/{name}").grants[0].spent == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"party": "west"}, "row 1 is of 'west'"),
        ({"x": "much"}, "row 1 is not a number"),
    ],
)
def test_rows_that_do_not_fit_cost_nothing(book: Path, wrong: dict[str, str], words: str) -> None:
    rows = table().astype(object)
    for column, value in wrong.items():
        rows.loc[0, column] = value
    with pytest.raises(DataError, match=words):
        release_together(rows, together(asked_of()[:4]), ledger=book, account="wards")
    with Ledger.open(book) as ledger:
        for name in NAMES:
            assert all(not run.journalled for run in ledger.summary(f"wards/{name}").runs)


def test_a_party_may_have_no_rows(book: Path, silent: None) -> None:
    rows = table()
    rows = rows.loc[rows["party"] != "north"]
    found = release_together(rows, together(asked_of(), CENTRAL), ledger=book, account="wards")
    assert found["rows"].value == len(rows)


def test_a_cheaper_answer_is_not_given(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is narrower than what was paid for is found by a calculation of its own."""
    real = NoiseShares.of.__func__  # pyright: ignore[reportFunctionMemberAccess]
    queries = together(asked_of()[:1], DISTRIBUTED)
    with monkeypatch.context() as narrow:
        half = classmethod(lambda cls, m, **more: real(cls, m / 2, **more))
        narrow.setattr(NoiseShares, "of", half)
        with pytest.raises(NotAsPlanned, match="costs more than it pays for"):
            release_together(table(), queries, ledger=book, account="wards")
    due = noisy_numbers.rho
    monkeypatch.setattr(slots_module, "rho", lambda e, d: 4 * due(e, d))
    for noise in (DISTRIBUTED, CENTRAL):
        monkeypatch.setattr(noisy_numbers, "rho", slots_module.rho)
        with pytest.raises(NotAsPlanned, match="has scale"):
            release_together(table(), together(asked_of()[:1], noise), ledger=book, account="wards")


def test_one_holders_door_does_not_take_queries_of_parties(book: Path) -> None:
    with pytest.raises(Refusal, match="release_together"):
        release(table(), together(asked_of()), ledger=book, account="pooled")
    with pytest.raises(Refusal, match="add `across`"):
        release_together(table(), Queries(queries=asked_of()), ledger=book, account="wards")
    with pytest.raises(Refusal, match="give each of them its own"):
        release_together({"east": table()}, together(asked_of()), ledger=book, account="wards")
    with pytest.raises(Refusal, match=r"across\.column"):
        release_together(table(), together(asked_of(), column=None), ledger=book, account="wards")
    assert isinstance(
        release_together(table(), together(asked_of()[:1]), ledger=book, account="wards"),
        TogetherAnswered,
    )


# -- files and the command -----------------------------------------------------------------------

GOOD = """nacre: 1
across:
  parties: [east, north, south]
  column: party
  threshold: 3
  colluders: 1
  noise: {kind: distributed}
queries:
  - {kind: count, name: rows, epsilon: 0.5, delta: 1.0e-6}
  - {kind: mean, name: x, column: x, low: -2, high: 5, epsilon: 0.5, delta: 1.0e-6}
"""

BAD = {
    "threshold: 3": ("threshold: 2", "min(2 threshold - parties - 1, threshold - 2) = 0"),
    "colluders: 1": ("colluders: 2", "raise `threshold`"),
    "  threshold: 3\n": ("  threshold: 4\n", "more than the 3 parties"),
    "[east, north, south]": ("[east, east, south]", "must differ"),
    "north, south]": ("server, south]", "no party's name"),
    "{kind: distributed}": ("{kind: noisy}", "kind"),
    "  noise: {kind: distributed}\n": ("", "noise"),
    "epsilon: 0.5, delta: 1.0e-6}\n  -": ("epsilon: 0.5}\n  -", "needs a delta above 0"),
    "kind: count, name: rows": ("kind: keys, column: x, name: rows", "is no sum"),
    "threshold: 3\n": ("threshold: .nan\n", "threshold"),
    "colluders: 1\n": ("colluders: 1.5\n", "colluders"),
    "  column": ("  columns", "columns"),
}  # fmt: skip


@pytest.mark.parametrize("place", BAD)
def test_a_malformed_file_is_one_sentence(tmp_path: Path, place: str) -> None:
    wrong, words = BAD[place]
    assert place in GOOD
    path = tmp_path / "queries.yaml"
    path.write_text(GOOD.replace(place, wrong, 1))
    with pytest.raises(RecipeError) as error:
        read_options(path, Queries)
    assert words in str(error.value) and "queries.yaml:" in str(error.value)


def test_keys_that_give_groups_are_refused() -> None:
    keys = Keys(name="k", epsilon=1.0, delta=1e-6, column="ward")
    count = Count(name="c", epsilon=1.0, by="ward", groups_from="k")
    with pytest.raises(ValueError, match="is no sum"):
        together([keys, count])
    with pytest.raises(ValueError, match="declare `groups`"):
        Across(parties=NAMES, threshold=3, noise=CENTRAL).refuse_unsuited([count])


def test_the_command_answers_charges_and_its_file_is_checked(tmp_path: Path, book: Path) -> None:
    (tmp_path / "queries.yaml").write_text(GOOD)
    rows = table(300)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    paid = ["--ledger", str(book), "--account", "wards"]
    words = ["release", str(tmp_path / "rows.csv"), str(tmp_path / "queries.yaml"), *paid]
    out = tmp_path / "answers.json"
    found = CliRunner().invoke(cli, [*words, "--json", "-o", str(out)])
    assert found.exit_code == 0, found.output
    document = json.loads(out.read_text())
    assert document["parties"] == list(NAMES) and document["missing"] == []
    assert document["each_party"] == {"epsilon": 1.0, "delta": 2e-6}
    assert "the server and one party that helps it" in document["against"]
    assert document["answers"][0]["shares"] == {"added": 3, "counted": 2}
    assert "all 2 answers" in CliRunner().invoke(cli, ["report", str(out), "--check"]).output
    for key, value in (("added", 2), ("counted", 3), ("counted", 0), ("added", "x")):
        changed = json.loads(out.read_text())
        changed["answers"][0]["shares"][key] = value
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        refused = CliRunner().invoke(cli, ["report", str(tmp_path / "changed.json"), "--check"])
        assert refused.exit_code == 1 and len(refused.output.splitlines()) == 1, refused.output
    files: list[str] = []
    for name in NAMES:
        rows[rows["party"] == name].to_csv(tmp_path / f"{name}.csv", index=False)
        files += ["--party", f"{name}={tmp_path / name}.csv"]
    text = CliRunner().invoke(cli, ["release", str(tmp_path / "queries.yaml"), *files, *paid])
    assert text.exit_code == 0 and "95 % interval" in text.output, text.output
    for bad in (
        ["release", str(tmp_path / "queries.yaml"), *paid],
        ["release", str(tmp_path / "queries.yaml"), "--party", "east", *paid],
        [*words, *files],
        words[:3],
    ):
        refused = CliRunner().invoke(cli, bad)
        assert refused.exit_code == 2 and "Traceback" not in refused.output, refused.output

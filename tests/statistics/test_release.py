"""`nacre.release`: tables from files and from pandas, charged like those of the command line."""

import numpy as np
import pandas as pd
import pytest

import nacre
from nacre.core.errors import BudgetExceeded, DataError, LedgerError, Refusal
from nacre.differential_privacy.queries import Contingency, Count, Mean, Quantiles, Sum
from nacre.ledger import Ledger
from nacre.statistics import release as module
from nacre.statistics.local import LocalLaplace, RandomisedResponse
from nacre.statistics.release import release_records

HUGE = 30.0
TABLE = pd.DataFrame(
    {
        "who": ["a", "a", "b", "c", None],
        "age": [10, 20.5, np.nan, "40", None],
        "ward": pd.Series(["east", "west", pd.NA, "west", "east"], dtype="string"),
        7: pd.Categorical([1, 2, 2, 1, 2]),
    }
)
QUERIES = [
    Count(name="rows", epsilon=HUGE),
    Count(name="people", epsilon=HUGE, unit="who"),
    Mean(name="age", epsilon=HUGE, column="age", low=0, high=50, by="ward", groups=("west",)),
    Contingency(name="both", epsilon=HUGE, columns={"ward": ("east",), "7": ("1",)}),
    Quantiles(name="middle", epsilon=HUGE, column="age", low=0, high=50, shares=(0.5,)),
]


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "privacy.db"
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("ward", "example", epsilon=1e12, delta=1e-6)
    return path


def spent(book):
    with Ledger.open(book) as ledger:
        return ledger.summary("ward").runs


def test_a_data_frame_is_answered_like_its_file(tmp_path, book):
    TABLE.to_csv(tmp_path / "rows.csv", index=False)
    for table in (TABLE, tmp_path / "rows.csv", str(tmp_path / "rows.csv")):
        found = nacre.release(table, QUERIES, ledger=book, account="ward")
        assert found["rows"].value == pytest.approx(5, abs=0.5)
        assert found["people"].value == pytest.approx(3, abs=0.5)
        assert found["age"].labels == ("west",)
        assert found["age"].value == pytest.approx(30.25, abs=12)
        assert dict(zip(found["both"].labels, found["both"].values, strict=True)) == pytest.approx(
            {"east × 1": 1, "east × other": 1, "other × 1": 1, "other × other": 1}, abs=0.5
        )
        assert 20 <= found["middle"].value <= 40.5
    assert len(spent(book)) == 6, "rows and people of three releases"


def test_an_open_ledger_stays_open(book):
    with Ledger.open(book) as ledger:
        found = nacre.release(TABLE, QUERIES[:1], ledger=ledger, account="ward")
        (run,) = ledger.summary("ward").runs
        assert found.run in run.run


def test_what_fails_before_the_charge_goes_back(book):
    wrong = [*QUERIES[:1], Sum(name="x", epsilon=1.0, column="ward", low=0, high=1)]
    with pytest.raises(DataError, match=r"column 'ward': row 1 is not a number \('east'\)"):
        nacre.release(TABLE, wrong, ledger=book, account="ward")
    both = Mean(name="x", epsilon=1.0, column="age", low=0, high=1, by="age", groups=("1",))
    with pytest.raises(Refusal, match="'age' for a number and for a name"):
        nacre.release(TABLE, [both], ledger=book, account="ward")
    with pytest.raises(DataError, match="holds no rows"):
        nacre.release(TABLE[:0], QUERIES, ledger=book, account="ward")
    with Ledger.open(book) as ledger:
        assert ledger.summary("ward").runs[0].journalled == 0
        nacre.release(TABLE, QUERIES, ledger=ledger, account="ward")


@pytest.mark.parametrize("names", [["age", "age"], [7, "7"]])
def test_two_columns_of_one_name_are_refused(book, names):
    table = pd.DataFrame([[1.0, 2.0]], columns=names)
    query = Sum(name="sum", epsilon=1.0, column=str(names[0]), low=0, high=9)
    with pytest.raises(DataError, match="twice"):
        nacre.release(table, [query], ledger=book, account="ward")


def test_too_little_budget_is_refused(tmp_path):
    path = tmp_path / "small.db"
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("ward", "example", epsilon=1, delta=1e-6)
    with pytest.raises(BudgetExceeded):
        nacre.release(TABLE, QUERIES[:1], ledger=path, account="ward")


def test_names_and_queries_are_checked(book):
    with pytest.raises(KeyError):
        _ = nacre.release(TABLE, QUERIES[:1], ledger=book, account="ward")["other"]
    with pytest.raises(ValueError, match="at least one query"):
        nacre.release(TABLE, [], ledger=book, account="ward")
    with pytest.raises(Refusal, match="has no price"):
        tiny = Count(name="q", epsilon=1e-9, delta=1e-20)
        nacre.release(TABLE, [tiny], ledger=book, account="ward")
    with pytest.raises(ValueError, match="epsilon=1000 promises nothing"):
        nacre.release(TABLE, [Count(name="q", epsilon=1e3)], ledger=book, account="ward")


def test_a_column_that_is_not_there_is_told_with_its_query(book):
    wrong = Mean(name="height of all", epsilon=1, column="height", low=0, high=2)
    with pytest.raises(DataError, match=r"query 'height of all': .* has no column 'height'"):
        nacre.release(TABLE, [*QUERIES[:1], wrong], ledger=book, account="ward")


def test_the_smallest_query_is_charged_as_any_other(book):
    nacre.release(TABLE, [Count(name="q", epsilon=1e-9)], ledger=book, account="ward")
    assert len(spent(book)) == 1


RECORDS = {
    "ward": RandomisedResponse(categories=("east", "west"), epsilon=2.0),
    "age": LocalLaplace(low=0, high=50, epsilon=1.0),
}


@pytest.fixture
def replaced(tmp_path):
    path = tmp_path / "records.db"
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("ward", "example", epsilon=4, delta=1e-6, adjacency="replace_one")
    return path


def test_records_are_noised_one_by_one_and_charged_once(replaced):
    table = pd.DataFrame({"ward": ["east", "west"] * 20, "age": range(40), "name": ["x"] * 40})
    found = release_records(table, RECORDS, ledger=replaced, account="ward")
    assert list(found.columns) == ["ward", "age"], "what is not named is not written"
    assert set(found.columns["ward"]) <= {"east", "west"}
    assert len(found.columns["age"]) == 40
    assert not set(found.columns["age"]) & set(range(40))
    with Ledger.open(replaced) as ledger:
        (run,) = ledger.summary("ward").runs
        assert run.journalled == 1
        with pytest.raises(BudgetExceeded):
            release_records(table, RECORDS, ledger=ledger, account="ward")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"ward": ["east", "south"], "age": [1, 2]}, "row 2 has none of the declared"),
        ({"ward": ["east", None], "age": [1, 2]}, "row 2 has none of the declared"),
        ({"ward": ["east", "west"], "age": [None, 2]}, "row 1 has no value"),
        ({"ward": ["east", "west"]}, "no column 'age'"),
    ],
)
def test_records_with_gaps_are_refused_before_the_charge(replaced, rows, said):
    with pytest.raises(DataError, match=said):
        release_records(pd.DataFrame(rows), RECORDS, ledger=replaced, account="ward")
    with Ledger.open(replaced) as ledger:
        assert ledger.summary("ward").runs[0].journalled == 0


def test_records_need_an_account_of_replaced_records(book):
    with pytest.raises(LedgerError, match="adjacency"):
        release_records(TABLE, RECORDS, ledger=book, account="ward")
    with pytest.raises(ValueError, match="at least one column"):
        release_records(TABLE, {}, ledger=book, account="ward")


@pytest.mark.parametrize("door", ["release", "records"])
def test_answers_are_computed_once_they_are_charged(door, tmp_path, monkeypatch):
    """What is computed before its charge could leave with a process that dies in between."""
    path = tmp_path / "privacy.db"
    records = door == "records"
    seen = []
    with Ledger.open(path, create=True) as ledger:
        adjacency = "replace_one" if records else "add_or_remove"
        ledger.grant("ward", "example", 1e6, 1e-6, "rdp", adjacency)
        name = "noised_numbers" if records else "answer"
        real = getattr(module, name)

        def watched(*given):
            seen.append([run.journalled for run in ledger.summary("ward").runs])
            return real(*given)

        monkeypatch.setattr(module, name, watched)
        if records:
            table = pd.DataFrame({"age": [1.5, 2.0, 5.25]})
            option = {"age": LocalLaplace(epsilon=1.0, low=0, high=50)}
            release_records(table, option, ledger=ledger, account="ward")
        else:
            nacre.release(TABLE, QUERIES[:1], ledger=ledger, account="ward")
    assert seen == [[1]]


def test_nothing_is_answered_where_the_charge_cannot_be_written(tmp_path, book, monkeypatch):
    def full(*_):
        raise LedgerError("the disk is full")

    monkeypatch.setattr(Ledger, "journal", full)
    monkeypatch.setattr(module, "answer", lambda *_: pytest.fail("an answer without a charge"))
    with pytest.raises(LedgerError, match="the disk is full"):
        nacre.release(TABLE, QUERIES[:1], ledger=book, account="ward")


def test_units_of_another_column_are_refused(tmp_path):
    """One patient's visits, counted by visit: each would have the epsilon of a patient."""
    dose = [number**2 / 7 for number in range(1000)]
    visits = pd.DataFrame({"patient": ["p"] * 1000, "visit": range(1000), "dose": dose})
    path = tmp_path / "privacy.db"
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("ward", "group", epsilon=100, delta=1e-6, column="patient")
        by_visit = [Count(name="visits", epsilon=0.5, unit="visit")]
        with pytest.raises(LedgerError, match=r"by column 'visit'.*use `unit: patient`"):
            nacre.release(visits, by_visit, ledger=ledger, account="ward")
        both = [*by_visit, Count(name="people", epsilon=0.5, unit="patient")]
        with pytest.raises(LedgerError, match="by column 'visit'"):
            nacre.release(visits, both, ledger=ledger, account="ward")
        assert not any(run.journalled for run in ledger.summary("ward").runs)
        people = nacre.release(visits, both[1:], ledger=ledger, account="ward")
    assert people["people"].value < 60


def test_a_person_under_two_unicode_forms_is_one(book):
    people = pd.DataFrame({"who": ["caf\u00e9", "cafe\u0301"] * 200})
    people["who"] = [f"{name} {i // 2 % 5}" for i, name in enumerate(people["who"])]
    query = [Count(name="people", epsilon=HUGE, unit="who")]
    found = nacre.release(people, query, ledger=book, account="ward")
    assert found["people"].value == pytest.approx(5, abs=0.5)

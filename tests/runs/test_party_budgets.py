"""A row that is one party's is charged to that party's account alone, by whatever column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nacre.core.errors import LedgerError
from nacre.data.columns.spec import ColumnSpec
from nacre.data.table import Table
from nacre.ledger import Ledger
from nacre.ledger.recorded_rows import record_rows
from tests.runs.test_second_budget import released, visits

REFUSED = "charged to account 'ward' already"
OF_A_PARTY = "charged to account 'ward/[a-z]+' already"


def _dealt(folder: Path, party: str | None) -> None:
    """The shape of a recipe that trains on the visits, recorded as `nacre run` records them."""
    table = Table(
        path="visits.csv", target="ill", classes=("yes", "no"), size=400, party=party,
        columns={"age": ColumnSpec(low=0, high=100)},
        drop=tuple({"sex", "weight", "pressure", "ward", "note", "seen"} - {party}),
    )  # fmt: skip
    held = table.read(folder, 0, b"k" * 32)
    cells = {f"ward/{name}": cells for name, cells in held.parts.items()} or {"ward": held.cells}
    with Ledger.open(folder / "privacy.db", create=True) as ledger:
        record_rows(ledger, cells, party)


@pytest.fixture
def dealt(tmp_path: Path) -> Path:
    """Visits whose rows were charged to the accounts of their wards."""
    table = visits().assign(seen=np.random.default_rng(4).choice(["east", "west", "north"], 400))
    table.to_csv(tmp_path / "visits.csv", index=False)
    for _ in range(2):
        _dealt(tmp_path, "ward")
    return tmp_path


def test_parties_of_another_column_or_none_have_no_second_budget(dealt: Path) -> None:
    """A row is charged to the account of its party, and to no other of the data set."""
    for party in (None, "sex"):
        with pytest.raises(LedgerError, match=OF_A_PARTY):
            _dealt(dealt, party)
    with pytest.raises(LedgerError, match="stands for a party by another column"):
        _dealt(dealt, "seen")
    _dealt(dealt, "ward")


def test_parties_have_no_second_budget_beside_the_whole(tmp_path: Path) -> None:
    visits().to_csv(tmp_path / "visits.csv", index=False)
    _dealt(tmp_path, None)
    with pytest.raises(LedgerError, match=REFUSED):
        _dealt(tmp_path, "ward")


def test_a_party_asks_of_its_own_rows_in_its_own_account(dealt: Path) -> None:
    """And not of others', nor of all in a second account of the same data set."""
    table, path = pd.read_csv(dealt / "visits.csv"), dealt / "privacy.db"
    with Ledger.open(path) as ledger:
        for name in ("ward/east", "ward/all"):
            ledger.grant(name, "example", epsilon=1.0, delta=1e-6)
    released(table[table["ward"] == "east"], path, "ward/east")
    for account in ("ward/east", "ward/all"):
        with pytest.raises(LedgerError, match=OF_A_PARTY):
            released(table, path, account)


def test_parties_whose_rows_are_all_alike_stand_for_all(tmp_path: Path) -> None:
    """Nothing tells such rows from others by themselves; beside the rest of their table they do."""
    table = visits()
    table.loc[table["ward"] == "west"] = [40, "f", 60.0, 120.0, "west", "none", "no"]
    table.to_csv(tmp_path / "visits.csv", index=False)
    _dealt(tmp_path, "ward")
    with pytest.raises(LedgerError, match=OF_A_PARTY):
        _dealt(tmp_path, None)


def test_a_party_under_another_name_has_no_second_budget(dealt: Path) -> None:
    """Its rows are those of a party that is there no more; a party that leaves takes none along."""
    table = pd.read_csv(dealt / "visits.csv")
    renamed = table.replace({"ward": {"east": "eastern"}})
    renamed.to_csv(dealt / "visits.csv", index=False)
    with pytest.raises(
        LedgerError, match=r"charged to account 'ward/east' already.*'ward/eastern'"
    ):
        _dealt(dealt, "ward")
    table[table["ward"] != "east"].to_csv(dealt / "visits.csv", index=False)
    _dealt(dealt, "ward")

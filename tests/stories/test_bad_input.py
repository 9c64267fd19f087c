"""What people get wrong: an exit code, one sentence with place and remedy, and no trace left."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nacre.cli.main import cli
from nacre.ledger import Ledger
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, patients, text

pytestmark = pytest.mark.slow

IN_RUN = {"ledger__path": "{run}/privacy.db"}
NO_GRANT = {"ledger__grant": None, "ledger__path": "privacy.db"}
BATCHNORM = """\
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
"""


@dataclass
class Place:
    """A folder with one recipe, and the command line in it."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def write(self, base: dict[str, Any], **changes: Any) -> Path:
        self.recipe.write_text(text(base, **changes))
        return self.recipe

    def nacre(self, *words: object) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words])

    def train(self, *words: str) -> Result:
        return self.nacre("train", self.recipe, "--into", self.run, *words)

    def files(self) -> dict[str, bytes]:
        """Every file and its bytes, but for the byte code that importing a model keeps."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        paths = [path for path in paths if path.suffix != ".pyc"]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def line(self, key: str) -> int:
        """Where a key stands in the recipe, counted from 1."""
        lines = self.recipe.read_text().splitlines()
        wanted = key if key.startswith("-") else f"{key}:"
        return next(n for n, line in enumerate(lines, 1) if line.strip().startswith(wanted))

    def refused(self, *says: str, code: int = 2, words: tuple[object, ...] = ()) -> str:
        """Trains (or says `words`), and asserts a refusal that leaves everything as it was."""
        before = self.files()
        result = self.nacre(*words) if words else self.train()
        sentence = told(result, code, *says)
        assert self.files() == before, "something was written"
        assert not self.run.exists() or any(name.startswith("run/") for name in before)
        return sentence


def told(result: Result, code: int, *says: str) -> str:
    """The one sentence of a command that failed with this code; the last line of its stderr."""
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.output
    *_, sentence = result.stderr.splitlines()
    assert sentence.startswith("nacre: ")
    for part in says:
        assert part in sentence
    return sentence


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- the recipe ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "changes", "key", "says"),
    [
        (CENTRAL, {"training__bacth": 60}, "bacth", "did you mean `batch`?"),
        (CENTRAL, {"leger": {}}, "leger", "did you mean `ledger`?"),
        (CENTRAL, {"training__steps": "many"}, "steps", "must be a whole number"),
        (CENTRAL, {"differential_privacy__delta": 0.5}, "delta", "1 / size"),
        (CENTRAL, {"differential_privacy__delta": 1 / 120}, "delta", "use at most"),
        (CENTRAL, {"differential_privacy__epsilon": 0}, "epsilon", "1 to 8 is usual"),
        (CENTRAL, {"differential_privacy__epsilon": -1}, "epsilon", "epsilon=-1"),
        (CENTRAL, {"training__batch": 121}, "batch", "use 120 or fewer"),
        (CENTRAL, {"data__size": 121}, "size", "must be 120"),
        (CENTRAL, {"audit": ["backdoor"]}, "- backdoor", "not built yet; leave it out"),
        (CENTRAL, {"training__sampling": {"kind": "shuffled"}}, "sampling", "{kind: poisson}"),
        (CENTRAL, {"gradient_clipping": {"kind": "by_value", "limit": 1.0}}, "gradient_clipping",
         "use `gradient_clipping: {kind: flat, norm: 1.0}`"),
        (CENTRAL, {"model": {"kind": "run", "path": "absent"}}, None, "absent holds no finished"),
        (CENTRAL, {"model": {"kind": "python", "call": "mixing:build"}}, "model", "BatchNorm"),
        (TABLE, {"compare": ["unprotected"]}, "compare", "public_demonstration: true"),
        (FEDERATED, {
            "differential_privacy__unit": "client", "differential_privacy__delta": 0.01,
            "federated_learning__parties__names": ["a", "b", "c"],
        }, "unit", "few_clients: true"),
    ],
)  # fmt: skip
def test_a_recipe_that_asks_for_what_cannot_be(
    place: Place, base: dict[str, Any], changes: dict[str, Any], key: str | None, says: str
) -> None:
    (place.folder / "mixing.py").write_text(BATCHNORM)
    place.write(base, **changes)
    where = () if key is None else (f"{place.recipe}:{place.line(key)} ",)
    for words in ((), ("plan", place.recipe)):
        place.refused(says, *where, words=words)


def test_a_recipe_that_is_missing(place: Place) -> None:
    place.refused(f"{place.recipe}: cannot be read", "name a file that can be read")


def test_an_account_without_a_grant(place: Place) -> None:
    place.write(CENTRAL, **NO_GRANT)
    place.refused("account 'iris' has no grant", "nacre ledger grant", code=3)
    with Ledger.open(place.folder / "privacy.db", create=True):
        pass
    told(place.train(), 3, "account 'iris' has no grant", "nacre ledger grant")
    assert not place.run.exists()


def test_adapters_without_peft(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    place.write(CENTRAL, fine_tuning={"kind": "lora", "rank": 2}, model__hidden=[4, 4])
    place.refused("`fine_tuning`", "peft", f"{place.recipe}:{place.line('fine_tuning')} ")


# -- the rows --------------------------------------------------------------------------------------


def _cell(column: int, value: str) -> Callable[[list[list[str]]], None]:
    def change(cells: list[list[str]]) -> None:
        cells[3][column] = value
        cells[7][column] = value

    return change


def _no_column(cells: list[list[str]]) -> None:
    for row in cells:
        del row[4]


def _no_rows(cells: list[list[str]]) -> None:
    del cells[1:]


def _one_class(cells: list[list[str]]) -> None:
    for row in cells[1:]:
        row[5] = "yes"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_no_rows, ("holds no rows",)),
        (_no_column, ("has no column 'dose'", "correct the name")),
        (_cell(2, "nan"), ("in rows 3 and 7", "'age'", "`on_missing: drop`")),
        (_cell(2, "121"), ("in rows 3 and 7", "[0, 120]", "`on_out_of_range`")),
        (_cell(4, "inf"), ("in rows 3 and 7", "'dose'", "[0, 10]")),
        (_cell(4, "much"), ("in rows 3 and 7", "not a number")),
        (_cell(3, "x"), ("in rows 3 and 7", "'x': it is none of", "`categories`")),
        (_cell(5, "maybe"), ("in rows 3 and 7", "`classes`")),
        (_one_class, ("class",)),
    ],
)
def test_rows_that_do_not_fit(
    place: Place, change: Callable[[list[list[str]]], None], says: tuple[str, ...]
) -> None:
    table = patients(place.folder / "patients.csv")
    cells = [line.split(",") for line in table.read_text().splitlines()]
    change(cells)
    table.write_text("".join(",".join(row) + "\n" for row in cells))
    place.write(TABLE)
    place.refused(f"{table}", *says, f"{place.recipe}:", "`data.")


def test_a_column_is_refused_with_the_line_that_names_it(place: Place) -> None:
    table = patients(place.folder / "patients.csv")
    place.write(TABLE, data__unit="patent")
    place.refused(f"{place.recipe}:{place.line('unit')} `data.unit`", "did you mean 'patient'?")
    place.write(TABLE)
    table.write_text(table.read_text().replace(",dose,", ",amount,"))
    place.refused(f"{place.recipe}:{place.line('dose')} `data.columns.dose`", "has no column")


def test_a_table_of_another_form(place: Place) -> None:
    table = patients(place.folder / "patients.csv")
    place.write(TABLE, data__path="patients.xlsx")
    says = ("ends in .xlsx, which is not read", "save the sheet as .csv")
    for words in ((), ("plan", place.recipe)):
        place.refused(f"{place.recipe}:{place.line('path')} ", *says, words=words)
    place.write(TABLE)
    table.write_text(table.read_text().replace(",", ";"))
    place.refused("is separated by semicolons; declare")


def test_a_table_that_is_missing_or_empty(place: Place) -> None:
    place.write(TABLE)
    place.refused("patients.csv cannot be read (no such file", "relative to the recipe")
    (place.folder / "patients.csv").write_text("")
    place.refused("patients.csv is empty")


# -- the run and its ledger ------------------------------------------------------------------------


def test_a_folder_that_exists(place: Place) -> None:
    place.write(CENTRAL, **IN_RUN)
    place.run.mkdir()
    (place.run / "mine.txt").write_text("mine")
    place.refused(f"the folder {place.run} exists and is not empty", "`--into`")
    shutil.rmtree(place.run)
    assert place.train().exit_code == 0
    place.refused("its training is complete", "`--into`")


def test_a_budget_that_is_spent(place: Place) -> None:
    place.write(CENTRAL)
    assert place.train().exit_code == 0
    words = ("train", place.recipe, "--into", place.folder / "second")
    place.refused("one run fixed beforehand", code=3, words=words)
    assert not (place.folder / "second").exists()


def test_a_corrupt_checkpoint(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(place, monkeypatch)
    newest = sorted((place.run / "state").glob("step-*"))[-1]
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    spent = _spent(place)
    told(place.train("--resume"), 1, f"the checkpoint {newest} is damaged", "delete this file")
    assert _spent(place) == spent
    newest.unlink()
    assert place.train("--resume").exit_code == 0


def test_a_corrupt_ledger(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(place, monkeypatch)
    path = place.run / "privacy.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    at = data.index(b'"epsilon"')
    data[at + 1] ^= 1
    path.write_bytes(data)
    told(place.train("--resume"), 2, "is not what was written")
    assert json.loads(place.nacre("ledger", "verify", path, "--json").stdout) != []
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 100)
    told(place.train("--resume"), 2, "restore it from a copy")


def test_a_ledger_that_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(place, monkeypatch)
    for path in place.run.glob("privacy.db*"):
        path.unlink()
    told(place.train("--resume"), 2, "is gone", "resume")
    assert not (place.run / "privacy.db").exists()


def _interrupted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that Ctrl-C stopped after three of six steps, told how to go on."""
    from nacre.runs import loop

    place.write(CENTRAL, **IN_RUN)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Watcher, "_measure", _stop_after(3))
        told(place.train(), 130, "continue with `nacre train", "--resume")


def _stop_after(steps: int) -> Callable[[object, Any], None]:
    def measure(self: object, state: Any) -> None:
        if state.done > steps:
            raise KeyboardInterrupt

    return measure


def _spent(place: Place) -> float:
    with Ledger.open(place.run / "privacy.db") as ledger:
        (grant,) = ledger.summary("iris").grants
        return grant.spent

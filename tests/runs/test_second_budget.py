"""The same data under another name, however they are dressed: no second budget at any door."""

# Parts of pandas are untyped, and some of its types say less than is true.
# pyright: reportReturnType=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportPrivateUsage=false

import csv
import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

import nacre
from nacre.core.errors import LedgerError
from nacre.data.sketches.cells import Cells, of_table, running
from nacre.data.sketches.sketch import KEPT, Sketch, sketched
from nacre.differential_privacy.queries import Count
from nacre.ledger import Ledger
from nacre.planning.plan import plan
from nacre.runs.run import train
from nacre.statistics.local import LocalLaplace
from nacre.statistics.release import release_records
from tests.integrations.declared import linear, private
from tests.training.tiny import TABLE, patients, recipe

KEY = bytes(range(32))
QUERY = [Count(name="rows", epsilon=0.1)]
REFUSED = "charged to account 'ward' already"


def visits(seed: int = 0, count: int = 400) -> pd.DataFrame:
    """Visits to a ward: few categories, some measurements, a note in words."""
    draw = np.random.default_rng(seed)
    words = np.array([f"word{n}" for n in range(900)])
    return pd.DataFrame(
        {
            "age": draw.integers(18, 95, count),
            "sex": draw.choice(["f", "m"], count),
            "weight": np.round(draw.normal(70, 12, count), 2),
            "pressure": np.round(draw.normal(120, 15, count), 1),
            "ward": draw.choice(["east", "west", "north"], count),
            "note": [" ".join(draw.choice(words, 12)) for _ in range(count)],
            "ill": draw.choice(["yes", "no"], count),
        }
    )


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A ledger with two granted accounts."""
    return granted(tmp_path / "privacy.db")


def granted(path: Path) -> Path:
    with Ledger.open(path, create=True) as ledger:
        for name in ("ward", "again"):
            ledger.grant(name, "example", epsilon=1e6, delta=1e-6)
    return path


def released(table: object, book: Path, account: str) -> None:
    nacre.release(table, QUERY, ledger=book, account=account)  # type: ignore[arg-type]


def _shuffled(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(frac=1, random_state=1)


def _columns_shuffled(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(reversed(table.columns))]


def _more_columns(table: pd.DataFrame) -> pd.DataFrame:
    draw = np.random.default_rng(9)
    extra = {"one": 1, "row": range(len(table)), "noise": draw.normal(size=len(table))}
    return table.assign(**extra)


def _some_doubled(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[:150], table[:30]])


def _rescaled(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(weight=table["weight"] * 2.2046, age=table["age"] * 12)


def _written_otherwise(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        age=[f" {value}.0 " for value in table["age"]],
        sex=[value.upper() for value in table["sex"]],
        note=[value.replace(" ", "  ") for value in table["note"]],
    )


def _recoded(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(ill=table["ill"].map({"yes": 0, "no": 1}), sex=table["sex"] == "f")


def _mixed(table: pd.DataFrame) -> pd.DataFrame:
    return _rescaled(_shuffled(table)[["weight", "note", "age", "pressure"]][37:])


TRICKS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "rows in another order": _shuffled,
    "columns in another order": _columns_shuffled,
    "columns under other names": lambda t: t.set_axis([f"c{i}" for i in range(7)], axis=1),
    "a column less": lambda t: t.drop(columns="weight"),
    "half of the columns": lambda t: t[["weight", "pressure", "age"]],
    "columns more": _more_columns,
    "a few rows less": lambda t: t[12:],
    "half of the rows": lambda t: _shuffled(t)[:200],
    "a few rows more": lambda t: pd.concat([t, visits(5, 40)]),
    "every row twice": lambda t: pd.concat([t, t]),
    "some rows twice or three times": _some_doubled,
    "other units of measurement": _rescaled,
    "numbers, case and blanks written otherwise": _written_otherwise,
    "classes recoded": _recoded,
    "several at once": _mixed,
}


@pytest.fixture(scope="module")
def charged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which the visits are charged to the ward."""
    path = granted(tmp_path_factory.mktemp("ward") / "privacy.db")
    released(visits(), path, "ward")
    return path


@pytest.mark.parametrize("trick", TRICKS)
def test_a_table_dressed_otherwise_has_no_second_budget(trick: str, charged: Path) -> None:
    """What is refused writes nothing, so that one ledger is enough."""
    with pytest.raises(LedgerError, match=REFUSED):
        released(TRICKS[trick](visits()), charged, "again")


def test_other_people_have_a_budget_where_one_was_refused(book: Path) -> None:
    released(visits(), book, "ward")
    with pytest.raises(LedgerError, match=REFUSED):
        released(_mixed(visits()), book, "again")
    released(visits(1), book, "again")


def test_the_form_of_the_file_makes_no_second_budget(tmp_path: Path, book: Path) -> None:
    table = visits()
    released(table, book, "ward")
    table.to_csv(tmp_path / "a.csv", index=False, quoting=csv.QUOTE_ALL)
    table.to_csv(tmp_path / "a.csv.gz", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "a.parquet")
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.jsonl"):
        with pytest.raises(LedgerError, match=REFUSED):
            released(tmp_path / name, book, "again")


def test_a_part_of_a_file_that_was_split_has_no_second_budget(book: Path) -> None:
    released(visits(), book, "ward")
    for start in range(0, 400, 100):
        with pytest.raises(LedgerError, match=REFUSED):
            released(visits()[start : start + 100], book, "again")


def test_noised_records_make_no_second_budget(tmp_path: Path) -> None:
    path = tmp_path / "privacy.db"
    with Ledger.open(path, create=True) as ledger:
        for name in ("ward", "again"):
            ledger.grant(name, "example", 1e6, 1e-6, "rdp", "replace_one")
    option = {"weight": LocalLaplace(epsilon=1.0, low=0, high=200)}
    release_records(visits(), option, ledger=path, account="ward")
    with pytest.raises(LedgerError, match=REFUSED):
        release_records(_mixed(visits()), option, ledger=path, account="again")


def test_a_recipe_after_a_release_has_no_second_budget(tmp_path: Path, book: Path) -> None:
    patients(tmp_path / "patients.csv")
    released(tmp_path / "patients.csv", book, "ward")
    again = recipe(tmp_path, TABLE, ledger__path=str(book), ledger__dataset="again")
    with pytest.raises(LedgerError, match=REFUSED):
        train(plan(again), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with Ledger.open(book) as ledger:
        assert not ledger.summary("again").runs


def test_a_loop_of_ones_own_after_arrays_has_no_second_budget(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    features, label = draw.normal(size=(60, 8)), draw.integers(0, 3, 60)

    def sketch(cells: tuple[Cells, ...]) -> Sketch:
        return sketched(cells, KEY)

    from nacre.integrations.examples import cells
    from nacre.integrations.fetching import Fetcher
    from nacre.integrations.torch import _pairs

    tensors = TensorDataset(torch.tensor(features, dtype=torch.float32), torch.tensor(label))
    mine = sketch(cells(Fetcher(tensors), _pairs))
    names = [f"x{i}" for i in range(8)]
    table = pd.DataFrame(features, columns=names).assign(y=label)
    file = sketch(of_table({name: list(table[name]) for name in table}))
    assert mine.same_data(file)
    other = TensorDataset(tensors.tensors[0].flip(1)[5:], 2 - tensors.tensors[1][5:])
    assert mine.same_data(sketch(cells(Fetcher(other), _pairs)))
    fresh = TensorDataset(torch.randn(60, 8), tensors.tensors[1])
    assert not mine.same_data(sketch(cells(Fetcher(fresh), _pairs)))


@pytest.mark.parametrize("width", [20, 300])
def test_whole_numbers_of_a_loop_are_those_of_a_table(width: int) -> None:
    """Rows of 16 whole numbers and more may be tokens, or measurements: both are sketched."""
    from nacre.integrations.examples import cells
    from nacre.integrations.fetching import Fetcher
    from nacre.integrations.torch import _pairs

    draw = np.random.default_rng(4)

    def sketch(features: np.ndarray, kind: torch.dtype) -> Sketch:
        label = torch.tensor(features[:, 0] % 2)
        rows = TensorDataset(torch.tensor(features).to(kind), label)
        return sketched(cells(Fetcher(rows), _pairs), KEY)

    whole = draw.integers(0, 256, (300, width))
    one = sketch(whole, torch.int64)
    for other in (
        sketch(whole[5:], torch.float32),
        sketch(whole[:, : width * 2 // 3], torch.int64),
    ):
        assert one.same_data(other)
        assert other.same_data(one)
    fresh = draw.integers(0, 256, (300, width))
    for kind in (torch.int64, torch.float32):
        assert not one.same_data(sketch(fresh, kind))


def test_texts_cut_or_grouped_otherwise_are_the_same() -> None:
    notes = [str(note) for note in visits()["note"]]
    whole = sketched(of_table({"text": notes}), KEY)
    joined = [" ".join(notes[i : i + 5]) for i in range(0, 400, 5)]
    edited = [note.upper() + ", signed" for note in notes]
    for other in (joined, edited, notes[50:]):
        assert whole.same_data(sketched(of_table({"document": other}), KEY))
    others = [str(note) for note in visits(1)["note"]]
    assert not whole.same_data(sketched(of_table({"text": others}), KEY))


def test_tokens_in_another_order_of_rows_or_cut_are_the_same() -> None:
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, 5000, 40) for _ in range(200)]
    whole = sketched([Cells("sequence", rows)], KEY)
    assert whole.same_data(sketched([Cells("sequence", [row[:25] for row in rows[::-1]])], KEY))


@pytest.mark.parametrize("columns", [3, 6, 20])
def test_few_categories_of_other_people_are_no_same_data(columns: int) -> None:
    """Tables that chance makes alike, with and without a number of the row and a day."""
    for seed in range(20 if columns < 20 else 8):  # with many columns no two rows are alike
        draw = np.random.default_rng(seed)
        a, b = (draw.integers(0, 3, (300, columns)) for _ in range(2))
        day = [f"2024-{1 + i // 28 % 12:02}-{1 + i % 28:02}" for i in range(300)]

        def table(cells: np.ndarray, day: list[str] = day) -> Sketch:
            found: dict[str, list[object]] = {f"c{i}": list(c) for i, c in enumerate(cells.T)}
            return sketched(of_table({**found, "row": list(range(300)), "day": day}), KEY)

        one = table(a)
        assert not one.same_data(table(b))
        assert one.same_data(table(a[::-1]))


WRITTEN_DAYS: dict[str, Callable[[datetime.date], object]] = {
    "ISO": str,
    "German": lambda day: day.strftime("%d.%m.%Y"),
    "slashes": lambda day: day.strftime("%m/%d/%Y"),
    "ISO at midnight": lambda day: f"{day} 00:00:00",
    "zone at midnight": lambda day: f"{day}T00:00:00Z",
    "dates": lambda day: day,
    "times": lambda day: datetime.datetime(day.year, day.month, day.day),
    "gaps": lambda day: None if day.day == 13 else str(day),
}


@pytest.mark.parametrize("form", WRITTEN_DAYS)
def test_the_same_days_are_no_same_data(form: str) -> None:
    """Other people's table over the same year, however days are written in it."""
    start = datetime.date(2024, 1, 1)
    days = [WRITTEN_DAYS[form](start + datetime.timedelta(n)) for n in range(366)]

    def table(seed: int, days: list[object] = days) -> Sketch:
        found: list[float] = np.random.default_rng(seed).normal(size=len(days)).tolist()
        return sketched(of_table({"day": days, "value": found}), KEY)

    assert not table(0).same_data(table(1))
    assert table(0).same_data(table(0, days[::-1]))


def test_small_whole_numbers_do_not_count_their_rows() -> None:
    """Rows of numbers up to 255 are data, however many there are; a number a row or a patient is
    none, also with gaps: tables of other people have the same."""
    draw = np.random.default_rng(0)
    cells = draw.integers(0, 256, (300, 5))
    one, other = (sketched([Cells("cells", c)], KEY) for c in (cells, cells[draw.permutation(300)]))
    assert not one.is_empty
    assert one.same_data(other)
    assert not one.same_data(sketched([Cells("cells", draw.integers(0, 256, (300, 5)))], KEY))
    assert not any(running(draw.integers(0, 256, rows) * 1.0) for rows in range(280, 1000, 9))
    gaps = draw.permutation(500)[:300] * 1.0
    visits = np.repeat(np.arange(200.0), np.arange(200) % 2 + 1)  # one or two a patient
    for counting in (
        np.arange(7.0, 307.0),
        np.arange(300.0) * 60,
        gaps,
        np.repeat(gaps, 3),
        visits,
    ):
        assert running(draw.permutation(counting))


def test_the_sketch_of_a_large_table_finds_a_small_part_of_it() -> None:
    draw = np.random.default_rng(0)
    large = draw.normal(size=(20_000, 4))
    whole = sketched([Cells("cells", large)], KEY)
    assert len(whole.rows) == KEPT
    assert whole.same_data(sketched([Cells("cells", large[:2000, :3])], KEY))


def test_a_sketch_has_one_size_and_survives_its_bytes() -> None:
    small = sketched(of_table({"a": [1, 2], "b": ["x", None]}), KEY)
    large = sketched(of_table({name: list(c) for name, c in visits().items()}), KEY)  # type: ignore[misc]
    assert len(small.to_bytes()) == len(large.to_bytes())
    for sketch in (small, large, sketched([], KEY)):
        assert Sketch.from_bytes(sketch.to_bytes()) == sketch
    with pytest.raises(ValueError, match="bytes, and not"):
        Sketch.from_bytes(b"x")


@pytest.mark.parametrize("cell", ["x", None, "", "NA", "2024-01-01"])
def test_rows_that_nothing_tells_from_others_are_refused(cell: object, book: Path) -> None:
    """Their sketch is empty: it is not that of other such rows, and no new data either."""
    columns: dict[str, list[object]] = {"row": list(range(40)), "said": [cell] * 40}
    empty = sketched(of_table(columns), KEY)
    assert empty.is_empty
    assert not empty.same_data(empty)
    with pytest.raises(LedgerError, match="nothing tells these rows from those of other data"):
        released(pd.DataFrame(columns), book, "ward")


def test_a_single_row_is_known_again(book: Path) -> None:
    released(visits(0, 1), book, "ward")
    with pytest.raises(LedgerError, match=REFUSED):
        released(visits(0, 1), book, "again")
    released(visits(1, 1), book, "again")


def test_a_sketch_depends_on_its_key() -> None:
    table = of_table({name: list(c) for name, c in visits().items()})  # type: ignore[misc]
    ours, theirs = sketched(table, KEY), sketched(table, bytes(32))
    assert ours.table != theirs.table
    assert not ours.rows & theirs.rows
    assert not ours.parts & theirs.parts
    assert not ours.columns & theirs.columns


def test_what_the_ledger_holds_of_rows_tells_nothing_without_its_key(book: Path) -> None:
    """One size for all data, two texts for equal ones, and none of a sketch's numbers in it."""
    for table in (visits(), visits(), visits(1, 3)):
        released(table, book, "ward")
    with Ledger.open(book) as ledger:
        assert ledger.accounts() == ("again", "ward")
        texts = list(ledger._book.accounts["ward"].rows)
        sketch = sketched(of_table({n: list(c) for n, c in visits().items()}), ledger.sketch_key())  # type: ignore[misc]
    assert len(texts) == 3
    assert len({len(text) for text in texts}) == 1
    import base64

    rows = max(sketch.rows).to_bytes(8, "little")
    assert not any(rows in base64.b64decode(text) for text in texts)


def test_the_published_extract_does_not_tell_neighbours_apart(tmp_path: Path) -> None:
    """Two histories of two runs each, the first in common; in one a row was taken away between the
    runs. Entries, their kinds, order, words and sizes are the same; hashes alone differ, by what
    was released."""

    def trained(folder: Path, run: str, count: int) -> None:
        patients(folder / "patients.csv")
        lines = (folder / "patients.csv").read_text().splitlines()
        (folder / "patients.csv").write_text("\n".join(lines[: count + 1]) + "\n")
        option = recipe(
            folder, TABLE, ledger__path="privacy.db",
            ledger__grant={"epsilon": 50.0, "delta": 1e-5},
        )  # fmt: skip
        train(plan(option), folder / run)

    extracts: list[object] = []
    sizes: list[object] = []
    begun = tmp_path / "begun"
    begun.mkdir()
    trained(begun, "one", 60)
    for name, other in (("same", 60), ("neighbour", 59)):
        folder = tmp_path / name
        shutil.copytree(begun, folder)
        trained(folder, "two", other)
        extracts.append(_extract(json.loads((folder / "two" / "ledger.json").read_text())))
        with (
            Ledger.open(folder / "privacy.db") as ledger,
            ledger._store.transaction(write=False) as transaction,
        ):
            sizes.append([len(entry.content) for entry in transaction.entries(1)])
    assert extracts[0] == extracts[1]
    assert sizes[0] == sizes[1]
    assert json.dumps(extracts[0]).count("encrypted sketch") == 2


def _extract(found: object) -> object:
    """The extract without hashes and the random names of runs."""
    if isinstance(found, dict):
        hidden = ("hash", "head", "run", "time")
        return {key: _extract(value) for key, value in found.items() if key not in hidden}  # pyright: ignore[reportUnknownVariableType]
    return [_extract(one) for one in found] if isinstance(found, list) else found  # pyright: ignore[reportUnknownVariableType]


def test_a_lost_or_swapped_key_is_no_second_budget(book: Path) -> None:
    released(visits(), book, "ward")
    book.with_name("privacy.db.key").unlink()
    with pytest.raises(LedgerError, match=r"under another key.*put back the key file"):
        released(visits(), book, "again")


def test_documents_of_a_jsonl_file_are_read_whole(tmp_path: Path, book: Path) -> None:
    table = visits()
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps({"text": note}) + "\n" for note in table["note"]))
    released(table, book, "ward")
    with pytest.raises(LedgerError, match=REFUSED):
        released(file, book, "again")


def test_a_private_loop_is_refused_what_a_recipe_has_spent(tmp_path: Path) -> None:
    from tests.integrations.declared import table as rows

    features, label = rows().tensors
    frame = pd.DataFrame(features.flatten(1).numpy()).assign(label=label.numpy())
    path = tmp_path / "privacy.db"
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("ward", "example", epsilon=1e6, delta=1e-6)
    released(frame.iloc[::-1, ::-1], path, "ward")
    with pytest.raises(LedgerError, match=REFUSED):
        private(tmp_path, linear())

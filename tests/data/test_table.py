from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nacre.core.errors import DataError
from nacre.data import ColumnSpec, Holdout, NoScaling, PublicFile, PublicScaling, Table

CSV = """who,ward,age,sex,ill
ann,a,30,f,yes
bob,b,50,m,no
ann,a,31,f,no
cid,b,70,m,yes
"""
TABLE = Table(
    path="rows.csv",
    target="ill",
    columns={"age": ColumnSpec(low=0, high=100), "sex": ColumnSpec(categories=("f", "m"))},
    unit="who",
    party="ward",
    size=3,
    classes=("no", "yes"),
)


def read(folder, table=TABLE, content=CSV, seed=0, key=b"k"):
    (folder / "rows.csv").write_text(content, encoding="utf-8")
    return table.read(folder, seed, key)


def with_row(line):
    return f"{CSV}{line}\n"


def test_columns_become_tensors_in_their_declared_order(tmp_path):
    cohorts = read(tmp_path)
    rows = cohorts.private
    assert rows.features.tolist() == [[30, 1, 0], [50, 0, 1], [31, 1, 0], [70, 0, 1]]
    assert rows.features.dtype == torch.float32
    assert rows.label.tolist() == [1, 0, 0, 1]
    assert rows.group == ("ann", "bob", "ann", "cid")
    assert rows.party == ("a", "b", "a", "b")
    assert (cohorts.test, cohorts.public, cohorts.notes) == (None, None, ())
    assert TABLE.schema().feature_names() == ("age", "sex=f", "sex=m")
    assert not (cohorts.test_is_public or cohorts.private_is_public)


def test_parquet_and_csv_give_the_same_rows(tmp_path):
    columns = {
        "who": ["ann", "bob", "ann", "cid"],
        "ward": ["a", "b", "a", "b"],
        "age": [30, 50, 31, 70],
        "sex": pa.array(["f", "m", "f", "m"]).dictionary_encode(),
        "ill": ["yes", "no", "no", "yes"],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    found = replace(TABLE, path="rows.parquet").read(tmp_path, 0, b"k").private
    expected = read(tmp_path).private
    assert torch.equal(found.features, expected.features)
    assert (found.group, found.party) == (expected.group, expected.party)


def test_a_regression_has_number_labels(tmp_path):
    table = replace(
        TABLE, target="age", classes=(), task="regression", drop=("ill",),
        columns={"sex": ColumnSpec(categories=("f", "m"))},
    )  # fmt: skip
    assert read(tmp_path, table).private.label.tolist() == [30.0, 50.0, 31.0, 70.0]
    assert table.schema().outputs() == 1


def test_a_holdout_keeps_a_person_together(tmp_path):
    lines = [f"p{i % 40},a,{i % 90},f,{'yes' if i % 3 else 'no'}" for i in range(120)]
    content = "\n".join(["who,ward,age,sex,ill", *lines])
    table = replace(TABLE, holdout=Holdout(share=0.3))
    cohorts = read(tmp_path, table, content)
    assert len(cohorts.private) + len(cohorts.test) == 120
    assert not set(cohorts.private.group) & set(cohorts.test.group)
    assert not cohorts.test_is_public
    assert read(tmp_path, table, content, seed=9).test.group == cohorts.test.group
    assert read(tmp_path, table, content, key=b"other").test.group != cohorts.test.group


def test_a_public_file_needs_no_unit_and_no_party(tmp_path):
    (tmp_path / "public.csv").write_text("age,sex,ill\n10,f,no\n20,m,no\n")
    table = replace(TABLE, public=PublicFile(path="public.csv"), scaling=PublicScaling())
    cohorts = read(tmp_path, table)
    assert cohorts.public.features[:, 0].tolist() == [10, 20]
    assert (cohorts.public.group, cohorts.public.party) == (None, None)
    assert table.has_public and not table.has_test


def test_a_demonstration_may_show_everything(tmp_path):
    cohorts = read(tmp_path, replace(TABLE, public_demonstration=True))
    assert cohorts.test_is_public and cohorts.private_is_public


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_row("dan,a,,f,no"), r"column 'age': there is no value in row 5; fill them or set"),
        (with_row("dan,a,120,f,no"), r"lies outside \[0, 100\] in row 5"),
        (with_row("dan,a,inf,f,no\neve,a,-1,f,no"), r"outside \[0, 100\] in rows 5 and 6"),
        (
            with_row("dan,a,old,f,no"),
            "'age': 'old': it is not a number in row 5; correct it, say how",
        ),
        (with_row("dan,a,?,f,no"), "'age': '[?]': it is not a number in row 5; .* {missing: "),
        (with_row("dan,a,-nan,f,no"), "'age': '-nan': it is not a number in row 5"),
        (with_row("dan,a,9,x,no"), "'sex': 'x': it is none of f, m in row 5; add it to `cat"),
        (
            with_row("dan,a,9,f,maybe"),
            "'ill': 'maybe': it is none of no, yes in row 5; add it to `cl",
        ),
        (with_row("dan,a,9,f,"), "'ill': there is no value"),
        (with_row(",a,9,f,no"), "'who': there is no value"),
        (with_row("dan,,9,f,no"), "'ward': there is no value"),
        (CSV.replace("sex", "gender"), "no column 'sex'"),
        ("x,who,ward,age,sex,ill\n1,ann,a,3,f,yes\n", "'x' that is neither declared nor dropped"),
        ("who,ward,sex,ill\nann,a,f,yes\n", "no column 'age'"),
        (CSV.replace("yes", "no"), "no private row has class 'yes'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_one_sentence(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as refusal:
        read(tmp_path, content=content)
    assert "\n" not in str(refusal.value) and "rows.csv" in str(refusal.value)


def test_rows_without_a_value_are_dropped_where_declared(tmp_path):
    content = with_row("dan,a,,f,no\n,a,9,f,no\neve,b,9,m,no")
    cohorts = read(tmp_path, replace(TABLE, on_missing="drop"), content)
    assert cohorts.private.group == ("ann", "bob", "ann", "cid", "eve")
    assert [note.split(": ")[1] for note in cohorts.notes] == [
        "dropped row 5, there is no value in 'age'",
        "dropped row 6, there is no value in 'who'",
    ]


def test_numbers_out_of_range_are_clamped_where_declared(tmp_path):
    content = with_row("dan,a,120,f,no\neve,b,-inf,m,no")
    cohorts = read(tmp_path, replace(TABLE, on_out_of_range="clamp"), content)
    assert cohorts.private.features[4:, 0].tolist() == [100, 0]
    assert "clamped 2 rows (first: row 5) of 'age'" in cohorts.notes[0]


def test_a_category_cannot_be_clamped(tmp_path):
    table = replace(TABLE, on_out_of_range="clamp")
    with pytest.raises(DataError, match="'x': it is none of f, m"):
        read(tmp_path, table, with_row("dan,a,9,x,no"))


def test_an_infinite_number_without_a_range_cannot_be_clamped(tmp_path):
    columns = {"age": ColumnSpec(), "sex": ColumnSpec(categories=("f", "m"))}
    table = replace(TABLE, columns=columns, scaling=NoScaling(), on_out_of_range="clamp")
    for value in ("inf", "1e300"):  # the second is infinite in float32
        with pytest.raises(DataError, match="outside the finite numbers in row 5"):
            read(tmp_path, table, with_row(f"dan,a,{value},f,no"))


def test_values_out_of_range_are_dropped_where_declared(tmp_path):
    content = with_row("dan,a,120,f,no\neve,b,9,x,no")
    cohorts = read(tmp_path, replace(TABLE, on_out_of_range="drop"), content)
    assert len(cohorts.private) == 4 and len(cohorts.notes) == 2


def test_a_category_may_be_called_none(tmp_path):
    columns = {"age": ColumnSpec(low=0, high=100), "sex": ColumnSpec(categories=("f", "m", "NA"))}
    rows = read(tmp_path, replace(TABLE, columns=columns), with_row("dan,a,9,NA,no")).private
    assert rows.features[4].tolist() == [9, 0, 0, 1]


def test_no_row_may_be_left_over(tmp_path):
    only_bad = CSV.splitlines()[0] + "\ndan,a,,f,no\n"
    with pytest.raises(DataError, match="leaves no private rows"):
        read(tmp_path, replace(TABLE, on_missing="drop"), only_bad)


def test_one_bound_is_enough_without_scaling(tmp_path):
    columns = {"age": ColumnSpec(low=0), "sex": ColumnSpec(categories=("f", "m"))}
    table = replace(TABLE, columns=columns, scaling=NoScaling())
    with pytest.raises(DataError, match=r"outside \[0, inf\]"):
        read(tmp_path, table, with_row("dan,a,-1,f,no"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size=0 must be at least 1"),
        ({"columns": {}}, "at least one column"),
        ({"drop": ("age",)}, "column 'age' has two roles"),
        ({"unit": "ill"}, "column 'ill' has two roles"),
        ({"classes": ("no",)}, "at least two different classes"),
        ({"classes": ("no", "no")}, "at least two different classes"),
        ({"task": "regression"}, "have no meaning for task=regression"),
        ({"columns": {"age": ColumnSpec()}}, "column 'age' has none; declare `low` and `high`"),
        ({"scaling": PublicScaling()}, "scaling `public` needs public rows"),
    ],
)
def test_impossible_tables_are_refused_before_a_row_is_read(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(TABLE, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 2, "high": 1}, "low=2 must be below high=1"),
        ({"low": float("inf")}, "low=inf must be finite"),
        ({"high": 1, "categories": ("a",)}, "exclude each other"),
        ({"categories": ("a", "a")}, "must differ"),
    ],
)
def test_impossible_columns_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ColumnSpec(**fields)


def test_a_table_may_name_neither_units_nor_parties(tmp_path):
    rows = read(tmp_path, replace(TABLE, unit=None, party=None, drop=("who", "ward"))).private
    assert (rows.group, rows.party) == (None, None)

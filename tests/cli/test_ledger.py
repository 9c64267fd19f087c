"""Budgets on the command line, and statistics that are charged to them."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from nacre.cli import ledger as verb
from nacre.core.types import Adjacency, Unit
from nacre.ledger.rules import RuleName
from tests.cli.conftest import Nacre, document

ROWS = "age,sex,person\n" + "".join(f"{20 + i % 50},{'fm'[i % 2]},p{i // 2}\n" for i in range(400))

QUERIES = """\
nacre: 1
queries:
  - {kind: count, name: rows, epsilon: 1}
  - {kind: mean, name: age, column: age, low: 0, high: 120, size: 400, epsilon: 1}
  - {kind: histogram, name: sexes, column: sex, categories: [f, m], epsilon: 1}
"""


@pytest.fixture
def book(nacre: Nacre, tmp_path: Path) -> Path:
    """A ledger in which the account `ward` may spend epsilon 8."""
    path = tmp_path / "privacy.db"
    assert nacre("ledger", "grant", path, "ward", "--epsilon", 8, "--delta", 1e-6).exit_code == 0
    return path


@pytest.fixture
def release(nacre: Nacre, book: Path, tmp_path: Path) -> Any:
    """Runs `nacre release` on a small table."""
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "queries.yaml").write_text(QUERIES)
    table, queries = tmp_path / "rows.csv", tmp_path / "queries.yaml"

    def run(*words: object) -> Any:
        return nacre("release", table, queries, "--ledger", book, "--account", "ward", *words)

    return run


def spent(nacre: Nacre, book: Path) -> float:
    return document(nacre("ledger", "show", book, "--json"))["accounts"][0]["grants"][0]["spent"]


def test_the_choices_are_those_of_the_library() -> None:
    assert get_args(Unit) == verb.UNITS
    assert get_args(RuleName) == verb.RULES
    assert get_args(Adjacency) == verb.ADJACENCIES


def test_grants_are_made_raised_and_never_lowered(nacre: Nacre, book: Path) -> None:
    raised = nacre("ledger", "grant", book, "ward", "--epsilon", 9, "--delta", 1e-6, "--json")
    assert document(raised)["new"] is True
    assert document(raised)["account"]["grants"][0]["epsilon"] == 9
    lowered = nacre("ledger", "grant", book, "ward", "--epsilon", 1, "--delta", 1e-6)
    assert lowered.exit_code == 2
    nothing = nacre("ledger", "grant", book, "other", "--epsilon", 1, "--delta", 0)
    assert nothing.exit_code == 2 and "delta=0.0" in nothing.stderr


def test_show(nacre: Nacre, book: Path) -> None:
    people = nacre("ledger", "show", book, "ward")
    assert "epsilon 8" in people.stdout and "0%" in people.stdout
    assert "the share of the grant is what counts" in " ".join(people.stdout.split())
    unknown = nacre("ledger", "show", book, "wrad")
    assert unknown.exit_code == 2 and "it has ward" in unknown.stderr
    absent = nacre("ledger", "show", book.with_name("no.db"))
    assert absent.exit_code == 2 and "there is no ledger" in absent.stderr


def test_parties_of_one_data_set_share_a_row(nacre: Nacre, book: Path, release: Any) -> None:
    for place in range(5):
        words = ("ledger", "grant", book, f"clinic/p{place}", "--delta", 1e-6, "--epsilon")
        assert nacre(*words, 8 if place < 4 else 9).exit_code == 0
    assert release("--account", "clinic/p1").exit_code == 0
    shown = nacre("ledger", "show", book).stdout
    assert "clinic/p0 and 3" in shown and "clinic/p4" in shown and "clinic/p2" not in shown
    assert "0 to 1" in shown and "Parties of one data set share a row; `--all` lists" in shown
    every = nacre("ledger", "show", book, "--all").stdout
    assert all(f"clinic/p{place} " in every for place in range(5)) and "--all" not in every
    listed = document(nacre("ledger", "show", book, "--json"))["accounts"]
    assert len(listed) == 6, "programs get all of them"


@pytest.mark.parametrize(
    ("terminal", "encoding", "spent", "reserved", "drawn"),
    [
        (True, "utf-8", 0.5, 0.25, "█" * 10 + "▒" * 5 + "░" * 5 + " 75%"),
        (True, "ascii", 0.25, 0.0, "#" * 5 + "-" * 15 + " 25%"),
        (True, "utf-8", 1.0, 0.0, "█" * 20 + " 100%"),
        (False, "utf-8", 0.5, 0.25, "75%, of it 25% reserved"),
        (False, "utf-8", 0.5, 0.0, "50%"),
    ],
)
def test_a_budget_is_drawn_on_a_terminal_and_told_in_words_elsewhere(
    terminal: bool, encoding: str, spent: float, reserved: float, drawn: str
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=out, force_terminal=terminal, color_system=None, width=60)
    console.print(verb._Bar(spent, reserved))  # pyright: ignore[reportPrivateUsage]
    out.seek(0)
    assert out.read().rstrip() == drawn


def test_verify_finds_what_was_changed(nacre: Nacre, book: Path) -> None:
    good = document(nacre("ledger", "verify", book, "--json"))
    assert good["verified"] and good["findings"] == []
    kept = good["head"]["hash"]
    against = nacre("ledger", "verify", book, "--against", kept)
    assert against.exit_code == 0 and "the kept head" in against.stdout
    assert nacre("ledger", "verify", book, "--against", "0" * 64).exit_code == 2
    with sqlite3.connect(book) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE entries SET content = replace(content, '8', '9')")
    connection.close()
    bad = nacre("ledger", "verify", book, "--json")
    assert bad.exit_code == 2
    assert document(bad)["head"] is None and "row 1" in document(bad)["findings"][0]
    assert "row 1" in nacre("ledger", "verify", book).stdout


def test_a_signed_head_finds_what_was_cut(nacre: Nacre, book: Path, tmp_path: Path) -> None:
    key, kept = tmp_path / "key.pem", tmp_path / "HEAD.json"
    signed = document(nacre("ledger", "head", book, "--key", key, "-o", kept, "--json"))
    assert signed == json.loads(kept.read_text()) and signed["number"] == 2
    assert signed["signer"] in nacre("ledger", "head", book, "--key", key).stdout
    words = ("ledger", "verify", book, "--against", kept, "--signer")
    assert nacre(*words, signed["signer"]).exit_code == 0
    assert "and not by" in nacre(*words, "00" * 32).stdout
    assert nacre("ledger", "head", book, "-o", tmp_path / "no" / "HEAD.json").exit_code == 2
    with sqlite3.connect(book) as connection:
        connection.execute("DROP TRIGGER no_delete")
        connection.execute("DELETE FROM entries WHERE number=2")
    connection.close()
    assert nacre("ledger", "verify", book).exit_code == 0
    cut = nacre("ledger", "verify", book, "--against", kept)
    assert cut.exit_code == 2 and "row 2 is gone" in cut.stdout
    assert "neither a hash" in nacre("ledger", "verify", book, "--against", "00").stderr


def test_answers_are_charged_and_come_with_intervals(
    nacre: Nacre, book: Path, release: Any, tmp_path: Path
) -> None:
    result = release("--json", "-o", tmp_path / "answers.json")
    assert result.exit_code == 0, result.stderr
    rows, age, sexes = document(result)["answers"]
    assert abs(rows["values"][0] - 400) < 40  # fails once in e^40
    assert rows["low"][0] < rows["values"][0] < rows["high"][0]
    assert 30 < age["values"][0] < 60
    assert sexes["labels"] == ["f", "m", "other"] and sexes["epsilon"] == 1
    assert json.loads((tmp_path / "answers.json").read_text()) == document(result)
    first = spent(nacre, book)
    assert first > 0
    people = release()
    assert "sexes: f" in people.stdout
    assert spent(nacre, book) == pytest.approx(2 * first)


def test_a_release_beyond_the_budget_charges_nothing(
    nacre: Nacre, book: Path, release: Any, tmp_path: Path
) -> None:
    queries = tmp_path / "queries.yaml"
    queries.write_text(QUERIES + "  - {kind: count, name: more, epsilon: 500}\n")
    result = release()
    assert result.exit_code == 3
    assert "ask for a smaller epsilon, or" in result.stderr and "steps" not in result.stderr
    assert spent(nacre, book) == 0


@pytest.mark.parametrize(
    ("rows", "says"),
    [("age,person\n1,2\n", "no column 'sex'"), ("age,sex\n1,f\nold,f\n", "row 2 is not a number")],
)
def test_rows_that_do_not_fit_charge_nothing(
    nacre: Nacre, book: Path, release: Any, tmp_path: Path, rows: str, says: str
) -> None:
    (tmp_path / "rows.csv").write_text(rows)
    result = release()
    assert result.exit_code == 2 and says in result.stderr
    assert spent(nacre, book) == 0


def test_mistakes_in_queries_have_a_line(release: Any, tmp_path: Path) -> None:
    queries = tmp_path / "queries.yaml"
    for old, new, says in (
        ("size: 400", "sise: 400", "queries.yaml:4 `queries[1].sise`: is no key here"),
        ("kind: count", "kind: cuont", "did you mean `count`?"),
        ("name: age", "name: rows", "queries.yaml:4 `queries[1].name`: queries name 'rows' twice"),
        ("size: 400, epsilon: 1", "epsilon: 1e9", "queries.yaml:4 `queries[1].epsilon`: epsilon="),
        ("low: 0, high: 120", "low: 9, high: 1", "queries.yaml:4 `queries[1].low`"),
    ):
        queries.write_text(QUERIES.replace(old, new))
        result = release()
        assert result.exit_code == 2 and says in result.stderr
    queries.write_text("nacre: 1\nqueries: []\n")
    assert "at least one query" in release().stderr
    queries.write_text(
        "nacre: 1\nqueries: [{kind: count, name: n, epsilon: 1e-9, delta: 1e-300}]\n"
    )
    assert "query 'n' has no price" in release().stderr


def test_a_file_of_queries_is_one_run_of_a_grant(nacre: Nacre, book: Path, release: Any) -> None:
    tight = book.with_name("tight.db")
    words = ("--epsilon", 8, "--delta", 1e-6, "--rule", "pld")
    assert nacre("ledger", "grant", tight, "ward", *words).exit_code == 0
    result = release("--ledger", tight, "--json")
    assert result.exit_code == 0, result.stderr
    paid = sum(answer["epsilon"] for answer in document(result)["answers"])
    assert 0 < spent(nacre, tight) <= paid * (1 + 1e-9)  # never more than one by one
    assert release("--ledger", tight).exit_code == 3  # a `pld` grant takes one run


def test_the_queries_that_init_writes_are_answered(
    nacre: Nacre, book: Path, tmp_path: Path
) -> None:
    queries, table = tmp_path / "asked.yaml", tmp_path / "people.csv"
    result = nacre("init", "queries", "-o", queries)
    assert "nacre release" in result.stdout
    rows = "".join(f"{i % 90},{i},f,{i % 9},east\n" for i in range(300))
    table.write_text("age,cost,sex,days,ward\n" + rows)
    result = nacre("release", table, queries, "--ledger", book, "--account", "ward", "--json")
    assert result.exit_code == 0, result.stderr
    assert [answer["name"] for answer in document(result)["answers"]] == [
        "rows", "age", "cost", "ages", "sexes", "waiting", "spread of age", "by sex and ward",
        "age by ward", "main sex",
    ]  # fmt: skip


def test_a_query_about_rows_on_an_account_of_groups_names_itself(
    nacre: Nacre, book: Path, tmp_path: Path
) -> None:
    words = ("--epsilon", 8, "--delta", 1e-6, "--unit", "group", "--column", "person")
    assert nacre("ledger", "grant", book, "people", *words).exit_code == 0
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "queries.yaml").write_text(QUERIES)
    files = (tmp_path / "rows.csv", tmp_path / "queries.yaml")
    told = nacre("release", *files, "--ledger", book, "--account", "people")
    assert told.exit_code == 2
    assert "query 'rows' protects single rows" in told.stderr
    assert "add `unit: COLUMN` to the query" in told.stderr


def test_one_answer_is_said_to_be_one(release: Any, nacre: Nacre, tmp_path: Path) -> None:
    queries = tmp_path / "queries.yaml"
    queries.write_text("".join(QUERIES.splitlines(True)[:3]))
    assert release("-o", tmp_path / "one.json").exit_code == 0
    said = nacre("report", tmp_path / "one.json", "--check").stdout
    assert said.startswith("the one answer of ") and said.endswith("is as paid for\n")


def test_what_is_wrong_with_an_output_is_said(release: Any, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("{}")
    assert "kept.json exists, and answers are kept" in release("-o", tmp_path / "kept.json").stderr
    told = release("-o", tmp_path / "nowhere" / "x.json").stderr
    assert f"there is no folder {tmp_path / 'nowhere'}: make it" in told


def test_an_output_that_cannot_be_written_is_refused_before_the_charge(
    nacre: Nacre, book: Path, release: Any, tmp_path: Path
) -> None:
    (tmp_path / "taken.json").write_text("")
    for place in ("taken.json", "no/such/folder.json"):
        assert release("-o", tmp_path / place).exit_code == 2
    assert spent(nacre, book) == 0


def test_people_are_counted_whole(nacre: Nacre, book: Path, release: Any, tmp_path: Path) -> None:
    (tmp_path / "queries.yaml").write_text(
        "nacre: 1\n"
        "queries:\n"
        "  - {kind: count, name: people, epsilon: 2, unit: person}\n"
        "  - {kind: histogram, name: ages, column: age, edges: [0, 40, 80], epsilon: 2,\n"
        "     unit: person, rows_per_unit: 2}\n"
    )
    words = ("--epsilon", 8, "--delta", 1e-6, "--unit", "group", "--column", "person")
    clinic = book.with_name("groups.db")
    assert nacre("ledger", "grant", clinic, "ward", *words).exit_code == 0
    result = release("--ledger", clinic, "--json")
    assert result.exit_code == 0, result.stderr
    people, ages = document(result)["answers"]
    assert abs(people["values"][0] - 200) < 20  # two rows a person, one is kept
    assert abs(sum(ages["values"]) - 400) < 60


def test_records_are_noised_one_by_one(nacre: Nacre, tmp_path: Path) -> None:
    book, output = tmp_path / "records.db", tmp_path / "noised.csv"
    grant = ("--epsilon", "4", "--delta", "1e-6", "--adjacency", "replace_one")
    assert nacre("ledger", "grant", book, "ward", *grant).exit_code == 0
    table, columns = tmp_path / "rows.csv", tmp_path / "columns.yaml"
    table.write_text("name,sex,age\n" + "".join(f"p{i},{'fm'[i % 2]},{i}\n" for i in range(50)))
    columns.write_text(
        "nacre: 1\ncolumns:\n"
        "  sex: {kind: randomised_response, categories: [f, m], epsilon: 1}\n"
        "  age: {kind: laplace, low: 0, high: 110, epsilon: 2}\n"
    )
    asked = ("release", table, columns, "--local", "--ledger", book, "--account", "ward")
    result = nacre(*asked)
    assert (result.exit_code, "name its file with `-o" in result.stderr) == (2, True)
    result = nacre(*asked, "-o", output, "--json")
    assert result.exit_code == 0, result.stderr
    assert "Who is in the table" in result.stderr
    assert document(result)["epsilon"] == 3
    lines = output.read_text().splitlines()
    assert lines[0] == "sex,age"
    assert len(lines) == 51
    assert {line.split(",")[0] for line in lines[1:]} <= {"f", "m"}
    assert nacre(*asked, "-o", tmp_path / "again.csv").exit_code == 3, "the grant holds one"
    assert not (tmp_path / "again.csv").exists()
    columns.write_text("nacre: 1\ncolumns:\n  sex: {kind: laplace, low: 0, high: 1}\n")
    result = nacre(*asked, "-o", tmp_path / "again.csv")
    assert result.exit_code == 2
    assert "columns.yaml:3" in result.stderr


def test_a_key_that_is_no_text_does_not_reach_the_terminal(nacre: Nacre, tmp_path: Path) -> None:
    book, table, queries = (tmp_path / name for name in ("l.db", "t.csv", "q.yaml"))
    nacre("ledger", "grant", book, "A", "--epsilon", 5, "--delta", 1e-5, "--rule", "pld")
    rows = (f"\x1b[31mred,{number**2 / 7:.3f}\n" for number in range(300))
    table.write_text("ward,dose\n" + "".join(rows))
    queries.write_text(
        "nacre: 1\nqueries: [{kind: keys, name: k, column: ward, epsilon: 1, delta: 1e-7}]\n"
    )
    result = nacre("release", table, queries, "--ledger", book, "--account", "A")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout and "\\x1b[31mred" in result.stdout


def test_names_of_older_ledgers_reach_no_terminal_and_cells_are_no_formulas(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from nacre.cli.output import show
    from nacre.cli.release import _csv

    show({"account": "a\x1b[2J\x9b2J\u202e"}, "", True)
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"account": "a\x1b[2J\x9b2J\u202e"}
    assert printed.replace("\n", "").isprintable()
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "plain"]
    rows = _csv({"=name": cells, "n": [-1.5] * 7}).decode()
    assert rows.startswith("'=name,n\n'=1+1,-1.5\n'+1,-1.5\n'-1,-1.5\n'@x,-1.5\n'\tx,")
    assert "plain,-1.5" in rows

"""`nacre release`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nacre.cli.output import common_options, show
from nacre.core.errors import Refusal, one_line
from nacre.prediction.formulas import inert

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.differential_privacy.queries import QueryOption
    from nacre.statistics.answers import Answer


@click.command(short_help="Release private statistics of a table, charged to a ledger.")
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.option("--ledger", required=True, help="The ledger: a file, or a URL of PostgreSQL.")
@click.option("--account", required=True, help="The account that is charged.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the answers as JSON.")
@click.option("--local", is_flag=True, help="Noise each record by itself, and write them as CSV.")
@common_options
def command(
    table: Path, queries: Path, ledger: str, account: str, output: Path | None, local: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Answer QUERIES (a YAML file) about TABLE (CSV or Parquet) under differential privacy.

    All answers are reserved in the ledger together before a row is read, and charged together
    before the first is computed. Asking again is another release and is charged again: keep the
    answers.

    With --local QUERIES names columns, and each record is noised by itself, for receivers who must
    not see a true value. Who is in the table is not hidden then, and sums over all records are far
    less exact than the answers to queries."""
    if output is not None and output.exists():
        raise Refusal(f"{output} exists, and answers are kept: choose another file with `-o`")
    if output is not None and not output.parent.is_dir():
        raise Refusal(
            f"{output} cannot be written, as there is no folder {output.parent}: make it, or "
            "choose another file with `-o`"
        )
    if local:
        _records(table, queries, ledger, account, output, as_json)
    else:
        _answers(table, queries, ledger, account, output, as_json)


def _answers(
    table: Path, queries: Path, ledger: str, account: str, output: Path | None, as_json: bool
) -> None:
    from nacre.recipe.load import read_options
    from nacre.statistics.query_file import Queries
    from nacre.statistics.release import release

    asked = read_options(queries, Queries)
    found = release(table, asked, ledger=ledger, account=account)
    both = zip(found.answers, asked.queries, strict=True)
    document = {
        "run": found.run,
        "account": account,
        "answers": [_fields(answer, query) for answer, query in both],
    }
    # First: the answers are paid for, whatever fails now.
    show(document, _table(found.answers), as_json)
    if output is not None:
        from nacre.core.files import write_json

        write_json(output, document)


_WARNING = (
    "Each record is protected by itself, also from those who hold this file. Who is in the table, "
    "and how many records there are, is not: a record that is there at all is seen to be there. "
    "Estimates from such records are far less exact than answers to queries."
)


def _records(
    table: Path, queries: Path, ledger: str, account: str, output: Path | None, as_json: bool
) -> None:
    """Writes the noised records; a summary is shown."""
    from rich.table import Table
    from rich.text import Text

    from nacre.core.files import write_bytes
    from nacre.recipe.load import read_options
    from nacre.statistics.query_file import Records
    from nacre.statistics.release import release_records

    asked = read_options(queries, Records)
    if output is None:
        raise Refusal("`--local` writes a table of records: name its file with `-o records.csv`")
    found = release_records(table, asked, ledger=ledger, account=account)
    write_bytes(output, _csv(found.columns))
    epsilon = sum(option.epsilon for option in asked.columns.values())
    document = {
        "run": found.run,
        "account": account,
        "records": str(output),
        "epsilon": epsilon,
        "columns": {name: asdict(option) for name, option in asked.columns.items()},
        "warning": _WARNING,
    }
    summary = Table("column", "noise", "epsilon of a record")
    for name, option in asked.columns.items():
        summary.add_row(Text(name), option.kind.replace("_", " "), f"{option.epsilon:g}")
    summary.add_row("all columns", "", f"{epsilon:g}")
    click.echo(_WARNING, err=True)
    show(document, summary, as_json)


def _csv(columns: Mapping[str, Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(inert, columns))
    writer.writerows(map(inert, row) for row in zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _fields(answer: Answer, query: QueryOption) -> Mapping[str, Any]:
    """An answer as plain JSON, with the query, which `nacre report --check` holds it against; its
    event is the query's price."""
    fields = {key: value for key, value in asdict(answer).items() if key != "event"}
    asked = {key: value for key, value in asdict(query).items() if value is not None}
    return {**fields, "epsilon": query.epsilon, "delta": query.delta, "query": asked}


def _table(answers: Sequence[Answer]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("answer", "value", "95 % interval")
    for answer in answers:
        if not answer.values:  # a choice, or groups of which there is none
            said = one_line(", ".join(answer.labels)) or "no group"
            table.add_row(Text(answer.name), Text(said), "")
            continue
        bars = zip(answer.labels, answer.values, answer.low, answer.high, strict=True)
        for label, value, low, high in bars:
            name = f"{answer.name}: {label}" if label else answer.name
            # Keys are text from the rows, and control characters would reach a terminal.
            table.add_row(Text(one_line(name)), f"{value:g}", f"{low:g} to {high:g}")
    return table

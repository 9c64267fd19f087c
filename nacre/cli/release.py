"""`nacre release`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nacre.cli.output import common_options, show
from nacre.core.errors import Refusal

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.differential_privacy.queries import QueryOption
    from nacre.differential_privacy.statistics import Answer


@click.command(short_help="Release private statistics of a table, charged to a ledger.")
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.option("--ledger", required=True, help="The ledger: a file, or a URL of PostgreSQL.")
@click.option("--account", required=True, help="The account that is charged.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the answers as JSON.")
@common_options
def command(
    table: Path, queries: Path, ledger: str, account: str, output: Path | None, as_json: bool
) -> None:
    """Answer QUERIES (a YAML file) about TABLE (CSV or Parquet) under differential privacy.

    All answers are reserved in the ledger together before a row is read, and charged together
    before the first is computed. Asking again is another release and is charged again: keep the
    answers."""
    from nacre.recipe.load import read_options
    from nacre.recipe.queries import Queries
    from nacre.training.release import release

    asked = read_options(queries, Queries)
    if output is not None and (output.exists() or not output.parent.is_dir()):
        raise Refusal(f"{output} exists or has no folder; choose another file with `-o`")
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


def _fields(answer: Answer, query: QueryOption) -> Mapping[str, Any]:
    """An answer as plain JSON; its event is the query's price."""
    fields = {key: value for key, value in asdict(answer).items() if key != "event"}
    return {**fields, "epsilon": query.epsilon, "delta": query.delta}


def _table(answers: Sequence[Answer]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("answer", "value", "95 % interval")
    for answer in answers:
        bars = zip(answer.labels, answer.values, answer.low, answer.high, strict=True)
        for label, value, low, high in bars:
            name = f"{answer.name}: {label}" if label else answer.name
            table.add_row(Text(name), f"{value:g}", f"{low:g} to {high:g}")
    return table

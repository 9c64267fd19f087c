"""`nacre release`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nacre.cli.answers import show_answers
from nacre.cli.leading import Reach, led_release, reach_options
from nacre.cli.output import common_options, show
from nacre.core.errors import Refusal
from nacre.prediction.formulas import inert


@click.command(short_help="Release private statistics of a table, charged to a ledger.")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[TABLE] QUERIES"
)
@click.option("--ledger", help="The ledger: a file, or a URL of PostgreSQL.")
@click.option("--account", help="The account that is charged; with parties, ACCOUNT/PARTY of each.")
@click.option(
    "--party", "parties", multiple=True, metavar="NAME=TABLE",
    help="The table of a party, in place of TABLE; once for each.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the answers as JSON.")
@click.option("--local", is_flag=True, help="Noise each record by itself, and write them as CSV.")
@click.option("--over", type=click.Choice(["flower"]), help="Ask parties that are elsewhere.")
@click.option("--into", type=click.Path(path_type=Path), help="With --over: a folder of its own.")
@click.option("--resume", is_flag=True, help="With --over: continue the release in that folder.")
@reach_options
@common_options
def command(
    paths: tuple[Path, ...], ledger: str | None, account: str | None, parties: tuple[str, ...],
    output: Path | None, local: bool, over: str | None, into: Path | None, resume: bool,
    reach: Reach, as_json: bool,
) -> None:  # fmt: skip
    """Answer QUERIES (a YAML file) about TABLE (CSV or Parquet) under differential privacy.

    All answers are reserved in the ledger together before a row is read, and charged together
    before the first is computed. Asking again is another release and is charged again: keep the
    answers.

    With --local QUERIES names columns, and each record is noised by itself, for receivers who must
    not see a true value. Who is in the table is not hidden then, and sums over all records are far
    less exact than the answers to queries.

    Where QUERIES names parties (`across`), they answer together through a secure sum, each charged
    to an account of its own: TABLE is dealt by a column, or each party has its own (--party).
    With --over flower they are processes of other organisations (`nacre party QUERIES`), and this
    one is their server: it has no table and no ledger."""
    *tables, queries = paths
    if output is not None and output.exists():
        raise Refusal(f"{output} exists, and answers are kept: choose another file with `-o`")
    if output is not None and not output.parent.is_dir():
        raise Refusal(
            f"{output} cannot be written, as there is no folder {output.parent}: make it, or "
            "choose another file with `-o`"
        )
    if over is not None:
        if tables or parties or local or ledger is not None or account is not None:
            raise click.UsageError(
                "with `--over` each party has its own table and ledger: name QUERIES alone"
            )
        if into is None:
            raise click.UsageError("`--over flower` needs `--into`, a folder of this release")
        show_answers(led_release(queries, into, resume, reach), output, as_json)
        return
    reach.refuse_without_over()
    if into is not None or resume:
        raise click.UsageError("`--into` and `--resume` go with `--over flower`; add it")
    if len(tables) > 1 or (tables and parties):
        raise click.UsageError("name one TABLE, or the table of each party with `--party`")
    if not tables and not parties:
        raise click.UsageError("name the TABLE before QUERIES")
    if ledger is None or account is None:
        raise click.UsageError("the answers are charged: name `--ledger` and `--account`")
    if local:
        if parties:
            raise click.UsageError("`--local` noises the records of one TABLE")
        _records(tables[0], queries, ledger, account, output, as_json)
    else:
        own = _tables_of(parties) if parties else tables[0]
        show_answers(_answered(own, queries, ledger, account), output, as_json)


def _tables_of(parties: Sequence[str]) -> Mapping[str, Path]:
    """The tables by party. Raises `click.UsageError`."""
    found: dict[str, Path] = {}
    for said in parties:
        name, mark, path = said.partition("=")
        if not mark or not name or not path or name in found:
            raise click.UsageError(f"`--party {said}` must be NAME=TABLE, once for each party")
        found[name] = Path(path)
    return found


def _answered(
    tables: Path | Mapping[str, Path], queries: Path, ledger: str, account: str
) -> Mapping[str, Any]:
    """The answers as JSON has them."""
    from nacre.recipe.load import read_options
    from nacre.statistics.documents import fields_of, together_document
    from nacre.statistics.query_file import Queries
    from nacre.statistics.release import release

    asked = read_options(queries, Queries)
    if asked.across is not None:
        from nacre.statistics.across.in_process import release_together

        together = release_together(tables, asked, ledger=ledger, account=account)
        return together_document(together, asked.queries, asked.across) | {"account": account}
    if isinstance(tables, Mapping):
        raise click.UsageError(f"{queries} names no parties (`across`); give one TABLE")
    found = release(tables, asked, ledger=ledger, account=account)
    both = zip(found.answers, asked.queries, strict=True)
    return {
        "run": found.run,
        "account": account,
        "answers": [fields_of(answer, query) for answer, query in both],
    }


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

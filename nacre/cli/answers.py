"""How the answers of `nacre release` are shown, and what stands in their file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nacre.cli.output import show
from nacre.core.errors import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.differential_privacy.queries import QueryOption
    from nacre.statistics.across.opening import TogetherAnswered
    from nacre.statistics.answers import Answer
    from nacre.statistics.query_file import Queries


def together_document(
    found: TogetherAnswered, asked: Queries, account: str | None = None
) -> Mapping[str, Any]:
    """The answers of several parties as JSON. `account` is that of all parties of one ledger."""
    shares = asdict(found.noise)
    both = zip(found.answers, asked.queries, strict=True)
    assert asked.across is not None  # or nobody would have answered together
    document: dict[str, Any] = {
        "run": found.run,
        "parties": list(found.parties),
        "missing": list(found.missing),
        "noise": asked.across.noise.kind,
        "against": found.against,
        "each_party": each_party(asked.queries),
        "answers": [{**fields_of(answer, query), "shares": shares} for answer, query in both],
    }
    if account is not None:
        document["account"] = account
    return document


def each_party(queries: Sequence[QueryOption]) -> Mapping[str, float]:
    """What a unit of each party pays for all answers together at most: epsilons and deltas add up.
    A ledger that composes more closely charges less."""
    return {
        "epsilon": sum(query.epsilon for query in queries),
        "delta": sum(query.delta for query in queries),
    }


def together_note(document: Mapping[str, Any]) -> str:
    """Who answered, and what it costs whom."""
    price, missing = document["each_party"], document["missing"]
    absent = f"; {', '.join(missing)} did not" if missing else ""
    return (
        f"{', '.join(document['parties'])} answered{absent}; each pays epsilon "
        f"{price['epsilon']:g} and delta {price['delta']:g} at most for its own rows; "
        f"{document['against']}"
    )


def show_together(
    found: TogetherAnswered, asked: Queries, output: Path | None, as_json: bool,
    account: str | None = None,
) -> None:  # fmt: skip
    """Shows the answers, then writes them where a file is named."""
    document = together_document(found, asked, account)
    click.echo(together_note(document), err=True)
    show(document, answer_table(found.answers), as_json)
    if output is not None:
        from nacre.core.files import write_json

        write_json(output, document)


def fields_of(answer: Answer, query: QueryOption) -> Mapping[str, Any]:
    """An answer as plain JSON, with the query, which `nacre report --check` holds it against; its
    event is the query's price."""
    fields = {key: value for key, value in asdict(answer).items() if key != "event"}
    asked = {key: value for key, value in asdict(query).items() if value is not None}
    return {**fields, "epsilon": query.epsilon, "delta": query.delta, "query": asked}


def answer_table(answers: Sequence[Answer]) -> Table:
    """The answers for people, a row for each number."""
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

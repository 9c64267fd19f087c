"""`nacre init`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import click

from nacre.cli.output import common_options, note, show
from nacre.core.errors import Refusal

PRESETS = ("table", "image", "text", "queries")
_NEXT = {"text": "put reviews.jsonl and base/ beside it (its head says what they are), then "}
_NAMED = 8  # lines to fill in, or guessed columns, that the closing sentence names


@click.command(short_help="Write a commented recipe, or file of queries, to start from.")
@click.argument("kind", type=click.Choice(PRESETS), default="table")
@click.argument("table", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Where to write it (recipe.yaml, or queries.yaml); an existing file is never replaced.",
)  # fmt: skip
@click.option("--target", metavar="COLUMN", help="With FILE: the column to predict.")
@click.option(
    "--unit", metavar="COLUMN",
    help="With FILE: the column whose value all rows of one person share.",
)  # fmt: skip
@click.option("--party", metavar="COLUMN", help="With FILE: the column that names who holds a row.")
@click.option("--drop", metavar="COLUMN", multiple=True, help="With FILE: a column not to use.")
@click.option(
    "--size", type=click.IntRange(1, 10**12),
    help="With FILE: the declared number of rows (of people, with --unit) after the holdout.",
)  # fmt: skip
@click.option(
    "--public", metavar="OTHER", type=click.Path(path_type=Path),
    help="With FILE: take ranges and categories from OTHER, a table whose rows are public.",
)  # fmt: skip
@click.option(
    "--documented", metavar="DICTIONARY", type=click.Path(path_type=Path),
    help="With FILE: take them from DICTIONARY (.json or .yaml): "
    "`age: {low: 0, high: 120}`, `sex: {categories: [f, m]}`.",
)  # fmt: skip
@common_options
def command(
    kind: str, table: Path | None, output: Path | None, as_json: bool, **roles: Any
) -> None:
    """Write a commented recipe for KIND of data. Those for tables and images run as they are, on
    data that ship with scikit-learn, and say in comments how to use your own; the one for text
    needs your texts and a pretrained model beside it. `queries` is a file of questions about a
    table, for `nacre release`.

    `nacre init table FILE` drafts the recipe for a table of your own: a line for each column, with
    a guess from its name where there is one and FILL where there is none. Of FILE the header alone
    is read, or of Parquet the names and types; ranges learnt from private rows would tell of them.
    Say what you know (--documented), show rows that are public (--public), or ask the private ones
    at a stated price: quantiles give a range, and histograms and keys categories, by `nacre
    release`; the draft says how. `nacre plan` refuses it with the lines where FILL is left."""
    given = [f"--{name}" for name, value in roles.items() if value not in (None, ())]
    if table is None and given:
        raise click.UsageError(f"`{given[0]}` is about a table: `nacre init table FILE {given[0]}`")
    if table is not None and kind != "table":
        raise click.UsageError(
            f"a FILE is for tables, not for {kind}: `nacre init table {table}`, or `nacre init "
            f"{kind}` for a recipe that runs or is edited, where its comments say what is yours"
        )
    if output is None:
        output = Path("queries.yaml" if kind == "queries" else "recipe.yaml")
    if table is not None:
        _draft(table, output, roles, as_json)
        return
    text = resources.files("nacre.recipe").joinpath("presets", f"{kind}.yaml").read_bytes()
    _write(output, text)
    then = f"{_NEXT.get(kind, '')}nacre run {output} --into runs/first"
    if kind == "queries":
        then = f"nacre release YOUR_TABLE.csv {output} --ledger privacy.db --account NAME"
    show(
        {"queries" if kind == "queries" else "recipe": str(output)},
        f"wrote {output}; next: {then}",
        as_json,
    )


def _draft(table: Path, output: Path, roles: dict[str, Any], as_json: bool) -> None:
    from nacre.core.errors import one_line
    from nacre.recipe.drafting.draft import TableRoles, drafted

    if os.path.lexists(output):
        raise Refusal(_exists(output))
    path = Path(os.path.relpath(table, output.parent)).as_posix()
    draft = drafted(table, path, TableRoles(**roles))
    _write(output, draft.text.encode())
    document = {
        "recipe": str(output),
        "columns": draft.columns,
        "guessed": draft.guessed,
        "to_fill": draft.to_fill,
        "unmatched": list(draft.unmatched),
    }
    for name, near in list(draft.unmatched.items())[:_NAMED]:
        meant = f"; did you mean {near!r}?" if near is not None else ""
        note(
            one_line(f"{roles['documented']} names {name!r}, which is no column of {table}{meant}")
        )
    if len(draft.unmatched) > _NAMED:
        note(f"and {len(draft.unmatched) - _NAMED} more that are no columns of {table}")
    count = f"{draft.columns} column{'s' if draft.columns != 1 else ''}"
    guessed = ", ".join(draft.guessed[:_NAMED]) + " …" * (len(draft.guessed) > _NAMED)
    by_name = f", {len(draft.guessed)} guessed from names ({guessed})" if draft.guessed else ""
    said = f"wrote {output} with {count}{by_name}; no row of {table} was read; next: "
    if draft.to_fill:
        lines = ", ".join(map(str, draft.to_fill[:_NAMED])) + " …" * (len(draft.to_fill) > _NAMED)
        said += f"fill in the {len(draft.to_fill)} lines that say FILL ({lines}), then "
    show(document, one_line(f"{said}nacre plan {output}"), as_json)


def _exists(output: Path) -> str:
    return f"{output} exists; choose another file with `-o`"


def _write(output: Path, text: bytes) -> None:
    try:
        with output.open("xb") as file:
            file.write(text)
    except FileExistsError:
        raise Refusal(_exists(output)) from None
    except FileNotFoundError:
        raise Refusal(
            f"{output} cannot be written, as there is no folder {output.parent}: make it, or "
            "choose another file with `-o`"
        ) from None

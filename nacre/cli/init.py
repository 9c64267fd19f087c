"""`nacre init`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nacre.cli.output import common_options, note, show
from nacre.core.errors import Refusal

if TYPE_CHECKING:
    from nacre.recipe.drafting.draft import Draft

PRESETS = ("table", "image", "text", "queries")
_NEXT = {"text": "put reviews.jsonl and base/ beside it (its head says what they are), then "}
_TABLE_ALONE = ("drop", "public", "documented")
_TEXT_ALONE = ("text", "task", "base")
_NAMED = 8  # lines to fill in, or guessed columns, that the closing sentence names


@click.command(short_help="Write a commented recipe, or file of queries, to start from.")
@click.argument("kind", type=click.Choice(PRESETS), default="table")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
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
@click.option("--text", metavar="COLUMN", help="With FILE of texts: the column that holds them.")
@click.option(
    "--task", type=click.Choice(("classification", "regression", "causal_lm")),
    help="With FILE of texts: what is learnt; causal_lm is a language model, which has no label.",
)  # fmt: skip
@click.option(
    "--base", metavar="FOLDER",
    help="With FILE of texts: the pretrained model, a folder or a name on the Hugging Face hub.",
)  # fmt: skip
@click.option(
    "--drop", metavar="COLUMN", multiple=True, help="With FILE, a table: a column not to use."
)
@click.option(
    "--size", type=click.IntRange(1, 10**12),
    help="With FILE: the declared number of rows (of people, with --unit) after the holdout.",
)  # fmt: skip
@click.option(
    "--public", metavar="OTHER", type=click.Path(path_type=Path),
    help="With FILE, a table: take ranges and categories from OTHER, whose rows are public.",
)  # fmt: skip
@click.option(
    "--documented", metavar="DICTIONARY", type=click.Path(path_type=Path),
    help="With FILE, a table: take them from DICTIONARY (.json or .yaml): "
    "`age: {low: 0, high: 120}`, `sex: {categories: [f, m]}`.",
)  # fmt: skip
@common_options
def command(kind: str, file: Path | None, output: Path | None, as_json: bool, **roles: Any) -> None:
    """Write a commented recipe for KIND of data. Those for tables and images run as they are, on
    data that ship with scikit-learn, and say in comments how to use your own; the one for text
    needs your texts and a pretrained model beside it. `queries` is a file of questions about a
    table, for `nacre release`.

    `nacre init table FILE` drafts the recipe for a table of your own: a line for each column, with
    a guess from its name where there is one and FILL where there is none. Of FILE the header alone
    is read, or of Parquet the names and types; ranges learnt from private rows would tell of them.
    Say what you know (--documented), show rows that are public (--public), or ask the private ones
    at a stated price: quantiles give a range, and histograms and keys categories, by `nacre
    release`; the draft says how. `nacre plan` refuses it with the lines where FILL is left.

    `nacre init text FILE` drafts one for texts of your own. Which columns hold the text and the
    label is guessed from the header, unless --text and --target say it; of JSON lines and plain
    text nothing is read, as a key stands in the rows that have it."""
    given = [key for key, value in roles.items() if value not in (None, ())]
    _require_fit(kind, file, given)
    if output is None:
        output = Path("queries.yaml" if kind == "queries" else "recipe.yaml")
    if file is not None:
        _draft(kind, file, output, roles, as_json)
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


def _require_fit(kind: str, file: Path | None, given: list[str]) -> None:
    """Refuses options without a file that they are about, or about another kind of one."""
    if file is not None and kind not in ("table", "text"):
        raise click.UsageError(
            f"a FILE is for tables and texts, not for {kind}: `nacre init table {file}`, or "
            f"`nacre init {kind}` for a recipe whose comments say what is yours"
        )
    for key in given:
        other = "table" if key in _TABLE_ALONE else "text" if key in _TEXT_ALONE else kind
        if file is None:
            of = other if other in ("table", "text") else "table"
            about = "texts" if of == "text" else "a table"
            raise click.UsageError(f"`--{key}` is about {about}: `nacre init {of} FILE --{key}`")
        if other != kind:
            about = "tables" if other == "table" else "texts"
            raise click.UsageError(f"`--{key}` is for {about}, not for {kind}; leave it out")


def _drafted(kind: str, file: Path, output: Path, roles: dict[str, Any]) -> Draft:
    path = Path(os.path.relpath(file, output.parent)).as_posix()
    if kind == "text":
        from nacre.recipe.drafting.texts import TextRoles, drafted_text

        named = {key: value for key, value in roles.items() if key not in _TABLE_ALONE}
        return drafted_text(file, path, TextRoles(**named), output.parent)
    from nacre.recipe.drafting.draft import TableRoles, drafted

    named = {key: value for key, value in roles.items() if key not in _TEXT_ALONE}
    return drafted(file, path, TableRoles(**named))


def _draft(kind: str, file: Path, output: Path, roles: dict[str, Any], as_json: bool) -> None:
    from nacre.core.errors import one_line

    if os.path.lexists(output):
        raise Refusal(_exists(output))
    draft = _drafted(kind, file, output, roles)
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
        note(one_line(f"{roles['documented']} names {name!r}, which is no column of {file}{meant}"))
    if len(draft.unmatched) > _NAMED:
        note(f"and {len(draft.unmatched) - _NAMED} more that are no columns of {file}")
    s = "s" if draft.columns != 1 else ""
    count = f" with {draft.columns} column{s}" if draft.columns else ""
    guessed = ", ".join(draft.guessed[:_NAMED]) + " …" * (len(draft.guessed) > _NAMED)
    by_name = f", {len(draft.guessed)} guessed from names ({guessed})" if draft.guessed else ""
    said = f"wrote {output}{count}{by_name}; no row of {file} was read; next: "
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
    except OSError as error:
        reason = f"as there is no folder {output.parent}: make it, or"
        if output.parent.is_dir():
            reason = f"since its folder takes no file ({(error.strerror or str(error)).lower()}):"
        raise Refusal(
            f"{output} cannot be written, {reason} choose another file with `-o`"
        ) from None

"""`nacre init`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from nacre.cli.output import common_options, show
from nacre.core.errors import Refusal

PRESETS = ("table", "image", "text", "queries")
_NEXT = {"text": "put reviews.jsonl and base/ beside it (its head says what they are), then "}


@click.command(short_help="Write a commented recipe, or file of queries, to start from.")
@click.argument("kind", type=click.Choice(PRESETS), default="table")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Where to write it (recipe.yaml, or queries.yaml); an existing file is never replaced.",
)  # fmt: skip
@common_options
def command(kind: str, output: Path | None, as_json: bool) -> None:
    """Write a commented recipe for KIND of data. Those for tables and images run as they are, on
    data that ship with scikit-learn, and say in comments how to use your own; the one for text
    needs your texts and a pretrained model beside it. `queries` is a file of questions about a
    table, for `nacre release`."""
    if output is None:
        output = Path("queries.yaml" if kind == "queries" else "recipe.yaml")
    text = resources.files("nacre.recipe").joinpath("presets", f"{kind}.yaml").read_bytes()
    try:
        with output.open("xb") as file:
            file.write(text)
    except FileExistsError:
        raise Refusal(f"{output} exists; choose another file with `-o`") from None
    except FileNotFoundError:
        raise Refusal(
            f"{output} cannot be written, as there is no folder {output.parent}: make it, or "
            "choose another file with `-o`"
        ) from None
    then = f"{_NEXT.get(kind, '')}nacre run {output} --into runs/first"
    if kind == "queries":
        then = f"nacre release YOUR_TABLE.csv {output} --ledger privacy.db --account NAME"
    show(
        {"queries" if kind == "queries" else "recipe": str(output)},
        f"wrote {output}; next: {then}",
        as_json,
    )

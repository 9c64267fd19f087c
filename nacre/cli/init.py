"""`nacre init`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from nacre.cli.output import common_options, show
from nacre.core.errors import Refusal

PRESETS = ("table", "image")
PLANNED = ("text",)


@click.command(short_help="Write a commented recipe to start from.")
@click.argument("kind", type=click.Choice([*PRESETS, *PLANNED]), default="table")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("recipe.yaml"),
    show_default=True, help="Where to write it; an existing file is never replaced.",
)  # fmt: skip
@common_options
def command(kind: str, output: Path, as_json: bool) -> None:
    """Write a commented recipe for KIND of data. It runs as it is, on data that ship with
    scikit-learn, and says in comments how to use your own."""
    if kind in PLANNED:
        raise Refusal(f"recipes for {kind} are not built yet; use one of {', '.join(PRESETS)}")
    text = resources.files("nacre.recipe").joinpath("presets", f"{kind}.yaml").read_bytes()
    try:
        with output.open("xb") as file:
            file.write(text)
    except FileExistsError:
        raise Refusal(f"{output} exists; choose another file with `-o`") from None
    show(
        {"recipe": str(output)},
        f"wrote {output}; next: nacre run {output} --into runs/first",
        as_json,
    )

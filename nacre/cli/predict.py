"""`nacre predict`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nacre.cli.failures import unfinished
from nacre.cli.output import code_of, code_options, common_options, note, show
from nacre.core.errors import Refusal

if TYPE_CHECKING:
    from nacre.prediction.predict_file import Predicted
    from nacre.runs.progress import Advance, Progress


@click.command(short_help="Predict from a file of rows by a run's model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=None,
    help="The file of predictions, .csv, .parquet or .jsonl; one that stands there is replaced. "
    "CSV on standard output where absent.",
)  # fmt: skip
@click.option(
    "--prefix", default="", metavar="TEXT",
    help="Begin the names of the added columns with TEXT, where ROWS has columns of these names.",
)  # fmt: skip
@code_options
@common_options
def command(
    run: Path,
    rows: Path,
    output: Path | None,
    prefix: str,
    packages: tuple[str, ...],
    trust_code: bool,
    as_json: bool,
) -> None:
    """Score the rows of ROWS by the finished model of RUN, a run folder or what `nacre export`
    wrote. The same rows come out in their order, with all of their columns and `prediction`,
    `probability_CLASS` for each class, and, where the run drops or clamps rows, `nacre_note`.

    ROWS is CSV, TSV, Parquet or JSONL with the columns that the model was trained on (the target
    need not be there), text as .txt too, and .npz or IDX for arrays and images. For a language
    model the columns are `log_likelihood` (of a token, on average, in nats) and `perplexity`; for
    words `prediction` is a list. CSV is written as the run's `dialect` says that rows are:
    separator, quotes, encoding and decimal mark.

    What is missing, out of range or not listed is treated as the run's `on_missing` and
    `on_out_of_range` say. A row that they drop stays in the file without a prediction.

    Predictions cost no epsilon: they are computed from the released model and from rows that you
    hold. Those on the rows that trained are for who may see these rows. Nothing is written into
    RUN."""
    if as_json and output is None:
        raise Refusal(
            "`--json` prints counts on standard output, where the predictions would go: name a "
            "file for them with `-o predictions.csv`"
        )
    from nacre.cli.progress import watcher
    from nacre.prediction.predict_file import counts_as_json, predict_file

    left = f"{output} was not written" if output else "what was printed is not all"
    with ExitStack() as stack:
        stack.enter_context(unfinished(left))
        watch: Progress = watcher()
        advance: Advance | None = None
        done = 0

        def progress(share: float, count: int) -> None:
            nonlocal advance, done
            if advance is None:  # a run or a file that is refused has begun nothing
                advance = stack.enter_context(watch.stage("predictions", 100))
            percent = int(100 * share)
            advance(percent - done, note=f"{count} rows")
            done = percent

        found = predict_file(
            run,
            rows,
            output,
            stream=sys.stdout.buffer,
            prefix=prefix,
            code=code_of(packages, trust_code),
            progress=progress,
            doubts=note,
        )
    said = _sentence(found, prefix)
    if output is None:
        note(said)
    else:
        document = counts_as_json(run, rows, output, found)
        show(document, f"wrote {output}: {said}", as_json)


def _sentence(found: Predicted, prefix: str) -> str:
    """The counts for people."""
    parts = [f"{found.rows - found.without} of {found.rows} rows have a prediction"]
    if found.without:
        none = (
            "none of them has one" if found.without == found.rows else f"{found.without} have none"
        )
        parts.append(f"{none} (`{prefix}nacre_note` says why)")
    if found.clamped:
        parts.append(f"of {found.clamped} a value was moved into its range")
    return "; ".join(parts)

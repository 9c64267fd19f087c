"""`nacre report`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.output import common_options, show


@click.command(short_help="Write the evidence of a run as one page.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=None,
    help="The page; RUN/report.html where absent.",
)  # fmt: skip
@click.option(
    "--check", is_flag=True,
    help="Write nothing; recompute from plan.json and released.jsonl whether each release is what "
    "was promised.",
)  # fmt: skip
@common_options
def command(run: Path, output: Path | None, check: bool, as_json: bool) -> None:
    """Write the evidence of RUN: evidence.json, and a page that needs no network. Both hold public
    and released facts only.

    With --check RUN may also be the folder of a loop of your own, the output of a PrivateTrainer,
    or a file that `nacre release -o` wrote."""
    if check:
        _check(run, as_json)
        return
    from nacre.report.evidence import write_report

    page = write_report(run, output)
    show({"report": str(page)}, f"wrote {page}", as_json)


def _check(run: Path, as_json: bool) -> None:
    if run.is_file():
        from nacre.report.answers import check_answers as checked

        answers = checked(run)
        show({"answers": answers}, f"all {len(answers)} answers of {run} are as paid for", as_json)
        return
    from nacre.report.evidence import check_releases as held

    found = held(run)
    count = sum(part["last"] - part["first"] + 1 for part in found)
    show({"ranges": found}, f"all {count} releases of {run} are what its plan says", as_json)

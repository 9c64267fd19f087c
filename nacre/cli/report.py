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
    "was promised, and what epsilon that costs.",
)  # fmt: skip
@common_options
def command(run: Path, output: Path | None, check: bool, as_json: bool) -> None:
    """Write the evidence of RUN: evidence.json, and a page that needs no network. Both hold public
    and released facts only. Where `nacre audit` left figures on private rows in RUN/local, a second
    page, RUN/local/report.html, shows them too: it is for the holder of the rows alone. Of a
    federation that page has what each party did in each round; where RUN is the folder of a party
    in its own house, it is the only one.

    With --check RUN may also be the folder of a loop of your own, the output of a PrivateTrainer,
    or a file that `nacre release -o` wrote."""
    if check:
        _check(run, as_json)
        return
    from nacre.report.evidence import write_report
    from nacre.report.sections.headline import HOLDERS_PAGE

    page, own = write_report(run, output), run / HOLDERS_PAGE
    people, private = f"wrote {page}", str(own) if own.exists() else None
    if page == own:
        people += ", with figures on private rows: not for others"
    elif private is not None:
        people += f", to hand on, and {own}, with figures on private rows: not for others"
    show({"report": str(page), "local_report": private}, people, as_json)


def _check(run: Path, as_json: bool) -> None:
    if run.is_file():
        from nacre.report.answers import check_answers as checked

        answers = checked(run)
        count = len(answers)
        people = f"{_all(count, 'answer')} of {run} {_are(count)} as paid for"
        show({"answers": answers}, people, as_json)
        return
    from nacre.planning.words import first_of
    from nacre.report.evidence import check_releases as held
    from nacre.report.evidence import loop_of_ones_own
    from nacre.report.repriced import repriced
    from nacre.training.planned import CENTRAL

    found = held(run)
    prices = repriced(loop_of_ones_own(run) or run)
    count = sum(part["last"] - part["first"] + 1 for part in found)
    people = [f"{_all(count, 'release')} of {run} {_are(count)} what its plan says"]
    if prices:
        people.append("computed once more from the mechanism in plan.json:")
        alike: dict[str, list[str]] = {}
        for price in prices:
            alike.setdefault(price.sentence(), []).append(price.name)
        for said, names in alike.items():  # of one holder of all rows the name says nothing
            whose = "whole parties" if names == [CENTRAL] else first_of(names)
            alone = names == [CENTRAL] and len(prices) == 1
            people.append(f"  {said}" if alone else f"  {whose}: {said}")
    document = {"ranges": found, "epsilon": [price.to_json() for price in prices]}
    show(document, "\n".join(people), as_json)


def _all(count: int, noun: str) -> str:
    return f"the one {noun}" if count == 1 else f"all {count} {noun}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"

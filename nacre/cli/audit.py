"""`nacre audit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from nacre.cli.output import code_of, code_options, common_options, show

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.adversarial_training.evaluation.access import Outputs
    from nacre.adversarial_training.evaluation.efforts import Effort
    from nacre.audit.finding import Finding
    from nacre.models import Code


@click.command(short_help="Attack the finished model of a run.")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option(
    "--model",
    metavar="FOLDER|MODULE:FUNCTION",
    help="Attack a model without a recipe of ours, on --data: a saved folder, or what a function "
    "in the working directory returns.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="A .safetensors file for MODULE:FUNCTION."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Rows as the model reads them: .npz with `features` and the labels, or .csv.",
)
@click.option("--label", default="label", metavar="NAME", help="The labels' array or column.")
@click.option(
    "--norm", type=click.Choice(["linf", "l2", "l1"]), default="linf", help="The norm of a move."
)
@click.option("--radius", type=float, help="How far an input may move.")
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "full"]),
    default="standard",
    help="How much is tried; full stands for AutoAttack.",
)
@click.option("--towards", metavar="CLASS", help="The number of the class that an attacker wants.")
@click.option("--interval", type=float, help="End once the interval is at most this wide.")
@click.option(
    "--outputs",
    type=click.Choice(["logits", "probabilities"]),
    default="logits",
    help="What the model puts out.",
)
@click.option("--range", "legal", type=float, nargs=2, help="The least and largest legal input.")
@click.option("--public", is_flag=True, help="Others may see the rows: show some in the report.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("attack"),
    help="The folder for findings.json and report.html of --model.",
)
@code_options
@common_options
def command(
    run: Path | None, packages: tuple[str, ...], trust_code: bool, as_json: bool, **outside: Any
) -> None:
    """Attack the model of RUN as its recipe's `audit` says, and measure how good it is on the test
    rows. What is found on rows that are not public stays in RUN/local.

    With --model there is no run: an evasion within --radius on the rows of --data, whose findings
    and report go to --output."""
    if (run is None) == (outside["model"] is None):
        raise click.UsageError("name a RUN, or a model by --model and --data")
    if run is None:
        _outside(code_of(packages, trust_code), as_json, **outside)
    else:
        _run(run, code_of(packages, trust_code), as_json)


def _run(run: Path, code: Code, as_json: bool) -> None:
    from rich.console import Group

    from nacre.audit.comparison import own_figures
    from nacre.audit.run import audit_run
    from nacre.cli.figures import figures_table
    from nacre.cli.progress import watcher
    from nacre.runs.run import open_run

    opened = open_run(run, code=code)
    findings = audit_run(opened, observe=watcher())
    own = own_figures(opened.folder)
    document = {
        "findings": [finding.to_json() for finding in findings],
        "model": None if own is None else {"public": own.public, **own.facts},
    }
    tables = [_table(findings)] if findings or own is None else []
    tables += [_by_radius(found) for found in findings if found.audit == "certificate"]
    show(document, Group(*tables, *([figures_table(own)] if own is not None else [])), as_json)


def _outside(
    code: Code,
    as_json: bool,
    *,
    model: str,
    weights: Path | None,
    data: Path | None,
    label: str,
    norm: Literal["linf", "l2", "l1"],
    radius: float | None,
    effort: Effort,
    towards: str | None,
    interval: float | None,
    outputs: Outputs,
    legal: tuple[float, float] | None,
    public: bool,
    output: Path,
) -> None:
    if data is None or radius is None:
        raise click.UsageError("--model needs --data and --radius")
    from nacre.adversarial_training.threats.ball import Ball
    from nacre.audit.outside import audit_model, outside_model, read_labelled
    from nacre.cli.progress import watcher
    from nacre.core.files import write_bytes, write_json
    from nacre.recipe.audits import Evasion, WhenNarrow
    from nacre.report.page import render_attack

    rows = read_labelled(data, label)
    option = Evasion(
        ball=Ball(kind=norm, radius=radius),
        effort=effort,
        towards=towards,
        stop=None if interval is None else WhenNarrow(interval=interval),
    )
    module = outside_model(model, weights, code)
    seen = 0
    with watcher().stage("evasion", None) as advance:

        def tell(done: int, total: int, words: str = "") -> None:
            nonlocal seen
            advance(done - seen, words, total)
            seen = done

        found = audit_model(
            module, rows, option, outputs=outputs, legal=legal, public=public, advance=tell
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "findings.json", {"findings": [found.to_json()]})
    page = render_attack(found, model, tuple(rows.features.shape[1:]))
    write_bytes(output / "report.html", page.encode())
    show({"findings": [found.to_json()], "folder": str(output)}, _table([found]), as_json)


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table

    table = Table("audit", "measure", "value", "interval", "verdict")
    for found in findings:
        interval = f"{found.low:.3f} to {found.high:.3f} ({found.confidence:.0%})"
        table.add_row(found.audit, found.measure, f"{found.value:.3f}", interval, found.verdict)
    return table


def _by_radius(found: Finding) -> Table:
    """What is certified at each radius."""
    from rich.table import Table

    ball = found.details["ball"]
    unit = "the features' own units" if ball["unit"] == "features" else "scaled units"
    table = Table(
        f"{ball['kind']} radius", "certified", "interval",
        title=f"Certified accuracy by radius, in {unit}", title_justify="left",
    )  # fmt: skip
    for point in found.details["curve"]:
        interval = f"{point['low']:.3f} to {point['high']:.3f}"
        table.add_row(f"{point['radius']:g}", f"{point['value']:.3f}", interval)
    return table

"""`nacre audit`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from nacre.cli.failures import unfinished
from nacre.cli.output import code_of, code_options, common_options, note, show
from nacre.core.errors import NacreError, Refusal

if TYPE_CHECKING:
    from nacre.adversarial_training.evaluation.access import Outputs
    from nacre.adversarial_training.evaluation.efforts import Effort
    from nacre.audit.declared_rows import RowsForm
    from nacre.audit.finding import Finding
    from nacre.audit.model_security.batch import AdversarialBatch
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
    help="Rows with their labels. For a saved folder, rows as `nacre predict` reads them; for a "
    "function, rows as the network reads them: .npz with `features` and the labels, or .csv; with "
    "--tokenizer, a table with a column of texts.",
)
@click.option(
    "--label", metavar="NAME",
    help="The labels' array or column: the one that a saved folder learnt, or `label`.",
)  # fmt: skip
@click.option(
    "--rows",
    "form",
    type=click.Choice(["raw", "scaled"]),
    help="Whether --data are in the columns' own units or scaled as the network of a saved folder "
    "reads them; found out where only one can be.",
)
@click.option(
    "--tokenizer", metavar="NAME",
    help="Of MODULE:FUNCTION, if it reads texts: a folder with tokenizer.json, or a model of the "
    "hub. A row is then its tokens, as whole numbers, with -1 after them.",
)  # fmt: skip
@click.option(
    "--text",
    metavar="NAME",
    default="text",
    help="The column of texts that --tokenizer reads; `text` where absent.",
)
@click.option(
    "--length",
    type=int,
    default=128,
    help="The most tokens of a row, by --tokenizer; 128 where absent.",
)
@click.option(
    "--norm", type=click.Choice(["linf", "l2", "l1"]), default="linf", help="The norm of a move."
)
@click.option("--radius", type=float, help="How far an input may move.")
@click.option(
    "--threat",
    type=click.Path(path_type=Path),
    help="In place of --norm and --radius: YAML with `nacre: 1` and, under `threat`, what a recipe "
    "says under `ball`, as `kind: table` with the columns that may move. Of texts words are "
    "replaced, by `kind: words` as its keys say, or by its defaults without a --threat.",
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "full"]),
    default="standard",
    help="How much is tried; full stands for AutoAttack.",
)
@click.option(
    "--towards",
    metavar="CLASS",
    help="The class that an attacker wants, by its name, or by its number where classes have none.",
)
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
    help="The folder for findings.json, report.html and the adversarial batch of --model; those of "
    "an earlier attack are replaced.",
)
@click.option(
    "--rescore",
    is_flag=True,
    help="Attack nothing: score again what a former audit of RUN, or of --model into --output, "
    "found, from its files alone.",
)
@code_options
@common_options
def command(
    run: Path | None,
    rescore: bool,
    packages: tuple[str, ...],
    trust_code: bool,
    as_json: bool,
    **outside: Any,
) -> None:
    """Attack the model of RUN as its recipe's `audit` says, and measure how good it is on the test
    rows. What is found on rows that are not public stays in RUN/local.

    With --model there is no run: an evasion within --radius, or by --threat, on the rows of --data,
    whose findings and report go to --output.

    An evasion leaves its adversarial batch, in RUN/local/attacks or in --output: all rows that were
    tried, with the point that broke each. `--rescore` asks the model again about these points and
    says whether the accuracy under attack follows from them; exit code 1 where it does not."""
    if (run is None) == (outside["model"] is None):
        raise click.UsageError("name a RUN, or a model by --model and --data")
    _no_option_for_nothing(run, rescore)
    code = code_of(packages, trust_code)
    if rescore:
        _rescore(run, code, as_json, outside["model"], outside["weights"], outside["output"])
    elif run is None:
        _outside(code, as_json, **outside)
    else:
        _run(run, code, as_json)


def _no_option_for_nothing(run: Path | None, rescore: bool) -> None:
    """Refuses options that would say nothing: an attack of RUN is what its recipe says, and an
    attack that is over has no options."""
    if run is None and not rescore:
        return
    context = click.get_current_context()
    for option in context.command.params:
        name = option.opts[-1]
        source = context.get_parameter_source(option.name or "")
        known = name in _ALWAYS or (run is None and name in _OF_MODELS)
        if isinstance(option, click.Option) and not known and source is not ParameterSource.DEFAULT:
            if rescore:
                raise click.UsageError(
                    f"{name} says nothing beside --rescore, which attacks nothing"
                )
            raise click.UsageError(
                f"{name} goes with --model; the recipe of RUN says what is tried"
            )


def _no_option_in_vain(tokenizer: str | None, radius: float | None) -> None:
    """Refuses options of an attack from outside that nothing would read."""
    given = click.get_current_context().get_parameter_source
    for name, needs, there in (
        ("text", "--tokenizer", tokenizer), ("length", "--tokenizer", tokenizer),
        ("norm", "--radius", radius),
    ):  # fmt: skip
        if there is None and given(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} says nothing without {needs}")


_ALWAYS = ("--json", "--debug", "--rescore", "--allow-package", "--trust-code")
_OF_MODELS = ("--model", "--weights", "--output")


def _run(run: Path, code: Code, as_json: bool) -> None:
    from rich.console import Group

    from nacre.audit.comparison import own_figures
    from nacre.audit.kept import BATCHES
    from nacre.audit.model_security.batch_file import batches_in
    from nacre.audit.run import audit_run
    from nacre.cli.figures import figures_table
    from nacre.cli.findings import findings_tables
    from nacre.cli.progress import watcher
    from nacre.runs.run import open_run

    opened = open_run(run, code=code)
    with unfinished(f"every file in {run} is whole; audit it again"):
        findings = audit_run(opened, observe=watcher())
    own = own_figures(opened.folder)
    document = {
        "findings": [_without_rows(finding) for finding in findings],
        "model": None if own is None else {"public": own.public, **own.facts},
    }
    tables = findings_tables(findings) if findings or own is None else []
    show(document, Group(*tables, *([figures_table(own)] if own is not None else [])), as_json)
    _reasons(findings)
    if batches_in(kept := opened.folder.local / BATCHES):
        note(f"the rows with the points that broke them lie in {kept}; `--rescore` asks again")


def _outside(
    code: Code,
    as_json: bool,
    *,
    model: str,
    weights: Path | None,
    data: Path | None,
    label: str | None,
    form: RowsForm | None,
    tokenizer: str | None,
    text: str,
    length: int,
    norm: Literal["linf", "l2", "l1"],
    radius: float | None,
    threat: Path | None,
    effort: Effort,
    towards: str | None,
    interval: float | None,
    outputs: Outputs,
    legal: tuple[float, float] | None,
    public: bool,
    output: Path,
) -> None:
    if data is None or (radius is not None and threat is not None):
        raise click.UsageError("--model needs --data, and --radius or --threat")
    _no_option_in_vain(tokenizer, radius)
    from nacre.adversarial_training.text.words import Words
    from nacre.adversarial_training.threats.ball import Ball
    from nacre.audit.declared import rows_for
    from nacre.audit.declared_texts import texts_of
    from nacre.audit.model_security.batch_file import save_batch
    from nacre.audit.outside import audit_model, outside_model
    from nacre.cli.findings import findings_table
    from nacre.cli.progress import watcher
    from nacre.core.files import write_bytes, write_json
    from nacre.recipe.audits import Evasion, WhenNarrow
    from nacre.recipe.load import read_options
    from nacre.recipe.threat_file import ThreatFile
    from nacre.report.page import render_attack

    texts = None if tokenizer is None else texts_of(tokenizer, text, length)
    rows = rows_for(model, data, label, form, texts, code)
    if threat is not None:
        moves = read_options(threat, ThreatFile).threat
    elif radius is not None:
        moves = Ball(kind=norm, radius=radius)
    elif rows.text is not None:
        moves = Words()
    else:
        raise click.UsageError("--model needs --radius or --threat: how far an input may move")
    option = Evasion(
        ball=moves,
        effort=effort,
        towards=towards,
        stop=None if interval is None else WhenNarrow(interval=interval),
    )
    module = outside_model(model, weights, code)
    _require_folder(output)
    batches: list[AdversarialBatch] = []
    seen = 0
    with (
        unfinished("nothing was written"),
        watcher().stage("evasion", None) as advance,
    ):

        def tell(done: int, total: int, words: str = "") -> None:
            nonlocal seen
            advance(done - seen, words, total)
            seen = done

        found = audit_model(
            module,
            rows,
            option,
            outputs=outputs,
            legal=legal,
            public=public,
            keep=batches.append,
            advance=tell,
        )
    page = render_attack(found, model, tuple(rows.features.shape[1:]))
    output.mkdir(parents=True, exist_ok=True)
    for batch in batches:  # the largest first: a disk that is full leaves no findings without it
        save_batch(batch, output, "batch")
    write_bytes(output / "report.html", page.encode())
    write_json(output / "findings.json", {"findings": [found.to_json()]})
    show({"findings": [found.to_json()], "folder": str(output)}, findings_table([found]), as_json)
    _reasons([found])
    note(f"findings, report.html and the adversarial batch lie in {output}")


def _require_folder(output: Path) -> None:
    """Raises `Refusal` where findings could not be written once they are found."""
    place = next(each for each in (output, *output.absolute().parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise Refusal(
            f"--output {output}: {place} is no folder that can be written to; name another folder"
        )


def _rescore(
    run: Path | None,
    code: Code,
    as_json: bool,
    model: str | None,
    weights: Path | None,
    output: Path,
) -> None:
    from rich.table import Table

    from nacre.audit.kept import scored_again
    from nacre.audit.outside import outside_model
    from nacre.audit.run import rescored_run
    from nacre.runs.run import open_run

    if run is not None:
        found = rescored_run(open_run(run, code=code))
    else:
        asked = outside_model(model or "", weights, code)
        found = scored_again(output, lambda name: asked)
    table = Table("batch", "rows", "reported", "again", "weights", "holds")
    for name, again in found.items():
        table.add_row(
            name,
            str(again.rows),
            f"{again.reported:.4f}",
            f"{again.value:.4f}",
            "the same" if again.same_weights else "others",
            "yes" if again.holds else "no" if again.refuted else "other weights",
        )
    # A terminal is logged: private rows of a run are named nowhere but in `local/`.
    named = {name: run is None or again.public for name, again in found.items()}
    said = {name: again.to_json(named[name]) for name, again in found.items()}
    show({"rescored": said}, table, as_json)
    for name, again in found.items():
        if again.refuted:
            why = again.sentence(named[name])
            note(f"nacre: batch {name!r} does not bear out its report: {why}")
        elif not again.same_weights:
            note(
                f"batch {name!r} was found with other weights, so neither its report nor another "
                "attack is borne out: this model was asked about points that were found on another"
            )
    if any(again.refuted for again in found.values()):
        click.get_current_context().exit(NacreError.exit_code)


def _without_rows(found: Finding) -> dict[str, Any]:
    """The finding without its examples and the numbers of rows where these are private: a terminal
    is logged, and they stand in `local/`."""
    entry = found.to_json()
    if not found.public:
        entry["details"] |= {name: [] for name in _EXAMPLES if name in entry["details"]}
    return entry


_EXAMPLES = ("pictures", "rows", "texts", "each")


def _reasons(findings: Sequence[Finding]) -> None:
    """What has to be read with the figures, on stderr."""
    for found in findings:
        for said in found.details.get("notes") or ():
            note(f"{found.audit}: {said}")

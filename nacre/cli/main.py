"""The command `nacre`: its verbs, and the sentence and exit code of one that fails.

A verb's module is imported when it is used: `nacre --help` imports no torch.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

from nacre.cli.failures import FAILED, REFUSED, failure, shared
from nacre.cli.launch import process
from nacre.cli.output import debug_option, note

VERBS = {
    "init": "Write a commented recipe, or file of queries, to start from.",
    "plan": "Say what a recipe will run and what it costs; no row is read.",
    "train": "Train a recipe's model into a run folder, charged to its ledger.",
    "party": "Take part in a federation, with rows that stay here.",
    "federate": "Keys, roster and digests of a federation across organisations.",
    "tune": "Search privately over a recipe's alternatives; keep the best.",
    "audit": "Attack the finished model of a run.",
    "report": "Write the evidence of a run as one page.",
    "run": "Plan, train, audit and report in one go.",
    "export": "Write a run's model for transformers, PEFT or ONNX.",
    "predict": "Predict from a file of rows by a run's model.",
    "release": "Release private statistics of a table, charged to a ledger.",
    "runs": "List the runs in a folder, or compare two.",
    "ledger": "Show, grant or verify privacy budgets.",
    "explain": "Explain a recipe's key, a kind or a refusal.",
    "finish": "End an open run; its key is destroyed.",
    "abandon": "End an open run without a model; its key is destroyed.",
    "completion": "Print the completion script of a shell.",
}
"""Verb -> its short help, as in the verb's own module (a test compares them)."""

ELSEWHERE = {
    "compare": "`nacre runs RUN OTHER` puts two runs side by side",
    "diff": "`nacre runs RUN OTHER` puts two runs side by side",
    "list": "`nacre runs` lists the runs in a folder",
    "attack": "`nacre audit RUN` attacks the model of a run, `nacre audit --model` another's",
    "evaluate": "`nacre report RUN` shows a run's figures, and `nacre audit RUN` attacks its model",
    "validate": "`nacre plan RECIPE` checks a recipe and says what it would run",
}
"""What other programs call a verb -> the verb that does it here."""


class Verbs(click.Group):
    """The verbs, each loaded when it is asked for; every error becomes one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            near = get_close_matches(cmd_name, VERBS, n=1)
            remedy = ELSEWHERE.get(cmd_name.lower()) or (
                f"did you mean {near[0]}?" if near else f"use one of {', '.join(VERBS)}"
            )
            raise click.UsageError(f"there is no verb {cmd_name!r}; {remedy}", ctx)
        return importlib.import_module(f"nacre.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        extra["prog_name"] = "nacre"
        try:
            code = super().main(words, *rest, **extra)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            code = _told(error, words)
        sys.exit(code or 0)


def _told(error: BaseException, words: Sequence[str]) -> int:
    """Tells of the error and gives the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader has gone; what Python would still flush at its end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return REFUSED
    if "--debug" in words or os.environ.get("NACRE_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    told = failure(error)
    rank = process()
    if rank and shared(error):
        return told.exit_code
    note(f"nacre: process {rank}: {told.sentence}" if rank else f"nacre: {told.sentence}")
    for other in told.others:
        note(f"nacre: {other}")
    if "--json" in words:
        document = {"error": told.sentence, "exit_code": told.exit_code}
        click.echo(json.dumps(document | ({"others": told.others} if told.others else {})))
    return told.exit_code


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nacre", message="%(prog)s %(version)s")
@debug_option
def cli() -> None:
    """Private and robust training in one run: gradient clipping, fine-tuning, federated learning,
    differential privacy and adversarial training, with the evidence.

    Start with `nacre init` and `nacre run recipe.yaml --into runs/first`.

    Exit codes: 0 done, 1 failed, 2 refused, 3 budget, 130 interrupted, 143 terminated.
    """


def main() -> None:
    """The entry point."""
    cli()

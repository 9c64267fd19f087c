"""`nacre completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from nacre.cli.output import common_options, show

SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
@common_options
def command(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that completes verbs and options in SHELL. For bash, put
    `eval "$(nacre completion bash)"` into ~/.bashrc."""
    script = SHELLS[shell](context.find_root().command, {}, "nacre", "_NACRE_COMPLETE")
    # Not `source()`: for bash that starts a bash to ask for its version.
    text = script.source_template % script.source_vars()
    show({"shell": shell, "script": text}, text, as_json)

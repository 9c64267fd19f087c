"""What a verb prints: results on stdout, for people or as one JSON document; notes on stderr."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nacre.models import Code

# JSON escapes what lies below U+0020; U+009B begins an escape of terminals too, and the others
# turn text around.
_UNPRINTED = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

PIPED = 100
"""Columns of a table that no terminal is there to measure."""

Verb = TypeVar("Verb", bound=Callable[..., None])


def common_options(verb: Verb) -> Verb:
    """The options that every verb has; `--json` arrives as `as_json`."""
    as_json = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document; notes go to stderr."
    )
    return as_json(debug_option(verb))


def debug_option(verb: Verb) -> Verb:
    """`--debug`, which is read before any verb runs and so not handed on."""
    text = "Show where an error was raised (or set NACRE_DEBUG=1)."
    return click.option("--debug", is_flag=True, expose_value=False, help=text)(verb)


def code_options(verb: Verb) -> Verb:
    """`--allow-package` and `--trust-code`; they arrive as `packages` and `trust_code`."""
    packages = click.option(
        "--allow-package", "packages", multiple=True, metavar="NAME",
        help="Let `call` name functions of this installed package.",
    )  # fmt: skip
    trust = click.option(
        "--trust-code", is_flag=True, help="Run Python code that a run folder names."
    )
    return packages(trust(verb))


def code_of(packages: Sequence[str], trust_code: bool) -> Code:
    """What the two options allow. Raises `click.UsageError` for a name that is no package's."""
    from nacre.models import Code

    try:
        return Code(packages=tuple(packages), runs=trust_code)
    except ValueError as error:
        raise click.UsageError(f"--allow-package: {error}") from error


def show(document: Any, people: RenderableType, as_json: bool) -> None:
    """Prints one of the two on stdout."""
    if as_json:
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
        click.echo(_UNPRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        return
    if isinstance(people, str):
        click.echo(people)  # rich would read square brackets in a path as markup
        return
    from rich.console import Console  # a tenth of a second that `--help` need not wait for

    width = None if sys.stdout.isatty() else PIPED
    Console(file=sys.stdout, highlight=False, width=width).print(people)


def columns() -> int:
    """How many characters a line on stdout may have."""
    return shutil.get_terminal_size((PIPED, 24)).columns if sys.stdout.isatty() else PIPED


def note(text: str) -> None:
    """A line for people, on stderr."""
    click.echo(text, err=True)

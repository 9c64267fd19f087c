"""`nacre explain`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from nacre.cli.output import common_options, show
from nacre.core.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nacre.recipe.explain import KeyExplanation


EXPLAINED = Path(__file__).with_name("explained.txt")
"""Every name that KEY can be, one a line, from `scripts/docs`: completion imports no torch."""


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names that begin so, up to their next dot."""
    names = EXPLAINED.read_text(encoding="utf-8").split()
    found = [name for name in names if name.startswith(incomplete)]
    ends = (re.search(r"[.\[]", name[len(incomplete) :]) for name in found)
    shown = {
        name if end is None else name[: len(incomplete) + end.start()]
        for name, end in zip(found, ends, strict=True)
    }
    return [CompletionItem(name) for name in sorted(shown - {""})]


@click.command(short_help="Explain a recipe's key, a kind or a refusal.")
@click.argument("key", default="", shell_complete=_complete)
@common_options
def command(key: str, as_json: bool) -> None:
    """Explain KEY (as `differential_privacy.epsilon`) and the keys under it, or the kind (as
    `banded`), the refusal or the attack (as `autoattack`) of that name; without KEY, everything."""
    from nacre.adversarial_training.evaluation.known import KNOWN
    from nacre.adversarial_training.objectives.refused import REFUSED
    from nacre.planning.refusals.checks import CHECKS
    from nacre.recipe.explain import explain, known_elsewhere

    checks = {check.__name__: inspect.getdoc(check) or "" for check in CHECKS}
    said = known_elsewhere(key) if key else {**checks, **REFUSED, **KNOWN}
    entries: Sequence[KeyExplanation] = ()
    if key in checks:
        said = {key: checks[key]}
    else:
        try:
            entries = explain(key)  # `pgd` is a kind as well
        except RecipeError:
            if not said:
                raise
    document = {
        "keys": [asdict(entry) for entry in entries],
        "refusals": {name: text for name, text in said.items() if name not in KNOWN},
        "attacks": {name: text for name, text in said.items() if name in KNOWN},
    }
    show(document, _page(entries, said), as_json)


def _page(entries: Sequence[KeyExplanation], said: Mapping[str, str]) -> RenderableType:
    """A paragraph for each; Text, since square brackets in a default are no markup."""
    from rich.text import Text

    page = Text()
    for entry in entries:
        page.append(entry.key, style="bold")
        page.append(f" (kind: {entry.kind})" if entry.kind else "")
        default = "needed" if entry.default is None else f"default {entry.default}"
        page.append(f"\n  {entry.type}; {default}\n  {entry.doc}\n")
    for name, text in said.items():
        page.append(name, style="bold")
        page.append(f"\n  {text}\n")
    page.rstrip()
    return page

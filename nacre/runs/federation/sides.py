"""Whose folder of a run across organisations this is, and how it is ended by hand."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from nacre.core.errors import RunError
from nacre.core.files import read_json
from nacre.core.run_folder import RunFolder
from nacre.planning.plan import Plan, plan
from nacre.recipe.schema import Recipe
from nacre.runs import reservations
from nacre.runs.begin import reserved
from nacre.runs.federation.attending import draws_parties, party_plan

PARTY, LED = "party", "led"
"""Facts of such folders: the name of the party, or that its parties are elsewhere."""


def side_of(folder: RunFolder) -> str | None:
    """The name of the party whose folder it is, "" for that of a server, None for any other."""
    value: Any = read_json(folder.facts)
    facts = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    if LED in facts:
        return ""
    return str(facts[PARTY]) if PARTY in facts else None


def refuse_to_finish(folder: RunFolder) -> None:
    """Raises `RunError` for one side of a run across organisations: its last checkpoint is no
    model that the other sides agreed to."""
    if side_of(folder) is not None:
        raise RunError(
            f"{folder.path} is one side of a run across organisations: continue it by the command "
            f"that started it, or end this side without a model (`nacre abandon {folder.path}`)"
        )


@contextmanager
def charges_of(recipe: Recipe, folder: RunFolder) -> Generator[reservations.Charges]:
    """The reservations that stand for an open run, on this side of it."""
    name = side_of(folder)
    if name is None:
        planned = plan(recipe, resume=folder.path)
    elif name:
        planned = party_plan(recipe, name)
    else:
        planned = of_whole_parties(plan(recipe, ledger=False))
        if not planned.levels:  # each party pays for its own rows
            yield reservations.Charges({})
            return
    with reserved(planned, folder, drawn=bool(name) and draws_parties(recipe)) as charges:
        yield charges


def of_whole_parties(plan: Plan) -> Plan:
    """What the server of a run pays for: the level of whole parties, or no level."""
    levels = tuple(level for level in plan.priced if level.mechanism.unit == "client")
    return replace(plan, levels=levels)

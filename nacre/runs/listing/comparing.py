"""Two runs side by side: what their recipes say differently, what each costs, what may be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nacre.core.errors import RecipeError
from nacre.differential_privacy.upward import rounded_up, rounded_up_to
from nacre.recipe.credentials import recipe_without_credentials
from nacre.recipe.document import parse
from nacre.runs.listing.entry import RunEntry
from nacre.runs.listing.figures import ALWAYS, NAMES
from nacre.runs.listing.reading import UnfitFile, plain_file

ABSENT = "-"
"""What a run does not say."""


@dataclass(frozen=True)
class BesideRow:
    """One line of the comparison."""

    key: str
    values: tuple[str, str]

    @property
    def differs(self) -> bool:
        """Whether the two say something else."""
        return self.values[0] != self.values[1]


@dataclass(frozen=True)
class SideBySide:
    """What differs in the recipe and the mechanism; epsilon, delta and figures in any case."""

    recipe: list[BesideRow]
    privacy: list[BesideRow]
    figures: list[BesideRow]


def compared_runs(one: RunEntry, other: RunEntry) -> SideBySide:
    """The comparison of two runs whose plans can be read."""
    both = (one, other)
    recipe = _beside(both, _recipe)
    privacy = _beside(both, _privacy)
    return SideBySide(
        [row for row in recipe if row.differs],
        [row for row in privacy if row.differs or row.key in _ALWAYS],
        [row for row in _beside(both, _figures) if set(row.values) != {ABSENT}],
    )


def _beside(
    both: tuple[RunEntry, RunEntry], facts: Callable[[RunEntry], Mapping[str, str]]
) -> list[BesideRow]:
    one, other = (facts(entry) for entry in both)
    keys = dict.fromkeys([*one, *other])
    return [BesideRow(key, (one.get(key, ABSENT), other.get(key, ABSENT))) for key in keys]


def _recipe(entry: RunEntry) -> dict[str, str]:
    """Key path -> value, as the recipe was written; defaults are not filled in."""
    found: dict[str, str] = {}
    if entry.kind in ("train", "tune"):
        try:
            text = recipe_without_credentials(
                plain_file(entry.path / "recipe.yaml").decode(errors="replace")
            )
            found = dict(_flat(parse(text.encode(), "recipe.yaml").values))
        except (UnfitFile, RecipeError) as error:
            found = {"recipe.yaml": f"cannot be compared ({error})"}
    search = entry.plan.get("search")
    if isinstance(search, dict):
        chosen = cast(dict[str, Any], search).get("chosen") or {}
        found |= {f"chosen: {key}": value for key, value in _flat(chosen)}
    return found | {"version of Nacre": str(entry.plan.get("nacre", ABSENT))}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings; a list is a leaf."""
    if isinstance(value, dict) and value:
        for name, inner in cast(dict[str, Any], value).items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, _written_out(value)


def _written_out(value: Any) -> str:
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return "{" + ", ".join(f"{key}: {_written_out(inner)}" for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written_out, cast(list[Any], value))) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


_ALWAYS = ("epsilon", "delta")


def _privacy(entry: RunEntry) -> dict[str, str]:
    """Name -> value, of the whole run and of each party."""
    found = {"epsilon": epsilon_words(entry), "delta": delta_words(entry)}
    parties: list[dict[str, Any]] = entry.plan.get("parties", [])
    for party in parties:
        of = f", {party.get('name')}" if len(parties) > 1 else ""
        for name in ("account", "unit", "adjacency", "size", "steps", "accountant"):
            found[f"{name}{of}"] = _written_out(party.get(name))
        for name in ("sampling", "clip", "noise"):
            found |= {f"{key}{of}": value for key, value in _flat(party.get(name), name)}
    return found


def epsilon_words(entry: RunEntry) -> str:
    """Two decimals, rounded up, as the report has it."""
    if entry.epsilon is None:
        return "unbounded"
    return rounded_up_to(entry.epsilon, 2)


def delta_words(entry: RunEntry) -> str:
    """Three digits, rounded up."""
    return ABSENT if entry.delta is None else rounded_up(entry.delta, 3)


def _figures(entry: RunEntry) -> dict[str, str]:
    figures = entry.figures
    missing = figures.missing or ABSENT
    shown = [name for name in NAMES if name in ALWAYS or name in figures.found]
    return {
        name: figures.found[name].in_full() if name in figures.found else missing for name in shown
    }


def named_run(path: Path, entry: RunEntry | None) -> str:
    """Why this is no run that can be compared; "" where it is one."""
    if entry is None:
        return f"{path} is no file of answers that `nacre release -o` wrote"
    return "" if entry.is_run else f"{path} holds no run that can be read ({entry.reason})"

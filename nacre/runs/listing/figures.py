"""The figures of a run that may be shown: those on public rows, which stand outside `local/`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.figures.names import KINDS
from nacre.runs.listing.reading import AbsentFile, UnfitFile, finite_number, object_in

NOT_SHOWN = "not shown"
"""A figure that was computed on private rows: it stays in `local/`."""
NOT_MEASURED = "not measured"
"""A figure that no audit computed."""


@dataclass(frozen=True)
class PublicFigure:
    """A figure on public rows, and how far chance alone may have moved it."""

    value: float
    low: float | None
    """None, as `high`, where the rows tell no interval."""
    high: float | None
    share: bool = True
    """Whether it is a share of rows; or else a loss, or a difference that may be negative."""

    def words(self) -> str:
        """The figure, as the report writes it."""
        return f"{100 * self.value:.1f}%" if self.share else f"{self.value:.4g}"

    def in_full(self) -> str:
        """The figure and its interval."""
        if self.low is None or self.high is None:
            return self.words()
        ends = (self.low, self.high)
        low, high = (f"{100 * end:.1f}%" if self.share else f"{end:.4g}" for end in ends)
        return f"{self.words()} ({low} to {high})"


@dataclass(frozen=True)
class PublicFigures:
    """What may be shown of a run, by name; and why there is no more."""

    found: Mapping[str, PublicFigure] = field(default_factory=dict[str, PublicFigure])
    missing: str = NOT_MEASURED
    speaks: str = ""
    """The name of the one that the plan puts first; "" where it says nothing."""

    @property
    def first(self) -> tuple[str, PublicFigure] | None:
        """The figure that stands for the run: the one that its plan puts first, its accuracy, its
        loss, or a protected accuracy."""
        order = (self.speaks, "accuracy", "loss", PROTECTED)
        known = [name for name in order if name in self.found]
        return (known[0], self.found[known[0]]) if known else None


_MORE = {str(name): kind for name, kind in KINDS.items() if name not in ("accuracy", "loss")}

PROTECTED = "protected accuracy"
"""Of held-out rows, noised: the run's epsilon covers it."""
ALWAYS = ("accuracy", "accuracy under attack", "membership advantage")
"""Figures that are listed as missing where a run has none; others only where one has them."""
NAMES = ("accuracy", "loss", PROTECTED, *(kind.words for kind in _MORE.values()), *ALWAYS[1:])
"""Every figure, in the order of the report."""


def public_figures(run: Path, speaks: object = None, *, every: bool = True) -> PublicFigures:
    """The figures in comparison.json and findings.json of a run folder, never those in `local/`;
    without `every` the latter, which holds pictures, is read where the former has no figure alone.
    `speaks` is what plan.json says under `figure`.

    A file that holds anything on private rows, where it does not belong, shows nothing.
    """
    try:
        found = {**_of_evaluation(run), **_of_comparison(run)}
        if every or not found:
            found = {**_of_findings(_findings(run)), **found}
    except UnfitFile as error:
        return PublicFigures(missing=str(error))
    except (KeyError, TypeError, ValueError, AttributeError):
        return PublicFigures(missing="findings.json, comparison.json or evaluation.json is damaged")
    except _OnPrivateRows:
        return PublicFigures(missing=NOT_SHOWN)
    # Whether the file is there, not what it says.
    private = os.path.lexists(run / "local" / "findings.json")
    first = _MORE[str(speaks)].words if str(speaks) in _MORE else ""
    return PublicFigures(found, NOT_SHOWN if private else NOT_MEASURED, first)


class _OnPrivateRows(Exception):
    """findings.json holds a finding on private rows."""


def _findings(run: Path) -> dict[str, dict[str, Any]]:
    """Audit -> its first finding."""
    found: dict[str, dict[str, Any]] = {}
    for entry in _optional(run, "findings.json").get("findings", []):
        if entry["public"] is not True:
            raise _OnPrivateRows
        found.setdefault(str(entry["audit"]), entry)
    return found


def _of_findings(findings: dict[str, dict[str, Any]]) -> dict[str, PublicFigure]:
    found: dict[str, PublicFigure] = {}
    if evasion := findings.get("evasion"):
        found["accuracy under attack"] = _figure(evasion)
        if clean := evasion["details"].get("clean"):
            found["accuracy"] = _figure(clean)
    if membership := findings.get("membership"):
        found["membership advantage"] = _figure(membership, share=False)
    return found


def _of_evaluation(run: Path) -> dict[str, PublicFigure]:
    """The protected accuracy, where the votes stood out of the noise."""
    facts = _optional(run, "evaluation.json").get("accuracy")
    if facts is None or facts["value"] is None:
        return {}
    return {PROTECTED: _figure(facts)}


def _of_comparison(run: Path) -> dict[str, PublicFigure]:
    """Of the protected model; the names of other models do not count."""
    found: dict[str, PublicFigure] = {}
    for variant in _optional(run, "comparison.json").get("variants", []):
        if variant["name"] == "protected":
            if variant.get("accuracy") is not None:
                found["accuracy"] = _figure(variant["accuracy"])
            if variant.get("loss") is not None:
                found["loss"] = _figure(variant["loss"], share=False)
            found |= _measured(variant.get("figures"))
            break
    return found


def _measured(facts: dict[str, Any] | None) -> dict[str, PublicFigure]:
    """The figures of all test rows; those that the rows leave undefined are missing."""
    found: dict[str, PublicFigure] = {}
    for name, kind in _MORE.items():
        figure: dict[str, Any] = ((facts or {}).get("figures") or {}).get(name) or {}
        if figure.get("value") is not None:
            value = finite_number(figure["value"])
            low, high = (
                None if figure[end] is None else finite_number(figure[end])
                for end in ("low", "high")
            )
            found[kind.words] = PublicFigure(value, low, high, kind.share)
    return found


def _figure(facts: dict[str, Any], *, share: bool = True) -> PublicFigure:
    value, low, high = (finite_number(facts[name]) for name in ("value", "low", "high"))
    return PublicFigure(value, low, high, share)


def _optional(run: Path, name: str) -> dict[str, Any]:
    try:
        return object_in(run / name)
    except AbsentFile:
        return {}
    except UnfitFile as error:
        raise UnfitFile(f"{name} {error}") from error

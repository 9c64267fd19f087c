"""What the holder of the rows may see: evidence with the figures on private rows in their place."""

from __future__ import annotations

from pathlib import Path

from nacre.report.facts import Comparison, Evidence, Variant
from nacre.report.reading import comparison_in, findings_in

HELD = ("local/findings.json", "local/comparison.json")
"""Where `nacre audit` leaves what it computed on private rows."""
_MEASURES = ("accuracy", "loss", "attacked_accuracy", "membership_advantage", "figures")


def with_private_figures(run: Path, evidence: Evidence) -> Evidence | None:
    """The evidence with what `nacre audit` left in RUN/local; None where it left nothing there.

    It never goes into evidence.json, nor anywhere outside `local/` but the owner's terminal.
    Raises `FileDamaged` where a file there does not hold what the verb writes.
    """
    findings = findings_in(run, HELD[0])
    comparison = comparison_in(run, HELD[1])
    if not findings and comparison is None:
        return None
    return {
        **evidence,
        "findings": findings or evidence["findings"],
        "findings_are_local": False,
        "comparison": _marked(comparison, evidence["comparison"]) or evidence["comparison"],
    }


def _marked(found: Comparison | None, public: Comparison | None) -> Comparison | None:
    """The comparison in local/, with what of it stands in no public one named as private."""
    if found is None:
        return None
    marked, shown = found.copy(), _shown(public)
    marked["on_private_rows"] = [name for name in _MEASURES if name in _shown(found) - shown]
    return marked


def _shown(found: Comparison | None) -> set[str]:
    """The measures that any variant has a figure of."""
    variants: list[Variant] = found["variants"] if found is not None else []
    return {name for variant in variants for name in _MEASURES if variant.get(name) is not None}

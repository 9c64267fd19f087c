"""Cells of CSV that a spreadsheet would run as formulas."""

from __future__ import annotations

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with."""


def inert(cell: object) -> object:
    """Text that a spreadsheet would run as a formula, behind an apostrophe; all else as it is.

    >>> inert("=1+1"), inert(-1), inert("a")
    ("'=1+1", -1, 'a')
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_SIGNS) else cell

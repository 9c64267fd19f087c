"""What foreign code raised, told within one sentence."""

from __future__ import annotations


def cause(error: Exception) -> str:
    """The kind of an error and its message on one line.

    >>> cause(RuntimeError("size mismatch:\\n  copying"))
    'RuntimeError: size mismatch: copying'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())

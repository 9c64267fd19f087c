"""What foreign code raised, told within one sentence."""

from __future__ import annotations

from nacre.core.theirs import cause

__all__ = ["cause"]

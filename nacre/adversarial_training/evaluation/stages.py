"""Every attack that a cascade can run."""

from __future__ import annotations

from nacre.adversarial_training.evaluation.climb import Climb

STAGES = (Climb,)
"""The laws run over them."""

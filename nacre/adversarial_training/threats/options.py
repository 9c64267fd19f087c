"""Every threat that a recipe can name."""

from __future__ import annotations

from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.table import TableThreat

ThreatOption = Ball | TableThreat

THREATS = (Ball, TableThreat)
"""Every threat that a recipe can name; the laws run over them."""

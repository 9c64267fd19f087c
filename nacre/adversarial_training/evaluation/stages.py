"""Every attack that a cascade can run."""

from __future__ import annotations

from nacre.adversarial_training.evaluation.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.climb import Climb
from nacre.adversarial_training.evaluation.column_search import ColumnSearch
from nacre.adversarial_training.evaluation.constrained import ConstrainedAPGD
from nacre.adversarial_training.evaluation.square import Square

STAGES = (Climb, AutoPGD, Square, ConstrainedAPGD, ColumnSearch)
"""The laws run over them."""

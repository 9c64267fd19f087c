"""Every attack that a cascade can run."""

from __future__ import annotations

from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.climb import Climb
from nacre.adversarial_training.evaluation.stages.column_search import ColumnSearch
from nacre.adversarial_training.evaluation.stages.constrained import ConstrainedAPGD
from nacre.adversarial_training.evaluation.stages.square import Square
from nacre.adversarial_training.text.swap import WordSwap
from nacre.adversarial_training.text.word_search import WordSearch

STAGES = (Climb, AutoPGD, Square, ConstrainedAPGD, ColumnSearch)
"""Those on inputs that are numbers; the laws run over them."""

TEXT_STAGES = (WordSwap, WordSearch)
"""Those on rows of tokens, which move in no ball."""

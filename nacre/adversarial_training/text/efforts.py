"""How much is tried against texts: three cascades by name."""

from __future__ import annotations

from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.efforts import Effort
from nacre.adversarial_training.text.swap import WordSwap
from nacre.adversarial_training.text.word_search import WordSearch

QUERIES: dict[Effort, int] = {"quick": 0, "standard": 100, "full": 1000}
"""Of the random search after the greedy one."""


def word_cascade(effort: Effort = "standard", width: int = 64) -> Cascade:
    """The stages of an effort: greedy word substitution, then a random search over what stands.
    `quick` is the greedy one alone. A step holds at most `width` rows."""
    queries = QUERIES[effort]
    return Cascade((WordSwap(), *([WordSearch(queries=queries)] if queries else [])), width)

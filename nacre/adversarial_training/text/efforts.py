"""How much is tried against texts: three cascades by name."""

from __future__ import annotations

from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.efforts import Effort
from nacre.adversarial_training.text.swap import WordSwap
from nacre.adversarial_training.text.word_search import WordSearch

QUERIES: dict[Effort, int] = {"quick": 0, "standard": 100, "full": 1000}
"""Of the random search after the greedy one."""

ROWS, TOKENS = 256, 1 << 14
"""The most of both that a step holds: what many rows keep in memory grows with their length."""


def word_cascade(
    effort: Effort = "standard",
    length: int = 64,  # tokens of a row, padding included
) -> Cascade:
    """The stages of an effort: greedy word substitution, then a random search over what stands.
    `quick` is the greedy one alone."""
    queries, width = QUERIES[effort], max(1, min(ROWS, TOKENS // length))
    return Cascade((WordSwap(), *([WordSearch(queries=queries)] if queries else [])), width)

"""The evasion of models that put texts into classes: other words in place of some."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import QueryCounts, ScoreOnly, Scorer
from nacre.adversarial_training.evaluation.cascade import WRONG, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.text.table import token_table
from nacre.adversarial_training.text.word_search import WordSearch
from nacre.adversarial_training.text.words import Substitutions, TokenKinds, Words
from nacre.audit.model_security.curve import AttackShown, RobustRows, confirmed
from nacre.audit.model_security.facts import TextPart
from nacre.audit.model_security.signs import PROBES, Probed, Sign
from nacre.audit.target import Target, TokenText
from nacre.core.errors import DataError, Incompatible
from nacre.core.random import Source

ROWS = 64
"""The most rows that a probe of words looks at."""

NEAR = 0.25
"""Share of the words with a near one below which there was little to be tried."""

ANYTHING = 10
"""Texts of other classes whose words are put into a row."""

NO_SLOPE = (
    "vanishing_gradient", "loss_not_rising", "square_beats_gradient", "transfer_beats_white_box",
)  # fmt: skip
"""Probes that compare with gradients. Words are replaced without one."""


@dataclass(frozen=True)
class WordBudgets:
    """A cascade over texts at several shares of the words that may change.

    It runs once, with the whole budget. A row counts as broken at the smallest share that allows
    as many words as were changed in it: the rows of a smaller budget are among those of a larger.
    """

    cascade: Cascade
    whole: Substitutions
    shares: Sequence[float]  # rising, the last one 1

    @property
    def attacks(self) -> int:
        """How many attacks `counted` hears of at most."""
        return len(self.cascade.stages)

    def region(self) -> Substitutions:
        """What may be tried with the whole budget."""
        return self.whole

    def __call__(
        self, scorer: Scorer, rows: Inputs, source: Source, counted: AttackShown
    ) -> RobustRows:
        """What is found for `rows`, whose places must be 0, 1, …, as `RadiusSearch` finds it."""

        def shown(standing: int, stages: int) -> None:
            counted(stages, f"{standing:,} of {len(rows):,} rows stand")

        found = self.cascade(scorer, self.whole, rows, source.child("words"), shown)
        changed = (found.points != rows.clean).sum(1)
        at = torch.full((len(rows),), torch.inf, dtype=torch.float64)
        for share in reversed(self.shares):
            allowed = self.whole.of_share(share * self.whole.share).budget(rows.clean)
            at[(found.by >= 0) & (changed <= allowed)] = share
        at[found.by == WRONG] = 0
        robust = RobustRows(rows, found.points, at, found, QueryCounts(), found.unconfirmed)
        return confirmed(robust, scorer, self.cascade.width)


def substitutions(target: Target, threat: Words, rows: Inputs) -> Substitutions:
    """What may replace the words of these rows, by the model's own embeddings."""
    if target.text is None:
        raise Incompatible(
            "word substitution needs rows of tokens and the tokenizer that made them, and these "
            "rows have none; attack numbers with a ball that has a radius"
        )
    kinds = TokenKinds.of(target.text.names)
    if not bool(kinds.words(rows.clean).any()):
        raise DataError(
            "no test row holds a word that is a token by itself, so no word can be replaced; use "
            "a tokenizer with larger pieces, or leave `evasion` out of `audit`"
        )
    return threat.region(token_table(target.model).weight, kinds, rows.clean)


def text_changes(text: TokenText, clean: Tensor, moved: Tensor) -> list[TextPart]:
    """(T,) twice -> the text in its order: `text`, and what now stands there or None, where a
    changed word is by itself."""
    real = clean >= 0
    before, after = clean[real].tolist(), moved[real].tolist()
    found: list[TextPart] = []
    for same, group in groupby(zip(before, after, strict=True), lambda pair: pair[0] == pair[1]):
        pairs = list(group)
        if same:
            said = text.decode([token for token, _ in pairs]).strip()
            found += [TextPart(text=said, now=None)] if said else []
        else:
            for one, other in pairs:
                now = text.decode([other]).strip()
                found.append(TextPart(text=text.decode([one]).strip(), now=now))
    return found


def word_signs(probed: Probed) -> dict[str, Sign]:
    """What each probe of `WORD_PROBES` found."""
    return {name: probe(probed) for name, probe in WORD_PROBES.items()}


def word_notes(seen: dict[str, Sign]) -> list[str]:
    """What the figure is to be read with."""
    few = seen["few_neighbours"]
    return [
        "a near word need not mean the same: the model's own embeddings may put opposites side by "
        "side, so read the examples",
        f"{few['with']:,} of the {few['words']:,} words in the rows that were attacked have a near "
        "one",
        f"probes that compare with gradients say nothing here and were left out: "
        f"{', '.join(NO_SLOPE)}",
    ]


def _few_neighbours(probed: Probed) -> Sign:
    """Words without a near one: what nothing can replace was not attacked."""
    region: Substitutions = probed.region
    attacked = probed.found.rows.take(probed.found.broken_at > 0)
    words = int(region.vocabulary.words(attacked.clean).sum())
    near = int((region.choices(attacked.clean)[:, :, 0] >= 0).sum())
    said = (
        f"only {near:,} of {words:,} words have a near one, so little was tried: lower the floor "
        "`similarity`"
    )
    return {"warning": said if near < NEAR * words else None, "with": near, "words": words}


def _more_words(probed: Probed) -> Sign:
    """Rows that stand and that another random search breaks. It asks all anew,
    since a model may answer otherwise when it is asked the same text again."""
    rows = probed.standing.take(torch.arange(min(ROWS, len(probed.standing))))
    if not len(rows):
        return {"warning": None, "rows": 0, "tried": 0}
    search = Cascade([WordSearch(queries=200, start=1)], ROWS)
    forgetful = replace(probed.scorer, remembered={})
    found = search(forgetful, probed.region, rows, probed.source.child("longer"))
    broke = len(rows) - len(found.standing)
    said = (
        f"a longer random search breaks {broke} of {len(rows)} rows that stand: raise `effort`, or "
        "the search is not at its end"
    )
    before = sum(stage.broke for stage in probed.found.whole.stages)
    tells = probed.tells(broke, len(rows), before)
    return {"warning": said if tells else None, "rows": broke, "tried": len(rows)}


def _anything(probed: Probed) -> Sign:
    """Rows that keep their answer whatever words stand in them: those of texts of other classes.

    Asked are rows of which at least half are words that can be replaced.
    """
    region: Substitutions = probed.region
    rows = probed.right
    words = region.vocabulary.words(rows.clean)
    rows = rows.take((2 * words.sum(1) >= (rows.clean >= 0).sum(1)).nonzero().squeeze(1)[:ROWS])
    words = region.vocabulary.words(rows.clean)
    if probed.found.rows.towards is not None or not len(rows):
        return {"warning": None, "rows": 0, "tried": 0}
    target, left = ScoreOnly(probed.scorer), torch.arange(len(rows))
    donors, chances = probed.right, probed.source.child("anything").stream()
    for number, lots in enumerate(chances.uniform(ANYTHING, len(rows), len(donors))):
        if not len(left):
            break  # a row that has lost its answer has said what it can
        x = rows.clean.clone()
        for row in left.tolist():
            other = torch.where(donors.label != rows.label[row], lots[row], -1.0)
            if not bool((other > 0).any()):
                continue
            donor = donors.clean[int(other.argmax())]
            given = donor[region.vocabulary.words(donor[None])[0]]
            count = int(words[row].sum())
            if len(given):
                x[row, words[row]] = given.roll(number).repeat(count // len(given) + 1)[:count]
        left = left[~rows.take(left).broken(target.scores(x[left]))]
    kept = len(left)
    said = (
        f"{kept} of {len(rows)} rows keep their answer with the words of texts of other classes in "
        "place of their own: the model does not answer by the words"
    )
    return {
        "warning": said if kept > max(1.0, 0.1 * len(rows)) else None,
        "rows": kept,
        "tried": len(rows),
    }


WORD_PROBES: dict[str, Callable[[Probed], Sign]] = {
    "random_output": PROBES["random_output"],
    "softmax_output": PROBES["softmax_output"],
    "other_answers": PROBES["other_answers"],
    "unconfirmed_points": PROBES["unconfirmed_points"],
    "few_neighbours": _few_neighbours,
    "more_still_helps": _more_words,
    "unbounded_words": _anything,
}
"""What may speak against a figure of word substitution, by its name in findings.json."""

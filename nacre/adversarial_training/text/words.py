"""The words of a row that an adversary may replace, and by which ones."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from nacre.core import require
from nacre.core.errors import Incompatible

_MARKS = ("\u0120", "\u2581")  # what byte-level BPE and SentencePiece put before a word
_PIECE = "##"  # what WordPiece puts before a piece that continues a word
_AT_ONCE = 512  # tokens whose neighbours are looked for together, to bound memory
_ROUNDING = 1e-5  # of a cosine: what adding it up in another order may change


@dataclass(frozen=True, kw_only=True)
class Words:
    """Other words in place of some: each of them near the one that it replaces, as the attacked
    model itself reads them.

    *Source:* Jin et al. 2020, "Is BERT Really Robust?", https://arxiv.org/abs/1907.11932, step 2,
    with the model's own embeddings in place of counter-fitted ones.
    """

    kind: Literal["words"] = "words"
    share: float = 0.2
    """How many of a row's words may change at most, as a share; rounded down, but at least one."""
    similarity: float = 0.5
    """The least cosine between the embeddings of a word and of the one that replaces it."""
    candidates: int = 8
    """The nearest words that may replace one."""

    def __post_init__(self) -> None:
        require.at_least(1, candidates=self.candidates)
        require.up_to(1, share=self.share)
        require.within(-1, 1, ": it is a cosine", similarity=self.similarity)

    def sentence(self) -> str:
        """The share, the floor and the number of candidates."""
        return (
            f"at most {self.share:.0%} of a row's words replaced, each by one of the "
            f"{self.candidates} nearest with a cosine of at least {self.similarity:g}"
        )

    @property
    def radius(self) -> float:
        """`share`: what a curve of accuracies runs over."""
        return self.share

    @property
    def unit(self) -> str:
        """What `radius` counts."""
        return "share of words"

    def scaled(self, share: float) -> Words:
        """The threat with `share` of the words that may change: its rows are among those of the
        whole."""
        return replace(self, share=self.share * share)

    def region(
        self,
        weights: Tensor,  # (V, D): the model's table of embeddings
        vocabulary: TokenKinds,
        features: Tensor,  # (R, T) int64: the rows that will be attacked
    ) -> Substitutions:
        """What may replace each token of these rows. Raises `Incompatible` where the table and the
        vocabulary have other sizes."""
        near = torch.full((len(vocabulary.whole), self.candidates), -1, dtype=torch.int64)
        for some, cosine in self._cosines(weights, vocabulary, features):
            top = cosine.topk(min(self.candidates, cosine.shape[1]), dim=1)
            found = torch.where(top.values >= self.similarity, top.indices, -1)
            near[some, : found.shape[1]] = found
        return Substitutions(near, vocabulary, self.share)

    def unlike(
        self,
        found: Substitutions,
        weights: Tensor,  # (V, D): the model's table of embeddings
        features: Tensor,  # (R, T) int64
    ) -> Tensor:
        """(K,) int64: the tokens of these rows whose candidates are not those of `region`. Words
        whose cosines differ by rounding alone may stand for each other: another machine, or other
        rows beside these, may order them otherwise. Raises as `region` does."""
        wrong = [torch.zeros(0, dtype=torch.int64)]
        for some, cosine in self._cosines(weights, found.vocabulary, features):
            near, floor = found.near[some], torch.tensor(self.similarity)
            best = torch.full(near.shape, self.similarity)
            count = min(near.shape[1], cosine.shape[1])
            best[:, :count] = cosine.topk(count, dim=1).values.maximum(floor)
            given = torch.where(near >= 0, cosine.gather(1, near.clamp(min=0)), floor)
            wrong.append(some[((given - best).abs() > _ROUNDING).any(1)])
        return torch.cat(wrong)

    def _cosines(
        self, weights: Tensor, vocabulary: TokenKinds, features: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(S,) some words of these rows and (S, V) their cosines with every token of the
        vocabulary, minus infinity for what may not replace them."""
        known = len(vocabulary.whole)
        if len(weights) < known:
            raise Incompatible(f"the table has {len(weights)} embeddings for {known} tokens")
        unit = functional.normalize(weights.detach()[:known].float(), dim=1)
        asked = features[(features >= 0) & (features < known)].unique()
        for some in asked[vocabulary.whole[asked]].split(_AT_ONCE):
            cosine = unit[some] @ unit.T
            cosine[:, ~vocabulary.whole] = -torch.inf
            cosine[torch.arange(len(some)), some] = -torch.inf
            yield some, cosine


@dataclass(frozen=True, eq=False)
class TokenKinds:
    """Which tokens are words by themselves, and which continue the one before."""

    whole: Tensor  # (V,) bool
    continues: Tensor  # (V,) bool

    @classmethod
    def of(cls, tokens: Sequence[str]) -> TokenKinds:
        """From the tokens as a tokenizer writes them: WordPiece (`##ing`), byte-level BPE (`Ġthe`)
        or SentencePiece (`▁the`); plain words where there are no such marks.

        A word is letters alone, so names of special tokens, numbers and punctuation never change.

        >>> found = TokenKinds.of(["[CLS]", "play", "##ing", "."])
        >>> found.whole.tolist(), found.continues.tolist()
        ([False, True, False, False], [False, False, True, False])
        """
        marked = any(token.startswith(_MARKS) for token in tokens)
        whole, continues = list[bool](), list[bool]()
        for token in tokens:
            begins = token.startswith(_MARKS) if marked else not token.startswith(_PIECE)
            bare = token[1:] if marked and begins else token.removeprefix(_PIECE)
            whole.append(begins and bare.isalpha())
            continues.append(not begins and bare.isalnum())
        return cls(torch.tensor(whole, dtype=torch.bool), torch.tensor(continues, dtype=torch.bool))

    def words(self, clean: Tensor) -> Tensor:
        """(R, T) tokens -> (R, T) bool: where a token is a word by itself, with no piece of the
        same word after it."""
        after = torch.cat([clean[:, 1:], torch.full_like(clean[:, :1], -1)], 1)
        return self._where(self.whole, clean) & ~self._where(self.continues, after)

    def _where(self, known: Tensor, tokens: Tensor) -> Tensor:
        inside = (tokens >= 0) & (tokens < len(known))
        return known[torch.where(inside, tokens, 0)] & inside


@dataclass(frozen=True, eq=False)
class Substitutions:
    """The rows that an attack may make of a clean one.

    *Guarantee:* what `project` returns differs from the clean row in at most its budget of words,
    each replaced by one of its candidates; padding, punctuation, pieces of words and special tokens
    are as they were.
    """

    near: Tensor  # (V, C) int64: candidates for each token, the nearest first; -1 for none
    vocabulary: TokenKinds
    share: float

    def of_share(self, share: float) -> Substitutions:
        """The same candidates, where another share of the words may change."""
        return replace(self, share=share)

    def budget(self, clean: Tensor) -> Tensor:
        """(R, T) -> (R,) int64: how many words may change; 0 in a row without words."""
        words = self.vocabulary.words(clean).sum(1)
        return torch.minimum((self.share * words + 1e-9).long().clamp(min=1), words)

    def choices(self, clean: Tensor) -> Tensor:
        """(R, T) -> (R, T, C) int64: what may stand at each place; -1 for nothing."""
        found = self.near[torch.where(self.vocabulary.words(clean), clean, 0)]
        return torch.where(self.vocabulary.words(clean).unsqueeze(-1), found, -1)

    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """(R, T) twice -> (R, T): places that hold no candidate go back to the clean token, and
        rows over their budget go back as a whole."""
        allowed = (self.choices(clean) == x.unsqueeze(-1)).any(2) & (x >= 0)
        inside = torch.where(allowed, x, clean)
        over = (inside != clean).sum(1) > self.budget(clean)
        return torch.where(over[:, None], clean, inside)

    def contains(self, x: Tensor, clean: Tensor) -> Tensor:
        """(R, T) twice -> (R,) bool."""
        return (self.project(x, clean) == x).all(1)

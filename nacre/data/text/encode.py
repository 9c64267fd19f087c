"""Documents, instructions and tagged words as rows of tokens: each in a row of its own."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import Refusal
from nacre.data.text.tokens import Tokenizer

PADDED = -1
"""Stands in `features` where a row has no token."""
NOT_COUNTED = -100
"""Stands in `label` where nothing counts for the loss."""

_CHUNK = 2048  # documents between two signs of progress

EncodingProgress = Callable[[int, int], None]
"""Called with (done, total) documents."""


def quiet(done: int, total: int) -> None:
    """An `EncodingProgress` that shows nothing."""


@dataclass(frozen=True)
class Encoded:
    """Rows of tokens, and how many of them were too long."""

    features: Tensor  # (N, T) int64, `PADDED` on the right
    label: Tensor  # (N, T) int64, `NOT_COUNTED` where nothing counts
    cut: int  # rows that lost tokens


@dataclass(frozen=True)
class Encoder:
    """Documents to rows of at most `length` tokens. A row never holds two documents, so that a
    row's gradient depends on one document alone."""

    tokenizer: Tokenizer
    length: int
    cut: Literal["end", "start"] = "end"
    advance: EncodingProgress = quiet

    def __post_init__(self) -> None:
        before, after = self.tokenizer.around()
        if self._room(before, after) < 1:
            raise Refusal(
                f"length={self.length} leaves no room for a token beside the "
                f"{len(before) + len(after)} special ones of the tokenizer; raise it"
            )

    def texts(self, documents: Sequence[str]) -> Encoded:
        """Documents to be judged as wholes, as the model's own template has them; no labels."""
        before, after = self.tokenizer.around()
        room = self._room(before, after)

        def rows() -> Iterator[_Row]:
            for tokens in self._tokens(documents):
                yield [*before, *self._kept(tokens, room), *after], None, len(tokens) > room

        return self._filled(rows(), len(documents))

    def documents(self, documents: Sequence[str]) -> Encoded:
        """Documents to be learnt word for word: each token counts, the end of the document too,
        unless it is the end that is cut off."""
        before, after = self._open()

        def rows() -> Iterator[_Row]:
            for tokens in self._tokens(documents):
                row = [*tokens, *after]
                kept = self._kept(row, self.length - len(before))
                yield [*before, *kept], [*_none(before), *kept], len(kept) < len(row)

        return self._filled(rows(), len(documents))

    def instructions(self, prompts: Sequence[str], completions: Sequence[str]) -> Encoded:
        """Prompts with what is to be answered, of which alone each token counts.

        A prompt gives way to its completion: it keeps what the row has left.
        """
        before, after = self._open()
        joined = [text for pair in zip(prompts, completions, strict=True) for text in pair]

        def rows() -> Iterator[_Row]:
            pairs = iter(self._tokens(joined))
            for prompt, completion in zip(pairs, pairs, strict=True):
                answer = [*completion, *after][: self.length - len(before)]
                kept = self._kept(prompt, self.length - len(before) - len(answer))
                lost = len(kept) + len(answer) < len(prompt) + len(completion) + len(after)
                yield [*before, *kept, *answer], [*_none(before), *_none(kept), *answer], lost

        return self._filled(rows(), len(prompts))

    def tagged(self, words: Sequence[Sequence[str]], tags: Sequence[Sequence[int]]) -> Encoded:
        """Words with a class each, which counts at the first token of its word."""
        before, after = self.tokenizer.around()
        room = self._room(before, after)
        spaced = [f" {word}" if i else word for row in words for i, word in enumerate(row)]

        def rows() -> Iterator[_Row]:
            pieces = iter(self._tokens(spaced))
            for row in tags:
                ids: list[int] = []
                label: list[int] = []
                for tag, tokens in ((tag, next(pieces)) for tag in row):
                    ids += tokens
                    label += [tag, *_none(tokens[1:])] if tokens else []
                kept = [*_none(before), *self._kept(label, room), *_none(after)]
                yield [*before, *self._kept(ids, room), *after], kept, len(ids) > room

        return self._filled(rows(), len(words))

    def _open(self) -> tuple[list[int], list[int]]:
        """What stands around a document that is learnt: its end is learnt with it."""
        before, after = self.tokenizer.around()
        end = self.tokenizer.end
        return before, after if after or end is None else [end]

    def _room(self, before: Sequence[int], after: Sequence[int]) -> int:
        return self.length - len(before) - len(after)

    def _kept(self, tokens: list[int], room: int) -> list[int]:
        if len(tokens) <= room:
            return tokens
        return tokens[:room] if self.cut == "end" else tokens[len(tokens) - room :]

    def _tokens(self, documents: Sequence[str]) -> Iterator[list[int]]:
        for start in range(0, len(documents), _CHUNK):
            part = documents[start : start + _CHUNK]
            yield from self.tokenizer.encode(part)
            self.advance(start + len(part), len(documents))

    def _filled(self, rows: Iterable[_Row], count: int) -> Encoded:
        features = np.full((count, self.length), PADDED, dtype=np.int64)
        label = np.full((count, self.length), NOT_COUNTED, dtype=np.int64)
        cut = 0
        for place, (tokens, counted, lost) in enumerate(rows):
            features[place, : len(tokens)] = tokens
            if counted is not None:
                label[place, : len(counted)] = counted
            cut += lost
        return Encoded(torch.from_numpy(features), torch.from_numpy(label), cut)


_Row = tuple[list[int], list[int] | None, bool]  # tokens, what counts, whether some were lost


def _none(tokens: Sequence[int]) -> list[int]:
    return [NOT_COUNTED] * len(tokens)

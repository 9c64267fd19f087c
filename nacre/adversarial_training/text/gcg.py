"""GCG: a suffix of a prompt after which a language model says what an attacker wants."""

# Parts of torch and transformers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.table import moved_embeddings, token_table
from nacre.core import require
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.models.stock.pretrained import croppable
from nacre.models.stock.transformer import Transformer


@dataclass(frozen=True, eq=False)
class SuffixFound:
    """What a search found."""

    suffix: Tensor  # (S,) int64: the best of all steps
    loss: float  # mean cross-entropy of the target after it, in nats
    losses: tuple[float, ...]  # of the suffix at hand after each step
    said: bool  # whether the model's likeliest tokens after it are the target
    forwards: int  # suffixes put through the model


@dataclass(frozen=True, kw_only=True)
class GCG:
    """Greedy coordinate gradient: in each step replacements of single tokens are drawn among those
    that the gradient favours, and the best of them is taken.

    The prompt before the suffix is read once and its keys and values are kept; so are those of the
    suffix up to the token that is replaced; the target's last token is not read, since nothing is
    asked after it; the head answers where the target stands and nowhere else; a replacement that
    was drawn twice is scored once.

    *Source:* Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language
    Models", https://arxiv.org/abs/2307.15043, algorithm 1.
    """

    steps: int = 100
    """Replacements of a token, at most; the search ends once the target is said."""
    top: int = 64
    """Tokens of each place that the gradient favours most."""
    trials: int = 64
    """Replacements drawn in a step."""
    width: int = 64
    """Suffixes that are scored together, which bounds memory."""

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps, top=self.top, trials=self.trials, width=self.width)

    def __call__(
        self,
        model: Transformer,
        prompt: Tensor,  # (P,) int64, P >= 1: what stands before the suffix
        suffix: Tensor,  # (S,) int64: where the search starts
        target: Tensor,  # (T,) int64: what the model shall say
        allowed: Tensor,  # (V,) bool: tokens that a suffix may hold
        source: Source,
    ) -> SuffixFound:
        """The best suffix. The model is afterwards as it was.

        Raises `Incompatible` for a model that does not write text, and without a prompt, a suffix,
        a target or an allowed token.
        """
        if not (len(prompt) and len(suffix) and len(target) and bool(allowed.any())):
            raise Incompatible(
                "a search for a suffix needs a prompt, a suffix to start from, a target and a "
                "token that the suffix may hold; give at least one token of each"
            )
        with untouched(model):
            reader = SuffixReader(model, prompt, target)
            now, losses = suffix.clone(), list[float]()
            value, said = reader.scored(now[None], self.width)
            best, least, done, forwards = now, float(value[0]), bool(said[0]), 1
            for step in range(self.steps):
                if done:
                    break
                tried = self.drawn(reader, now, allowed, source.child("gcg", step))
                if not len(tried):
                    break
                values, said = reader.scored(tried, self.width, beside=now)
                forwards += len(tried)
                place = int(values.argmin())
                now = tried[place]
                losses.append(float(values[place]))
                if losses[-1] < least:
                    best, least, done = now, losses[-1], bool(said[place])
        return SuffixFound(best, least, tuple(losses), done, forwards)

    def drawn(self, reader: SuffixReader, now: Tensor, allowed: Tensor, source: Source) -> Tensor:
        """(N, S): what a step tries, different suffixes that each have one
        token replaced; N <= `trials`."""
        slopes = reader.slopes(now).masked_fill(~allowed, torch.inf)
        top = min(self.top, int(allowed.sum()))
        favoured = slopes.topk(top, dim=1, largest=False).indices
        uniform = source.stream().uniform(2, self.trials)
        places = (uniform[0] * len(now)).long().clamp(max=len(now) - 1)
        tokens = favoured[places, (uniform[1] * top).long().clamp(max=top - 1)]
        tried = now.repeat(self.trials, 1)
        tried[torch.arange(self.trials), places] = tokens
        return tried[(tried != now).any(1)].unique(dim=0)


class SuffixReader:
    """A causal model that reads suffixes between one prompt and one target."""

    def __init__(
        self,
        model: Transformer,
        prompt: Tensor,  # (P,)
        target: Tensor,  # (T,)
    ) -> None:
        network: Any = model.network
        if model.task != "causal_lm" or network.get_output_embeddings() is None:
            raise Incompatible(
                f"a suffix is searched for models that write text, and this one answers "
                f"{model.task}; use `task: causal_lm`"
            )
        self._base: Any = network.base_model
        self._head: nn.Module = network.get_output_embeddings()
        self._table = token_table(model)
        self._target = target
        self._seen: tuple[Tensor, Any] | None = None  # the last suffix of `slopes`, what it left
        with torch.no_grad():
            read = self._base(input_ids=prompt[None], use_cache=True)
        self._cache = read.past_key_values
        if self._cache is None:
            raise Incompatible("the model keeps no keys and values of what it has read")

    @torch.no_grad()
    def scored(
        self,
        suffixes: Tensor,  # (N, S)
        width: int,
        beside: Tensor | None = None,  # (S,): what the suffixes differ from in a few tokens
    ) -> tuple[Tensor, Tensor]:
        """(N,) mean cross-entropies of the target, (N,) bool whether it is the likeliest text; at
        most `width` suffixes at a time. What stands before the first token that differs from
        `beside` is read once."""
        known = None if beside is None else self._read(beside)
        if known is None or beside is None:
            first, spans = suffixes.new_zeros(len(suffixes)), [(0, 1)]
        else:
            first = (suffixes != beside).int().argmax(1)
            spans = shared_beginnings(first, len(beside) + len(self._target) - 1)
        order, states = list[Tensor](), list[Tensor]()
        for at, until in spans:
            for some in ((first >= at) & (first < until)).nonzero().squeeze(1).split(width):
                cache = copy.deepcopy(self._cache if known is None else known)
                if known is not None:
                    cache.crop(at - suffixes.shape[1])  # below 0: what is taken back
                if len(some) > 1:
                    cache.batch_repeat_interleave(len(some))
                order.append(some)
                states.append(self._states(suffixes[some, at:], cache))
        # The head answers for all spans together: with a large vocabulary it is most of a model.
        answers = [self._answered(some) for some in torch.cat(states).split(width)]
        back = torch.cat(order).argsort()
        values, said = (torch.cat(each)[back] for each in zip(*answers, strict=True))
        return values, said

    def _states(self, suffixes: Tensor, cache: Any) -> Tensor:
        """(N, S') ends of suffixes, whose beginnings are in the cache -> (N, T, D), from which the
        head tells the tokens of the target. The cache grows by the ends and by the target without
        its last token, after which nothing is asked."""
        length = len(self._target)
        rows = torch.cat([suffixes, self._target[:-1].expand(len(suffixes), -1)], 1)
        read = self._base(input_ids=rows, past_key_values=cache, use_cache=True)
        return read.last_hidden_state[:, -length:]

    def _answered(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, D) -> (N,) mean cross-entropies, (N,) bool whether the target is likeliest."""
        logits = self._head(states)
        aims = self._target.expand(len(states), -1)
        each = functional.cross_entropy(
            logits.flatten(0, 1).float(), aims.flatten(), reduction="none"
        )
        return each.view(len(states), -1).mean(1), (logits.argmax(-1) == aims).all(1)

    def _read(self, suffix: Tensor) -> Any:
        """The keys and values of the prompt and this suffix, those that `slopes` left if it was the
        last one asked; None for a model that keeps a window of them, from which nothing can be
        taken back."""
        if not croppable(self._cache):
            return None
        if self._seen is not None and torch.equal(self._seen[0], suffix):
            known = self._seen[1]
            for layer in known.layers:
                layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
            known.crop(1 - len(self._target))
            self._seen = None
        else:
            known = copy.deepcopy(self._cache)
            self._base(input_ids=suffix[None], past_key_values=known, use_cache=True)
        return known

    def slopes(self, suffix: Tensor) -> Tensor:
        """(S,) -> (S, V): the gradient of the loss by each entry of the one-hot rows of the suffix,
        from that by the embeddings."""
        length = len(suffix) + len(self._target) - 1
        move = torch.zeros(1, length, self._table.embedding_dim, requires_grad=True)
        with torch.enable_grad(), moved_embeddings(self._table, move):
            cache = copy.deepcopy(self._cache)
            value, _ = self._answered(self._states(suffix[None], cache))
            (gradient,) = torch.autograd.grad(value.sum(), move)
        self._seen = suffix, cache
        return gradient[0, : len(suffix)] @ self._table.weight.detach().T


CALL = 48
"""Tokens that could be read in the time that a call of the model costs by itself, about."""


def shared_beginnings(first: Tensor, length: int) -> list[tuple[int, int]]:
    """How rows of `length` tokens that differ from one row from `first` (N,) on are best read: row
    i with those of its span, from the span's beginning. Spans [at, until) hold every place that
    occurs, and the sum of tokens read, with `CALL` for each span, is the least possible.

    >>> shared_beginnings(torch.tensor([0, 0, 90, 91]), 100)
    [(0, 90), (90, 92)]
    """
    places, counts = first.unique(return_counts=True)
    starts: list[int] = places.tolist()
    rows: list[int] = counts.tolist()
    # costs[i]: the least for the places from the i-th on; `ends` says where the first span ends.
    costs, ends = [0] * (len(starts) + 1), [0] * len(starts)
    for i in range(len(starts) - 1, -1, -1):
        options = [
            (CALL + sum(rows[i:j]) * (length - starts[i]) + costs[j], j)
            for j in range(i + 1, len(starts) + 1)
        ]
        costs[i], ends[i] = min(options)
    spans, i = list[tuple[int, int]](), 0
    while i < len(starts):
        j = ends[i]
        spans.append((starts[i], starts[j] if j < len(starts) else starts[-1] + 1))
        i = j
    return spans

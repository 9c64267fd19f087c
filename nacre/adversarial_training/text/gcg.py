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

    The prompt before the suffix is read once and its keys and values are kept; the head answers
    where the target stands and nowhere else; a replacement that was drawn twice is scored once.

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
                values, said = reader.scored(tried, self.width)
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
        with torch.no_grad():
            read = self._base(input_ids=prompt[None], use_cache=True)
        self._cache = read.past_key_values
        if self._cache is None:
            raise Incompatible("the model keeps no keys and values of what it has read")

    def losses(self, suffixes: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S) -> (N,) mean cross-entropies of the target, (N,) bool whether it is the likeliest
        text."""
        count, length = len(suffixes), len(self._target)
        cache = copy.deepcopy(self._cache)
        if count > 1:
            cache.batch_repeat_interleave(count)
        rows = torch.cat([suffixes, self._target.expand(count, -1)], 1)
        states = self._base(input_ids=rows, past_key_values=cache, use_cache=True).last_hidden_state
        # The last token of the target answers nothing, and of the suffix only the last one does.
        logits = self._head(states[:, -length - 1 : -1])
        aims = self._target.expand(count, -1)
        each = functional.cross_entropy(logits.mT.float(), aims, reduction="none")
        return each.mean(1), (logits.argmax(-1) == aims).all(1)

    def scored(self, suffixes: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """`losses` without a graph, at most `width` at a time."""
        with torch.no_grad():
            found = [self.losses(some) for some in suffixes.split(width)]
        return torch.cat([value for value, _ in found]), torch.cat([said for _, said in found])

    def slopes(self, suffix: Tensor) -> Tensor:
        """(S,) -> (S, V): the gradient of the loss by each entry of the one-hot rows of the suffix,
        from that by the embeddings."""
        length = len(suffix) + len(self._target)
        move = torch.zeros(1, length, self._table.embedding_dim, requires_grad=True)
        with torch.enable_grad(), moved_embeddings(self._table, move):
            value, _ = self.losses(suffix[None])
            (gradient,) = torch.autograd.grad(value.sum(), move)
        return gradient[0, : len(suffix)] @ self._table.weight.detach().T

"""Text that a language model writes, token by token."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.core.theirs import theirs
from nacre.data.text.tokens import Tokenizer


@torch.no_grad()
def continued(
    module: nn.Module,  # (1, T) tokens -> (1, T, vocabulary) logits of the next, in evaluation mode
    tokenizer: Tokenizer,
    length: int,  # tokens that the model reads at once
    prompt: str,
    count: int,  # tokens at most
    *,
    seed: int,
    temperature: float,  # 0 takes the likeliest token each time
) -> str:
    """The text after `prompt`, until its document ends or there are `count` tokens. The same seed
    gives the same text; torch's own generator is left as it was."""
    require.at_least(1, tokens=count)
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise BadArgument(f"temperature={temperature} must be >= 0 and finite")
    before, after = tokenizer.around()
    ends = {*after[:1], *(() if tokenizer.end is None else (tokenizer.end,))}
    (given,) = tokenizer.encode([prompt])
    if not (before or given):
        raise BadArgument("prompt='' holds no token to continue; give it a word")
    draw = torch.Generator().manual_seed(seed)
    written: list[int] = []
    while len(written) < count:
        seen = [*before, *[*given, *written][-(length - len(before)) :]]
        with theirs("the model", "text was written", surely=False):
            answer: Any = module(torch.tensor([seen]))
        token = _next(answer[0, -1, : tokenizer.vocabulary], temperature, draw)
        if token in ends:
            break
        written.append(token)
    return tokenizer.decode(written)


def _next(
    logits: Tensor,  # (V,)
    temperature: float,
    draw: torch.Generator,
) -> int:
    if temperature == 0:
        return int(logits.argmax())
    shares = torch.softmax(logits.double() / temperature, dim=0)
    return int(torch.multinomial(shares, 1, generator=draw))

"""A small decoder that reads tokens and answers with the logits of the next one."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument

_SPREAD = 0.02  # of the first weights, as GPT-2's (Radford et al. 2019)


@dataclass(frozen=True, kw_only=True)
class GPT(NoAssumptions):
    """A small language model from scratch: blocks of causal attention and two linear layers, each
    after a layer norm, over learnt positions (Radford et al. 2019). Its task is causal_lm."""

    kind: Literal["gpt"] = "gpt"
    layers: int = 4
    """Blocks."""
    width: int = 256
    """Numbers that stand for a token; a multiple of `heads`."""
    heads: int = 4
    """Attentions side by side in each block."""
    dropout: float = 0.0
    """Share of each block's answer set to zero while training, in [0, 1)."""
    tied: bool = True
    """Whether the weights that read tokens also answer with them."""

    def sentence(self, folder: Path) -> str:
        """Kind, blocks and width, as `gpt 4 256`."""
        return f"{self.kind} {self.layers} {self.width}"

    def __post_init__(self) -> None:
        require.at_least(1, layers=self.layers, width=self.width, heads=self.heads)
        if self.width % self.heads:
            raise BadArgument(f"width={self.width} must be a multiple of heads={self.heads}")
        require.below_one(dropout=self.dropout)


class TransformerBlock(nn.Module):
    """Attention to what came before, then two linear layers; both are added to what came in."""

    def __init__(self, option: GPT) -> None:
        super().__init__()
        width = option.width
        self.heads = option.heads
        self.before = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(option.dropout)

    def forward(
        self,
        x: Tensor,  # (R, T, width)
    ) -> Tensor:
        """-> (R, T, width)."""
        rows, length, width = x.shape
        split = self.mix(self.before(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.drop(self.out(seen.transpose(1, 2).reshape(rows, length, width)))
        return x + self.drop(self.narrow(functional.gelu(self.wide(self.between(x)))))


class Decoder(nn.Module):
    """What `GPT` describes.

    *Guarantee:* what is answered at a position depends on the tokens up to it alone, so padding on
    the right of a row changes none of its answers.
    """

    task = "causal_lm"

    def __init__(self, option: GPT, tokens: int, length: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Embedding(tokens, option.width)
        self.places = nn.Embedding(length, option.width)
        self.blocks = nn.Sequential(*(TransformerBlock(option) for _ in range(option.layers)))
        self.last = nn.LayerNorm(option.width)
        self.head = None if option.tied else nn.Linear(option.width, tokens, bias=False)
        for name, weights in self.named_parameters():
            if weights.dim() == 2:
                # What is added to the residual stream, is added once a block, and twice in it.
                deep = name.endswith(("out.weight", "narrow.weight"))
                spread = _SPREAD / math.sqrt(2 * option.layers) if deep else _SPREAD
                nn.init.normal_(weights, std=spread)

    def get_input_embeddings(self) -> nn.Module:
        """The table that tokens are looked up in, under the name that stock models give it."""
        return self.embed

    def forward(
        self,
        features: Tensor,  # (R, T) int64, -1 where a row is padded on its right
    ) -> Tensor:
        """-> (R, T, tokens): logits of the token that comes next."""
        places = torch.arange(features.shape[1], device=features.device)
        x = self.embed(features.clamp(min=0)) + self.places(places)
        x = self.last(self.blocks(x))
        return functional.linear(x, self.embed.weight) if self.head is None else self.head(x)


def gpt(
    option: GPT,
    shape: tuple[int, ...],  # of one row: (T,)
    outputs: int,  # tokens
) -> nn.Module:
    """The network, (R, T) -> (R, T, outputs)."""
    return Decoder(option, outputs, math.prod(shape))

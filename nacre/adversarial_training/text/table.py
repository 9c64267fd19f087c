"""The table that gives each token its embedding, and a forward pass with embeddings moved."""

# Parts of torch and transformers are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nacre.core.errors import Incompatible


def token_table(model: nn.Module) -> nn.Embedding:
    """The embedding that the model looks its tokens up in.

    Of a stock transformer and of `GPT` it is what `get_input_embeddings` gives; of any other model
    with `tokens`, the one table with a row for each. Raises `Incompatible` where there is none,
    or where several could be meant.
    """
    network: Any = getattr(model, "network", model)
    named = getattr(network, "base_model", network)
    if hasattr(named, "get_input_embeddings"):
        table = named.get_input_embeddings()
        if isinstance(table, nn.Embedding):
            return table
    tokens: int | None = getattr(model, "tokens", None)
    found = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    fitting = [m for m in found if tokens is None or m.num_embeddings == tokens]
    if len(fitting) != 1:
        raise Incompatible(
            f"the model has {len(fitting) or 'no'} tables of embeddings that its tokens could be "
            "looked up in, so it is unknown what an adversary may move; use a model of text with "
            "one `nn.Embedding` over its tokens"
        )
    return fitting[0]


@contextmanager
def cut_embeddings(table: nn.Embedding) -> Generator[list[Tensor]]:
    """Inside the block what the table gives is passed on without its graph; the list holds the
    first of it with its graph.

    So passes over the same tokens share the way from the table: what a table hands on has the
    gradient of the moves that are added to it, and the sum of these goes back to the weights once.
    """
    first: list[Tensor] = []

    def cut(module: nn.Module, entered: tuple[Any, ...], embedded: Tensor) -> Tensor:
        if not first:
            first.append(embedded)
        return embedded.detach()

    handle = table.register_forward_hook(cut)
    try:
        yield first
    finally:
        handle.remove()


@contextmanager
def moved_embeddings(
    table: nn.Embedding,
    moves: Tensor,  # (R, T, D), added to what the table gives for R rows of T tokens
) -> Generator[None]:
    """Inside the block every embedding that the table gives is moved.

    Raises `Incompatible` where the table is asked for another number of rows or tokens, or not at
    all: then the moves would belong to other tokens, or to none.
    """
    asked: list[None] = []

    def add(module: nn.Module, entered: tuple[Any, ...], embedded: Tensor) -> Tensor:
        asked.append(None)
        if embedded.shape != moves.shape:
            raise Incompatible(
                f"the model looks up embeddings of shape={tuple(embedded.shape)} for moves of "
                f"shape={tuple(moves.shape)}: it may not cut, fill up or repeat the rows before "
                "their tokens are looked up"
            )
        return embedded + moves

    handle = table.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    if not asked:
        raise Incompatible(
            "the model answered without looking a token up in its table of embeddings, so no move "
            "of an embedding reaches it"
        )

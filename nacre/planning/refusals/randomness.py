"""The refusal of randomness inside a model that is no dropout."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.random import seed_torch
from nacre.core.swapped import buffers_kept, unmoved
from nacre.gradient_clipping.tape.dropout_masks import Masking
from nacre.models.repair import move_zeros
from nacre.models.stock.transformer import Transformer
from nacre.planning.facts import RecipeFacts
from nacre.recipe.places import refuse
from nacre.training import pieces

_FEW = 4  # rows that a stock transformer is tried on first: a full one, and padded ones


def no_other_randomness(facts: RecipeFacts) -> None:
    """Dropout has masks keyed by unit; other randomness follows a unit's place in the batch."""
    recipe = facts.recipe
    if recipe.privacy_of_rows is None:
        return
    rows = pieces.random_batch(recipe, facts.schema, 64)["features"]
    if draws(facts.model, rows.reshape(-1, *facts.schema.shape)):
        refuse(
            recipe,
            "model",
            "randomness inside the model other than dropout is drawn by place in the batch, from "
            "a generator with 32 bits of seed, so taking one unit away would change what others "
            "draw and the clipped sum would be off by more than one unit's share; use "
            "`torch.nn.functional.dropout` or none",
        )


def draws(
    model: nn.Module,
    inputs: Tensor,  # (R, …) made-up rows
) -> bool:
    """Whether two forward passes in training mode without dropout, on the same rows, differ. The
    model and the random numbers that come next are afterwards as they were.

    A stock transformer has no generator of its own, so a pass over a few rows that takes nothing
    from those of torch, NumPy and Python draws nothing, however rarely a draw would show. Code of
    one's own may draw from anything: its answers alone tell, and that takes all rows. A head that
    starts at zero would hide what goes into it, so weights of zeros are moved meanwhile.
    """
    with unmoved(model), torch.no_grad():
        model.train()
        if isinstance(model, Transformer):
            before = _generators()
            _answers(model, inputs[:_FEW], seed=None)
            if _generators() == before:
                return False
        move_zeros(model)
        first, second = (_answers(model, inputs, seed) for seed in (1, 2))
    return not torch.equal(first, second)


def _answers(
    model: nn.Module,
    inputs: Tensor,
    seed: int | None,  # None goes on with the generator of torch as it stands
) -> Tensor:
    with buffers_kept(model), Masking(None, keep=True):
        if seed is not None:
            seed_torch(seed)
        outputs: Tensor = model(inputs)
    return outputs


def _generators() -> tuple[Any, ...]:
    """Where the generators stand from which stock code may draw: those of torch, NumPy, Python."""
    kind, words, *place = np.random.get_state()
    state = torch.random.get_rng_state().numpy().tobytes()
    return state, kind, np.asarray(words).tobytes(), tuple(place), random.getstate()

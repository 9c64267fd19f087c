"""What correlated noise keeps between steps: draws of *unit scale*, by place.

They are multiplied by the bound of the present step, so the stream that the proof of a factorised
mechanism speaks of is each sum divided by its own bound, which may follow from earlier releases.

*What is kept is private:* with it the noise of the next steps would be known in part. It belongs
into `local/`, and enters no report.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import RunError, Unbounded
from nacre.core.parts import NoiseState
from nacre.core.types import Adjacency, BoundedSum, Tensors


def require_multiplier(multiplier: float | None) -> None:
    """Raises `ValueError` for a multiplier that is no deviation."""
    require.positive(multiplier=multiplier)


def scale_of_draws(multiplier: float | None, total: BoundedSum, adjacency: Adjacency) -> float:
    """What a draw of unit scale is multiplied by at this step."""
    if multiplier is None:
        raise ValueError("multiplier=None: calibrate the mechanism before it adds noise")
    if not 0 < total.bound < math.inf:
        raise Unbounded(
            f"noise was asked for on a sum with bound={total.bound}, so no deviation hides one "
            "unit; clip each unit with a rule that bounds it, as "
            "`gradient_clipping: {kind: flat, norm: 1.0}`"
        )
    return multiplier * total.sensitivity(adjacency)


def draws_like(total: BoundedSum) -> Tensor:
    """(P,) float32 zeros: one entry for each of the sum's, by name and then by row."""
    count = sum(value.numel() for value in total.total.values())
    device = next((value.device for value in total.total.values()), torch.device("cpu"))
    return torch.zeros(count, device=device)


def unpack_state(
    state: NoiseState, made: Tensor, total: BoundedSum, most: int
) -> tuple[int, list[Tensor]]:
    """(steps taken, kept draws, the newest first)."""
    if state is None:
        raise ValueError("state=None: begin with `init`")
    step = int(state["step"])
    kept = [state[str(i)] for i in range(len(state) - 2)]
    count = sum(value.numel() for value in total.total.values())
    fits = len(kept) <= most and all(drawn.numel() == count for drawn in kept)
    if not fits or not torch.equal(state["made by"].cpu(), made):
        raise RunError(
            "the noise of earlier steps was made for other parameters or by another "
            "factorisation, so going on would not hide what they hid; end this run "
            "(`nacre finish`) and start a new one"
        )
    return step, kept


def pack_state(step: int, made: Tensor, kept: list[Tensor]) -> NoiseState:
    """The state that `opened` reads."""
    drawn = {str(i): value for i, value in enumerate(kept)}
    return {"step": torch.tensor(step), "made by": made, **drawn}


def flattened(value: Tensor, consume: bool) -> Tensor:
    """(n,) float32: the values in the order of rows whatever the strides, as noise goes by shape
    alone; to be written into. They are `value`'s own memory where `consume` allows that."""
    own = value.detach() if value.requires_grad else value
    if own.dtype != torch.float32 or not own.is_contiguous():
        own = own.to(torch.float32).contiguous()
    own = own if own.dim() == 1 else own.reshape(-1)
    return own if consume or own.data_ptr() != value.data_ptr() else own.clone()


def released(total: BoundedSum, drawn: Tensor, unit: float, consume: bool) -> Tensors:
    """The sum plus `unit` times the draws, entry by entry, in float32."""
    noised: Tensors = {}
    start = 0
    for name, value in sorted(total.total.items()):
        own = flattened(value, consume)
        some = drawn[start : start + own.numel()].to(own.device)
        noised[name] = own.add_(some, alpha=unit).view(value.shape)
        start += own.numel()
    return {name: noised[name] for name in total.total}

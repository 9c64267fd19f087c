"""Lookups in a table of weights, one by one and in bags."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.operations.call import Backward, Call, ParameterShares
from nacre.gradient_clipping.tape.contributions import Lookups
from nacre.gradient_clipping.tape.layout import Ragged


def embedding(call: Call) -> Backward | None:
    """Rows of a (V, D) table by number, by `torch.nn.functional.embedding`.

    With `scale_grad_by_freq` a row's gradient is divided by how often the unit itself holds it, as
    it is for a unit alone. Raises `UnsupportedLayer` for `max_norm`, which rescales rows of the
    table by what the batch holds.
    """
    ids, weight, padding, max_norm, _, by_frequency, _ = call.bind(
        "input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"
    )
    _refuse_rescaling(call, max_norm)
    if call.layout.axis >= ids.dim():
        return None
    held = call.hold(ids)

    def answer(grad: Tensor) -> ParameterShares:
        places = call.units_first(held.get()).reshape(call.units, -1)
        grads = call.positions(grad)
        if by_frequency:
            grads = grads / _often(places)[..., None].to(grads.dtype)
        return [(weight, Lookups(_padded(places, padding, weight), grads, tuple(weight.shape)))]

    return answer


def embedding_bag(call: Call) -> Backward | None:
    """Sums and means of rows, by `torch.nn.functional.embedding_bag`; the bags lie along axis 0.

    Of each bag the rows are looked up one by one, so a row's owner is that of its bag.
    """
    ids, weight, offsets, max_norm, _, by_frequency, mode, _, weights, last, padding = call.bind(
        "input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode",
        "sparse", "per_sample_weights", "include_last_offset", "padding_idx",
    )  # fmt: skip
    _refuse_rescaling(call, max_norm)
    whole = not call.moves(ids) and not call.moves(weights)
    if mode == "max" or not whole or call.layout.axis != 0 or len(call.shape) != 2:
        return None
    held = call.hold(ids)
    starts = None if offsets is None else call.hold(offsets)
    scales = None if weights is None else call.hold(weights)

    def answer(grad: Tensor) -> ParameterShares:
        flat = held.get().reshape(-1)
        bags = _bags(held.get(), None if starts is None else starts.get(), len(grad), last)
        grads = grad[bags]
        if scales is not None:
            grads = grads * scales.get().reshape(-1, 1)
        if mode in (None, "mean"):
            counted = _padded(flat, padding, weight) >= 0
            size = torch.bincount(bags[counted], minlength=len(grad)).clamp(min=1)
            grads = grads / size[bags][:, None].to(grads.dtype)
        rows = Ragged(0, _owners(call, len(grad), grad.device)[bags])
        places = rows.units_first(flat + 1, call.units, call.what) - 1  # nothing: -1
        grads = rows.units_first(grads, call.units, call.what)
        return [(weight, Lookups(_padded(places, padding, weight), grads, tuple(weight.shape)))]

    def answer_by_frequency(grad: Tensor) -> ParameterShares:
        """By torch's own backward for each unit, since what it divides by follows no rule."""
        flat = held.get().reshape(-1)
        bags = _bags(held.get(), None if starts is None else starts.get(), len(grad), last)
        owners = _owners(call, len(grad), grad.device)
        found: list[Tensor] = []
        grads: list[Tensor] = []
        for unit in range(call.units):
            mine = (owners == unit).nonzero().squeeze(1)
            taken = torch.isin(bags, mine)
            sizes = torch.bincount(bags[taken], minlength=len(grad))[mine]
            leaf = weight.detach().requires_grad_()
            with torch.enable_grad():
                output = functional.embedding_bag(
                    flat[taken], leaf, sizes.cumsum(0) - sizes, mode=mode or "mean",
                    scale_grad_by_freq=True, padding_idx=padding,
                    per_sample_weights=None if scales is None else scales.get().reshape(-1)[taken],
                )  # fmt: skip
            (table,) = torch.autograd.grad(output, leaf, grad[mine].to(output.dtype))
            found.append(flat[taken].unique())
            grads.append(table[found[-1]])
        ids = pad_sequence(found, batch_first=True, padding_value=-1)
        return [(weight, Lookups(ids, pad_sequence(grads, True), tuple(weight.shape)))]

    return answer_by_frequency if by_frequency else answer


def _refuse_rescaling(call: Call, max_norm: Any) -> None:
    if max_norm is not None:
        raise UnsupportedLayer(
            f"{call.what} uses `max_norm`, by which the rows that units hold are rescaled; leave "
            "it out"
        )


def _padded(places: Tensor, padding: int | None, table: Tensor) -> Tensor:
    """The same numbers, -1 where the table has no gradient."""
    return places if padding is None else places.masked_fill(places == padding % len(table), -1)


def _often(
    places: Tensor,  # (B, P)
) -> Tensor:  # (B, P) how often each number is among those of its unit
    units = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
    pairs = torch.stack([units, places], -1).reshape(-1, 2)
    _, index, counts = pairs.unique(dim=0, return_inverse=True, return_counts=True)
    return counts[index].reshape(places.shape)


def _bags(ids: Tensor, offsets: Tensor | None, bags: int, last: bool | None) -> Tensor:
    """(N,) the bag of each number, in order. Raises `UnsupportedLayer` for numbers in none."""
    if offsets is None:
        return torch.arange(bags, device=ids.device).repeat_interleave(ids.shape[1])
    if last and int(offsets[-1]) != len(ids):
        raise UnsupportedLayer(
            "embedding_bag has numbers behind the end of its last bag, which torch counts in some "
            "sums and not in others; cut them off"
        )
    line = torch.arange(len(ids), device=ids.device)
    return torch.searchsorted(offsets[1:bags].to(line.dtype), line, right=True)


def _owners(call: Call, bags: int, device: torch.device) -> Tensor:
    """(bags,) the unit of each."""
    if isinstance(call.layout, Ragged):
        return call.layout.owners
    _, inner = call.layout.split(bags, call.units, call.what)
    return torch.arange(bags, device=device) // inner % call.units

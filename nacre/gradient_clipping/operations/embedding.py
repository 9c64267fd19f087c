"""Lookups in a table of weights."""

from __future__ import annotations

from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.operations.call import Backward, Call, ParameterShares
from nacre.gradient_clipping.tape.contributions import Lookups


def embedding(call: Call) -> Backward | None:
    """Rows of a (V, D) table by number, by `torch.nn.functional.embedding`.

    Raises `UnsupportedLayer` for `max_norm`, which rescales rows of the table by what the batch
    holds, and for `scale_grad_by_freq`, which divides by how often others hold a row.
    """
    ids, weight, padding, max_norm, _, by_frequency, _ = call.bind(
        "input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"
    )
    if max_norm is not None or by_frequency:
        raise UnsupportedLayer(
            f"{call.what} uses `max_norm` or `scale_grad_by_freq`, by which one unit's rows change "
            "another's gradient; leave both out"
        )
    if call.layout.axis >= ids.dim():
        return None
    if padding is not None and padding < 0:
        padding += weight.shape[0]
    held = call.hold(ids)

    def answer(grad: Tensor) -> ParameterShares:
        places = call.units_first(held.get()).reshape(call.units, -1)
        if padding is not None:
            places = places.masked_fill(places == padding, -1)
        return [(weight, Lookups(places, call.positions(grad), tuple(weight.shape)))]

    return answer

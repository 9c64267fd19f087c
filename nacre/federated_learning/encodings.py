"""Tensors of a reply in fewer bytes, without loss: what a compressor gave comes back bit for bit.

    float32  every entry, 4 bytes
    int8     multiples of a power of two for each tensor, 1 byte an entry
    sparse   the entries that are not 0 and their places, 8 bytes each

Bytes from outside are data: whatever they hold, reading gives tensors of the asked shapes or a
`ValueError`, and takes no more memory than these shapes do.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from nacre.core.types import Tensors

Encoding = Literal["float32", "int8", "sparse"]
"""How the tensors of a reply are written."""

LARGEST = 127
"""Of the whole numbers that 8 bits hold on both sides of 0."""

_SMALLEST, _GREATEST = -149, 122
"""Exponents that `exponent_of` gives of the numbers of float32."""
_VALUES, _PLACES = "values", "places"


def exponent_of(value: Tensor) -> int:
    """The exponent of the smallest power of two whose 127-fold is no less than the largest entry;
    of the smallest that float32 has for a tensor of zeros or of no entries.

    >>> exponent_of(torch.tensor([127.0, -3.0])), exponent_of(torch.tensor([127.5]))
    (0, 1)
    """
    largest = float(value.abs().max()) if value.numel() else 0.0
    if not math.isfinite(largest):
        raise ValueError("an entry is not finite")
    if largest == 0:
        return _SMALLEST
    fraction, exponent = math.frexp(largest / LARGEST)  # in float64: both are exact enough
    return max(exponent - (fraction == 0.5), _SMALLEST)


def in_encoding(tensors: Tensors, encoding: Encoding) -> tuple[Tensors, Any]:
    """The tensors to write and, for int8, the exponents beside them (by name; otherwise None).

    Raises `ValueError` where an entry is no multiple that int8 holds: the compressor and the
    encoding do not fit.
    """
    if encoding == "float32":
        return {name: value.float() for name, value in tensors.items()}, None
    if encoding == "int8":
        exponents = {name: exponent_of(value) for name, value in tensors.items()}
        return {name: _whole(value, exponents[name]) for name, value in tensors.items()}, exponents
    ordered = [tensors[name].float().reshape(-1) for name in sorted(tensors)]
    flat = torch.cat(ordered) if ordered else torch.zeros(0)
    places = flat.nonzero().reshape(-1)
    return {_VALUES: flat[places], _PLACES: places.to(torch.int32)}, None


def decoded(
    tensors: Tensors,
    encoding: Encoding,
    exponents: Any,
    like: Mapping[str, Tensor] | None,  # names and shapes that were asked for; sparse needs them
) -> Tensors:
    """What `in_encoding` was given, in float32. Raises `ValueError` for what it cannot give."""
    if encoding == "sparse":
        if exponents is not None:
            raise ValueError("sparse tensors have no exponents")
        return _spread(tensors, like)
    for name, value in tensors.items():
        if value.dtype != _TYPES[encoding]:
            raise ValueError(f"tensor {name!r} is {value.dtype}, not {encoding}")
    if encoding == "float32":
        if exponents is not None:
            raise ValueError("float32 tensors have no exponents")
        return tensors
    if not isinstance(exponents, dict) or exponents.keys() != tensors.keys():
        raise ValueError("the exponents are not those of the tensors")
    units = cast(dict[str, Any], exponents)
    for name, exponent in units.items():
        if type(exponent) is not int or not _SMALLEST <= exponent <= _GREATEST:
            raise ValueError(f"the exponent of {name!r} is no whole number in range")
    return {n: (v.double() * math.ldexp(1.0, units[n])).float() for n, v in tensors.items()}


_TYPES = {"float32": torch.float32, "int8": torch.int8}


def _whole(value: Tensor, exponent: int) -> Tensor:
    steps = value.double() * math.ldexp(1.0, -exponent)
    if not bool((steps == steps.round()).all()):
        raise ValueError("an entry is no multiple that 8 bits hold")
    return steps.to(torch.int8)


def _spread(tensors: Tensors, like: Mapping[str, Tensor] | None) -> Tensors:
    """Dense tensors from values and places over all of them, in the order of their names."""
    if like is None:
        raise ValueError("its tensors are sparse, and nobody said of which shapes")
    if tensors.keys() != {_VALUES, _PLACES}:
        raise ValueError("sparse tensors are values and places")
    values, places = tensors[_VALUES], tensors[_PLACES]
    size = sum(tensor.numel() for tensor in like.values())
    if values.dtype != torch.float32 or places.dtype != torch.int32:
        raise ValueError("values are not float32, or places not int32")
    if values.dim() != 1 or values.shape != places.shape:
        raise ValueError("values and places differ in number")
    if len(places) and (int(places[0]) < 0 or int(places[-1]) >= size):
        raise ValueError("a place lies outside the tensors")
    if not bool((places[1:] > places[:-1]).all()):
        raise ValueError("the places do not rise")
    flat = torch.zeros(size)
    flat[places.long()] = values
    names = sorted(like)
    parts = flat.split([like[name].numel() for name in names])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}

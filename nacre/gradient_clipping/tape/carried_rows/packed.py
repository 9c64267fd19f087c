"""Packed sequences: whose each row is, and in which order a recurrent layer may read them.

A packed tensor holds the rows of all first steps, then those of all second steps, and so on, the
longest sequence first: the order hangs on values of the batch. The lengths have to be the units'
own, and then each row keeps its owner. A recurrent layer is opened over padded steps in the order
of the batch, where the rows of a unit lie along one axis by construction, and nothing of what is
inside has to be followed.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.carried_rows.carrying import Args, Kwargs, numbers
from nacre.gradient_clipping.tape.carried_rows.tags import (
    MIXED,
    NOBODY,
    Carried,
    Unknown,
    compressed,
    own,
)
from nacre.gradient_clipping.tape.composite_functions import Timetable, timetable
from nacre.gradient_clipping.tape.counters import function_name


def packed_rows(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """_pack_padded_sequence: how many rows of a unit are taken, the unit's own length says."""
    x, lengths, first = args[:3]
    owners = compressed(c.owners(x))
    owners = owners.expand(*x.shape[:2], *owners.shape[2:])
    line = c.full(lengths).to(owners.device)
    shape = [1] * owners.dim()
    shape[0 if first else 1] = len(line)
    if not own(line.reshape(shape), owners):
        raise Unknown
    rows, _ = function(owners.contiguous(), lengths, first)
    c.lengths.append((rows[: len(lengths)].flatten(1)[:, 0], lengths))  # by their first steps
    return rows, torch.tensor([MIXED])


def padded_rows(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """_pad_packed_sequence: the way back, and the lengths in the order of the sequences."""
    x, sizes, first, _, total = args
    owners = compressed(c.owners(x))
    owners = owners.expand(len(x), *owners.shape[1:]).contiguous()
    rows, lengths = function(owners, sizes, first, float(NOBODY), total)
    line = compressed(owners)
    line = line.reshape(len(line), -1)
    if line.shape[1] > 1:
        raise Unknown
    return rows, line.expand(len(x), 1)[: len(lengths), 0].cpu()


def fills_up(function: Any) -> bool:
    """Whether sequences are filled up, or taken apart by steps: then the longest of the batch may
    reach the others as a shape, and a mean over steps that are not theirs would hang on it."""
    named = ("pad_sequence", "_pad_packed_sequence", "_pack_padded_sequence")
    return function_name(function) in named


def side_by_side_rows(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """pad_sequence: sequences of different lengths."""
    sequences, first, _, *rest = args
    held = [c.full(t) for t in sequences]
    line = [t.reshape(-1)[0] if t.numel() else torch.tensor(NOBODY) for t in held]
    c.lengths.append((torch.stack(line), torch.tensor([len(t) for t in sequences])))
    return function(held, first, float(NOBODY), *rest)


def elsewhere(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """cpu, cuda: the same entries on another device."""
    return function(c.owners(args[0]), *args[1:], **kwargs)


def in_the_batchs_order(
    c: Carried | None, function: Any, args: Args
) -> tuple[Timetable, tuple[Tensor, ...] | None]:
    """When the sequences of a recurrent layer's call run, put into the order of their units, and
    the owners of its results. Raises `UnsupportedLayer` where rows of several units would meet."""
    x, sizes, hidden, weights = args[:4]
    if c is None:
        return timetable(sizes, torch.arange(int(sizes[0]), device=x.device)), None
    name = function_name(function)
    try:
        for weight in weights:
            numbers(c, weight)
        owners = compressed(c.owners(x))
        if owners.dim() != 2 or owners.shape[1] > 1:
            raise Unknown
        line = owners.expand(len(x), 1)[:, 0]
        counts = sizes.tolist()
        columns = line[: counts[0]]
        if sum(counts) != len(line) or bool((columns < 0).any()):
            raise Unknown
        if bool((line != torch.cat([columns[:count] for count in counts])).any()):
            raise Unknown
        for state in tensors_in(hidden):
            held = c.owners(state)
            if bool(((held != columns[:, None]) & (held != NOBODY)).any()):
                raise Unknown
    except Unknown:
        raise UnsupportedLayer(
            f"{name} reads a packed sequence in which it is unknown whose each row is, or whose "
            "states start with those of other units; use `gradients: looped`"
        ) from None
    if len(set(torch.bincount(columns, minlength=c.units).tolist())) > 1:
        raise UnsupportedLayer(
            f"{name} reads a packed sequence in which units have different numbers of sequences; "
            "use `gradients: looped`"
        )
    states = len(tensors_in(hidden))
    table = timetable(sizes, columns.argsort(stable=True))
    return table, (line[:, None], *[columns[None, :, None]] * states)

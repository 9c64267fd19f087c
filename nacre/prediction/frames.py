"""Rows that are at hand in Python, as a chunk of a file would have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nacre.core.errors import BadArgument
from nacre.data.arrays import checked_inputs
from nacre.prediction.row_files import Chunk
from nacre.prediction.signature import Signature

Frame = Any
"""A pandas DataFrame, a mapping of columns, an array or tensor of inputs, or a list of texts."""


def framed(frame: Frame, signature: Signature) -> Chunk:
    """The rows of a frame. Raises `BadArgument` for one of another form than the model reads, and
    `DataError` for an array of another shape or range."""
    if signature.form == "array":
        return _array(frame, signature)
    if signature.text is not None and _is_list(frame):
        roles = signature.text.roles()
        if "text" not in roles:
            raise BadArgument(
                f"this model reads two columns, {' and '.join(map(repr, roles.values()))}; give it "
                "a mapping of both"
            )
        texts = list(frame)
        return Chunk({roles["text"]: texts}, _some(len(texts)))
    if not (isinstance(frame, Mapping) or hasattr(frame, "columns")):
        needed = ", ".join(signature.needed()[:8])
        raise BadArgument(
            f"this model reads the columns {needed}, and {type(frame).__name__} has no columns; "
            "give it a DataFrame or a mapping of columns"
        )
    given: Any = frame if isinstance(frame, Mapping) else frame.columns
    names = [str(name) for name in given]
    needed = set(signature.needed())
    if twice := sorted(name for name in needed if names.count(name) > 1):
        raise BadArgument(
            f"the frame has column {twice[0]!r} twice, so it is unclear which one is meant; rename "
            "or drop one"
        )
    for name in names:
        given_values: Any = frame[name]
        if name in needed and (
            isinstance(given_values, str | bytes) or not hasattr(given_values, "__len__")
        ):
            raise BadArgument(
                f"the frame's {name!r} is a single value, and a column has one for each row; put "
                f"it in a list, as {{{name!r}: [{given_values!r}]}}"
            )
    columns = {name: _values(frame[name]) for name in names if name in needed}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadArgument(f"the columns have different numbers of rows: {lengths}")
    count = next(iter(lengths.values()), 1)
    return Chunk(columns, _some(count))


def _array(frame: Frame, signature: Signature) -> Chunk:
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu().numpy()
    if not isinstance(frame, np.ndarray):
        raise BadArgument(
            f"this model reads arrays of shape (N, {', '.join(map(str, signature.shape))}), and "
            f"{type(frame).__name__} is none; give it a NumPy array or a tensor"
        )
    given: Any = frame
    inputs = checked_inputs("the array", given, signature.schema())
    return Chunk({}, _some(len(inputs)), inputs)


def _is_list(frame: Frame) -> bool:
    listed = isinstance(frame, Sequence) or type(frame).__name__ in ("Series", "ndarray")
    return listed and not isinstance(frame, str | bytes)


def _values(values: Any) -> Any:
    """An Arrow array where the values are of one kind; else a list."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        return [_plain(value) for value in list(values)]
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _plain(value: Any) -> Any:
    """A value of NumPy as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _some(count: int) -> int:
    if not count:
        raise BadArgument("the frame holds no rows, so there is nothing to predict")
    return count

"""Columns of a table as features of a model, a whole column at a time.

*Guarantee:* the features of a row, and whether it has any, are bit for bit those that
`nacre.data.Table.read` makes of the same row. Values that are read the same way by everybody (plain
decimal numbers) are parsed by Arrow; of all others each different one is read once, by the
functions of `nacre.data.readers` that training reads each cell with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from nacre.data.dataset import Column
from nacre.data.readers import as_number, is_missing, text
from nacre.prediction.faults import SHOWN, Fault
from nacre.prediction.signature import Signature

_compute: Any = pyarrow.compute  # its functions are made when it is imported
_PLAIN = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LARGEST = float(np.finfo(np.float32).max)  # beyond it a feature would become infinite

RowMask = NDArray[np.bool_]
FloatColumn = NDArray[np.float64]


def features_of(
    columns: Mapping[str, Any],  # name -> (N,) an Arrow array or a list of plain values
    signature: Signature,
    count: int,  # N
) -> tuple[NDArray[np.float32], list[Fault]]:
    """((N, F) float32 features in the columns' own units, categories one-hot; what is wrong with
    some rows, in the order of the columns). The features of a faulty row are finite."""
    width = sum(len(column.entries()) for column in signature.columns)
    features = np.zeros((count, width), np.float32)
    faults: list[Fault] = []
    start = 0
    for column in signature.columns:
        values = _plain(columns[column.name])
        entries = len(column.entries())
        if column.kind == "number":
            features[:, start] = _numbers(values, column, signature, faults)
        else:
            places = _choices(values, column, signature, faults)
            features[np.arange(count), start + places] = 1
        start += entries
    return features, faults


# -- numbers -----------------------------------------------------------------------------------


def _numbers(values: Any, column: Column, signature: Signature, faults: list[Fault]) -> FloatColumn:
    """(N,) float64, clamped where the run says so; 0 where there is no legal number."""
    has, numbers, wrong = _parsed(values)
    _note_missing(has, column.name, signature, faults)
    if len(wrong):
        faults.append(
            Fault(
                column.name, "no number", "it is not a number", wrong, "refuse",
                "correct it, or where it stands for no value leave the cell empty",
                _shown(values, wrong[0]),
            )
        )  # fmt: skip
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    policy = signature.on_out_of_range
    said = f"the value lies outside {_range(column)}"
    if policy == "clamp":
        inside = np.clip(numbers, low, high)
        moved = np.flatnonzero(has & (inside != numbers))
        if len(moved):
            faults.append(
                Fault(column.name, "outside", said, moved, "clamp", "", _shown(values, moved[0]))
            )
        numbers, policy = inside, "refuse"
    outside = (numbers < max(low, -_LARGEST)) | (numbers > min(high, _LARGEST))
    bad = np.flatnonzero(has & outside)
    if len(bad):
        remedy = "correct them, or train with `on_out_of_range: clamp` or `drop`"
        faults.append(
            Fault(column.name, "outside", said, bad, policy, remedy, _shown(values, bad[0]))
        )
    return np.where(outside, 0.0, numbers)


def _parsed(values: Any) -> tuple[RowMask, FloatColumn, NDArray[np.int64]]:
    """(N,) which rows have a value; (N,) float64, 0 where they have none; places of no numbers."""
    if isinstance(values, list):
        numbers = _all_finite(values)
        if numbers is not None:
            return np.ones(len(values), np.bool_), numbers, np.zeros(0, np.int64)
        return _by_hand(values, np.arange(len(values)), np.zeros(len(values)))
    if _is_text(values.type):
        numbers = _cast(values)
    elif pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        whole = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        known = whole.fill_null(0) if whole.null_count else whole
        numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
        if values.null_count:
            numbers[~np.asarray(values.is_valid())] = np.nan
    else:
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    left = np.flatnonzero(np.isnan(numbers))
    if not len(left):
        return np.ones(len(values), np.bool_), np.array(numbers), left
    return _by_hand(values, left, np.array(numbers))


def _cast(values: Any) -> FloatColumn:
    """(N,) float64 of what Arrow reads as a number; NaN elsewhere."""
    try:
        found = _compute.cast(values, pa.float64())
    except pa.ArrowInvalid:
        trimmed = _compute.ascii_trim_whitespace(values)
        plain = _compute.match_substring_regex(trimmed, _PLAIN)
        found = _compute.cast(_compute.if_else(plain, trimmed, None), pa.float64())
    return np.array(found.to_numpy(zero_copy_only=False), np.float64)


def _by_hand(
    values: Any, places: NDArray[np.int64], numbers: FloatColumn
) -> tuple[RowMask, FloatColumn, NDArray[np.int64]]:
    """The rows at `places` cell by cell, each different value once; the others are in `numbers`."""
    has = np.ones(len(numbers), np.bool_)
    different, codes = _different(_taken(values, places))
    lacking = np.array([is_missing(value) for value in different], np.bool_)
    read = [None if gone else as_number(value) for value, gone in _pairs(different, lacking)]
    numbers[places] = np.array([0.0 if x is None else x for x in read], np.float64)[codes]
    no_number = np.array([x is None for x in read], np.bool_) & ~lacking
    has[places] = ~lacking[codes]
    return has, numbers, places[no_number[codes]]


def _pairs(different: Sequence[object], lacking: RowMask) -> list[tuple[object, bool]]:
    return list(zip(different, lacking.tolist(), strict=True))


def _all_finite(values: list[object]) -> FloatColumn | None:
    """The values at once; None unless all are finite numbers."""
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 and np.isfinite(numbers).all() else None


def _range(column: Column) -> str:
    if column.low is None and column.high is None:
        return "the finite numbers"
    low = "-inf" if column.low is None else text(column.low)
    return f"[{low}, {'inf' if column.high is None else text(column.high)}]"


# -- categories --------------------------------------------------------------------------------


def _choices(
    values: Any, column: Column, signature: Signature, faults: list[Fault]
) -> NDArray[np.int64]:
    """(N,) places among the categories; 0 where there is none."""
    different, codes = _different(values)
    known = {value: place for place, value in enumerate(column.categories)}
    found = np.array([known.get(text(value), -1) for value in different], np.int64)
    lacking = np.array([is_missing(value) for value in different], np.bool_) & (found < 0)
    _note_missing(~lacking[codes], column.name, signature, faults)
    unlisted = np.flatnonzero((found < 0)[codes] & ~lacking[codes])
    if len(unlisted):
        # No number stands for an unlisted category, so there is nothing to clamp it to.
        policy = "drop" if signature.on_out_of_range == "drop" else "refuse"
        faults.append(
            Fault(
                column.name, "unlisted", f"it is none of {_listed(column.categories)}", unlisted,
                policy, "correct it, or train with it in `categories` or `on_out_of_range: drop`",
                _shown(values, unlisted[0]),
            )
        )  # fmt: skip
    return np.maximum(found, 0)[codes]


def _listed(categories: tuple[str, ...]) -> str:
    shown = ", ".join(value[:SHOWN] for value in categories[:8])
    return shown if len(categories) <= 8 else f"{shown} and {len(categories) - 8} more"


# -- values ------------------------------------------------------------------------------------


def _plain(values: Any) -> Any:
    """An Arrow array of numbers, booleans or text, in one piece; else a list of plain values."""
    if isinstance(values, list):
        return values
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_string_view(kind):
        return values.cast(pa.large_string())
    simple = (_is_text, pa.types.is_integer, pa.types.is_boolean, _is_float)
    return values if any(fits(kind) for fits in simple) else values.to_pylist()


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_float(kind: Any) -> bool:
    return pa.types.is_float32(kind) or pa.types.is_float64(kind)


def _different(values: Any) -> tuple[list[object], NDArray[np.int64]]:
    """(the different values, (N,) the place of each row's value among them)."""
    if isinstance(values, list):
        return values, np.arange(len(values))
    encoded = values.dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), codes


def _taken(values: Any, places: NDArray[np.int64]) -> Any:
    if len(places) == len(values):
        return values
    return (
        [values[i] for i in places] if isinstance(values, list) else values.take(pa.array(places))
    )


def _shown(values: Any, place: Any) -> str:
    """A value as a message shows it."""
    value = values[int(place)]
    return text(value if isinstance(values, list) else value.as_py())[:SHOWN]


def _note_missing(has: RowMask, name: str, signature: Signature, faults: list[Fault]) -> None:
    rows = np.flatnonzero(~has)
    if len(rows):
        remedy = "fill them, or train with `on_missing: drop`"
        faults.append(
            Fault(name, "missing", "there is no value", rows, signature.on_missing, remedy)
        )

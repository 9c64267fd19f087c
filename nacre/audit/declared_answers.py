"""The right answers of rows for a saved model, and which rows its training would have left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import DataError
from nacre.data import Column
from nacre.data.columns.encode import ColumnReading, Remedies
from nacre.data.columns.faults import Fault, refusal
from nacre.data.columns.values import as_column
from nacre.prediction.faults import REMEDIES
from nacre.prediction.signature import Signature

_OF_LABELS: Remedies = {**REMEDIES, "unlisted": "correct it, or leave the row out"}


def read_answers(
    values: Any,  # (N,) of the column `label`
    label: str,
    signature: Signature,
) -> tuple[np.ndarray, list[Fault]]:
    """((N,) places among the classes, or numbers; what is wrong with some of them)."""
    drops = signature.on_missing
    reading = ColumnReading(signature.dialect, "refuse", _OF_LABELS)
    if signature.task == "regression":
        target = Column(label, "number", missing=drops)
        has, numbers = reading.numbers(as_column(values), target)
        found = numbers.astype(np.float32)
    else:
        target = Column(label, "category", categories=signature.classes, missing=drops)
        has, found = reading.choices(as_column(_whole(values)), target)
    reading.missing(target, has)
    return found, reading.faults


def rows_left(where: str, faults: Sequence[Fault], count: int) -> tuple[Tensor, tuple[str, ...]]:
    """((K,) int64 the numbers of the rows that stay, what was done to others). Raises `DataError`
    where a fault is not one that the model's training mends, and where no row stays."""
    if refused := [fault for fault in faults if fault.policy == "refuse"]:
        raise refusal(where, refused, count)
    keep = np.ones(count, np.bool_)
    for fault in faults:
        if fault.policy == "drop":
            keep[fault.rows] = False
    place = torch.from_numpy(np.flatnonzero(keep))
    if not len(place):
        raise DataError(
            f"{where}: the model's training drops every row of it, so nothing is left to attack"
        )
    return place, _notes(faults, count - len(place))


def _whole(values: Any) -> Any:
    """Class numbers that an array holds as floats, as whole numbers: `1.0` is class `1`."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.floor(values))
        return [int(v) if fine else float(v) for v, fine in zip(values, whole, strict=True)]
    return values


def _notes(faults: Sequence[Fault], dropped: int) -> tuple[str, ...]:
    """What was done to rows, as the model's own training would have."""
    said: list[str] = []
    if dropped:
        said.append(f"{dropped:,} rows were left out, as the model's training leaves such rows out")
    moved = [fault.rows for fault in faults if fault.policy == "clamp"]
    if moved:
        count = len(np.unique(np.concatenate(moved)))
        said.append(f"of {count:,} rows a value was moved into its declared range")
    return tuple(said)

"""Columns of a table as features of a model, as its training read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.data.columns.encode import ColumnReading, features_of
from nacre.data.columns.faults import Fault
from nacre.prediction.faults import REMEDIES
from nacre.prediction.signature import Signature


def read_features(
    columns: Mapping[str, Any],  # name -> (N,) an Arrow array or a list of plain values
    signature: Signature,
    count: int,  # N
) -> tuple[NDArray[np.float32], list[Fault]]:
    """((N, F) float32 features in the columns' own units; what is wrong with some rows, in the
    order of the columns). The features of a faulty row are finite."""
    reading = ColumnReading(signature.dialect, signature.on_out_of_range, REMEDIES)
    return features_of(columns, signature.columns, reading, count), reading.faults

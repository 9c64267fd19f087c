"""Rows for a saved model that says what its rows are: raw, as people write them and `nacre predict`
reads them, or scaled already, as its network does."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nacre.audit.declared_answers import read_answers, rows_left
from nacre.audit.outside import LabelledRows
from nacre.core.errors import DataError
from nacre.data import Column, Rows, Scaler
from nacre.data.arrays import checked_inputs, read_npz
from nacre.data.columns.encode import ColumnReading
from nacre.data.columns.faults import Fault, refusal
from nacre.data.columns.values import as_column
from nacre.data.readers import read_table
from nacre.prediction.columns import read_features
from nacre.prediction.faults import REMEDIES
from nacre.prediction.row_files import require_columns
from nacre.prediction.signature import Signature
from nacre.training.pieces import task_of

RowsForm = Literal["raw", "scaled"]
"""In the features' own units, or in the model's."""

_CLOSE = 1e-5  # of a bound: what rounding may have moved a scaled input by


@dataclass(frozen=True, eq=False)
class DeclaredRows:
    """Reads rows as one saved model declares them."""

    where: str
    signature: Signature
    scaler: Scaler

    def read(self, file: Path, label: str | None, form: RowsForm | None) -> LabelledRows:
        """The rows of a file with their labels, scaled, in the order of the file.

        Without `form` they are what they can be: raw rows satisfy what is declared of the columns,
        scaled ones have the names of the inputs and lie in their range. Raises `DataError` for what
        is neither, and for what could be both and means two things.
        """
        columns, array = self._held(file)
        label = label or self.signature.target or "label"
        if label not in columns:
            raise DataError(
                f"{file} has no {'column' if array is None else 'array'} {label!r} with the right "
                "answers; name it by --label"
            )
        count = len(columns[label])
        raw = _tried(lambda: self._raw(file, columns, array, count))
        scaled = _tried(lambda: self._scaled(file, columns, array, label))
        inputs, faults = self._chosen(file, raw, scaled, form)
        answers, wrong = read_answers(columns[label], label, self.signature)
        place, notes = rows_left(str(file), [*faults, *wrong], count)
        schema = self.signature.schema()
        return LabelledRows(
            inputs[place],
            torch.from_numpy(answers)[place],
            schema.feature_names(),
            space=self.scaler.space(schema),
            task=task_of(schema),
            classes=schema.classes,
            place=place,
            notes=notes,
        )

    def _held(self, file: Path) -> tuple[Mapping[str, Any], np.ndarray | None]:
        """((N,) values by name, the array of inputs of a model that reads one)."""
        if not file.is_file():
            raise DataError(f"{file} does not exist; name a file of rows with their labels")
        if self.signature.form == "columns":
            if file.suffix == ".npz":
                raise DataError(
                    f"{file} holds arrays, and the model of {self.where} reads the columns of a "
                    "table; give it CSV, Parquet or JSONL"
                )
            table = read_table(Path(), str(file), self.signature.dialect)
            return table.columns, None
        if file.suffix != ".npz":
            raise DataError(
                f"{file} is no .npz, and the model of {self.where} reads arrays of shape "
                f"{self.signature.shape} with their labels; save both by `np.savez`"
            )
        name = self.signature.array or "x"
        held = read_npz(file, [], others=True)
        found = next((key for key in (name, "features", "x") if key in held), None)
        if found is None:
            raise DataError(f"{file} holds {sorted(held)}; name the array of inputs {name!r}")
        inputs = held.pop(found)
        return {
            key: each.reshape(-1)
            for key, each in held.items()
            if each.ndim and each.size == len(each) == len(inputs)
        }, inputs

    def _raw(
        self, file: Path, columns: Mapping[str, Any], array: np.ndarray | None, count: int
    ) -> tuple[Tensor, list[Fault]]:
        """((N, *shape) scaled inputs, what is wrong with some of them)."""
        faults: list[Fault] = []
        if array is not None:
            features = checked_inputs(file, array, self.signature.schema())
        else:
            require_columns(list(columns), self.signature, str(file))
            features, faults = read_features(columns, self.signature, count)
        rows = Rows(torch.from_numpy(features), torch.zeros(count))
        return self.scaler.apply(rows).features, faults

    def _scaled(
        self, file: Path, columns: Mapping[str, Any], array: np.ndarray | None, label: str
    ) -> tuple[Tensor, list[Fault]]:
        """The same of rows that are scaled; whatever is wrong with them is raised."""
        names, shape = self.signature.schema().feature_names(), self.signature.shape
        if array is None:
            if missing := [name for name in names if name not in columns]:
                raise DataError(
                    f"{file} has no column {missing[0]!r}, which is an input of the model: scaled "
                    f"rows have the columns {', '.join(names[:8])}{' …' if names[8:] else ''}"
                )
            reading = ColumnReading(self.signature.dialect, "refuse", REMEDIES)
            parts: list[np.ndarray] = []
            for name in names:
                column = Column(name, "number")
                has, numbers = reading.numbers(as_column(columns[name]), column)
                reading.missing(column, has)
                parts.append(numbers)
            if reading.faults:
                raise refusal(str(file), reading.faults, len(columns[label]))
            array = np.stack(parts, 1)
        if array.dtype.kind not in "buif" or array.shape[1:] != shape:
            raise DataError(
                f"{file} holds {array.dtype} inputs of shape {array.shape[1:]}, and the model "
                f"reads numbers of shape {shape}"
            )
        inputs = torch.from_numpy(array.astype(np.float32))
        slack = _CLOSE * (1 + self.scaler.high.abs().nan_to_num(posinf=0))
        outside = ~((inputs >= self.scaler.low - slack) & (inputs <= self.scaler.high + slack))
        if bool(outside.any()):
            row = int(outside.flatten(1).any(1).nonzero()[0])
            raise DataError(
                f"{file}: row {row + 1} lies outside the range of the model's scaled inputs; give "
                "raw rows by `--rows raw`, or scale them as the model does"
            )
        return inputs, []

    def _chosen(
        self, file: Path, raw: _Tried, scaled: _Tried, form: RowsForm | None
    ) -> tuple[Tensor, list[Fault]]:
        """The reading that is meant."""
        if form is not None:
            return _or_raise(raw if form == "raw" else scaled)
        if isinstance(scaled, DataError):
            return _or_raise(raw)
        if isinstance(raw, DataError):
            return scaled
        if any(fault.policy == "refuse" for fault in raw[1]):
            return scaled
        if torch.equal(raw[0], scaled[0]):
            return raw
        raise DataError(
            f"{file} could hold raw rows and scaled ones: its values fit both what {self.where} "
            "declares of them and the model's scaled inputs; say which by `--rows raw` or "
            "`--rows scaled`"
        )


_Tried = tuple[Tensor, list[Fault]] | DataError


def _tried(read: Any) -> _Tried:
    try:
        return read()
    except DataError as error:
        return error


def _or_raise(found: _Tried) -> tuple[Tensor, list[Fault]]:
    if isinstance(found, DataError):
        raise found
    return found

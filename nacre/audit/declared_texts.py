"""Texts for a model that puts them into classes, as `nacre predict` reads them."""

# numpy's arrays are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.audit.declared_answers import read_answers, rows_left
from nacre.audit.outside import LARGEST_CLASS, LabelledRows
from nacre.audit.target import TokenText
from nacre.core.errors import BadArgument, DataError
from nacre.core.types import FeatureSpace
from nacre.data.columns.faults import Fault
from nacre.data.readers import as_number, read_table, suffix
from nacre.data.text.tokens import OfModel, PieceTokenizer, of_model
from nacre.models.tasks import Classification
from nacre.prediction.row_files import require_columns
from nacre.prediction.signature import Signature, TextInputs
from nacre.prediction.texts import token_rows

_FORMS = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson")


@dataclass(frozen=True, eq=False)
class DeclaredTexts:
    """Reads texts as one model takes them: cut, and between the special tokens that it wants."""

    signature: Signature
    tokenizer: PieceTokenizer

    def read(self, file: Path, label: str | None) -> LabelledRows:
        """The texts of a file with their labels, in its order, as rows of tokens.

        Labels are names of classes or, of a model that names none, their numbers from 0. Raises
        `DataError` for a file that is no table, that lacks a column, or that holds other labels.
        """
        if suffix(file.name) not in _FORMS:
            raise DataError(
                f"{file} is no table, and the model reads a column of texts beside one of labels; "
                "give it CSV, Parquet or JSONL"
            )
        table = read_table(Path(), str(file)).columns
        if self.signature.target is None and (name := self.signature.needed()[0]) not in table:
            raise DataError(
                f"{file} has no column {name!r} (it has {', '.join(list(table)[:8])}); name the "
                "column of texts by --text"
            )
        require_columns(list(table), self.signature, str(file))
        label = label or self.signature.target or "label"
        if label not in table:
            raise DataError(
                f"{file} has no column {label!r} with the right answers; name it by --label"
            )
        columns = {name: list(values) for name, values in table.items()}
        count, classes = len(columns[label]), self.signature.classes
        rows, faults = token_rows(columns, self.signature, self.tokenizer, stripped=False)
        wrong: list[Fault] = []
        if classes:
            answers, wrong = read_answers(table[label], label, self.signature)
        else:
            answers = _numbered(columns[label], label, file)
        place, notes = rows_left(str(file), [*faults, *wrong], count)
        return LabelledRows(
            rows.features[place],
            torch.from_numpy(answers)[place],
            space=FeatureSpace(self.signature.shape),
            task=Classification(len(classes)) if classes else None,
            classes=classes,
            place=place,
            notes=notes,
            text=TokenText(names=self.tokenizer.names(), decode=self.tokenizer.decode),
        )


def texts_of(tokenizer: str, text: str, length: int) -> DeclaredTexts:
    """How a function's model reads texts: the column `text`, by the tokenizer of a folder (or of a
    former run, or of the hub), cut after `length` tokens. Raises `Refusal` where there is none."""
    if length < 1:
        raise BadArgument(f"--length {length} must be at least 1: it is the tokens of a row")
    found = of_model(OfModel(name=tokenizer), Path.cwd())
    inputs = TextInputs(text, None, None, "line", length, "end")
    return DeclaredTexts(Signature("text", "classification", (length,), (), text=inputs), found)


def _numbered(values: list[Any], label: str, file: Path) -> np.ndarray:
    """(N,) int64: numbers of classes."""
    found = np.array([as_number(value) for value in values], np.float64)  # None becomes NaN
    fits = (found >= 0) & (found < LARGEST_CLASS)  # False for NaN
    wrong = np.flatnonzero(~fits | (found != np.floor(found)))
    if len(wrong):
        raise DataError(
            f"{file} column {label!r}: {values[wrong[0]]!r} in row {wrong[0] + 1} is no number of "
            "a class; number the classes from 0, as the columns of the model's scores"
        )
    return found.astype(np.int64)

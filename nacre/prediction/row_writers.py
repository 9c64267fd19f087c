"""Rows with their predictions as CSV, Parquet or JSONL, a chunk at a time."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from nacre.core.errors import DataError, Refusal
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.readers import csv_form
from nacre.prediction.formulas import FORMULA_SIGNS, inert

_compute: Any = pyarrow.compute  # its functions are made when it is imported


class RowWriter(Protocol):
    """Takes the columns of one chunk after another, always the same ones."""

    def write(self, columns: Mapping[str, Any]) -> None:
        """Writes some rows: name -> (n,) an Arrow array or a list."""
        ...

    def close(self) -> None:
        """Writes what a file of this form ends with."""
        ...


def writer_for(
    path: Path | None, sink: BinaryIO, names: Sequence[str], dialect: Dialect = PLAIN
) -> RowWriter:
    """The writer of the form that a file's name ends in; CSV, in this dialect, where there is no
    name."""
    kind = ".csv" if path is None else path.suffix.lower()
    if kind in (".parquet", ".pq"):
        return ParquetWriter(sink, names)
    if kind in (".jsonl", ".ndjson"):
        return JsonWriter(sink, names)
    return CsvWriter(sink, names, dialect)


def require_form(path: Path) -> None:
    """Raises `Refusal` for a name that says no form that is written."""
    if path.is_dir():
        raise Refusal(f"{path} is a folder, and predictions are one file; name a file in it")
    if path.suffix.lower() not in (".csv", ".parquet", ".pq", ".jsonl", ".ndjson"):
        said = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise Refusal(
            f"{path} {said}, and predictions are written as .csv, .parquet or .jsonl; choose one "
            "of these"
        )


# -- CSV ---------------------------------------------------------------------------------------

_SIGNS = np.zeros(256, np.bool_)
_SIGNS[[ord(sign) for sign in FORMULA_SIGNS]] = True
_LARGE = 1 << 29  # bytes of a chunk, beyond which Arrow needs wider places


class CsvWriter:
    """Separated values, as a dialect writes them: separator, quotes, encoding and the decimal mark
    of numbers. Text that a spreadsheet would run as a formula stands behind an apostrophe, unless
    it is a number.

    Raises `DataError` for what this dialect cannot write: a letter that the encoding lacks, or a
    value that holds the separator where nothing is quoted.
    """

    def __init__(self, sink: BinaryIO, names: Sequence[str], dialect: Dialect = PLAIN) -> None:
        self._sink, self._dialect = sink, dialect
        self._form = csv_form("predictions.csv", dialect)
        self._number = _number_pattern(dialect)
        if dialect.encoding == "utf-8-sig":
            sink.write(codecs.BOM_UTF8)
        self._write([pa.array([str(inert(name))]) for name in names])

    def write(self, columns: Mapping[str, Any]) -> None:
        """See `RowWriter.write`."""
        self._write([as_arrow(values) for values in columns.values()])

    def close(self) -> None:
        """See `RowWriter.close`."""

    def _write(self, columns: Sequence[Any]) -> None:
        cells = [self._cells(values) for values in columns]
        wide = any(pa.types.is_large_string(part.type) for part in cells)
        if wide or sum(part.nbytes for part in cells) > _LARGE:
            cells = [part.cast(pa.large_string()) for part in cells]
        ended = _joined(cells[-1].type, cells[-1], "\n")
        lines = _joined(ended.type, *cells[:-1], ended, between=self._form.separator)
        self._sink.write(self._encoded(_held(lines)))

    def _encoded(self, data: NDArray[np.uint8]) -> Any:
        """UTF-8 in the encoding of the dialect."""
        encoding = self._dialect.encoding
        if encoding.startswith("utf-8"):
            return data
        try:
            return data.tobytes().decode().encode(encoding)
        except UnicodeEncodeError as error:
            sign = error.object[error.start]
            raise DataError(
                f"the predictions hold {sign!r}, which {encoding}, the declared encoding, cannot "
                "write; name a file that ends in .parquet or .jsonl"
            ) from error

    def _cells(self, found: Any) -> Any:
        """(n,) text as it stands in the file."""
        if pa.types.is_nested(found.type):
            texts = [None if x is None else _json(x) for x in found.to_pylist()]
            found = pa.array(texts, pa.string())
        if pa.types.is_floating(found.type) and self._dialect.decimal != ".":
            texts = found.cast(pa.string())
            found = _compute.replace_substring(texts, ".", self._dialect.decimal)
        if not (pa.types.is_string(found.type) or pa.types.is_large_string(found.type)):
            binary = pa.types.is_binary(found.type) or pa.types.is_large_binary(found.type)
            as_text = pa.array([str(x) for x in found.to_pylist()]) if binary else found
            return as_text.cast(pa.string()).fill_null("")
        if found.null_count:
            found = found.fill_null("")
        places, data = _bytes_of(found)
        if not len(data):
            return found
        first = _SIGNS[data[np.minimum(places[:-1], len(data) - 1)]] & (places[1:] > places[:-1])
        if first.any():
            found = _inert_cells(found, np.flatnonzero(first), self._number)
        return self._quoted(found, memoryview(_held(found)).tobytes())

    def _quoted(
        self,
        cells: Any,  # (n,) Arrow text
        held: bytes,  # all of it
    ) -> Any:
        """The cells, those in quotes that would not be read as they are."""
        quote, separator = self._form.quote, self._form.separator
        signs = [separator, "\n", "\r", *([] if quote is None else [quote])]
        if not any(sign.encode() in held for sign in signs):
            return cells
        if quote is None:
            raise DataError(
                f"a value holds {self._form.held()} or a line break, and the declared dialect "
                "quotes nothing; name a file of predictions that ends in .parquet or .jsonl"
            )
        special = _compute.match_substring_regex(cells, f"[{re.escape(''.join(signs))}]")
        doubled = _compute.replace_substring(cells, quote, 2 * quote)
        return _compute.if_else(special, _joined(cells.type, quote, doubled, quote), cells)


def _number_pattern(dialect: Dialect) -> str:
    """What a cell looks like that is a number, as this dialect writes it."""
    mark = re.escape(dialect.decimal)
    groups = re.escape(dialect.thousands or "")
    whole = f"([0-9]{{1,3}}({groups}[0-9]{{3}})+|[0-9]+)" if groups else "[0-9]+"
    digits = rf"({whole}({mark}[0-9]*)?|{mark}[0-9]+)([eE][+-]?[0-9]+)?"
    return rf"^\s*[+-]?({digits}|inf|nan)\s*$"


def _joined(kind: Any, *parts: Any, between: str = "") -> Any:
    """Columns of text, and words, side by side in each row; all of one type of Arrow."""
    same = [pa.scalar(part, kind) if isinstance(part, str) else part for part in parts]
    return _compute.binary_join_element_wise(*same, pa.scalar(between, kind))


def _inert_cells(
    values: Any,
    suspects: NDArray[np.int64],  # places of cells that begin with the sign of a formula
    number_pattern: str,
) -> Any:
    """What `inert` makes of each cell, but for text that is a number."""
    chosen = values.take(pa.array(suspects))
    try:
        _compute.cast(chosen, pa.float64())
        return values  # negative numbers, most often
    except pa.ArrowInvalid:
        number = _compute.match_substring_regex(chosen, number_pattern, ignore_case=True)
    runs = np.zeros(len(values), np.bool_)
    runs[suspects[~np.asarray(number)]] = True
    marked = _joined(values.type, "'", values)
    return _compute.if_else(pa.array(runs), marked, values)


def _bytes_of(values: Any) -> tuple[Any, Any]:
    """((n + 1,) where each value begins and ends, the bytes) of an Arrow array of text."""
    _, places, data = values.buffers()
    wide = pa.types.is_large_string(values.type)
    found = np.frombuffer(places, np.int64 if wide else np.int32)
    inside = found[values.offset : values.offset + len(values) + 1]
    return inside, np.frombuffer(data if data is not None else b"", np.uint8)


def _held(values: Any) -> Any:
    """The bytes of all values, one after another."""
    places, data = _bytes_of(values)
    return data[places[0] : places[-1]]


# -- Parquet -----------------------------------------------------------------------------------


class ParquetWriter:
    """Parquet; the first rows decide the type of each column."""

    def __init__(self, sink: BinaryIO, names: Sequence[str]) -> None:
        self._sink, self._names = sink, names
        self._writer: Any = None
        self._rows = 0

    def write(self, columns: Mapping[str, Any]) -> None:
        """See `RowWriter.write`. Raises `DataError` for values of another type than before."""
        arrays = [as_arrow(values) for values in columns.values()]
        if self._writer is None:
            kinds = [pa.string() if pa.types.is_null(a.type) else a.type for a in arrays]
            self._schema: Any = pa.schema(list(zip(self._names, kinds, strict=True)))
            self._writer = pyarrow.parquet.ParquetWriter(self._sink, self._schema)
        fitting = [self._fitting(*both) for both in zip(arrays, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(fitting, schema=self._schema))
        self._rows += len(arrays[0])

    def close(self) -> None:
        """See `RowWriter.close`."""
        if self._writer is not None:
            self._writer.close()

    def _fitting(self, values: Any, field: Any) -> Any:
        try:
            return values if values.type == field.type else values.cast(field.type)
        except pa.ArrowException as error:
            raise DataError(
                f"column {field.name!r} holds {values.type} after row {self._rows} and "
                f"{field.type} before, and a column of Parquet has one type; write .csv or .jsonl",
                column=field.name,
            ) from error


# -- JSONL -------------------------------------------------------------------------------------


class JsonWriter:
    """One JSON object a row."""

    def __init__(self, sink: BinaryIO, names: Sequence[str]) -> None:
        self._sink = sink

    def write(self, columns: Mapping[str, Any]) -> None:
        """See `RowWriter.write`."""
        names = list(columns)
        listed = [
            values if isinstance(values, list) else values.to_pylist()
            for values in columns.values()
        ]
        lines = [_json(dict(zip(names, row, strict=True))) for row in zip(*listed, strict=True)]
        self._sink.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        """See `RowWriter.close`."""


def _json(value: Any) -> str:
    """A value as JSON, which has no word for infinite numbers: null stands for them."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
        text.encode()
        return text
    except UnicodeEncodeError:  # half a character
        return json.dumps(value, allow_nan=False, default=str)
    except ValueError:
        return _json(_without_infinities(value))


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        named: dict[str, Any] = value
        return {key: _without_infinities(each) for key, each in named.items()}
    if isinstance(value, list):
        listed: list[Any] = value
        return [_without_infinities(each) for each in listed]
    return value


def as_arrow(values: Any) -> Any:
    """Values as one Arrow array; of several types as text."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        is_dictionary = pa.types.is_dictionary(values.type)
        return values.dictionary_decode() if is_dictionary else values
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([_as_text(value) for value in values], pa.string())


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _json(value)
    return text.encode(errors="replace").decode()

"""Columns of Apache Arrow as `Values`, and the texts of a CSV file as numbers.

*Why the numbers are those of `float`.* Arrow is given a text only where every character is a digit
or one of `+-.eE`, or where the whole of it has the form of `_NUMBER`. Of such texts `float` takes
every one that Arrow takes, and both round to the nearest float64. What Arrow does not take, or
takes for an infinity, is left to the function that reads one cell.
"""

# pyarrow carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingModuleSource=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.types as kinds
from numpy.typing import NDArray

from nacre.data.reading.values import (
    Coded,
    Listed,
    NumberColumn,
    Parsed,
    ReadNumber,
    RowNumbers,
    Values,
)

_compute: Any = compute  # its functions are made when it is imported
_CHARACTERS = b"0123456789+-.eE"
_NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
_NONE = np.zeros(0, dtype=np.int64)


def plain_numbers(texts: pa.Array) -> tuple[Parsed, NDArray[np.bool_]]:
    """(numbers, plain) of texts without nulls: which of them are certainly read as `float` reads
    them and finite; NaN stands for the others."""
    everything = np.ones(len(texts), dtype=np.bool_)
    if not _bytes(texts).translate(None, _CHARACTERS):
        found = _cast(texts)
        if found is not None:
            return found, everything
    plain = _compute.match_substring_regex(texts, _NUMBER).to_numpy(zero_copy_only=False)
    numbers = np.full(len(texts), np.nan)
    found = _cast(texts.filter(pa.array(plain)))
    if found is None:
        return numbers, ~everything
    numbers[plain] = found
    return numbers, plain


def _cast(texts: pa.Array) -> Parsed | None:
    """All of them as finite numbers, or None."""
    try:
        found: Parsed = _compute.cast(texts, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return found if np.isfinite(found).all() else None


def _bytes(texts: pa.Array) -> bytes:
    """All characters of the texts, one after the other."""
    if not len(texts):
        return b""
    width = "<i8" if kinds.is_large_string(texts.type) else "<i4"
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=width)[texts.offset : texts.offset + len(texts) + 1]
    return b"" if data is None else bytes(data)[ends[0] : ends[-1]]


class CodedTexts(Coded):
    """`Coded` whose cells are texts, or None."""

    def _parsed_cells(self, read: ReadNumber) -> Parsed:
        texts = pa.array(["" if cell is None else cell for cell in self._cells], pa.large_string())
        numbers, plain = plain_numbers(texts)
        for place in np.flatnonzero(~plain).tolist():
            number = read(self._cells[place])
            numbers[place] = np.nan if number is None else number
        return numbers


def parquet_columns(file: Path) -> tuple[list[str], list[Values]]:
    """(names, columns) of a Parquet file. Raises whatever Arrow raises for one that is damaged.

    Column by column, so that none is in memory twice, and what a column takes while it is unpacked
    serves the next. Texts stay as the file has them: the different ones, and a code for each row.
    """
    from pyarrow.parquet import ParquetFile  # a tenth of a second, and CSV does without

    # One file: with a data set reader, folders named `a=b` would turn into columns.
    with ParquetFile(file, pre_buffer=False) as opened:
        schema, leaves = opened.schema_arrow, opened.metadata.num_columns
    names = list(schema.names)
    texts = [field.name for field in schema if _is_text(field.type)]
    with ParquetFile(file, pre_buffer=False, read_dictionary=texts) as opened:
        # A name may stand twice, and stands for all below it where columns hold columns.
        if len(set(names)) < len(names) or leaves > len(names) or any("." in n for n in names):
            columns = opened.read(use_threads=False).columns
        else:
            columns = (opened.read([name], use_threads=False).column(0) for name in names)
        return names, [of_arrow(column) for column in columns]


def _is_text(kind: pa.DataType) -> bool:
    return kinds.is_string(kind) or kinds.is_large_string(kind)


def of_arrow(column: pa.ChunkedArray) -> Values:
    """A column of an Arrow table; every cell is what `to_pylist` makes of it."""
    kind = column.type
    if kinds.is_dictionary(kind):
        whole = not any(chunk.dictionary.null_count for chunk in column.chunks)
        if whole and _is_text(kind.value_type) and kind.index_type == pa.int32():
            return _coded(column, CodedTexts)
        column = column.cast(kind.value_type)
        kind = column.type
    if kinds.is_integer(kind) or kinds.is_float32(kind) or kinds.is_float64(kind):
        return _numbers(column)
    if _is_text(kind):
        return _coded(_compute.dictionary_encode(column), CodedTexts)
    if kinds.is_boolean(kind) or kinds.is_temporal(kind) or kinds.is_decimal(kind):
        return _coded(_compute.dictionary_encode(column), Coded)
    return Listed(column.to_pylist())


def _numbers(column: pa.ChunkedArray) -> NumberColumn:
    if not column.null_count:
        return NumberColumn(column.to_numpy(), _NONE, ())
    missing = np.flatnonzero(column.is_null().to_numpy())
    return NumberColumn(_compute.fill_null(column, 0).to_numpy(), missing, [None] * len(missing))


def _coded(column: pa.ChunkedArray, kind: type[Coded]) -> Coded:
    """Of a column that is encoded by dictionaries."""
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # of no chunk, or of more than fit into one
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else whole.cast(pa.null())
    cells: list[object] = whole.dictionary.to_pylist()
    codes: NDArray[Any] = _compute.fill_null(whole.indices, len(cells)).to_numpy()
    return kind(codes, [*cells, None] if whole.null_count else cells)


class TextColumn:
    """A column of a file of texts while it is read, block by block."""

    def __init__(self, number: bool) -> None:
        self._number = number  # whether its texts are wanted for the numbers in them alone
        self._blocks: list[Any] = []
        self._others: list[RowNumbers] = []
        self._cells: list[object] = []
        self._rows = 0

    def add(self, texts: pa.Array) -> None:
        """The next texts, with the spaces around them, or a dictionary of them; or the finite
        numbers that they are."""
        if kinds.is_float64(texts.type):
            self._blocks.append(texts.to_numpy())
        elif self._number:
            numbers, plain = plain_numbers(texts)
            if not plain.all():
                texts = _compute.utf8_trim(texts, _SPACES)
                numbers, plain = plain_numbers(texts)
            others = np.flatnonzero(~plain)
            self._blocks.append(numbers)
            self._others.append(others + self._rows)
            self._cells += texts.take(pa.array(others)).to_pylist()
        else:
            coded = texts if kinds.is_dictionary(texts.type) else texts.dictionary_encode()
            self._blocks.append(_trimmed(coded))
        self._rows += len(texts)

    def add_listed(self, texts: Sequence[str]) -> None:
        """The next texts, as Python has them."""
        self.add(pa.array(texts, pa.large_string()))

    def values(self) -> Values:
        """All of them. The column lets go of its blocks."""
        blocks, self._blocks = self._blocks, []
        if not blocks:
            return Listed(())
        if not self._number:
            return _coded(pa.chunked_array(blocks), CodedTexts)
        return NumberColumn(np.concatenate(blocks), np.concatenate(self._others), self._cells)


_SPACES = "".join(character for character in map(chr, range(1 << 16)) if character.isspace())
"""What `str.strip` takes away."""


def _trimmed(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The same texts without the spaces around them."""
    given = column.dictionary.to_pylist()
    bare = [text.strip() for text in given]
    if bare == given:
        return column
    different = {text: place for place, text in enumerate(dict.fromkeys(bare))}
    codes = np.array([different[text] for text in bare], dtype=np.int32)
    words = pa.array(list(different), column.dictionary.type)
    return pa.DictionaryArray.from_arrays(pa.array(codes[column.indices.to_numpy()]), words)

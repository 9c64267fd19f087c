"""Files of rows to be scored, read a chunk at a time: Parquet, JSONL, plain text, arrays; CSV is in
`csv_file.py`."""

from __future__ import annotations

import gzip
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from nacre.core.errors import DataError
from nacre.data.arrays import checked_inputs, read_idx, read_npz
from nacre.data.files import located
from nacre.data.readers import (
    form_problem,
    open_text,
    read_lines,
    reading,
    suffix,
)
from nacre.data.reading.json_lines import json_rows
from nacre.data.text.documents import split_documents
from nacre.prediction.csv_file import CHUNK, NARROW, WIDE, CsvRows, once_each
from nacre.prediction.signature import Signature


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file, as they stand there."""

    columns: Mapping[str, Any]  # name -> (n,) an Arrow array or a list of plain values
    count: int  # n
    inputs: NDArray[np.float32] | None = None  # (n, *shape) of a model that reads an array


class RowFile(Protocol):
    """A file that was opened and whose columns are known; its rows are read on the way."""

    @property
    def names(self) -> Sequence[str]:
        """Its columns."""
        ...

    @property
    def stripped(self) -> bool:
        """Whether spaces around a value say nothing, as in CSV."""
        ...

    def chunks(self) -> Iterator[Chunk]:
        """Its rows in order, `CHUNK` in each but the last. Raises `DataError`."""
        ...

    def share(self) -> float:
        """How much of it has been read, from 0 to 1."""
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


def open_rows(file: Path, signature: Signature) -> RowFile:
    """The file at `file`, which has what the model needs. Raises `DataError` for a file of another
    kind, or one that lacks a column."""
    located(Path(), str(file))
    kind = suffix(file.name)
    if problem := form_problem(file.name):
        raise DataError(problem.removeprefix("path="))
    arrays = kind in (".npz", ".npy") or (kind not in _TABLES and _is_idx(file))
    if signature.form == "array":
        if not arrays:
            raise DataError(
                f"{file} is read as a table, and the model reads arrays of shape "
                f"{signature.shape}; give it an .npz with the array {signature.array!r}"
            )
        return ArrayRows(file, signature)
    if arrays:
        raise DataError(
            f"{file} holds arrays, and the model reads the columns "
            f"{', '.join(signature.needed()[:8])} of a table; give it CSV, Parquet or JSONL"
        )
    if kind == ".txt":
        if signature.text is None or signature.text.prompt is not None:
            raise DataError(
                f"{file} is plain text, and the model reads the columns "
                f"{', '.join(signature.needed()[:8])}; give it CSV, Parquet or JSONL"
            )
        return PlainText(file, signature)
    readers: dict[str, type[ParquetRows | JsonRows]] = {
        ".parquet": ParquetRows, ".pq": ParquetRows, ".jsonl": JsonRows, ".ndjson": JsonRows,
    }  # fmt: skip
    found: RowFile = readers[kind](file) if kind in readers else _csv(file, signature)
    try:
        require_columns(found.names, signature, str(file))
    except DataError:
        found.close()
        raise
    return found


_TABLES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".txt")


def require_columns(names: Sequence[str], signature: Signature, where: str) -> None:
    """Raises `DataError` where a column is not there that the model reads."""
    if lacking := [name for name in signature.needed() if name not in names]:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        has = ", ".join(str(name)[:40] for name in names[:8])
        raise DataError(
            f"{where} has no column {lacking[0]!r}{more} (it has {has}"
            f"{' and others' if len(names) > 8 else ''}), and the model reads it; add it, or name "
            "it as in the recipe",
            column=lacking[0],
        )


@dataclass
class _Csv:
    """CSV and TSV."""

    rows: CsvRows
    stripped: bool = True

    @property
    def names(self) -> Sequence[str]:
        return self.rows.names

    def chunks(self) -> Iterator[Chunk]:
        for table in self.rows.tables():
            columns = dict(zip(self.names, table.columns, strict=True))
            yield Chunk(columns, table.num_rows)

    def share(self) -> float:
        return self.rows.share()

    def close(self) -> None:
        """It is open while its chunks are read."""


def _csv(file: Path, signature: Signature) -> RowFile:
    block = WIDE if signature.form == "text" else NARROW
    return _Csv(CsvRows(file, block, signature.dialect))


class ParquetRows:
    """A Parquet file."""

    stripped = False

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            # One file: with a data set reader, folders named `a=b` would turn into columns.
            self._parquet = pyarrow.parquet.ParquetFile(file)
            self.names: list[str] = list(self._parquet.schema_arrow.names)
            self._total = int(self._parquet.metadata.num_rows)
        except Exception as error:  # damaged bytes make pyarrow raise more than its own errors
            raise self._unreadable(error) from error
        once_each(file, self.names)
        if not self._total:
            raise no_rows(file)
        self._done = 0

    def chunks(self) -> Iterator[Chunk]:
        """See `RowFile.chunks`."""
        batches = self._parquet.iter_batches(batch_size=CHUNK)
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:
                raise self._unreadable(error) from error
            if batch is None:
                return
            self._done += batch.num_rows
            yield Chunk(dict(zip(self.names, batch.columns, strict=True)), batch.num_rows)

    def share(self) -> float:
        """See `RowFile.share`."""
        return self._done / self._total

    def close(self) -> None:
        """See `RowFile.close`."""
        self._parquet.close()

    def _unreadable(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"{self._file} cannot be read as Parquet ({reason}); write it anew")


class JsonRows:
    """One JSON object a line. A key that a row lacks is None there; what the first chunk names are
    the columns."""

    stripped = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self._size = max(1, file.stat().st_size)
        self._read = self._parts()
        self._position = 0
        self._first = next(self._read, None)
        if self._first is None:
            raise no_rows(file)
        self.names = list(self._first.columns)

    def chunks(self) -> Iterator[Chunk]:
        """See `RowFile.chunks`."""
        assert self._first is not None
        yield self._first
        yield from self._read

    def share(self) -> float:
        """See `RowFile.share`."""
        return min(1.0, self._position / self._size)

    def close(self) -> None:
        """See `RowFile.close`."""
        self._read.close()

    def _parts(self) -> Generator[Chunk]:
        with reading(self._file), open_text(self._file) as opened:
            rows = json_rows(opened)
            while part := list(islice(rows, CHUNK)):
                names = dict.fromkeys(name for row in part for name in row)
                yield Chunk({name: [row.get(name) for row in part] for name in names}, len(part))
                self._position = _place(opened)


def _place(opened: Any) -> int:
    """How many bytes of the file itself have been read, unpacked or not."""
    raw = opened.buffer
    return int(getattr(raw, "fileobj", raw).tell())


class PlainText:
    """The documents of a .txt file, in a column `text`."""

    stripped = False

    def __init__(self, file: Path, signature: Signature) -> None:
        assert signature.text is not None
        (self._column,) = self.names = [signature.text.roles()["text"]]
        lines = [str(line) for line in read_lines(Path(), str(file)).columns[""]]
        self._documents = split_documents(lines, signature.text.documents)
        self._done = 0
        if not self._documents:
            raise no_rows(file)

    def chunks(self) -> Iterator[Chunk]:
        """See `RowFile.chunks`."""
        for start in range(0, len(self._documents), CHUNK):
            part = self._documents[start : start + CHUNK]
            self._done += len(part)
            yield Chunk({self._column: part}, len(part))

    def share(self) -> float:
        """See `RowFile.share`."""
        return self._done / len(self._documents)

    def close(self) -> None:
        """It was read at once."""


class ArrayRows:
    """The inputs of an .npz, or the images of an IDX file. Other arrays of the .npz with one value
    a row are its columns."""

    stripped = False

    def __init__(self, file: Path, signature: Signature) -> None:
        name = signature.array or "x"
        if suffix(file.name) in (".npz", ".npy"):
            arrays = read_npz(file, [name], others=True)
        else:
            arrays = {name: read_idx(file)}
        given = arrays.pop(name)
        if not given.ndim or not len(given):
            raise no_rows(file)
        self._inputs = checked_inputs(file, given, signature.schema())
        self._columns = {
            key: pa.array(values.tolist() if values.dtype.kind == "S" else values)
            for key, values in arrays.items()
            if values.shape == (len(given),) and values.dtype.kind in "biufSUM"
        }
        self.names = list(self._columns)
        self._done = 0

    def chunks(self) -> Iterator[Chunk]:
        """See `RowFile.chunks`."""
        for start in range(0, len(self._inputs), CHUNK):
            inputs = self._inputs[start : start + CHUNK]
            part = {key: each.slice(start, len(inputs)) for key, each in self._columns.items()}
            self._done += len(inputs)
            yield Chunk(part, len(inputs), inputs)

    def share(self) -> float:
        """See `RowFile.share`."""
        return self._done / len(self._inputs)

    def close(self) -> None:
        """It was read at once."""


def _is_idx(file: Path) -> bool:
    """Whether a file begins as IDX files of bytes do, plain or packed."""
    with file.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        try:
            with gzip.open(plain) if packed else plain as opened:
                begin = opened.read(4)
        except (OSError, EOFError):
            return False
    return len(begin) == 4 and begin[:3] == b"\x00\x00\x08" and 1 <= begin[3] <= 4


def no_rows(file: Path) -> DataError:
    """The refusal of a file that holds none."""
    return DataError(f"{file} holds no rows, so there is nothing to predict; add rows to it")

"""Arrays from .npz and images from IDX files, checked against their declared shape and range."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument, DataError
from nacre.data.dataset import Cohorts, Rows, Schema, checked
from nacre.data.files import located, rows_named, unreadable
from nacre.data.readers import is_missing, unit_name
from nacre.data.scaling import DeclaredScaling, ScalingOption, scaling_problem
from nacre.data.sketches.files import of_arrays, parts_of_arrays
from nacre.data.split import Holdout, PublicFile, held_out
from nacre.data.text.token_cache import Aids


@dataclass(frozen=True, kw_only=True)
class Arrays(NoAssumptions):
    """Rows of a NumPy .npz file; object arrays are refused, since reading them runs code."""

    kind: Literal["arrays"] = "arrays"
    path: str
    """The .npz file, relative to the recipe."""
    features: str = "x"
    """The array of features, (N, *shape)."""
    label: str = "y"
    """The array of class numbers, (N,)."""
    unit: str | None = None
    """The array whose value is shared by all rows of one person."""
    party: str | None = None
    """The array that names who holds a row."""
    shape: tuple[int, ...]
    """Shape of one input, as [561] or [3, 32, 32]."""
    classes: int
    """Number of classes; labels run from 0."""
    low: float | None = None
    """Smallest legal feature."""
    high: float | None = None
    """Largest legal feature."""
    size: int
    """Declared number of private units, after the holdout: public, used for rates."""
    public_demonstration: bool = False
    """Whether all rows are public, so that figures on any of them may be shown."""
    holdout: Holdout | None = None
    """Rows kept out of training, to score the model with."""
    public: PublicFile | None = None
    """Another .npz with the same arrays whose rows are public; unit and party are not needed."""
    scaling: ScalingOption = field(default_factory=DeclaredScaling)
    """How features become inputs of the model."""

    def sentence(self) -> str:
        """Which file."""
        return f"arrays of {self.path}"

    def __post_init__(self) -> None:
        _check_declared(self.size, self.shape, self.classes)
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise BadArgument(f"low={self.low} must be below high={self.high}")
        problem = scaling_problem(self.scaling, self.schema(), self.has_public)
        if problem:
            raise BadArgument(problem)

    @property
    def has_public(self) -> bool:
        """Whether `read` will return public rows."""
        return self.public is not None

    @property
    def has_test(self) -> bool:
        """Whether `read` will return test rows."""
        return self.holdout is not None

    def schema(self, folder: Path = Path()) -> Schema:
        """What a row looks like, as declared."""
        names = tuple(str(i) for i in range(self.classes))
        return Schema(self.shape, (), "classification", names, self.low, self.high)

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """Reads the files; the holdout is chosen under `split_key`. Raises `DataError`."""
        file = located(folder, self.path)
        arrays = self._arrays(file, keyed=True)
        private = self._rows(file, arrays, keyed=True)
        shown = self.public_demonstration
        cells = () if shown else of_arrays(arrays, len(private))
        parts = {} if shown else parts_of_arrays(arrays, private.party)
        test = public = None
        if self.holdout:
            private, test = held_out(private, self.holdout, split_key)
        if self.public:
            other = located(folder, self.public.path)
            public = self._rows(other, self._arrays(other, keyed=False), keyed=False)
        cohorts = Cohorts(private, public, test, shown, shown, cells=cells, parts=parts)
        return checked(cohorts, self.schema(), str(file))

    def _arrays(self, file: Path, *, keyed: bool) -> dict[str, np.ndarray]:
        """The arrays that are used; of `keyed` rows all others too, which tell whose they are."""
        wanted = [self.features, self.label]
        wanted += [name for name in (self.unit, self.party) if keyed and name is not None]
        return read_npz(file, wanted, others=keyed)

    def _rows(self, file: Path, arrays: dict[str, np.ndarray], *, keyed: bool) -> Rows:
        rows = _rows(file, arrays[self.features], arrays[self.label], self.schema())
        if not keyed:
            return rows
        group = self._names(file, arrays, self.unit, len(rows))
        party = self._names(file, arrays, self.party, len(rows))
        return replace(rows, group=group, party=party)

    @staticmethod
    def _names(
        file: Path, arrays: dict[str, np.ndarray], name: str | None, count: int
    ) -> tuple[str, ...] | None:
        if name is None:
            return None
        if arrays[name].shape != (count,):
            raise DataError(
                f"{file} array {name!r} has shape {arrays[name].shape} and there are {count} rows; "
                "give one value a row"
            )
        values: list[object] = arrays[name].tolist()
        _refuse(
            file, np.array([is_missing(v) for v in values]), f"{name!r} has no value", "fill them"
        )
        return tuple(unit_name(value) for value in values)


@dataclass(frozen=True, kw_only=True)
class Images(NoAssumptions):
    """Images and labels in the IDX files of MNIST, plain or .gz, with pixels from 0 to 255."""

    kind: Literal["images"] = "images"
    images: str
    """The file of images, relative to the recipe."""
    labels: str
    """The file of labels."""
    shape: tuple[int, ...] = (1, 28, 28)
    """Shape of one input: channels, height, width."""
    classes: int = 10
    """Number of classes; labels run from 0."""
    size: int
    """Declared number of private units, after the holdout: public, used for rates."""
    public_demonstration: bool = False
    """Whether all rows are public, so that figures on any of them may be shown."""
    holdout: Holdout | None = None
    """Rows kept out of training, to score the model with."""
    test_images: str | None = None
    """A file of images to score the model with, instead of a holdout."""
    test_labels: str | None = None
    """The labels of `test_images`."""
    public_images: str | None = None
    """A file of images declared public."""
    public_labels: str | None = None
    """The labels of `public_images`."""
    scaling: ScalingOption = field(default_factory=DeclaredScaling)
    """How features become inputs of the model."""

    def sentence(self) -> str:
        """Which file."""
        return f"images of {self.images}"

    def __post_init__(self) -> None:
        _check_declared(self.size, self.shape, self.classes)
        for name in ("test", "public"):
            if (getattr(self, f"{name}_images") is None) != (
                getattr(self, f"{name}_labels") is None
            ):
                raise BadArgument(f"{name}_images and {name}_labels need each other; name both")
        if self.holdout and self.test_images is not None:
            raise BadArgument("holdout and test_images exclude each other; keep one")
        problem = scaling_problem(self.scaling, self.schema(), self.has_public)
        if problem:
            raise BadArgument(problem)

    @property
    def unit(self) -> None:
        """IDX files name no groups."""
        return None

    @property
    def party(self) -> None:
        """IDX files name no parties."""
        return None

    @property
    def has_public(self) -> bool:
        """Whether `read` will return public rows."""
        return self.public_images is not None

    @property
    def has_test(self) -> bool:
        """Whether `read` will return test rows."""
        return self.holdout is not None or self.test_images is not None

    def schema(self, folder: Path = Path()) -> Schema:
        """What a row looks like, as declared."""
        names = tuple(str(i) for i in range(self.classes))
        return Schema(self.shape, (), "classification", names, low=0, high=255)

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """Reads the files; a holdout is chosen under `split_key`. Raises `DataError`."""
        private = self._rows(folder, self.images, self.labels)
        test = public = None
        if self.test_images is not None and self.test_labels is not None:
            test = self._rows(folder, self.test_images, self.test_labels)
        if self.public_images is not None and self.public_labels is not None:
            public = self._rows(folder, self.public_images, self.public_labels)
        if self.holdout:
            private, test = held_out(private, self.holdout, split_key)
        shown = self.public_demonstration
        where = str(folder / self.images)
        return checked(Cohorts(private, public, test, shown, shown), self.schema(), where)

    def _rows(self, folder: Path, images: str, labels: str) -> Rows:
        file = located(folder, images)
        return _rows(file, read_idx(file), read_idx(located(folder, labels)), self.schema())


def _check_declared(size: int, shape: tuple[int, ...], classes: int) -> None:
    require.at_least(1, size=size)
    if not shape or min(shape) < 1:
        raise BadArgument(f"shape={shape} must hold lengths of at least 1")
    require.at_least(2, classes=classes)


def checked_inputs(where: Path | str, features: np.ndarray, schema: Schema) -> np.ndarray:
    """(N, *shape) float32 that fit the schema. Raises `DataError`, which begins with `where`, for a
    wrong shape, type or range."""
    given = features.shape[1:]
    # A grey image is often stored without its channel, (28, 28) for (1, 28, 28).
    if [n for n in given if n != 1] != [n for n in schema.shape if n != 1] or not features.ndim:
        raise DataError(
            f"{where} holds inputs of shape {given} where {schema.shape} is declared; correct "
            "`shape`, or the file"
        )
    if features.dtype.kind not in "buif":
        raise DataError(f"{where} holds features of type {features.dtype}; store numbers")
    values = features.astype(np.float32).reshape(len(features), *schema.shape)
    _refuse(where, ~np.isfinite(values), "a feature is not a finite number", "correct them")
    remedy = "correct them or widen `low` and `high`"
    low = -math.inf if schema.low is None else schema.low
    high = math.inf if schema.high is None else schema.high
    outside = (values < low) | (values > high)
    _refuse(where, outside, f"a feature is outside [{low}, {high}]", remedy)
    return values


def _rows(file: Path, features: np.ndarray, label: np.ndarray, schema: Schema) -> Rows:
    """Rows that fit the schema. Raises `DataError` for a wrong shape, type, range or class."""
    values = checked_inputs(file, features, schema)
    if label.shape not in ((len(features),), (len(features), 1)):
        raise DataError(
            f"{file} holds {len(features)} inputs and labels of shape {label.shape}; give one "
            "label an input"
        )
    if label.dtype.kind not in "bui":
        raise DataError(f"{file} holds labels of type {label.dtype}; store whole class numbers")
    classes = label.reshape(-1).astype(np.int64)
    known = (classes >= 0) & (classes < len(schema.classes))
    fault = f"the label is none of 0 … {len(schema.classes) - 1}"
    _refuse(file, ~known, fault, "correct them or `classes`")
    place = torch.arange(len(classes))
    return Rows(torch.from_numpy(values), torch.from_numpy(classes), place=place)


def _refuse(file: Path | str, faulty: np.ndarray, fault: str, remedy: str) -> None:
    if faulty.any():
        rows: list[int] = np.flatnonzero(faulty.reshape(len(faulty), -1).any(axis=1)).tolist()
        raise DataError(f"{file}: {fault} in {rows_named(rows)}; {remedy}")


def read_npz(file: Path, names: list[str], others: bool = False) -> dict[str, np.ndarray]:
    """The named arrays, and with `others` all that hold no objects. Raises `DataError`; nothing is
    ever unpickled."""
    try:
        with file.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{file} is a single array; save features and labels with `np.savez`"
                )
            _has_arrays(file, loaded.files, names)
            found: dict[str, np.ndarray] = {}
            for name in loaded.files if others else names:
                # Of an array of objects that nobody asked for nothing is wanted.
                with suppress(ValueError) if name not in names else nullcontext():
                    found[name] = loaded[name]
            return found
    except DataError:
        raise
    except Exception as error:  # damaged bytes make zipfile and NumPy raise almost anything
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file} cannot be read as .npz without running code ({reason}); save plain arrays "
            "with `np.savez`"
        ) from error


def _has_arrays(file: Path, held: list[str], names: list[str]) -> None:
    for name in names:
        if name not in held:
            raise DataError(
                f"{file} has no array {name!r} (it has {', '.join(held)}); correct the name"
            )


def read_idx(file: Path) -> np.ndarray:
    """An IDX file of bytes, plain or gzip, as (N, …) uint8. Raises `DataError`.

    Source of the format: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/.
    """
    try:
        with file.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not packed:
                return _idx(file, plain)
            with gzip.open(plain) as unpacked:
                return _idx(file, unpacked)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file} is a damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise unreadable(file, error) from error


class _Bytes(Protocol):
    """A file open for reading, plain or unpacked on the way."""

    def read(self, size: int, /) -> bytes: ...


def _idx(file: Path, opened: _Bytes) -> np.ndarray:
    magic = opened.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{file} is no IDX file of bytes (it starts with 0x{magic.hex()}); name a file such as "
            "train-images-idx3-ubyte.gz"
        )
    header = opened.read(4 * magic[3])
    lengths = [int(n) for n in np.frombuffer(header[: len(header) // 4 * 4], dtype=">u4")]
    expected = math.prod(lengths)
    body = _at_most(opened, expected + 1)
    if len(lengths) < magic[3] or len(body) != expected:
        more = "more" if len(body) > expected else f"{len(body)}"
        raise DataError(
            f"{file} declares {expected} bytes in its header and holds {more}, so it is damaged; "
            "fetch it again"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(lengths)


def _at_most(opened: _Bytes, count: int) -> bytes:
    """Up to `count` bytes; a header that lies about its size must not reserve that much memory."""
    parts: list[bytes] = []
    while count > 0 and (part := opened.read(min(count, 1 << 20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

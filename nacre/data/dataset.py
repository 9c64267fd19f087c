"""What every data set gives: a schema known beforehand, and rows as tensors by right of use."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import BadArgument, DataError
from nacre.core.types import FeatureSpace
from nacre.data.columns.column import Column

if TYPE_CHECKING:
    from nacre.data.sketches.cells import Cells


@dataclass(frozen=True)
class Schema:
    """What a row looks like. Known before a row is read: from the recipe or a builtin's constant.

    >>> age = Column("age", "number", 0, 120)
    >>> sex = Column("sex", "category", categories=("f", "m"))
    >>> schema = Schema((3,), (age, sex), "classification", ("ill", "well"))
    >>> schema.feature_names(), schema.outputs()
    (('age', 'sex=f', 'sex=m'), 2)
    """

    shape: tuple[int, ...]  # of one model input, as (30,) or (1, 8, 8); categories one-hot
    columns: tuple[Column, ...]  # () for images and arrays
    task: Literal["classification", "regression", "causal_lm", "token_classification"]
    classes: tuple[str, ...]  # () for regression and causal_lm
    low: float | None = None  # of every entry, where there are no columns
    high: float | None = None
    tokens: int | None = None  # size of the vocabulary; None where the inputs are numbers

    def __post_init__(self) -> None:
        if self.task in ("causal_lm", "token_classification") and self.tokens is None:
            raise BadArgument(f"task={self.task!r} needs inputs that are tokens; name `tokens`")

    def outputs(self) -> int:
        """The width of the model's output: the number of classes, the vocabulary, or 1."""
        if self.task == "causal_lm":
            return self.tokens or 0
        return 1 if self.task == "regression" else len(self.classes)

    def feature_names(self) -> tuple[str, ...]:
        """A name per input entry; one-hot entries are `column=category`. () for images."""
        return tuple(name for column in self.columns for name in column.entries())

    def space(self) -> FeatureSpace:
        """What inputs mean before they are scaled: names, declared ranges and categories."""
        entries = [entry for column in self.columns for entry in column.layout()]
        ranges = [(entry.low, entry.high) for entry in entries] or [(self.low, self.high)]
        low = [-math.inf if least is None else least for least, _ in ranges]
        high = [math.inf if most is None else most for _, most in ranges]
        shape = (len(entries),) if entries else ()
        least, most = (
            torch.tensor(bound, dtype=torch.float64).reshape(shape) for bound in (low, high)
        )
        return FeatureSpace(
            self.shape,
            self.feature_names(),
            low=least.float(),
            high=most.float(),
            least=least,
            most=most,
            categorical=tuple(entry.name for entry in entries if entry.coded),
            choices=tuple(c.name for c in self.columns if c.kind in ("category", "boolean")),
        )

    def bounds(self) -> list[tuple[str, float | None, float | None]]:
        """(name, low, high) of everything that has a range of its own, as codes have not."""
        if not self.columns:
            return [("the inputs", self.low, self.high)]
        return [
            (f"column {column.name!r}", entry.low, entry.high)
            for column in self.columns
            for entry in column.layout()
            if not entry.coded
        ]


@dataclass(frozen=True)
class Rows:
    """A set of rows, in the order of their file."""

    # (N, *shape) float32, in the features' own units; categories one-hot. Or (N, T) int64 tokens,
    # -1 where a row is padded on its right
    features: Tensor
    # (N,) int64 classes, or float32; (N, T) int64 for what is learnt at each position, -100 where
    # nothing counts
    label: Tensor
    group: tuple[str, ...] | None = None  # (N,) the value of the unit column
    party: tuple[str, ...] | None = None  # (N,) the value of the party column
    # (N,) a digest of what each row says, where features are one of several readings of it: a text
    # cut elsewhere is the same text
    content: tuple[bytes, ...] | None = None
    # (N,) int64: where each row stands in its file or data set, from 0; rows that were left out
    # are counted
    place: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: Tensor | Sequence[int]) -> Rows:
        """The rows at these places, in this order."""
        places = torch.as_tensor(index, dtype=torch.int64)
        chosen: list[int] = places.tolist()
        return Rows(
            self.features[places],
            self.label[places],
            None if self.group is None else tuple(map(self.group.__getitem__, chosen)),
            None if self.party is None else tuple(map(self.party.__getitem__, chosen)),
            None if self.content is None else tuple(map(self.content.__getitem__, chosen)),
            None if self.place is None else self.place[places],
        )

    def in_bytes(self) -> Iterator[bytes]:
        """Each row as its features and its label lie in memory."""
        features, label = (_rows_in_memory(part) for part in (self.features, self.label))
        return map(bytes.__add__, features, label)

    def __add__(self, other: Rows) -> Rows:
        """These rows, then the others. What only one side declares is dropped, and so are the
        places in their files."""

        def both(a: tuple[Any, ...] | None, b: tuple[Any, ...] | None) -> Any:
            return None if a is None or b is None else a + b

        return Rows(
            torch.cat([self.features, other.features]),
            torch.cat([self.label, other.label]),
            both(self.group, other.group),
            both(self.party, other.party),
            both(self.content, other.content),
        )


def _rows_in_memory(values: Tensor) -> Iterator[bytes]:
    """The bytes of each row of (N, …) values."""
    whole = values.contiguous().numpy().reshape(-1).view(np.uint8).data
    width = len(whole) // len(values) if len(values) else 0
    return (bytes(whole[i * width : (i + 1) * width]) for i in range(len(values)))


@dataclass(frozen=True)
class Cohorts:
    """The rows of a run, by what may be done with them."""

    private: Rows
    public: Rows | None
    test: Rows | None
    test_is_public: bool  # may figures computed on the test rows be shown?
    private_is_public: bool  # a public demonstration: figures on private rows may be shown too
    notes: tuple[str, ...] = ()  # counted on private rows, so for the local terminal only
    canaries: Rows | None = None  # random secrets, learnt beside the private rows
    outsiders: Rows | None = None  # test rows distributed as the private ones, where the test rows
    # as a whole are not: what a membership audit may compare members with
    tokenizer: Mapping[str, Any] | None = None  # that of pieces, as `tokens.described` gives it:
    # learnt from public rows, or part of a pretrained model
    cells: tuple[Cells, ...] = ()  # what the files of private rows say, all columns, as they stand
    # there; () where `private` and `test` say the same
    parts: Mapping[str, tuple[Cells, ...]] = field(default_factory=dict)
    # `cells` of each party, by its name; empty where no column names parties


def checked(cohorts: Cohorts, schema: Schema, where: str) -> Cohorts:
    """The same cohorts, once it is certain that one can train on them. Raises `DataError`.

    Every declared class must occur among the private rows, and no cohort may be empty.
    """
    for name in ("private", "public", "test"):
        rows: Rows | None = getattr(cohorts, name)
        if rows is not None and not len(rows):
            raise DataError(
                f"{where} leaves no {name} rows, so there is nothing to use them for; give it "
                "more rows or smaller shares"
            )
    if schema.task == "classification":
        present = set(cohorts.private.label.unique().tolist())
        absent = [name for i, name in enumerate(schema.classes) if i not in present]
        if absent:
            raise DataError(
                f"{where}: no private row has class {absent[0]!r}, so it cannot be learnt; "
                "declare only the classes that occur, or add rows"
            )
    return cohorts

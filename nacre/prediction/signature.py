"""What a finished model reads and answers: the public facts that rows are scored by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

from nacre.core.errors import FileDamaged
from nacre.data import AnyData, Arrays, Column, Table, Text
from nacre.data.dataset import Schema
from nacre.models.tasks import TaskKind

InputForm = Literal["columns", "array", "text"]
"""A table of declared columns, one array of numbers, or text."""


@dataclass(frozen=True)
class TextInputs:
    """How text becomes rows of tokens."""

    text: str | None  # the column of documents; None for plain text, and where there is a prompt
    prompt: str | None
    completion: str | None
    documents: Literal["line", "paragraph"]  # what a document of plain text is
    length: int  # tokens of a row
    cut: Literal["end", "start"]  # the side of a long document that is left out

    def roles(self) -> dict[str, str]:
        """Role -> the column that has to be there."""
        if self.prompt is not None and self.completion is not None:
            return {"prompt": self.prompt, "completion": self.completion}
        return {"text": self.text if self.text is not None else "text"}


@dataclass(frozen=True)
class Signature:
    """What a row is, and what is answered. Every fact was declared in the recipe: nothing of it
    was learnt from a row."""

    data: str  # the kind of the recipe's data
    task: TaskKind
    shape: tuple[int, ...]  # of one input
    classes: tuple[str, ...]  # in the order of the model's outputs; () for numbers and next tokens
    columns: tuple[Column, ...] = ()  # that the model sees, in their order; () for arrays and text
    low: float | None = None  # smallest entry of an array
    high: float | None = None
    array: str | None = None  # the name of the inputs in an .npz; None for columns and text
    text: TextInputs | None = None
    target: str | None = None  # the column that was learnt; it need not be there
    unit: str | None = None
    party: str | None = None
    dropped: tuple[str, ...] = ()
    on_missing: Literal["refuse", "drop"] = "refuse"
    on_out_of_range: Literal["refuse", "clamp", "drop"] = "refuse"
    scaling: str = "none"  # the kind; the numbers are the scaler's
    versions: tuple[tuple[str, str], ...] = ()  # of the packages that trained the model

    @property
    def form(self) -> InputForm:
        """What the model's inputs are made from."""
        if self.text is not None:
            return "text"
        return "columns" if self.columns else "array"

    def schema(self) -> Schema:
        """What a row of numbers looks like."""
        task = "regression" if self.task == "regression" else "classification"
        return Schema(self.shape, self.columns, task, self.classes, self.low, self.high)

    def needed(self) -> tuple[str, ...]:
        """The columns that a table has to have; () for arrays."""
        if self.text is not None:
            return tuple(self.text.roles().values())
        return tuple(column.name for column in self.columns)

    def may_be_empty(self) -> bool:
        """Whether a row may stay without a prediction, instead of being refused."""
        return self.on_missing == "drop" or self.on_out_of_range == "drop" or self.scores_text()

    def scores_text(self) -> bool:
        """Whether the answer is how likely a document is."""
        return self.task == "causal_lm"

    def to_json(self) -> dict[str, Any]:
        """As it stands under `signature` in model.json."""
        return asdict(self) | {"versions": dict(self.versions)}


def signature_of(data: AnyData) -> Signature:
    """The signature of a model that is trained on such data. Reads no row."""
    versions = tuple((name, version(name)) for name in ("nacre", "torch"))
    if isinstance(data, Text):
        inputs = TextInputs(
            data.text, data.prompt, data.completion, data.documents, data.length, data.cut
        )
        return Signature(
            data.kind, data.task, (data.length,), data.classes, text=inputs, target=data.label,
            unit=data.unit, party=data.party, on_missing=data.on_missing,
            scaling=data.scaling.kind, versions=versions,
        )  # fmt: skip
    schema = data.schema()
    table = data if isinstance(data, Table) else None
    named = data if isinstance(data, Arrays) else None
    return Signature(
        data.kind,
        schema.task,
        schema.shape,
        schema.classes,
        schema.columns,
        schema.low,
        schema.high,
        array=None if schema.columns else named.features if named else "x",
        target=table.target if table else named.label if named else None,
        unit=data.unit,
        party=data.party,
        dropped=table.drop if table else (),
        on_missing=table.on_missing if table else "refuse",
        on_out_of_range=table.on_out_of_range if table else "refuse",
        scaling=data.scaling.kind,
        versions=versions,
    )


_TASKS = get_args(TaskKind)


def read_signature(value: Any, where: str) -> Signature:
    """What `to_json` gave. Raises `FileDamaged`, which names the file `where`."""
    try:
        text = value["text"]
        found = Signature(
            _word(value["data"]),
            _one_of(value["task"], _TASKS),
            tuple(_count(length) for length in value["shape"]),
            _words(value["classes"]),
            tuple(_column(column) for column in value["columns"]),
            _bound(value["low"]),
            _bound(value["high"]),
            _name(value["array"]),
            None if text is None else _text(text),
            _name(value["target"]),
            _name(value["unit"]),
            _name(value["party"]),
            _words(value["dropped"]),
            _one_of(value["on_missing"], ("refuse", "drop")),
            _one_of(value["on_out_of_range"], ("refuse", "clamp", "drop")),
            _word(value["scaling"]),
            tuple((_word(name), _word(number)) for name, number in value["versions"].items()),
        )
        width = sum(len(column.entries()) for column in found.columns)
        if found.columns and found.shape != (width,):
            raise ValueError(f"its columns fill {width} inputs and its shape is {found.shape}")
        if found.form == "array" and found.array is None:
            raise ValueError("it names neither columns nor an array nor text")
        return found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise FileDamaged(
            f"the signature in {where} is not what nacre writes ({said}); restore the file, or "
            "train again"
        ) from error


def _column(value: Mapping[str, Any]) -> Column:
    kind = _one_of(value["kind"], ("number", "category"))
    categories = _words(value["categories"])
    if (kind == "category") != bool(categories):
        raise ValueError(f"column {value['name']!r} is a {kind} with categories {categories}")
    return Column(
        _word(value["name"]), kind, _bound(value["low"]), _bound(value["high"]), categories
    )


def _text(value: Mapping[str, Any]) -> TextInputs:
    return TextInputs(
        _name(value["text"]),
        _name(value["prompt"]),
        _name(value["completion"]),
        _one_of(value["documents"], ("line", "paragraph")),
        _count(value["length"]),
        _one_of(value["cut"], ("end", "start")),
    )


def _one_of(value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} should be text")
    return value


def _name(value: Any) -> str | None:
    return None if value is None else _word(value)


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} should be a list")
    words: list[Any] = value
    return tuple(_word(word) for word in words)


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} should be a whole number of at least 1")
    return value


def _bound(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} should be a finite number")
    return value

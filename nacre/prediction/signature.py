"""What a finished model reads and answers: the public facts that rows are scored by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nacre.core.errors import FileDamaged
from nacre.core.theirs import version_of
from nacre.data import AnyData, Arrays, Column, Table, Text
from nacre.data.columns.column import ColumnCoding, ColumnKind, MissingPolicy
from nacre.data.columns.dates import Dates
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.columns.encode import fill_problem
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
    dialect: Dialect = PLAIN  # of files of rows
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
        drops = any(column.missing == "drop" for column in self.columns)
        drops = drops or (self.on_missing == "drop" and self.form == "text")
        return drops or self.on_out_of_range == "drop" or self.scores_text()

    def scores_text(self) -> bool:
        """Whether the answer is how likely a document is."""
        return self.task == "causal_lm"

    def to_json(self) -> dict[str, Any]:
        """As it stands under `signature` in model.json."""
        return asdict(self) | {"versions": dict(self.versions)}


def signature_of(data: AnyData) -> Signature:
    """The signature of a model that is trained on such data. Reads no row."""
    versions = tuple((name, version_of(name)) for name in ("nacre", "torch"))
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
        dialect=table.dialect if table else PLAIN,
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
            tuple(_column(column, value["on_missing"]) for column in value["columns"]),
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
            _dialect(value.get("dialect")),
            tuple((_word(name), _word(number)) for name, number in value["versions"].items()),
        )
        width = sum(len(column.layout()) for column in found.columns)
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


def _column(value: Mapping[str, Any], on_missing: Any) -> Column:
    """What stands there of one column; a signature that is older than a key of it says less."""
    kind = _one_of(value["kind"], get_args(ColumnKind))
    categories, edges = _words(value["categories"]), value.get("edges", [])
    dates = value.get("dates")
    fill = value.get("fill")
    found = Column(
        _word(value["name"]),
        kind,
        _bound(value["low"]),
        _bound(value["high"]),
        categories,
        other=_truth(value.get("other", False)),
        buckets=_count(value["buckets"]) if kind == "hash" else 0,
        yes=_words(value.get("yes", [])),
        no=_words(value.get("no", [])),
        dates=None if dates is None else Dates(**_plain_keys(dates)),
        coding=_one_of(value.get("coding", "plain"), get_args(ColumnCoding)),
        edges=tuple(_number(edge) for edge in edges),
        missing=_one_of(value.get("missing", on_missing), get_args(MissingPolicy)),
        fill=fill if isinstance(fill, str) else _bound(fill),
        flag=_truth(value.get("flag", False)),
    )
    whole = {
        "category": bool(categories), "boolean": bool(found.yes and found.no),
        "date": found.dates is not None, "hash": True, "number": True,
    }  # fmt: skip
    rises = all(a < b for a, b in zip(found.edges, found.edges[1:], strict=False))
    if not whole[kind] or (kind != "category" and categories):
        raise ValueError(f"column {found.name!r} is a {kind} with categories {categories}")
    if (found.coding != "plain") != (len(edges) > 1) or not rises:
        raise ValueError(f"column {found.name!r} has a coding with edges {found.edges}")
    if problem := fill_problem(found):
        raise ValueError(problem)
    return found


def _dialect(value: Mapping[str, Any] | None) -> Dialect:
    if value is None:  # of a model that is older than dialects
        return PLAIN
    found = Dialect(**_plain_keys(value))
    known = {
        "separator": (None, ",", ";", "|", "tab"), "quote": (None, '"', "'", "none"),
        "encoding": ("utf-8", "utf-8-sig", "latin-1", "cp1252"), "decimal": (".", ","),
        "thousands": (None, ",", ".", " ", "'"),
    }  # fmt: skip
    for name, words in known.items():
        _one_of(getattr(found, name), words)
    return found


def _plain_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """Texts, and lists of texts as tuples."""
    return {
        name: _words(each) if isinstance(each, list) else _name(each)
        for name, each in value.items()
    }


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
        raise ValueError(f"{value!r} is none of {', '.join(map(str, known))}")
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


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} should be true or false")
    return value


def _number(value: Any) -> float:
    found = _bound(value)
    if found is None:
        raise TypeError("a number is missing")
    return found


def _bound(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} should be a finite number")
    return value

"""The documents of one file, with what belongs to them: labels, groups, parties."""

# PartyCells of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from nacre.core.errors import DataError
from nacre.data.files import rows_named
from nacre.data.readers import (
    RawTable,
    as_number,
    is_missing,
    read_lines,
    read_table,
    suffix,
    text,
    unit_name,
)
from nacre.data.sketches.cells import Cells
from nacre.data.sketches.files import PartyCells, of_file, parts_of_file
from nacre.data.text.encode import Encoded, Encoder


class DocumentsOption(Protocol):
    """What reading documents needs of an option: the columns by role, and how rows are judged."""

    @property
    def task(self) -> Literal["classification", "regression", "causal_lm", "token_classification"]:
        """What is learnt."""
        ...

    @property
    def text(self) -> str | None:
        """The column that holds the documents."""
        ...

    @property
    def prompt(self) -> str | None:
        """The column of what is asked."""
        ...

    @property
    def completion(self) -> str | None:
        """The column of what is to be answered."""
        ...

    @property
    def documents(self) -> Literal["line", "paragraph"]:
        """What a document of a plain text is."""
        ...

    @property
    def label(self) -> str | None:
        """The column to predict."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Every value of the label."""
        ...

    @property
    def unit(self) -> str | None:
        """The column whose value is shared by all rows of one person."""
        ...

    @property
    def party(self) -> str | None:
        """The column that names who holds a row."""
        ...

    @property
    def on_missing(self) -> Literal["refuse", "drop"]:
        """What to do with a row that lacks its text or its label."""
        ...


DocumentForm = Literal["texts", "documents", "instructions", "tagged"]


@dataclass(frozen=True)
class Documents:
    """What one file says, row by row, before it becomes tokens."""

    file: Path
    option: DocumentsOption
    columns: dict[str, list[Any]]  # by role: text, prompt, completion, label, unit, party
    raw: RawTable  # of plain text the lines, whatever a document is
    notes: list[str] = field(default_factory=list[str])
    places: Sequence[int] | None = None  # of these in the file, from 0; None: all of it is here

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def group(self) -> tuple[str, ...] | None:
        """Whose each row is."""
        return tuple(self.columns["unit"]) if "unit" in self.columns else None

    @property
    def party(self) -> tuple[str, ...] | None:
        """Who holds each row."""
        return tuple(self.columns["party"]) if "party" in self.columns else None

    @property
    def tags(self) -> list[list[int]]:
        """The class of each word; empty unless words have classes."""
        return self.columns["label"] if self.form() == "tagged" else []

    def form(self) -> DocumentForm:
        """How these rows are learnt from."""
        if "prompt" in self.columns:
            return "instructions"
        forms: dict[str, DocumentForm] = {
            "causal_lm": "documents",
            "token_classification": "tagged",
        }
        return forms.get(self.option.task, "texts")

    def plain(self) -> list[str]:
        """Every piece of text, in the order of the file."""
        form = self.form()
        if form == "instructions":
            pairs = zip(self.columns["prompt"], self.columns["completion"], strict=True)
            return [piece for pair in pairs for piece in pair]
        if form == "tagged":
            return [word for row in self.columns["text"] for word in row]
        return list(self.columns["text"])

    def content(self) -> tuple[bytes, ...]:
        """A digest of each row, however it is tokenized."""
        said = [self.columns[role] for role in ("text", "prompt", "completion", "label")
                if role in self.columns]  # fmt: skip
        return tuple(
            hashlib.sha256(json.dumps(row, ensure_ascii=False).encode()).digest()
            for row in zip(*said, strict=True)
        )

    def cells(self) -> tuple[Cells, ...]:
        """What the file says, whatever of it is learnt."""
        return of_file(self.raw)

    def parts(self) -> PartyCells:
        """`cells` of each party; empty without a column of parties."""
        return parts_of_file(self.raw, self.option.party)

    def encoded(self, encoder: Encoder) -> Encoded:
        """The rows of tokens."""
        form, columns = self.form(), self.columns
        if form == "instructions":
            return encoder.instructions(columns["prompt"], columns["completion"])
        if form == "tagged":
            return encoder.tagged(columns["text"], self.tags)
        return (encoder.documents if form == "documents" else encoder.texts)(columns["text"])

    def labels(self) -> Tensor:
        """(N,) int64 classes, or float32 numbers to be predicted."""
        kind = torch.float32 if self.option.task == "regression" else torch.int64
        return torch.tensor(self.columns["label"], dtype=kind)


def read_documents(
    option: DocumentsOption, folder: Path, path: str, *, keyed: bool = False
) -> Documents:
    """The documents of a file; `keyed` ones say whose they are. Raises `DataError`."""
    if suffix(path) == ".txt":
        raw = read_lines(folder, path)
        found = split_documents(list(map(str, raw.columns[""])), option.documents)
        if not found:
            raise DataError(f"{raw.file} holds no document, so there is nothing to learn from")
        return Documents(raw.file, option, {"text": found}, raw)
    return _Reader(option, read_table(folder, path)).documents(keyed=keyed)


def split_documents(lines: Sequence[str], documents: Literal["line", "paragraph"]) -> list[str]:
    """The documents of a plain file; empty lines are none.

    >>> split_documents(["a", "b", "", "c"], "paragraph")
    ['a\\nb', 'c']
    """
    if documents == "line":
        return [line for line in lines if line.strip()]
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(paragraph) for paragraph in found if paragraph]


class _Reader:
    """One table while it is read: which rows stay."""

    def __init__(self, option: DocumentsOption, raw: RawTable) -> None:
        self._option, self._raw = option, raw
        self._keep = [True] * len(raw)
        self._notes: list[str] = []

    def documents(self, *, keyed: bool) -> Documents:
        """The rows that have all of their values."""
        option = self._option
        tagged = option.task == "token_classification"
        read: dict[str, Callable[[object], Any]] = {
            "text": as_words if tagged else as_document,
            "prompt": as_document,
            "completion": as_document,
            "label": self._tags if tagged else self._label,
        }
        if keyed:
            read |= {"unit": _name, "party": _name}
        columns = {
            role: self._column(name, one)
            for role, one in read.items()
            if (name := getattr(option, role)) is not None
        }
        if tagged:
            self._one_tag_a_word(columns["text"], columns["label"])
        places = [place for place, kept in enumerate(self._keep) if kept]
        kept = {role: [column[i] for i in places] for role, column in columns.items()}
        return Documents(self._raw.file, option, kept, self._raw, self._notes, places)

    def _column(self, name: str, read: Callable[[object], Any]) -> list[Any]:
        """Each value as `read` gives it; those that it gives None for are judged."""
        given = self._raw.column(name)
        if broken := [i for i, value in enumerate(given) if half_characters(value)]:
            raise DataError(
                f"{self._raw.file} column {name!r}: half a character (a lone surrogate) in "
                f"{rows_named(broken)}; write the text as UTF-8 anew",
                column=name,
            )
        values = [read(value) for value in given]
        lacking = [i for i, value in enumerate(values) if value is None and self._keep[i]]
        if lacking and self._option.on_missing == "refuse":
            raise DataError(
                f"{self._raw.file} column {name!r}: there is no value in {rows_named(lacking)}; "
                "fill them or set `on_missing: drop`",
                column=name,
            )
        for place in lacking:
            self._keep[place] = False
        if lacking:
            self._notes.append(
                f"{self._raw.file}: dropped {rows_named(lacking)}, no value in {name!r}"
            )
        return values

    def _label(self, value: object) -> int | float | None:
        if self._option.task == "regression":
            if is_missing(value):
                return None
            found = as_number(value)
            if found is None or not math.isfinite(found):
                raise self._no_label(value, "a finite number")
            return found
        if text(value) in self._option.classes:
            return self._option.classes.index(text(value))
        if is_missing(value):
            return None
        raise self._no_label(value, f"one of the classes {', '.join(self._option.classes)}")

    def _tags(self, value: object) -> list[int] | None:
        if not isinstance(value, list):
            return None
        given: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        found = [self._label(tag) for tag in given]
        return None if None in found else [int(tag) for tag in found if tag is not None]

    def _no_label(self, value: object, wanted: str) -> DataError:
        values = self._raw.column(self._option.label or "")
        places = [i for i, other in enumerate(values) if _holds(other, value)]
        return DataError(
            f"{self._raw.file} column {self._option.label!r}: {text(value)!r} is not {wanted} in "
            f"{rows_named(places)}; correct it, or `classes`",
            column=self._option.label,
        )

    def _one_tag_a_word(self, words: list[Any], tags: list[Any]) -> None:
        unequal = [i for i, kept in enumerate(self._keep) if kept and len(words[i]) != len(tags[i])]
        if unequal:
            raise DataError(
                f"{self._raw.file}: words and classes differ in number in {rows_named(unequal)}; "
                "give each word one class",
                column=self._option.label,
            )


def half_characters(value: object) -> bool:
    """Whether text holds what JSON can escape and no encoding can write."""
    if isinstance(value, list):
        return any(half_characters(part) for part in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return (
        isinstance(value, str)
        and not value.isascii()
        and any("\ud800" <= c <= "\udfff" for c in value)
    )


def _holds(entry: object, value: object) -> bool:
    return entry == value or (isinstance(entry, list) and value in entry)


def as_document(value: object) -> str | None:
    """Text with something in it; None otherwise. `none` and `NA` are words like others here."""
    return value if isinstance(value, str) and value.strip() else None


def as_words(value: object) -> list[str] | None:
    """The words of a list that has some; None otherwise."""
    if not isinstance(value, list) or not value:
        return None
    return [str(word) for word in value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _name(value: object) -> str | None:
    return None if is_missing(value) else unit_name(value)

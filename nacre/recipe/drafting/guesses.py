"""What the name of a column suggests. A guess from a name knows nothing of the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nacre.data.reading.header import ColumnForm


@dataclass(frozen=True)
class ColumnGuess:
    """What a column may be: a number, whose ends are None where they are to be filled in;
    categories, of which none may be known; or one to drop."""

    kind: Literal["number", "categories", "drop"]
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    why: str = ""
    """Where it is from, as a comment says it; "" where nothing was known."""


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAME = "guess from the name"
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "age": (0, 120), "bmi": (5, 100), "pulse": (0, 300), "heartrate": (0, 300),
    "systolic": (0, 350), "diastolic": (0, 250), "spo2": (0, 100),
    "percent": (0, 100), "percentage": (0, 100), "pct": (0, 100), "probability": (0, 1),
    "latitude": (-90, 90), "lat": (-90, 90), "longitude": (-180, 180), "lon": (-180, 180),
    "lng": (-180, 180), "year": (1900, 2100), "month": (1, 12), "hour": (0, 24),
    "minute": (0, 60), "weekday": (0, 7),
    "count": (0, None), "num": (0, None), "quantity": (0, None),
    "qty": (0, None), "children": (0, None), "duration": (0, None), "distance": (0, None),
    "height": (0, None), "weight": (0, None), "length": (0, None), "width": (0, None),
}  # fmt: skip
_NUMBERS = _word_set(
    "income salary wage price cost amount balance total sum score rate ratio temperature "
    "pressure level size speed area volume mean std min max value days hours minutes months "
    "years"
)
_CATEGORIES = _word_set(
    "sex gender country state region city ward department type kind category class group "
    "status race ethnicity marital education occupation job language color colour grade "
    "zone currency diagnosis"
)
_TRUTHS = frozenset({"is", "has", "was", "had", "flag"})
_DROPPED = _word_set(
    "id ids uuid guid name surname firstname lastname email mail phone address ssn iban url "
    "ip comment comments note notes description timestamp date datetime"
)
_PEOPLE = _word_set(
    "patient person people customer client user subject household member student employee"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]?(?![0-9])|[0-9]+")


def name_guess(name: str, form: ColumnForm) -> ColumnGuess:
    """What a name and, in Parquet, a type suggest.

    >>> name_guess("AgeAtVisit", "unknown").high, name_guess("patient_id", "unknown").kind
    (120, 'drop')
    >>> name_guess("q7", "unknown")
    ColumnGuess(kind='number', low=None, high=None, categories=(), why='')
    """
    if form == "truth":
        return ColumnGuess("categories", categories=("false", "true"), why="by its type")
    if form == "other":
        return ColumnGuess("drop", why="by its type: neither number nor text")
    words = _words(name)
    known = set(words)
    if names_people(name):
        return ColumnGuess("drop", why=_NAME)
    # The coarser word says more: an age group is no age, and a date of birth no birth.
    if words and (known & _DROPPED) and not known & {"type", "kind", "group"}:
        return ColumnGuess("drop", why=_NAME)
    if form != "number" and (known & _CATEGORIES or (words[:1] and words[0] in _TRUTHS)):
        return ColumnGuess("categories", why=_NAME)
    if form == "text":
        return ColumnGuess("categories", why="by its type")
    if not known & _CATEGORIES:
        for word in ["".join(words), *words]:
            if word in _RANGES and not (known & _NUMBERS):
                low, high = _RANGES[word]
                return ColumnGuess("number", low, high, why=_NAME)
    if form == "number" or known & _NUMBERS:
        return ColumnGuess("number", why="by its type" if form == "number" else _NAME)
    return ColumnGuess("number")


def names_people(name: str) -> bool:
    """Whether the values may tell people apart, several rows of whom are one unit.

    >>> names_people("patient_id"), names_people("patient_age")
    (True, False)
    """
    words = set(_words(name))
    return bool(words & _PEOPLE) and words <= _PEOPLE | {"id", "no", "nr", "number", "key", "name"}


_TEXT_NAMES = {
    "text": "text texts document documents content body review sentence message comment tweet post "
    "utterance transcript abstract note notes description report",
    "label": "label labels target class sentiment category topic intent rating stars score",
    "prompt": "prompt instruction question query input",
    "completion": "completion response answer reply output",
}
"""Role of a column of texts -> words of its name, those that say most before others."""
_ASIDE = _word_set("id ids uuid date time length count number language type source")
"""Words of a column that says something about a text or a label and is none."""
_WRITERS = _word_set("author authors writer reviewer speaker sender contributor")


def text_column(role: str, columns: Mapping[str, ColumnForm]) -> str | None:
    """The column whose name suggests this role; None where none does. A name that is a word of the
    role comes before one that holds it, as `review` before `review title`.

    >>> header = {"review_id": "unknown", "Review": "unknown", "stars": "number"}
    >>> text_column("text", header), text_column("label", header), text_column("prompt", header)
    ('Review', 'stars', None)
    """
    offered = {
        name: _words(name) for name, form in columns.items()
        if role == "label" or form in ("unknown", "text")
    }  # fmt: skip
    for word in _TEXT_NAMES[role].split():
        whole = [name for name, words in offered.items() if words == [word]]
        part = [name for name, words in offered.items() if word in words and not _ASIDE & {*words}]
        if found := whole + part:
            return found[0]
    return None


def is_writer(name: str) -> bool:
    """Whether the values may tell whose a text is.

    >>> is_writer("author_id"), is_writer("title")
    (True, False)
    """
    words = set(_words(name))
    return names_people(name) or (bool(words & _WRITERS) and words <= _WRITERS | {"id", "name"})


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]

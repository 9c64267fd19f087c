"""What a page is made of. The template draws each kind of block in one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class TextBlock:
    """A paragraph; an aside is set smaller."""

    block: ClassVar[str] = "text"
    text: str
    aside: bool = False


@dataclass(frozen=True)
class Listing:
    """A list of sentences, in two columns where there is room."""

    block: ClassVar[str] = "listing"
    items: Sequence[str]


@dataclass(frozen=True)
class Terms:
    """Terms, whether each is on, and a sentence about it."""

    block: ClassVar[str] = "terms"
    items: Sequence[tuple[str, bool, str]]


@dataclass(frozen=True)
class CodeBlock:
    """Text as it stands in a file or on a command line."""

    block: ClassVar[str] = "code"
    label: str  # for those who cannot see it
    text: str


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    detail: str = ""  # a second, quieter line
    title: str = ""  # the whole of a text that is shown short
    number: bool = False  # set on the right, so that digits stand under each other


@dataclass(frozen=True)
class TableBlock:
    """A table whose rows have their name in the first column."""

    block: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    stacked: bool = False  # on a narrow screen each row becomes a list of its cells


@dataclass(frozen=True)
class FactList:
    """Names and what is known of each; what only people know is left for them to fill in."""

    block: ClassVar[str] = "facts"
    heading: str
    items: Sequence[tuple[str, str]]  # (name, text); a text of "" is a blank


@dataclass(frozen=True)
class Figure:
    """A chart with what it shows in words."""

    svg: Markup
    heading: str
    caption: str


@dataclass(frozen=True)
class Figures:
    """Charts, side by side where there is room."""

    block: ClassVar[str] = "figures"
    items: Sequence[Figure]


@dataclass(frozen=True)
class Example:
    """A picture before and after an attack, and what changed, as `data:` addresses."""

    panels: Sequence[tuple[str, str]]  # (address, what it shows)
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Attacked pictures."""

    block: ClassVar[str] = "gallery"
    items: Sequence[Example]


@dataclass(frozen=True)
class ChangedText:
    """A text with the words that an attack replaced, and what came of it."""

    parts: Sequence[tuple[str, str | None]]  # a stretch, and what replaced it
    caption: str


@dataclass(frozen=True)
class ChangedTexts:
    """Attacked texts."""

    block: ClassVar[str] = "changed_texts"
    items: Sequence[ChangedText]


@dataclass(frozen=True)
class Fold:
    """Blocks that stay closed until a reader opens them; on paper they are open."""

    block: ClassVar[str] = "fold"
    summary: str
    blocks: Sequence[AnyBlock]


@dataclass(frozen=True)
class Beside:
    """Paragraphs with a figure beside them, where there is room."""

    block: ClassVar[str] = "beside"
    texts: Sequence[str]
    figure: Figure


AnyBlock = (
    TextBlock
    | Listing
    | Terms
    | CodeBlock
    | TableBlock
    | FactList
    | Figures
    | Gallery
    | ChangedTexts
    | Fold
    | Beside
)


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading."""

    name: str  # of its anchor
    heading: str
    blocks: Sequence[AnyBlock]


@dataclass(frozen=True)
class Stat:
    """A key figure: what it is, the figure, and what it has to be read with."""

    label: str
    value: str
    detail: str
    measured: bool = True
    private: bool = False  # from private rows: for their holder alone

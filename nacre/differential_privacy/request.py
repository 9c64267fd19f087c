"""What a run asks of an account before its first step, in public numbers alone."""

from __future__ import annotations

import json
import operator
import unicodedata
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from nacre.core.errors import BadArgument
from nacre.core.strict import canonical
from nacre.core.types import Adjacency, Unit
from nacre.differential_privacy.events import require_priced
from nacre.differential_privacy.events_json import from_json, to_json

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

PLANNED = "(planned)"
"""The name of a run that is priced before it has one."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run asks for: declared, public numbers only. Raises `ValueError` for a bad one.

    The event is kept as the text that a ledger records, so what is priced is what is recorded.
    `of` takes the event itself, `Mechanism.request` writes the request of a mechanism.
    """

    run: str
    step: str  # canonical JSON of the event of one step
    steps: int
    unit: Unit
    adjacency: Adjacency
    rows_per_unit: int | None  # rows that a group holds at most
    span: int = 1  # steps that one event covers: the first pays for the others
    column: str = ""  # whose values tell units apart; "" for rows

    def __post_init__(self) -> None:
        require_column(self.unit, self.column)
        require_choice("unit", self.unit, Unit)
        require_choice("adjacency", self.adjacency, Adjacency)
        if not self.run:
            raise BadArgument("run='' must be a name")
        if type(self.steps) is not int or self.steps < 1:
            raise BadArgument(f"steps={self.steps} must be at least 1")
        if type(self.span) is not int or self.span < 1:
            raise BadArgument(f"span={self.span} must be at least 1")
        if self.rows_per_unit is not None and self.rows_per_unit < 1:
            raise BadArgument(f"rows_per_unit={self.rows_per_unit} must be at least 1")

    @classmethod
    def of(
        cls,
        run: str,
        event: DpEvent,
        *,
        steps: int = 1,
        unit: Unit,
        adjacency: Adjacency,
        rows_per_unit: int | None = None,
        span: int = 1,
        column: str = "",
    ) -> Request:
        """The request of a run of `steps` steps.

        `event` is that of one step, with noise in units of its sensitivity under `adjacency`; where
        `span` is above 1, that of `span` steps together, which is charged with the first of them.
        `rows_per_unit` is how many rows a group holds at most: what a grant for groups needs to
        cover a run that protects single rows. `column` is the one whose values tell units apart.

        Raises `UnsupportedEvent` where the event has no price.
        """
        require_priced(event, adjacency)
        return cls(
            run=run,
            step=canonical(to_json(event)),
            steps=operator.index(steps),
            unit=unit,
            adjacency=adjacency,
            rows_per_unit=rows_per_unit,
            span=operator.index(span),
            column=unicodedata.normalize("NFC", column),
        )

    @property
    def event(self) -> DpEvent:
        """The event of one step, or of `span` of them."""
        return from_json(json.loads(self.step))

    @property
    def count(self) -> int:
        """Events of the whole run."""
        return self.counted(self.steps)

    def counted(self, steps: int) -> int:
        """Events that this many steps amount to."""
        return -(-steps // self.span)

    def to_content(self) -> dict[str, Any]:
        """As JSON, the event readable in place; `span` and `column` where they say something."""
        content = {**asdict(self), "step": json.loads(self.step)}
        if self.span == 1:
            del content["span"]
        if not self.column:
            del content["column"]
        return content


def require_column(unit: str, column: object) -> None:
    """Raises `ValueError` for a column that is no text, or that tells single rows apart."""
    if not isinstance(column, str):
        raise BadArgument(f"column={column!r} must be a name")
    if column and unit == "example":
        raise BadArgument(f"column={column!r} has no meaning for unit=example, which is a row")


def require_choice(name: str, value: object, choices: Any) -> None:
    """Raises `ValueError` unless `value` is one of a `Literal`'s."""
    if value not in get_args(choices):
        raise BadArgument(f"{name}={value!r} must be one of {', '.join(get_args(choices))}")

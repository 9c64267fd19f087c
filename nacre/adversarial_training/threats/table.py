"""How far an attack may move a row of a table, as a recipe says it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

from nacre.adversarial_training.threats.names import entry_names, unknown_name
from nacre.adversarial_training.threats.relations import (
    RatioRelation,
    RelationOption,
    contradictory,
)
from nacre.adversarial_training.threats.table_region import CategoryGroup, TableRegion
from nacre.core import require
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.types import FeatureSpace


@dataclass(frozen=True, kw_only=True)
class ColumnMove:
    """How an attacker may move one column."""

    only: Literal["both", "increase", "decrease", "none"] = "both"
    """Which way a number may go; `none` for a column that stands in a relation and stays."""
    reach: float | None = None
    """How far a number may go from its clean value, in its own unit; absent: anywhere from `low`
    to `high`."""
    low: float | None = None
    """Smallest value that an attacker can give it; the declared range of the column holds too."""
    high: float | None = None
    """Largest value that an attacker can give it."""
    integer: bool = False
    """Whether it holds whole numbers."""
    cost: float = 0.0
    """What a move by one unit of the column costs, or, of a category, another one."""

    def __post_init__(self) -> None:
        require.not_infinite("; leave it out for no bound", low=self.low, high=self.high)
        require.positive("; `only: none` stays", reach=self.reach)
        require.not_negative(cost=self.cost)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise BadArgument(f"low={self.low} must not be above high={self.high}")

    def for_category(self) -> bool:
        """Whether all that it says can be said of a category, which has no more or less."""
        return replace(self, only="both", cost=0.0) == ColumnMove() and self.only in (
            "both",
            "none",
        )


@dataclass(frozen=True, kw_only=True)
class TableThreat:
    """Rows that an attacker could have handed in instead: of the columns that are named here, in
    their own units; every other column stays.

    A category moves as a whole, to another of its categories. All that is declared holds in each
    attacked row, in the columns' own units: ranges, directions, whole numbers, relations and the
    budget. A clean row that breaks a relation itself is held to its own excess: no attack makes it
    larger.

    >>> space = FeatureSpace((2,), names=("age", "debt"))
    >>> threat = TableThreat(columns={"debt": ColumnMove(reach=100, only="decrease")})
    >>> threat.region(space).radii
    tensor([  0., 100.])
    """

    kind: Literal["table"] = "table"
    columns: dict[str, ColumnMove]
    """The columns that may move, and how."""
    relations: tuple[RelationOption, ...] = ()
    """What holds between numbers, clean and attacked; columns that stay may take part."""
    budget: float | None = None
    """What all moves of a row may cost together; absent: nothing is counted."""
    share: float = field(default=1.0, compare=False)  # of every reach and the budget; no key

    def __post_init__(self) -> None:
        if all(move.only == "none" for move in self.columns.values()):
            raise BadArgument("columns must name at least one column that may move")
        require.positive(budget=self.budget)
        require.not_negative(share=self.share)
        costs = any(move.cost > 0 for move in self.columns.values())
        if costs and self.budget is None:
            raise BadArgument("a column has a `cost` and no `budget` is given: give the row one")
        if self.budget is not None and not costs:
            raise BadArgument(f"budget={self.budget:g} and no column has a `cost`: give it one")

    @property
    def radius(self) -> float:
        """The share, 1 of the threat that a recipe names."""
        return self.share

    @property
    def unit(self) -> str:
        """What `radius` counts."""
        return "threat"

    def sentence(self) -> str:
        """How many columns move, and what holds meanwhile."""
        moving = [name for name, move in self.columns.items() if move.only != "none"]
        words = f"a table threat on {', '.join(moving)}"
        if self.relations:
            several = "relation" if len(self.relations) == 1 else "relations"
            words += f" under {len(self.relations)} {several}"
        return words + (f" and a budget of {self.budget:g}" if self.budget is not None else "")

    def scaled(self, share: float) -> Self:
        """The threat with every reach and the budget times `share`; smaller ones lie inside larger
        ones. Categories move at every share above 0 that can pay them."""
        return replace(self, share=self.share * share)

    def names(self) -> Iterator[tuple[str, str]]:
        """(key, column) of every column that is named."""
        yield from ((f"columns.{name}", name) for name in self.columns)
        for number, relation in enumerate(self.relations):
            for key, name in relation.columns.items():
                yield f"relations[{number}].{key}", name

    def region(self, space: FeatureSpace) -> TableRegion:
        """The rows that may be chosen, in the model's own units.

        Raises `Incompatible` for a name that the data lack, for a declaration that does not fit
        its column, and for relations that no row within the declared ranges keeps.
        """
        return _Drawn(self, space).region().scaled(self.share)


class _Drawn:
    """The declarations as one tensor for each, over the entries of an input."""

    def __init__(self, threat: TableThreat, space: FeatureSpace) -> None:
        if len(space.shape) != 1 or not space.names:
            raise Incompatible(
                "a threat of kind `table` moves named columns, and these inputs have none: use a "
                "ball (`kind: linf`)"
            )
        self.threat, self.space = threat, space
        self.entries = entry_names(space)
        size = len(self.entries)
        self.scale, self.offset, self.low, self.high = (
            t.broadcast_to(space.shape).float()
            for t in (space.scale, space.offset, space.low, space.high)
        )
        scale, offset = self.scale.double(), self.offset.double()
        self.least = torch.maximum(self.low.double() * scale + offset, space.least)
        self.most = torch.minimum(self.high.double() * scale + offset, space.most)
        self.declared = self._ranges()
        self.reach = torch.zeros(size, dtype=torch.float64)
        self.price = torch.zeros(size, dtype=torch.float64)
        self.up, self.down, self.whole = (torch.zeros(size, dtype=torch.bool) for _ in range(3))
        self.groups: list[CategoryGroup] = []

    def region(self) -> TableRegion:
        for name, move in self.threat.columns.items():
            self._put(name, move)
        weights, bounds = self._relations()
        steps = torch.minimum(self.reach, self.most - self.least)
        for group in self.groups:
            steps[list(group.places)] = 1
        radii = torch.where(steps > 0, steps / self.scale.double(), 0.0).float()
        return TableRegion(
            radii=radii, low=self.low, high=self.high, scale=self.scale, offset=self.offset,
            least=self.least, most=self.most, reach=self.reach, up=self.up, down=self.down,
            whole=self.whole, price=self.price, flag=self._flags(), groups=tuple(self.groups),
            weights=weights, bounds=bounds,
            budget=math.inf if self.threat.budget is None else self.threat.budget,
        )  # fmt: skip

    def _ranges(self) -> tuple[dict[str, float], dict[str, float]]:
        """Entry -> its declared least and most, or those of its inputs where none is declared."""

        def ends(declared: Tensor, own: Tensor) -> dict[str, float]:
            values = torch.where(declared.isfinite(), declared.double(), own)
            return dict(zip(self.entries, values.tolist(), strict=True))

        return ends(self.space.least, self.least), ends(self.space.most, self.most)

    def _put(self, name: str, move: ColumnMove) -> None:
        key = f"columns.{name}"
        places = [i for i, entry in enumerate(self.entries) if entry.startswith(f"{name}=")]
        if name in self.entries:
            self._number(name, self.entries.index(name), move)
        elif name in self.space.choices:
            self._category(name, places, move)
        elif places:
            raise Incompatible(
                f"the inputs of {name!r} are coded (ranges, a hash or parts of a date), and no "
                "attack moves these: leave it out of the threat, or drop its coding",
                key=key,
            )
        else:
            columns = tuple(dict.fromkeys((*self.entries, *self.space.choices)))
            raise Incompatible(unknown_name(name, columns), key=key)

    def _number(self, name: str, place: int, move: ColumnMove) -> None:
        key = f"columns.{name}"
        if move.low is not None:
            self.least[place] = max(float(self.least[place]), move.low)
        if move.high is not None:
            self.most[place] = min(float(self.most[place]), move.high)
        if not float(self.scale[place]) > 0:
            raise Incompatible(f"{name!r} has scale 0 and so no unit: leave it out", key=key)
        if not self.least[place] <= self.most[place]:
            raise Incompatible(
                f"{name!r} cannot lie between {float(self.least[place]):g} and "
                f"{float(self.most[place]):g}: its declared range and its `low` and `high` here do "
                "not meet",
                key=key,
            )
        self.whole[place] = move.integer
        if move.only == "none":
            return
        width = float(self.most[place] - self.least[place])
        reach = width if move.reach is None else move.reach
        if not reach < math.inf:
            raise Incompatible(
                f"{name!r} has no range and no `reach`, so nothing says how far it may move: give "
                "it one",
                key=key,
            )
        self.reach[place], self.price[place] = reach, move.cost
        self.up[place] = move.only != "decrease"
        self.down[place] = move.only != "increase"

    def _category(self, name: str, places: list[int], move: ColumnMove) -> None:
        if not move.for_category():
            raise Incompatible(
                f"{name!r} holds categories, which have a `cost` and nothing else: leave out "
                "`reach`, `low`, `high`, `integer` and the direction",
                key=f"columns.{name}",
            )
        if move.only == "none":
            return
        if len(places) > 1:
            self.groups.append(CategoryGroup(tuple(places), move.cost, self._flag_of(name)))
            return
        place = places[0]  # a yes or no is a number: 0 or 1
        self.whole[place], self.reach[place], self.price[place] = True, 1.0, move.cost
        self.up[place] = self.down[place] = True

    def _flags(self) -> Tensor:
        """(D,) int64: where the entry stands that says whether this one was missing, or -1."""
        flags = torch.full((len(self.entries),), -1)
        for place, entry in enumerate(self.entries):
            single = entry.split("=")[0] if entry not in self.threat.columns else entry
            flags[place] = self._flag_of(single)
        return flags

    def _flag_of(self, column: str) -> int:
        flag = f"{column} (missing)"
        return self.entries.index(flag) if flag in self.entries else -1

    def _relations(self) -> tuple[Tensor, Tensor]:
        """(K, D) and (K,): weights @ raw <= bounds."""
        rows: list[Tensor] = []
        bounds: list[float] = []
        for number, relation in enumerate(self.threat.relations):
            place = f"relations[{number}]"
            for key, name in relation.columns.items():
                self._known_number(name, f"{place}.{key}")
            if isinstance(relation, RatioRelation):
                self._never_negative(relation.over, f"{place}.over")
            for key, fault in relation.impossible(*self.declared):
                raise Incompatible(fault, key=f"{place}.{key}")
            for weights, bound in relation.halfspaces():
                row = torch.zeros(len(self.entries), dtype=torch.float64)
                for name, weight in weights.items():
                    row[self.entries.index(name)] = weight
                rows.append(row)
                bounds.append(bound)
        self._keepable()
        none = torch.zeros(0, len(self.entries), dtype=torch.float64)
        return torch.stack(rows) if rows else none, torch.tensor(bounds, dtype=torch.float64)

    def _keepable(self) -> None:
        """Raises `Incompatible` for relations that no row within the declared ranges keeps
        together."""
        relations = self.threat.relations
        found = contradictory(relations, *self.declared) if len(relations) > 1 else ()
        if found:
            named = [f"relations[{place}] ({relations[place].sentence()})" for place in found]
            raise Incompatible(
                f"no row within the declared ranges keeps {', '.join(named[:-1])} and {named[-1]} "
                "together: mend or leave out one of them",
                key=f"relations[{found[-1]}]",
            )

    def _known_number(self, name: str, key: str) -> None:
        if name not in self.entries:
            if name in self.space.choices or any(e.startswith(f"{name}=") for e in self.entries):
                raise Incompatible(
                    f"{name!r} is no single number among the inputs, and relations are between "
                    "numbers: take it out",
                    key=key,
                )
            raise Incompatible(unknown_name(name, self.entries), key=key)

    def _never_negative(self, name: str, key: str) -> None:
        if not float(self.least[self.entries.index(name)]) >= 0:
            raise Incompatible(
                f"{name!r} may be negative, and a ratio over it then turns round: give it `low: 0` "
                "in `columns` (with `only: none` if it stays)",
                key=key,
            )

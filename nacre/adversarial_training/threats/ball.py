"""How far an attack may move an input, as a recipe says it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.names import entry_names, unknown_name
from nacre.adversarial_training.threats.region import Box, Ellipsoid, Region
from nacre.core import require
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.types import FeatureSpace


@dataclass(frozen=True, kw_only=True)
class Ball:
    """The inputs around a clean one that an attack may choose from.

    >>> space = FeatureSpace((2,), names=("age", "colour=red"), categorical=("colour=red",))
    >>> Ball(radius=0.5).region(space).radii
    tensor([0.5000, 0.0000])
    """

    kind: Literal["linf", "l2", "l1"] = "linf"
    """`linf` bounds the move of each entry, `l2` the length of the whole move, `l1` the sum of
    the moves of all entries."""
    radius: float
    """How far, at least 0; 0 forbids every move."""
    unit: Literal["scaled", "features"] = "scaled"
    """What `radius` is measured in: the model's scaled inputs, or the features' own units."""
    radii: dict[str, float] = field(default_factory=dict[str, float])
    """Radii of named features, in the features' own units; they take the place of `radius`."""
    frozen: tuple[str, ...] = ()
    """Names of features that never move. Categories never move anyway."""

    def __post_init__(self) -> None:
        require.not_negative(radius=self.radius)
        require.not_negative(**{f"radii[{name!r}]": r for name, r in self.radii.items()})
        both = sorted(self.radii.keys() & set(self.frozen))
        if both:
            raise BadArgument(f"frozen={both} have a radius in `radii` as well: remove one of them")

    def sentence(self) -> str:
        """The ball: its norm, its radius and what that is measured in, and the exceptions."""
        unit = "the features' own units" if self.unit == "features" else "scaled units"
        words = f"an {self.kind} ball of radius {self.radius:g} in {unit}"
        if self.radii:
            several = "feature" if len(self.radii) == 1 else "features"
            words += f" ({len(self.radii)} {several} with radii of their own)"
        return words + (f", {', '.join(self.frozen)} fixed" if self.frozen else "")

    def scaled(self, share: float) -> Self:
        """The ball with every radius times `share`; smaller ones lie inside larger ones."""
        radii = {name: radius * share for name, radius in self.radii.items()}
        return replace(self, radius=self.radius * share, radii=radii)

    def names(self) -> Iterator[tuple[str, str]]:
        """(key, column) of every column that is named."""
        yield from ((f"radii.{name}", name) for name in self.radii)
        yield from ((f"frozen[{number}]", name) for number, name in enumerate(self.frozen))

    def region(self, space: FeatureSpace) -> Region:
        """The ball in the model's own units.

        With `kind: l2` or `l1` and unequal radii it is ‖(x - centre) / radius‖ <= 1.
        Raises `Incompatible` for a name that the data lacks and for the radius of a category.
        """
        scale = space.scale.broadcast_to(space.shape).abs().float()
        if self.unit == "features" or self.radii:
            _refuse_constant(scale)
        radii = torch.full(space.shape, self.radius) / (1 if self.unit == "scaled" else scale)
        radii = self._named(radii, scale, space)
        low, high = (b.broadcast_to(space.shape).float() for b in (space.low, space.high))
        return _SHAPES[self.kind](radii, low, high)

    def _named(self, radii: Tensor, scale: Tensor, space: FeatureSpace) -> Tensor:
        """(*shape) radii with those of single features put in; fixed entries get 0."""
        moved, scales, entries = radii.flatten().clone(), scale.flatten(), entry_names(space)
        for name, radius in self.radii.items():
            places = _places(name, f"radii.{name}", entries, space)
            if any(_fixed(entries[place], space) for place in places):
                raise Incompatible(
                    f"{name!r} holds categories, which no small change exists for: remove its "
                    "radius",
                    key=f"radii.{name}",
                )
            moved[places] = radius / scales[places]
        for number, name in enumerate(self.frozen):
            moved[_places(name, f"frozen[{number}]", entries, space)] = 0
        moved[[place for place, entry in enumerate(entries) if _fixed(entry, space)]] = 0
        return moved.reshape(space.shape)


_SHAPES: dict[str, type[Region]] = {"linf": Box, "l2": Ellipsoid, "l1": Diamond}


def _refuse_constant(scale: Tensor) -> None:
    if not bool((scale > 0).all()):
        raise Incompatible(
            "a feature with scale 0 has no radius in its own units: use `unit: scaled` without "
            "`radii`, or drop the feature"
        )


def _of_column(entry: str, column: str) -> bool:
    """Whether an entry is the column itself, or one of its categories (`column=category`)."""
    return entry == column or entry.startswith(f"{column}=")


def _fixed(entry: str, space: FeatureSpace) -> bool:
    """Whether an entry belongs to a category; `space` may name the entry or its column."""
    return any(_of_column(entry, name) for name in space.categorical)


def _places(name: str, key: str, entries: tuple[str, ...], space: FeatureSpace) -> list[int]:
    """Where the feature that `key` names stands; a categorical column stands at each of its
    categories."""
    places = [
        place
        for place, entry in enumerate(entries)
        if entry == name or (_fixed(entry, space) and _of_column(entry, name))
    ]
    if not places:
        raise Incompatible(unknown_name(name, entries), key=key)
    return places

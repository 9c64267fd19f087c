"""Raw features to inputs of the model, by declared or public numbers; never by private rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nacre.core.errors import BadArgument, DataError, FileDamaged, Incompatible
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Rows, Schema


@dataclass(frozen=True, kw_only=True)
class PublicScaling:
    """Centre and divide by the mean and deviation of the public rows, then clamp."""

    kind: Literal["public"] = "public"
    clamp: float = 3.0
    """Largest input, in deviations of the public rows; what lies beyond is moved to it."""

    def sentence(self) -> str:
        """What inputs are scaled by."""
        return (
            f"scaled by mean and deviation of the public rows, clamped at {self.clamp:g} deviations"
        )

    def __post_init__(self) -> None:
        if not (self.clamp > 0 and math.isfinite(self.clamp)):
            raise BadArgument(f"clamp={self.clamp} must be > 0 and finite")


@dataclass(frozen=True, kw_only=True)
class DeclaredScaling:
    """Map each declared range to [-1, 1]."""

    kind: Literal["declared"] = "declared"

    def sentence(self) -> str:
        """What inputs are scaled by."""
        return "scaled from declared ranges to [-1, 1]"


@dataclass(frozen=True, kw_only=True)
class NoScaling:
    """Give the model the features as they are."""

    kind: Literal["none"] = "none"

    def sentence(self) -> str:
        """That nothing is scaled."""
        return "not scaled"


ScalingOption = PublicScaling | DeclaredScaling | NoScaling

SCALINGS: tuple[type[ScalingOption], ...] = get_args(ScalingOption)
"""Every scaling that a recipe can name; the laws run over them."""


@dataclass(frozen=True)
class Scaler:
    """`input = clamp((raw - offset) / scale, low, high)`, entry by entry.

    All four tensors are float32 and broadcast to the shape of one input. Categories pass as they
    are: offset 0, scale 1.
    """

    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def apply(self, rows: Rows, *, overwrite: bool = False) -> Rows:
        """The same rows with scaled features, (N, *shape) float32; tokens stay as they are.

        With `overwrite` they take the place of the raw ones in memory, which nobody may need again.
        """
        if not rows.features.is_floating_point():
            return rows
        scaled = rows.features if overwrite else torch.empty_like(rows.features)
        for given, into in zip(rows.features.split(_ROWS), scaled.split(_ROWS), strict=True):
            torch.sub(given, self.offset, out=into)
            into.div_(self.scale).clamp_(self.low, self.high)
        return replace(rows, features=scaled)

    def space(self, schema: Schema) -> FeatureSpace:
        """What the model's inputs mean; names are those of `schema.feature_names()`."""
        return replace(
            schema.space(), scale=self.scale, offset=self.offset, low=self.low, high=self.high
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists; an infinite bound is null, since JSON has no infinity."""
        return {
            name: {"shape": list(value.shape), "values": _finite_or_none(value)}
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scaler:
        """What `to_json` wrote. Raises `FileDamaged`."""
        missing = {"offset": math.nan, "scale": math.nan, "low": -math.inf, "high": math.inf}
        try:
            parts = {
                name: torch.tensor(
                    [other if x is None else float(x) for x in value[name]["values"]],
                    dtype=torch.float32,
                ).reshape(value[name]["shape"])
                for name, other in missing.items()
            }
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FileDamaged(f"a saved scaler cannot be read ({error})") from error
        if not (torch.isfinite(parts["offset"]).all() and (parts["scale"] > 0).all()):
            raise FileDamaged("a saved scaler holds an offset or a scale that is no number")
        return cls(**parts)


_ROWS = 1 << 12  # scaled at a time, while they are near the processor


def _finite_or_none(value: Tensor) -> list[float | None]:
    numbers: list[float] = value.double().reshape(-1).numpy().tolist()
    return [x if math.isfinite(x) else None for x in numbers]


def scaling_problem(option: ScalingOption, schema: Schema, has_public: bool) -> str | None:
    """Why this scaling cannot be fitted, with the remedy; None where it can. Reads no row."""
    if isinstance(option, PublicScaling) and not has_public:
        return (
            "scaling `public` needs public rows and the recipe declares none; add `public` to the "
            "data or use `scaling: {kind: declared}`"
        )
    if isinstance(option, DeclaredScaling):
        for name, low, high in schema.bounds():
            if low is None or high is None:
                return (
                    f"scaling `declared` needs a range and {name} has none; declare `low` and "
                    "`high` or use `scaling: {kind: none}`"
                )
    return None


def fit_scaling(option: ScalingOption, schema: Schema, public: Rows | None) -> Scaler:
    """The scaler of a run. Private rows never enter, so it costs no privacy.

    Raises `Incompatible` where ranges or public rows are missing, `DataError` for fewer than two
    public rows.
    """
    problem = scaling_problem(option, schema, public is not None)
    if problem:
        raise Incompatible(problem)
    low, high, category = _declared(schema)
    if isinstance(option, DeclaredScaling):
        one = torch.ones_like(low)
        raw = Scaler((low + high) / 2, (high - low) / 2, -one, one)
    elif isinstance(option, PublicScaling) and public is not None:
        raw = _standard(public, low, high, option.clamp)
    else:
        raw = Scaler(torch.zeros_like(low), torch.ones_like(low), low, high)
    return Scaler(
        torch.where(category, 0.0, raw.offset),
        torch.where(category, 1.0, raw.scale),
        torch.where(category, 0.0, raw.low),
        torch.where(category, 1.0, raw.high),
    )


def _declared(schema: Schema) -> tuple[Tensor, Tensor, Tensor]:
    """(low, high, whether an entry is a code); an undeclared bound is infinite."""
    space = schema.space()
    coded = [entry.coded for column in schema.columns for entry in column.layout()]
    category = torch.tensor(coded) if coded else torch.tensor(False)
    return space.low, space.high, category


def _standard(public: Rows, low: Tensor, high: Tensor, clamp: float) -> Scaler:
    """Mean 0 and deviation 1 on the public rows; per entry, or per channel of an image.

    An entry that is constant among the public rows keeps its own unit.
    """
    if len(public) < 2:
        raise DataError(
            f"scaling `public` needs at least 2 public rows and has {len(public)}; add public "
            "rows or use `scaling: {kind: declared}`"
        )
    values = public.features.double()
    axes = [0, *range(2, values.dim())]
    mean = values.mean(axes, keepdim=True)[0]
    deviation = values.std(axes, correction=0, keepdim=True)[0]
    deviation = torch.where(deviation > 1e-12 * (1 + mean.abs()), deviation, 1.0)
    bounds = [((bound - mean) / deviation).clamp(-clamp, clamp).float() for bound in (low, high)]
    return Scaler(mean.float(), deviation.float(), *bounds)

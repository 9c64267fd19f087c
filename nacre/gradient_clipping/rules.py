"""Clip rules: from the norms of a unit's gradient to the factors that it is scaled by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.parts import Clip
from nacre.core.types import Release, Tensors

SHORTEST, LONGEST = 1e-12, 1e12
"""Lengths of gradients at which float32 sums still have all their digits."""

ROUNDING = 2.0**-22
"""Slack for float32: rounding the factor and then the product costs at most 2**-23 together."""


UNIT = "Each unit's gradient"
"""What a rule scales where units are rows or groups of them."""


class FixedRule:
    """What rules share whose bound never moves and that add no entry of their own to a sum."""

    one_factor: ClassVar[bool] = True

    def facts(self: Clip) -> dict[str, Any]:
        """Kind and bound, as plan.json has them."""
        return rule_facts(self)

    def extras(self, norms: Tensor) -> Tensors:
        """Nothing."""
        return {}

    def after(self, release: Release, expected: float) -> Self:
        """Itself."""
        return self

    def moved(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def at(self, moved: Mapping[str, float]) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True, kw_only=True)
class Flat(FixedRule):
    """Scale each unit's whole gradient down to `norm`; a shorter one stays as it is.

    *Guarantee:* a gradient of the norm it is asked about (exact to 2**-40), times its factor in
    float32, is no longer than `norm`. The factor is 1 for a norm of zero and 0 for one that is
    not finite.

    >>> Flat(norm=1.0).factors(torch.tensor([[0.5], [0.0], [float("nan")]])).tolist()
    [[1.0], [1.0], [0.0]]

    *Source:* Abadi et al. 2016, "Deep Learning with Differential Privacy",
    https://arxiv.org/abs/1607.00133, algorithm 1.
    """

    kind: Literal["flat"] = "flat"
    norm: float = 1.0
    """The longest that one unit's gradient may be (L2, over all trained parameters)."""

    def __post_init__(self) -> None:
        require_positive("norm", self.norm)

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group: the joint norm counts."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G)"""
        return down(norms, self.norm)

    def bound(self, groups: int) -> float:
        """`norm` for each group, jointly."""
        return self.norm * math.sqrt(groups)

    def sentence(self, share: str = UNIT) -> str:
        """The rule with its norm."""
        return f"{share} is scaled down to an L2 norm of at most {self.norm:g}."


@dataclass(frozen=True, kw_only=True)
class Automatic(FixedRule):
    """Scale each unit's whole gradient to almost `norm`, the long and the short alike.

    The factor is `norm / (length + stability)`: what counts is a gradient's direction, so `norm`
    only multiplies the learning rate and need not be tuned.

    *Guarantee:* that of `Flat`; a gradient that is scaled up is no longer than `norm` either. A
    gradient of zero stays zero.

    >>> factors = Automatic(norm=1.0, stability=0.5).factors(torch.tensor([[0.5], [1.5]]))
    >>> factors.round(decimals=4).tolist()
    [[1.0], [0.5]]

    *Source:* Bu, Wang, Zha & Karypis 2023, "Automatic Clipping: Differentially Private Deep
    Learning Made Easier and Stronger", https://arxiv.org/abs/2206.07136 ("AUTO-S").
    """

    kind: Literal["automatic"] = "automatic"
    norm: float = 1.0
    """What every unit's gradient is scaled to, almost (L2, over all trained parameters)."""
    stability: float = 0.01
    """Added to a gradient's length before it divides, in units of the gradient: a gradient much
    shorter than this stays short, so that units which are fitted already count little."""

    def __post_init__(self) -> None:
        require_positive("norm", self.norm)
        require_length("stability", self.stability)

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group: the joint norm counts."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G)"""
        factors = self.norm * (1 - ROUNDING) / (norms.double() + self.stability)
        factors = factors.to(norms.dtype)
        return torch.where(torch.isfinite(norms), factors, torch.zeros_like(norms))

    def bound(self, groups: int) -> float:
        """`norm` for each group, jointly."""
        return self.norm * math.sqrt(groups)

    def sentence(self, share: str = UNIT) -> str:
        """The rule with its norm and its stability."""
        return (
            f"{share} is scaled to an L2 norm of almost {self.norm:g}, whatever its length "
            f"(stability {self.stability:g})."
        )


@dataclass(frozen=True, kw_only=True)
class PerLayer(FixedRule):
    """Scale each unit's gradient down part by part: each layer has a norm and a factor of its own.

    Either `norm` is shared out evenly, each of G parts getting `norm / sqrt(G)`, or `norms` names
    the parts and says how much each gets.

    *Guarantee:* the parts together are no longer than `norm`, or the root of the squares of
    `norms` added up, whatever their number. With one part it is `Flat`.

    >>> PerLayer(norm=1.0).groups(["0.weight", "0.bias", "2.weight"])
    [['0.weight', '0.bias'], ['2.weight']]
    >>> PerLayer(norms={"0": 3.0, "2": 4.0}).bound(2)
    5.0

    *Source:* McMahan, Ramage, Talwar & Zhang 2018, "Learning Differentially Private Recurrent
    Language Models", https://arxiv.org/abs/1710.06963 ("per-layer clipping").
    """

    kind: Literal["per_layer"] = "per_layer"
    norm: float | None = None
    """The longest that the whole may be (L2), shared out evenly; absent where `norms` is given."""
    norms: dict[str, float] | None = None
    """The longest that each part may be, by the beginning of its parameters' names, as
    `{encoder: 0.3, head: 0.1}`. The longest beginning counts; each parameter needs one."""
    by: Literal["layer", "parameter"] = "layer"
    """What a part is where `norm` is shared out: a layer (weight and bias together), or each
    parameter tensor alone."""

    one_factor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.norm is None) == (not self.norms):
            raise BadArgument(
                f"norm={self.norm} and norms={self.norms}: say one of them, `norm` to share it out "
                "evenly or `norms` for each part"
            )
        if self.norm is not None:
            require_positive("norm", self.norm)
        for name, value in (self.norms or {}).items():
            require_length(f"norms.{name}", value)

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """The parts, in the order of `names` or of `norms`.

        Raises `Incompatible` for a parameter that no entry of `norms` covers, or an entry without
        a parameter.
        """
        if self.norms is not None:
            return self._named(names, list(self.norms))
        if self.by == "parameter":
            return [[name] for name in names]
        layers: dict[str, list[str]] = {}
        for name in names:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        return list(layers.values())

    def _named(self, names: Sequence[str], beginnings: list[str]) -> list[list[str]]:
        parts: dict[str, list[str]] = {beginning: [] for beginning in beginnings}
        for name in names:
            fits = [b for b in beginnings if name == b or name.startswith(f"{b}.")]
            if not fits:
                raise Incompatible(
                    f"no entry of `norms` covers the trained parameter {name!r}, so nothing would "
                    "bound its gradient; name it or the layer it stands in"
                )
            parts[max(fits, key=len)].append(name)
        empty = [beginning for beginning, found in parts.items() if not found]
        if empty:
            raise Incompatible(
                f"`norms` has an entry {empty[0]!r} and no trained parameter begins so; the "
                f"parameters are {', '.join(list(names)[:8])}{' …' if len(names) > 8 else ''}"
            )
        return list(parts.values())

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G)"""
        if self.norms is None:
            return down(norms, self.bound(1) / math.sqrt(norms.shape[1]))
        return down(norms, torch.tensor(list(self.norms.values())).to(norms))

    def bound(self, groups: int) -> float:
        """The joint norm of all parts, whatever their number."""
        if self.norm is not None:
            return self.norm
        return math.sqrt(sum(value**2 for value in (self.norms or {}).values()))

    def sentence(self, share: str = UNIT) -> str:
        """The rule with its parts and their joint norm."""
        parts = "by the norms of its parts" if self.norms else f"{self.by} by {self.by}"
        return f"{share} is scaled down {parts}, to a joint L2 norm of at most {self.bound(1):g}."


@dataclass(frozen=True)
class Unclipped(FixedRule):
    """Nothing is scaled, so nothing is bounded; every noise refuses the sum."""

    kind: Literal["unclipped"] = "unclipped"

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G): 1, or 0 where the norm is not finite."""
        return torch.isfinite(norms).to(norms.dtype)

    def bound(self, groups: int) -> float:
        """inf"""
        return math.inf

    def sentence(self, share: str = UNIT) -> str:
        """That nothing is scaled."""
        return f"{share} is taken as it comes."


def rule_facts(rule: Clip) -> dict[str, Any]:
    """Kind and bound of a rule, as plan.json has them; a bound of None where there is none."""
    bound = rule.bound(1)
    return {"kind": rule.kind, "norm": bound if bound < math.inf else None}


def down(
    norms: Tensor,  # (B, G)
    most: float | Tensor,  # of every group, or (G,)
) -> Tensor:  # (B, G)
    """The factors that bring what is longer than `most` down to it; 0 where not finite."""
    factors = (most * (1 - ROUNDING) / norms).clamp(max=1)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(norms))


def require_positive(name: str, value: float) -> None:
    """Raises `BadArgument` for what is not a positive, finite number."""
    require.positive(**{name: value})


def require_length(name: str, value: float) -> None:
    """Raises `BadArgument` for a length of gradients that float32 does not hold with all its
    digits: what is not from 1e-12 to 1e12."""
    require_positive(name, value)
    if not SHORTEST <= value <= LONGEST:
        raise BadArgument(
            f"{name}={value} must be from {SHORTEST:g} to {LONGEST:g}, where float32 sums of "
            "clipped gradients still have all their digits; scale the losses instead"
        )

"""The four things that flow through a step: `Tensors -> BoundedSum -> Release`, and batches.

Order is a type. Only a clip rule makes a `BoundedSum` with a finite bound, only a noise makes a
`Release`, and the update accepts only a `Release`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
"""Parameter name -> tensor: weights, gradients, changes and noise alike."""

Batch = dict[str, Tensor]
"""Row i of every tensor belongs to unit i. Keys:

- `features` (B, *shape) float32, int64 for tokens; (B, K, *shape) where a unit is a group of at
  most K rows
- `label` (B,) or (B, K): int64 classes, or float32 for regression
- `present` (B,) bool, False for padding
- `unit` (B,) int64, a number that depends on the unit itself and not on its place or the others:
  what random starts of attacks are keyed by
- `rows` (B, K) bool, only where a unit is a group: which of its K places hold a row
- `place` (B,) int64, only of rows to be attacked whose file is known: where each stands in it,
  from 0
"""

Losses = Callable[[nn.Module, Batch], Tensor]
"""-> (B,), entry i a function of row i alone."""

Unit = Literal["example", "group", "client"]
"""Who is protected: a row, everything of one person, everything of one party."""

Adjacency = Literal["add_or_remove", "replace_one", "zero_out"]
"""Which data sets count as neighbours."""


@dataclass(frozen=True)
class LocalMetrics:
    """Per-unit numbers of one sum. They are private: never written unless the recipe says so.

    `norms` is (B, G) or empty; `dropped` counts the units whose gradient was not finite.
    """

    norms: Tensor = field(default_factory=lambda: torch.zeros(0, 1))
    dropped: int = 0

    def __add__(self, other: LocalMetrics) -> LocalMetrics:
        if not self.norms.numel():
            norms = other.norms
        elif not other.norms.numel():
            norms = self.norms
        else:
            norms = torch.cat([self.norms, other.norms])
        return LocalMetrics(norms, self.dropped + other.dropped)


@dataclass(frozen=True)
class BoundedSum:
    """A sum over units that knows how much one unit can have contributed.

    Guarantee: one unit's contribution has L2 norm at most `bound`; `inf` means unknown, and every
    noise refuses it.
    """

    total: Tensors  # float32, shapes of the trainable parameters; ":name" entries of the rule
    bound: float
    local: LocalMetrics = field(default_factory=LocalMetrics)
    noised: Noised | None = None  # the noise that is in the sum already, from the units' holders

    @classmethod
    def zero(cls, like: Mapping[str, Tensor], bound: float) -> BoundedSum:
        """The sum over no unit: zeros shaped as `like`, in float32."""
        total = {name: torch.zeros(t.shape, device=t.device) for name, t in like.items()}
        return cls(total, bound)

    def sensitivity(self, adjacency: Adjacency) -> float:
        """How far the sums of neighbouring data sets can lie apart, in L2 norm."""
        return 2 * self.bound if adjacency == "replace_one" else self.bound

    def __add__(self, other: BoundedSum) -> BoundedSum:
        """The sum over the units of both, which must be disjoint."""
        self._same_names(other)
        total = {name: value + other.total[name] for name, value in self.total.items()}
        return self._with(other, total)

    def __iadd__(self, other: BoundedSum) -> BoundedSum:
        """The same in the memory of `self`: for a sum that nobody else holds."""
        self._same_names(other)
        total = {name: value.add_(other.total[name]) for name, value in self.total.items()}
        return self._with(other, total)

    def _with(self, other: BoundedSum, total: Tensors) -> BoundedSum:
        """A sum of which a part alone is noised is not noised."""
        noised = self.noised if self.noised == other.noised else None
        bound = max(self.bound, other.bound)
        return BoundedSum(total, bound, self.local + other.local, noised)

    def _same_names(self, other: BoundedSum) -> None:
        if self.total.keys() != other.total.keys():
            missing = sorted(self.total.keys() ^ other.total.keys())
            raise ValueError(f"sums over different parameters cannot be added: {missing}")


@dataclass(frozen=True)
class Noised:
    """Noise with this standard deviation, in units of the released sum, was added."""

    deviation: float
    bound: float | None = None
    """L2 norm that one unit contributes at most to the sum; None where the noise does not say."""
    shares: int | None = None
    """Where the units' holders added it themselves, each a share, before the sum was taken: the
    shares that are unknown to everyone else, of which `deviation` is at least that. None where one
    noise was added to the sum."""


@dataclass(frozen=True)
class Inherited:
    """Computed from releases that were private already: post-processing."""

    sources: tuple[str, ...]
    steps: tuple[Noised, ...] = ()
    """The noised releases that it was computed from, in order, where they are known."""


@dataclass(frozen=True)
class Unprotected:
    """Nothing protects this release; the reason is printed in the report."""

    reason: str


@dataclass(frozen=True)
class Release:
    """What leaves the private side. `how` says by what right."""

    total: Tensors
    how: Noised | Inherited | Unprotected

    @property
    def private(self) -> bool:
        """Whether epsilon covers this release."""
        return not isinstance(self.how, Unprotected)


@dataclass(frozen=True)
class FeatureSpace:
    """What a model's input means: the bridge between features' own units and the model's.

    `raw = input * scale + offset`, entry by entry. `low` and `high` bound every legal input.
    All four have the shape of one input, or broadcast to it.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...] = ()  # () where features have no names, as pixels
    scale: Tensor = field(default_factory=lambda: torch.ones(()))
    offset: Tensor = field(default_factory=lambda: torch.zeros(()))
    low: Tensor = field(default_factory=lambda: torch.tensor(-math.inf))
    high: Tensor = field(default_factory=lambda: torch.tensor(math.inf))
    categorical: tuple[str, ...] = ()  # names whose values are categories: no small change exists
    # columns whose entries, named `column=category`, hold a single 1; of one entry: a yes or no
    choices: tuple[str, ...] = ()
    # the declared range in the features' own units, float64; `low` and `high` are its rounded image
    least: Tensor = field(default_factory=lambda: torch.tensor(-math.inf, dtype=torch.float64))
    most: Tensor = field(default_factory=lambda: torch.tensor(math.inf, dtype=torch.float64))

"""What each unit adds to the gradient of one parameter, in the three forms that operations give.

- `Products`: sum over positions of outer products g_t a_t^T (linear layers, convolutions)
- `Lookups`: rows of a table, each moved by the gradients at its places (embeddings)
- `Instances`: the gradient of each unit itself (whatever is small: biases, norms, scales)

Each form gives the squared norms, the gradients of single units, and their weighted sum.

*Rounding.* A squared norm from Gram matrices is a difference of large numbers where positions
cancel. With x_t = |a_t||g_t| its error has a deviation of about 3 u sum_t x_t^2 in the usual model
of independent roundings (Higham & Mary 2019, https://doi.org/10.1137/18M1226312). Norms carry
`SIGMAS` times u sum_t x_t^2 as a margin, and units for which that would exceed `TOLERANCE` of
their squared norm are computed again in float64. The sum itself stays in float32, so such a
unit's norm is that of its sum and of what rounding leaves of the addends (`as_rounded`).
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

SIGMAS = 16.0
TOLERANCE = 1e-5

_CANCELS = 100.0  # below this, rounding adds less than 1e-5 to a norm

_BLOCK = 4096  # numbers whose squares are added in single precision before double takes over
_CHUNK = 1 << 23  # numbers instantiated at a time where they are not kept: 32 MiB in float32


@dataclass(frozen=True, eq=False)
class Grams:
    """What several contributions share, in one pass over all of them."""

    matrices: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)
    """Gram matrices of inputs that several operations read, as q, k and v of one attention do."""
    squares: dict[tuple[int, torch.Size], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Squared norms of what a weight and its bias share, or layers that read one input; by place
    in memory, which is held so that nothing else comes to lie there."""


def wide(tensor: Tensor) -> Tensor:
    """At least float32: halves are added up in single precision. Complex numbers stay."""
    exact = tensor.dtype in (torch.float32, torch.float64) or tensor.is_complex()
    return tensor if exact else tensor.float()


def squares(rows: Tensor) -> Tensor:
    """(B, …) -> (B,) float64: the squared norm of each unit."""
    flat = wide(rows)
    if flat.dim() != 2:
        flat = flat.reshape(rows.shape[0], math.prod(rows.shape[1:]))  # of no rows as well
    if flat.shape[1] <= _BLOCK or flat.dtype == torch.float64:
        return torch.linalg.vector_norm(flat, dim=1).double().square()
    whole = flat.shape[1] - flat.shape[1] % _BLOCK
    blocks = torch.linalg.vector_norm(flat[:, :whole].unflatten(1, (-1, _BLOCK)), dim=2)
    rest = torch.linalg.vector_norm(flat[:, whole:], dim=1)
    return blocks.double().square().sum(1) + rest.double().square()


def _squares_once(rows: Tensor, grams: Grams) -> Tensor:
    """`squares`, looked up where the same rows were asked about before."""
    if rows.dtype != torch.float32 or not rows.is_contiguous():
        return squares(rows)
    flat = rows if rows.dim() == 2 else rows.reshape(len(rows), math.prod(rows.shape[1:]))
    key = flat.data_ptr(), flat.shape
    if key not in grams.squares:
        grams.squares[key] = flat, squares(flat)
    return grams.squares[key][1]


def as_rounded(squared: Tensor, mass: Tensor, kind: torch.dtype) -> Tensor:
    """(B,) squared norms of sums -> (B,), of the sums as they are added up in `kind`.

    `mass` is the number of addends times their squared lengths added up. Where the addends cancel,
    what rounding leaves of them may be as long as their sum, however exactly its norm is known.
    """
    slack = SIGMAS * torch.finfo(kind).eps / 2 * mass.sqrt()
    return torch.where(mass > _CANCELS * squared, (squared.sqrt() + slack).square(), squared)


def gram_pays(units: int, places: int, width: int, height: int) -> bool:
    """Whether Gram matrices cost less than the gradients of all units of a height x width matrix.

    A rule of sizes and not of timings, since a run that resumes must round as it did before. In
    nanoseconds a unit on one core of a server processor: places^2 (width + height) products at
    85 GFLOP/s, against what each entry of a kept gradient costs beyond the ordinary matrix product
    (it replaces the weight's own gradient): 0.6 while all units fit into the caches, 2 beyond.
    """
    entries = width * height
    beyond = 0.6 if units * entries <= _CHUNK else 2.0
    return 0.0235 * places**2 * (width + height) < beyond * entries


@dataclass(eq=False)
class Instances:
    """The gradient of each unit."""

    gradients: Tensor  # (B, *shape), or the same with its axes in another order
    axes: tuple[int, ...] | None = None  # the order in which `shape` finds them

    def squared(self, grams: Grams) -> Tensor:
        """-> (B,) float64"""
        return _squares_once(self.gradients, grams)

    def instances(self) -> Tensor:
        """-> (B, *shape)"""
        if self.axes is None:
            return self.gradients
        return self.gradients.permute(0, *(axis + 1 for axis in self.axes))

    def weighted(self, factors: Tensor) -> Tensor:
        """(B,) -> (*shape)"""
        rows = wide(self.gradients)
        flat = rows.reshape(rows.shape[0], math.prod(rows.shape[1:]))
        total = torch.mv(flat.t(), factors.to(flat.dtype)).reshape(rows.shape[1:])
        return total if self.axes is None else total.permute(self.axes)

    def mass(self, units: Tensor | None = None) -> Tensor:
        """-> (B,) float64: see `as_rounded`."""
        return squares(self.gradients if units is None else self.gradients[units])

    def select(self, units: Tensor) -> Instances:
        """Some of the units, in float64."""
        return Instances(self.gradients[units].double(), self.axes)


@dataclass(eq=False)
class Products:
    """Sum over positions of g_t a_t^T, reshaped to the parameter; of a_t g_t^T where `flipped`."""

    inputs: Tensor  # (B, P, I)
    grads: Tensor  # (B, P, O)
    shape: tuple[int, ...]  # of the parameter, or the same with its axes in another order
    flipped: bool = False
    source: int = 0  # names inputs that several operations share; 0 for none
    axes: tuple[int, ...] | None = None  # the order in which the parameter finds them

    def squared(self, grams: Grams) -> Tensor:
        """-> (B,) float64, by whichever way is cheaper; with the margin for rounding."""
        a, g = wide(self.inputs), wide(self.grads)
        if a.shape[1] == 1:
            return _squares_once(self.inputs, grams) * _squares_once(self.grads, grams)
        if not gram_pays(len(a), a.shape[1], a.shape[2], g.shape[2]):
            return as_rounded(self._some_at_a_time(a, g), self.mass(), a.dtype)
        result, margin = _by_grams(a, g, self.source, grams)
        unsure = (margin > TOLERANCE * result) & (margin > 0)
        if a.dtype == torch.float32 and bool(unsure.any()):
            units = unsure.nonzero().squeeze(1)
            again, less = _by_grams(a[units].double(), g[units].double(), 0, Grams())
            again = as_rounded(again, self.mass(units), a.dtype)
            result, margin = result.index_copy(0, units, again), margin.index_copy(0, units, less)
        return result + margin

    def mass(self, units: Tensor | None = None) -> Tensor:
        """-> (B,) float64: see `as_rounded`."""
        a, g = wide(self.inputs), wide(self.grads)
        a, g = (a, g) if units is None else (a[units], g[units])
        sizes = torch.linalg.vector_norm(a, dim=2).double() * torch.linalg.vector_norm(g, dim=2)
        return sizes.square().sum(1) * a.shape[1]

    def _some_at_a_time(self, a: Tensor, g: Tensor) -> Tensor:
        step = max(1, _CHUNK // (a.shape[2] * g.shape[2]))
        return torch.cat(
            [
                squares(torch.bmm(g[i : i + step].mT, a[i : i + step]))
                for i in range(0, len(a), step)
            ]
        )

    def instances(self) -> Tensor:
        """-> (B, *shape)"""
        a, g = wide(self.inputs), wide(self.grads)
        gradient = torch.bmm(a.mT, g) if self.flipped else torch.bmm(g.mT, a)
        return Instances(gradient.reshape(len(a), *self.shape), self.axes).instances()

    def weighted(self, factors: Tensor) -> Tensor:
        """(B,) -> (*shape): the smaller of the two is scaled, then one matrix product."""
        a, g = wide(self.inputs), wide(self.grads)
        column = factors.to(a.dtype)[:, None, None]
        if a.shape[2] <= g.shape[2]:
            a = a * column
        else:
            g = g * column
        a, g = a.flatten(0, 1), g.flatten(0, 1)
        total = (a.t() @ g if self.flipped else g.t() @ a).reshape(self.shape)
        return total if self.axes is None else total.permute(self.axes)

    def select(self, units: Tensor) -> Products:
        """Some of the units, in float64."""
        a, g = self.inputs[units].double(), self.grads[units].double()
        return Products(a, g, self.shape, self.flipped, axes=self.axes)

    def settled(self) -> Contribution:
        """The form to keep: the gradients themselves where their norm is cheaper that way."""
        units, places, width = self.inputs.shape
        if places > 1 and not gram_pays(units, places, width, self.grads.shape[2]):
            plain = Products(self.inputs, self.grads, self.shape, self.flipped)
            return Instances(plain.instances(), self.axes)
        return self


def _by_grams(a: Tensor, g: Tensor, source: int, grams: Grams) -> tuple[Tensor, Tensor]:
    """(B,) squared norms and (B,) margins, both float64."""
    key = (source, a.dtype)
    left = grams.matrices.get(key) if source else None
    if left is None:
        left = torch.bmm(a, a.mT)
        if source:
            grams.matrices[key] = left
    right = torch.bmm(g, g.mT)
    sizes = left.diagonal(dim1=1, dim2=2) * right.diagonal(dim1=1, dim2=2)  # (B, P): x_t^2
    result = (left * right).double().sum((1, 2)).clamp(min=0)
    return result, SIGMAS * torch.finfo(a.dtype).eps / 2 * sizes.double().sum(1)


@dataclass(eq=False)
class Lookups:
    """Rows of a (V, D) table: row ids[b, p] is moved by grads[b, p]; negative ids move nothing."""

    ids: Tensor  # (B, P) int64
    grads: Tensor  # (B, P, D)
    shape: tuple[int, ...]  # (V, D)

    def squared(self, grams: Grams) -> Tensor:
        """-> (B,) float64: places of one unit with the same row are added before the norm."""
        units, _ = self.ids.shape
        number = torch.arange(units, device=self.ids.device)[:, None]
        held = self.ids >= 0
        known, index = (number * self.shape[0] + self.ids)[held].unique(return_inverse=True)
        rows = wide(self.grads)[held]
        sums = rows.new_zeros(len(known), rows.shape[1]).index_add_(0, index, rows)
        sizes = squares(sums)
        result = sizes.new_zeros(units).index_add_(0, known // self.shape[0], sizes)
        return as_rounded(result, self.mass(), rows.dtype)

    def mass(self, units: Tensor | None = None) -> Tensor:
        """-> (B,) float64: see `as_rounded`."""
        rows = wide(self.grads) if units is None else wide(self.grads)[units]
        held = (self.ids if units is None else self.ids[units]) >= 0
        sizes = torch.linalg.vector_norm(rows, dim=2).double() * held
        return sizes.square().sum(1) * rows.shape[1]

    def instances(self) -> Tensor:
        """-> (B, V, D)"""
        gradient = wide(self.grads).new_zeros(len(self.ids), *self.shape)
        for unit, (ids, rows) in enumerate(zip(self.ids, wide(self.grads), strict=True)):
            gradient[unit].index_add_(0, ids[ids >= 0], rows[ids >= 0])
        return gradient

    def weighted(self, factors: Tensor) -> Tensor:
        """(B,) -> (V, D)"""
        rows = wide(self.grads)
        scaled = (rows * factors.to(rows.dtype)[:, None, None]).flatten(0, 1)
        ids = self.ids.flatten()
        held = ids >= 0
        if not bool(held.all()):
            scaled, ids = scaled[held], ids[held]
        return rows.new_zeros(self.shape).index_add_(0, ids, scaled)

    def select(self, units: Tensor) -> Lookups:
        """Some of the units, in float64."""
        return Lookups(self.ids[units], self.grads[units].double(), self.shape)


Contribution = Instances | Products | Lookups


def joined(parts: list[Contribution]) -> list[Contribution]:
    """One contribution of each form: uses of one kind are one use with more positions."""
    if len(parts) == 1:
        return parts
    instances = [p for p in parts if isinstance(p, Instances)]
    lookups = [p for p in parts if isinstance(p, Lookups)]
    result: list[Contribution] = []
    if instances:
        total = instances[0] if len(instances) == 1 else Instances(instances[0].instances())
        for more in instances[1:]:
            total = Instances(total.gradients + more.instances())
        result.append(total)
    for flipped in (False, True):
        products = [p for p in parts if isinstance(p, Products) and p.flipped == flipped]
        if len(products) == 1:
            result.append(products[0])
        elif products:
            a = torch.cat([p.inputs for p in products], 1)
            g = torch.cat([p.grads for p in products], 1)
            axes = products[0].axes
            result.append(Products(a, g, products[0].shape, flipped, axes=axes))
    if lookups:
        ids = torch.cat([p.ids for p in lookups], 1)
        result.append(Lookups(ids, torch.cat([p.grads for p in lookups], 1), lookups[0].shape))
    return result


def squared_norms(parts: list[Contribution], grams: Grams) -> Tensor:
    """-> (B,) float64: of the sum of contributions of different forms, cross terms included."""
    given, parts = parts, joined(parts)
    # What was made here alone is nobody else's, and need not be held.
    each = [part.squared(grams if part in given else Grams()) for part in parts]
    if len(parts) == 1:
        return each[0]
    result = torch.stack(each).sum(0)
    size = result.clone()
    for i, first in enumerate(parts):
        for second in parts[i + 1 :]:
            term = 2 * cross(first, second)
            result, size = result + term, size + term.abs()
    exact = all(_kind(part) == torch.float64 for part in parts)
    margin = SIGMAS * torch.finfo(torch.float64 if exact else torch.float32).eps / 2 * size
    unsure = (margin > TOLERANCE * result) & (size > 0)
    for unit in unsure.nonzero().squeeze(1):  # pyright: ignore[reportGeneralTypeIssues]
        alone = [part.select(unit[None]).instances() for part in parts]
        mass = torch.stack([part.mass(unit[None]) for part in parts]).sum(0)
        kind = torch.float64 if exact else torch.float32
        result[unit] = as_rounded(squares(torch.stack(alone).sum(0)), len(parts) * mass, kind)[0]
    return result + torch.where(unsure, torch.zeros_like(margin), margin)


def _kind(part: Contribution) -> torch.dtype:
    return part.gradients.dtype if isinstance(part, Instances) else part.grads.dtype


def cross(first: Contribution, second: Contribution) -> Tensor:
    """-> (B,) float64: the inner product of each unit's two contributions to one parameter."""
    if isinstance(second, Instances):
        first, second = second, first
    if isinstance(first, Instances):
        return _with_instances(first, second)
    if isinstance(first, Lookups):
        first, second = second, first
    assert isinstance(first, Products)
    if isinstance(second, Products):  # one of them flipped: inputs of one face grads of the other
        left = torch.bmm(wide(first.inputs), wide(second.grads).mT)
        right = torch.bmm(wide(first.grads), wide(second.inputs).mT)
        return (left * right).double().sum((1, 2))
    assert isinstance(second, Lookups)
    down, along = (first.inputs, first.grads) if first.flipped else (first.grads, first.inputs)
    held = second.ids >= 0
    places = second.ids.clamp(min=0)[:, None, :].expand(-1, down.shape[1], -1)
    picked = wide(down).gather(2, places) * held[:, None, :]  # (B, P, S): g_t at row id_s
    return (picked * torch.bmm(wide(along), wide(second.grads).mT)).double().sum((1, 2))


def _with_instances(first: Instances, second: Contribution) -> Tensor:
    known = wide(first.instances())
    if isinstance(second, Products) and second.axes is not None:
        return (known * second.instances()).double().flatten(1).sum(1)
    if isinstance(second, Products):
        matrix = known.reshape(len(known), *_matrix(second))
        a, g = wide(second.inputs), wide(second.grads)
        rows = torch.bmm(a, matrix) if second.flipped else torch.bmm(g, matrix)
        return (rows * (g if second.flipped else a)).double().sum((1, 2))
    if isinstance(second, Lookups):
        held = second.ids >= 0
        units = torch.arange(len(known), device=known.device)[:, None]
        rows = known[units, second.ids.clamp(min=0)] * held[..., None]
        return (rows * wide(second.grads)).double().sum((1, 2))
    return (known * wide(second.instances())).double().flatten(1).sum(1)


def _matrix(part: Products) -> tuple[int, int]:
    width, height = part.inputs.shape[2], part.grads.shape[2]
    return (width, height) if part.flipped else (height, width)

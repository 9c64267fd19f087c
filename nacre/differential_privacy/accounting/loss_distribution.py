"""The privacy losses of one step on a grid, so that the grid's law lies above the true one."""

# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from nacre.differential_privacy.accounting.allocation import Allocated, law, on_lattice
from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.powers import UNIT

_MOST = 1 << 22
"""Points that one step may take."""

_DOUBTFUL = 1e-4
"""Cells whose split is rounded by more than this share count as cut off, for the lower bound."""

_RULE = np.polynomial.legendre.leggauss(5)
_NARROW = 0.25
"""Half a cell's length, in units of 1 / (1 + |x|), below which the rule is used."""

_TAILS = 1.0
"""Half a cell's length in those units, times 64 + 4 x^2, below which the rule's rounding is at most
a fourth of that of tails, which are then not computed: a tail has a mass of at least the density
over 1 + |x| (Birnbaum 1942)."""

_BLOCK = 4096
"""Cells that are computed at a time."""


class Unsettled(ArithmeticError):
    """The grid that the accuracy asks for takes more points than are worth their while."""

    def __init__(self, message: str, upper: float = math.inf, lower: float = 0.0) -> None:
        self.upper = upper
        """A bound on epsilon that was proven on the way, if a loose one."""
        self.lower = lower
        """The same from below."""
        super().__init__(message)


@dataclass(frozen=True)
class Step:
    """A Gaussian step of noise `multiplier`, in sensitivities, on a Poisson draw at `rate`.

    P is (1 - rate) N(0, z^2) + rate N(1, z^2) and Q is N(0, z^2), or the two exchanged where the
    unit is added: no other pair of neighbours is told apart better (Zhu, Dong & Wang 2022, "Optimal
    accounting of differential privacy via characteristic function", on Poisson subsampling).
    """

    multiplier: float
    rate: float = 1.0

    def loss(self, x: float) -> float:
        """log dP/dQ at an outcome."""
        shifted = (2 * x - 1) / (2 * self.multiplier**2)
        if self.rate == 1:
            return shifted
        if shifted > 30:
            return shifted + math.log(self.rate + (1 - self.rate) * math.exp(-shifted))
        return math.log1p(self.rate * math.expm1(shifted))

    def outcome(self, losses: Array) -> Array:
        """Where the loss is reached; -inf below the least loss, log(1 - rate)."""
        square = self.multiplier**2
        if self.rate == 1:
            return losses * square + 0.5
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            small = np.log1p(np.maximum(np.expm1(losses) / self.rate, -1.0))
            if not (losses > 30).any():
                return square * small + 0.5
            large = losses + np.log1p((self.rate - 1) * np.exp(-losses)) - math.log(self.rate)
        return square * np.where(losses > 30, large, small) + 0.5


@dataclass(frozen=True)
class Replaced:
    """A Gaussian step of noise `multiplier` on a draw of a fixed size, a share `rate` of the units,
    under replace-one.

    With A = (1 - rate) N(0, z^2) + rate N(1, z^2), B = N(0, z^2) and L the log of A over B, no two
    neighbours differ, at e^epsilon >= 1, by a larger hockey-stick divergence than A from B has
    (Balle, Barthe & Gaboardi 2018, "Privacy amplification by subsampling", theorems 2 and 10), in
    either direction, as replace-one has both; so at e^epsilon < 1 by none larger than B from A has.
    One pair has that whole profile: its losses are those of A where they are above 0 and those of
    B from A where they are below, each over the outcomes x > 1/2, and the rest of the mass is at 0
    (Zhu, Dong & Wang 2022, "Optimal accounting of differential privacy via characteristic
    function", on dominating pairs of such profiles). It is its own mirror image.
    """

    multiplier: float
    rate: float

    @property
    def attained(self) -> Step:
        """A from B: two neighbours that exist, a unit at one end and all others at the other."""
        return Step(self.multiplier, self.rate)

    @property
    def still(self) -> float:
        """The mass at a loss of 0."""
        return (1 - self.rate) * math.erf(0.5 / self.multiplier / math.sqrt(2))


@dataclass(frozen=True)
class Atoms:
    """A step with finitely many losses, the same in both directions."""

    losses: tuple[float, ...]
    masses: tuple[float, ...]  # under P


@dataclass(frozen=True)
class Masses:
    """P's masses at the losses (first + i) * width."""

    first: int
    masses: Array
    lost: float  # P's mass above the grid: infinite losses
    cut: float  # P's mass that was moved up further than within its cell
    grown: float  # how much of each cell's mass rounding may have added, relative
    drift: float  # how far rounding may have moved the mean of exp(loss), relative


LossKind = Step | Replaced | Atoms | Allocated
"""What one step's losses may be."""


def on_grid(kind: LossKind, width: float, added: bool, tail: float) -> Masses:
    """The losses of one step on the grid; tails of mass `tail` are cut off.

    Raises `Unsettled` where they take more than four million points.
    """
    if isinstance(kind, Atoms):
        return _atoms(kind, width)
    if isinstance(kind, Replaced):
        return _replaced(kind, width, tail)
    if isinstance(kind, Allocated):
        return _allocated(kind, width, added)
    far = -float(ndtri(tail))
    low = math.floor(kind.loss(-kind.multiplier * far) / width)
    high = math.ceil(kind.loss(1 + kind.multiplier * far) / width)
    if high - low > _MOST:
        raise Unsettled(f"one step takes {high - low} points")
    losses = np.arange(low, high + 1) * width
    x = kind.outcome(losses) / kind.multiplier
    base, base_error = _between(x)
    moved, moved_error = _between(x - 1 / kind.multiplier)
    mixed = (1 - kind.rate) * base + kind.rate * moved
    mixed_error = (1 - kind.rate) * base_error + kind.rate * moved_error
    below = (ndtr(x[0]), ndtr(x[0] - 1 / kind.multiplier))
    above = (ndtr(-x[-1]), ndtr(1 / kind.multiplier - x[-1]))
    if added:
        ends = (float(above[0]), float(below[0]))  # moved up, lost
        cells = (base[::-1], mixed[::-1], base_error[::-1], mixed_error[::-1])
        return _split(-high, -losses[::-1], width, cells, ends)
    ends = (_mix(kind.rate, below), _mix(kind.rate, above))
    return _split(low, losses, width, (mixed, base, mixed_error, base_error), ends)


def _replaced(kind: Replaced, width: float, tail: float) -> Masses:
    step, z = kind.attained, kind.multiplier
    high = math.ceil(step.loss(1 - z * float(ndtri(tail))) / width)
    if 2 * high > _MOST:
        raise Unsettled(f"one step takes {2 * high} points")
    x = step.outcome(np.arange(high + 1) * width) / z
    base, base_error = _between(x)
    moved, moved_error = _between(x - 1 / z)
    mixed = (1 - kind.rate) * base + kind.rate * moved
    mixed_error = (1 - kind.rate) * base_error + kind.rate * moved_error
    p, q = np.append(base[::-1], mixed), np.append(mixed[::-1], base)
    p_error = np.append(base_error[::-1], mixed_error)
    q_error = np.append(mixed_error[::-1], base_error)
    above = (float(ndtr(-x[-1])), float(ndtr(1 / z - x[-1])))
    losses = np.arange(-high, high + 1) * width
    ends = (above[0], _mix(kind.rate, above))
    found = _split(-high, losses, width, (p, q, p_error, q_error), ends)
    found.masses[high] += kind.still * (1 + 8 * UNIT)
    return found


def _allocated(kind: Allocated, width: float, added: bool) -> Masses:
    """From above alone: what it exceeds the truth by is not bounded."""
    found = law(kind, added)
    if found is None:
        raise Unsettled(f"the losses of {kind.bins} bins take too many points")
    if found.losses[-1] - found.losses[0] > width * _MOST:
        raise Unsettled(f"one round takes more than {_MOST} points")
    first, masses = on_lattice(found, width)
    return Masses(first, masses, found.lost, 0.0, 0.0, 0.0)


def part_on_grid(
    kind: Step,
    width: float,
    added: bool,
    least: float,
    most: float,
    start: float = 0.0,
    gathered: bool = True,
) -> Masses:
    """The losses of a step from `least` to `most` on the places start + (first + i) * width, from
    above. What lies above is left out; what lies below is moved up to the second place where
    `gathered`, and left out otherwise.

    Raises `Unsettled` where they take more than four million points.
    """
    first = math.floor((least - start) / width)
    count = max(1, math.ceil((most - start) / width) - first)
    if count > _MOST:
        raise Unsettled(f"one step takes {count} points")
    losses = start + (first + np.arange(count + 1)) * width
    edges = np.clip(losses, least, most)
    x = kind.outcome(-edges[::-1] if added else edges) / kind.multiplier
    if kind.rate < 1 and (-most if added else least) <= math.log1p(-kind.rate):
        x[0] = -math.inf  # the least loss there is, of which rounding may make a finite outcome
    moved_x = x - 1 / kind.multiplier
    base, base_error = _between(x)
    moved, moved_error = _between(moved_x)
    mixed = (1 - kind.rate) * base + kind.rate * moved
    mixed_error = (1 - kind.rate) * base_error + kind.rate * moved_error
    if added:
        cells = (base[::-1], mixed[::-1], base_error[::-1], mixed_error[::-1])
        below = float(ndtr(-x[-1]))
    else:
        cells = (mixed, base, mixed_error, base_error)
        below = _mix(kind.rate, (ndtr(x[0]), ndtr(moved_x[0])))
    found = _split(first, losses, width, cells, (0.0, 0.0))
    if gathered:
        found.masses[1] += below  # the first place that does not lie below `least`
    if added and kind.rate < 1:  # the outcomes further out have losses up to -log(1 - rate)
        found.masses[-1] += float(ndtr(x[0]))
    return found


def above(kind: Step, loss: float) -> tuple[float, float]:
    """The chance of a larger loss log(P / Q), under P and under Q."""
    x = float(kind.outcome(np.array([loss]))[0]) / kind.multiplier
    under_q = float(ndtr(-x))
    return _mix(kind.rate, (under_q, float(ndtr(1 / kind.multiplier - x)))), under_q


def _mix(rate: float, pair: tuple[float, float]) -> float:
    return (1 - rate) * float(pair[0]) + rate * float(pair[1])


def _between(x: Array) -> tuple[Array, Array]:
    """(n - 1,) masses of the standard normal between neighbours, and the rounding of each."""
    mass, error = np.empty(len(x) - 1), np.empty(len(x) - 1)
    for start in range(0, len(mass), _BLOCK):
        cells = slice(start, start + _BLOCK)
        mass[cells], error[cells] = _between_few(x[start : start + _BLOCK + 1])
    return mass, error


def _between_few(x: Array) -> tuple[Array, Array]:
    """The same of so few that they stay in a processor's cache.

    Of narrow cells by Gauss and Legendre's rule, whose error is below 4e-13 (x length)^10 of the
    mass: the difference of two tails would leave few digits of it.
    """
    with np.errstate(invalid="ignore"):  # the ends may be infinite
        half = np.diff(x) / 2
        middle = x[:-1] + half
        across = half * (1 + np.abs(middle))
        narrow = across < _NARROW
        by_tails = ~(across * (64 + 4 * middle**2) < _TAILS)
    mass, error = np.empty(len(half)), np.full(len(half), math.inf)
    low, high = x[:-1][by_tails], x[1:][by_tails]
    upper = low > 0
    near, far = ndtr(np.where(upper, -low, high)), ndtr(np.where(upper, -high, low))
    mass[by_tails] = near - far
    error[by_tails] = 8 * UNIT * (near + far)
    middle, half = middle[narrow], half[narrow]
    density = np.zeros(len(half))
    for node, weight in zip(*_RULE, strict=True):
        density += weight * np.exp(-((middle + half * node) ** 2) / 2)
    inside = density * half / math.sqrt(2 * math.pi)
    mass[narrow] = inside
    error[narrow] = np.minimum(error[narrow], inside * UNIT * (64 + 4 * middle**2))
    return np.maximum(mass, 0.0), error


def _split(
    first: int, losses: Array, width: float,
    cells: tuple[Array, Array, Array, Array],  # P's and Q's masses, and their rounding
    ends: tuple[float, float],  # P's mass below and above the grid
) -> Masses:  # fmt: skip
    """Each cell's mass on its two ends, so that P's and Q's mass are kept; rounded upwards."""
    p, q, p_error, q_error = cells
    low = losses[:-1]
    growth = np.exp(np.minimum(low, 700.0))
    share = -math.expm1(-width)  # 1 - exp(-width)
    exact = np.where(low > 700.0, p, (p - q * growth) / share)
    error = (p_error + q_error * growth + 4 * UNIT * p) / share
    up = np.clip(exact + error, 0.0, p + p_error)
    masses = np.zeros(len(losses))
    masses[1:] += up
    masses[:-1] += p + p_error - up
    masses[0] += ends[0]
    doubtful = error > _DOUBTFUL * p
    cut = ends[0] + float((p + p_error)[doubtful].sum())
    sure = ~doubtful & (p > 0)
    grown = float((p_error[sure] / p[sure]).max(initial=0.0))
    drift = 2 * width * float((error[sure] / p[sure]).max(initial=0.0))
    return Masses(first, masses, ends[1], cut, grown, drift)


def _atoms(kind: Atoms, width: float) -> Masses:
    first = math.floor(min(kind.losses) / width)
    masses = np.zeros(math.floor(max(kind.losses) / width) - first + 2)
    if len(masses) > _MOST:
        raise Unsettled(f"one step takes {len(masses)} points")
    for loss, mass in zip(kind.losses, kind.masses, strict=True):
        place = math.floor(loss / width)
        up = mass * math.expm1(place * width - loss) / math.expm1(-width)
        up = min(max(up * (1 + 8 * UNIT), 0.0), mass)
        masses[place - first + 1] += up
        masses[place - first] += mass - up
    return Masses(first, masses, 0.0, 0.0, 0.0, 8 * UNIT * width)

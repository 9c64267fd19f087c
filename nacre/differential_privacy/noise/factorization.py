# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""Coefficients of correlated noise, optimised before any row is read.

What an optimizer makes of n released sums is a linear map A of them, its *workload*: their prefix
sums, for plain gradient descent. Noise C^-1 z, with z independent and C lower triangular, protects
as independent noise does on C times the sums; what is left of it in the weights is A C^-1 z. A C
with b bands has c_0 … c_{b-1} on its diagonals. One with d buffers has 1 there, and then c_i = the
sum over j of weights_j decays_j^(i-1): the noise of all earlier steps counts, and is kept in d
numbers a parameter.

Source: Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization"; Kalinin & Lampert
2024, "Banded square root matrix factorization for differentially private model training";
Dvijotham et al. 2024, "Efficient and near-optimal noise generation for streaming differential
privacy" (buffers); McMahan et al. 2024, "A hassle-free algorithm for private learning in practice"
(their length under turns).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nacre.core import require
from nacre.differential_privacy.accounting.cache import remembered_numbers

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def workload(steps: int, momentum: float = 0.0, decay: float = 0.0) -> Numbers:
    """(n,): what a released sum adds to the weights after 1, 2 … steps, at a step size of 1.

    Prefix sums are all ones. With `momentum` a sum goes on to move the weights; with `decay` (the
    step size times the weight decay) the weights forget it.
    """
    require.at_least(1, steps=steps)
    for name, value in (("momentum", momentum), ("decay", decay)):
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} must lie in [0, 1)")
    polynomial = np.convolve([1.0, decay - 1.0], [1.0, -momentum])
    first = np.zeros(steps)
    first[0] = 1.0
    return _divided(first, polynomial)


def square_root(bands: int) -> Numbers:
    """(b,): coefficients of (1 - x)^(-1/2), of length 1: the square root of the prefix sums.

    Source: Fichtenberger, Henzinger & Upadhyay 2022, "Constant matters", theorem 1.
    """
    k = np.arange(1, bands)
    found = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    return found / np.linalg.norm(found)


def mean_squared_error(
    coefficients: Numbers,  # (b,) of C
    work: Numbers,  # (n,) of A
    separation: int | None = None,  # steps from a turn of a unit to its next; None: it has one turn
) -> float:
    """The variance of the noise in the weights, averaged over the n steps, for z of deviation 1
    times the sensitivity of C: `sens(C)² ||A C^-1||² / n`.

    For one turn the sensitivity is the length of a column; turns at least b steps apart move
    disjoint rows, so that each of them may be priced by itself.
    """
    left = _divided(work, coefficients)
    held = np.arange(len(work), 0, -1)  # how many entries a diagonal has
    squared = float(coefficients @ coefficients)
    if separation is not None:
        whole = np.zeros(len(work))
        whole[: len(coefficients)] = coefficients[: len(work)]
        squared = length_of_turns(whole, separation) ** 2
    return squared * float(held @ left**2) / len(work)


def length_of_turns(
    coefficients: Numbers,  # (n,) of C, not negative, none larger than the one before
    separation: int,
) -> float:
    """How far a unit moves C times the sums, in sensitivities of one sum, if it enters steps that
    are at least `separation` apart: the worst set of steps, and the worst shares.

    *Why 0, b, 2b …:* the square of the length is the sum over pairs of turns of the product of
    their shares, 1 at most, and of the product of their columns, which is not negative. For columns
    s <= t that is the sum of c_m c_(m+t-s) over m < n - t: it falls as t grows and as they move
    apart, and the k-th turn of these is the earliest that there can be, the nearest to all before.

    Source: McMahan et al. 2024, theorem 2.
    """
    require.at_least(1, separation=separation)
    return float(np.linalg.norm(_turns(coefficients, separation)))


def _turns(coefficients: Numbers, separation: int) -> Numbers:
    """(n,): the sum of the columns 0, b, 2b … of C."""
    steps = len(coefficients)
    rows = -(-steps // separation)
    table = np.zeros(rows * separation)
    table[:steps] = coefficients
    return table.reshape(rows, separation).cumsum(0).ravel()[:steps]


def max_error(
    coefficients: Numbers,  # (b,) of C
    work: Numbers,  # (n,) of A
) -> float:
    """The deviation of the noise in the last weights, in the units of `mean_squared_error`."""
    left = _divided(work, coefficients)
    return float(np.linalg.norm(coefficients) * np.linalg.norm(left))


def inverse(coefficients: Numbers, steps: int) -> Numbers:
    """(n,): the diagonals of C^-1."""
    first = np.zeros(steps)
    first[0] = 1.0
    return _divided(first, coefficients)


@functools.cache
def banded(bands: int, steps: int, momentum: float = 0.0, decay: float = 0.0) -> tuple[float, ...]:
    """The b coefficients, of length 1 together, that leave the least `mean_squared_error`.

    Found by L-BFGS from the square root, in float64, once for these numbers: they are remembered
    on disk. A local minimum costs accuracy and no privacy, which rests on their length alone.
    Raises `ValueError` for bands outside 1 … steps.
    """
    if not 1 <= bands <= steps:
        raise ValueError(f"bands={bands} must lie in 1 … steps={steps}")
    key = {"task": "banded 1", "bands": bands, "steps": steps, "momentum": momentum, "decay": decay}
    found = remembered_numbers(key, bands, lambda: _optimised(bands, steps, momentum, decay))
    # The length decides the sensitivity, so it is made here, whatever the disk says.
    length = math.sqrt(math.fsum(value * value for value in found))
    return tuple(value / length for value in found)


def _optimised(bands: int, steps: int, momentum: float, decay: float) -> list[float]:
    from scipy.optimize import minimize

    work = workload(steps, momentum, decay)
    start = square_root(bands)
    start = start / start[0]
    if bands == 1:
        return [1.0]
    held = np.arange(steps, 0, -1)

    def value(free: Numbers) -> tuple[float, Numbers]:
        """Log of the error and its gradient; the first coefficient is 1, as scale is nothing."""
        c = np.concatenate([[1.0], free])
        with np.errstate(over="ignore", invalid="ignore"):
            left = _divided(work, c)
            error = float(held @ left**2)
            if not math.isfinite(error):  # a step too far, to a C whose inverse explodes
                return _FAR, np.zeros(bands - 1)
            # d left / d c_j is minus left / C, moved by j places.
            turned = _divided(left, c)
            weighted = held * left
            slopes = [-2 * float(weighted[j:] @ turned[: steps - j]) for j in range(1, bands)]
        length = float(c @ c)
        return math.log(length * error), 2 * free / length + np.array(slopes) / error

    found = minimize(
        value, start[1:], jac=True, method="L-BFGS-B",
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-9},
    )  # fmt: skip
    # The start is not beaten where the search fails: no worse than the square root.
    best = found.x if found.fun <= value(start[1:])[0] else start[1:]
    return [1.0, *(float(x) for x in best)]


_FAR = 1e6


def series(
    weights: Numbers,  # (d,)
    decays: Numbers,  # (d,)
    steps: int,
) -> Numbers:
    """(n,): c_0 … c_(n-1) of the C with these buffers."""
    first = np.zeros(steps)
    first[0] = 1.0
    return first + sum(w * _aged(first, t) for w, t in zip(weights, decays, strict=True))


def opposite(weights: Numbers, decays: Numbers) -> tuple[Numbers, Numbers]:
    """The weights and decays of C^-1, with d buffers again, whose weights are not positive.

    C^-1 keeps its buffers by B -> (T - 1 w') B + 1 z, for T = diag(decays) and w = weights, which
    is similar to the symmetric T - r r', r = sqrt(w). Its eigenvalues are the decays, and the
    squares of r along its eigenvectors minus the weights.
    """
    root = np.sqrt(weights)
    values, vectors = np.linalg.eigh(np.diag(decays) - np.outer(root, root))
    return -((vectors.T @ root) ** 2), values


@functools.cache
def buffered(
    buffers: int, steps: int, separation: int, momentum: float = 0.0, decay: float = 0.0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The weights and the decays that leave little error, for turns `separation` steps apart.

    Found by L-BFGS on the log of `mean_squared_error`, in float64, once for these numbers: they are
    remembered on disk. The weights are positive and add up to 1 at most, the decays lie in (0, 1),
    so that the coefficients fall, as `length_of_turns` needs. A local minimum costs accuracy and no
    privacy. Raises `ValueError` for no buffers, more than 8, or a separation below 1.
    """
    if not 1 <= buffers <= _MOST_BUFFERS:
        raise ValueError(f"buffers={buffers} must lie in 1 … {_MOST_BUFFERS}")
    require.at_least(1, separation=separation)
    key = {"task": "buffered 1", "buffers": buffers, "steps": steps, "separation": separation}
    asked = (buffers, workload(steps, momentum, decay), separation)
    key |= {"momentum": momentum, "decay": decay}
    found = remembered_numbers(key, 2 * buffers, lambda: _fitted(*asked))
    if not falling(found[:buffers], found[buffers:]):  # whatever the disk says
        found = _fitted(*asked)
    return tuple(found[:buffers]), tuple(found[buffers:])


def falling(weights: Sequence[float], decays: Sequence[float]) -> bool:
    """Whether the coefficients with these buffers are positive and none exceeds the one before."""
    inside = all(w >= 0 for w in weights) and all(0 <= t < 1 for t in decays)
    return inside and math.fsum(weights) <= 1


_MOST_BUFFERS = 8


def _fitted(buffers: int, work: Numbers, separation: int) -> list[float]:
    from scipy.optimize import minimize

    steps = len(work)
    near = float(steps) ** (-(np.arange(buffers) + 0.5) / buffers)  # 1 - decay, log spaced
    share = 0.5 * np.sqrt(near) / np.sqrt(near).sum()  # 1 / sqrt(1 - x) begins 1 + x / 2
    start = np.concatenate([np.log(1 / near - 1), np.log(share / 0.5)])
    found = minimize(
        _buffered_error, start, args=(work, separation), jac=True, method="L-BFGS-B",
        bounds=[(-8.0, math.log(20.0 * steps))] * buffers + [(-30.0, 8.0)] * buffers,
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-8},
    )  # fmt: skip
    weights, decays = _buffers_of(found.x)
    order = np.argsort(-decays)
    return [float(x) for x in (*weights[order], *decays[order])]


def _buffers_of(free: Numbers) -> tuple[Numbers, Numbers]:
    """Weights and decays of the 2 d free numbers: logits, and logs of shares beside a rest of 1."""
    logits, shares = np.split(free, 2)
    grown = np.exp(shares)
    return grown / (1 + grown.sum()), 1 / (1 + np.exp(-logits))


def _buffered_error(free: Numbers, work: Numbers, separation: int) -> tuple[float, Numbers]:
    """The log of the error, but for n, and its gradient."""
    weights, decays = _buffers_of(free)
    steps = len(work)
    held = np.arange(steps, 0, -1)
    first = np.zeros(steps)
    first[0] = 1.0
    inverse_weights, inverse_decays = opposite(weights, decays)

    def undone(signal: Numbers) -> Numbers:  # C^-1 times it
        pairs = zip(inverse_weights, inverse_decays, strict=True)
        return signal + sum(w * _aged(signal, t) for w, t in pairs)

    moved = _turns(series(weights, decays, steps), separation)
    left = undone(work)
    turned = undone(left)
    squared, error = float(moved @ moved), float(held @ left**2)
    by_weight, by_decay = np.zeros(len(weights)), np.zeros(len(weights))
    for j, (w, t) in enumerate(zip(weights, decays, strict=True)):
        column, lost = _aged(first, t), _aged(turned, t)
        for slopes, factor in ((by_weight, 1.0), (by_decay, w)):
            slopes[j] = 2 * factor * float(moved @ _turns(column, separation)) / squared
            slopes[j] -= 2 * factor * float((held * left) @ lost) / error
            column, lost = _aged(column, t), _aged(lost, t)  # d/dt of x / (1 - t x)
    shares = weights * (by_weight - float(weights @ by_weight))
    gradient = np.concatenate([by_decay * decays * (1 - decays), shares])
    return math.log(squared) + math.log(error), gradient


def _aged(signal: Numbers, decay: float) -> Numbers:
    """The series times x / (1 - decay x): what a buffer holds before each step."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([0.0, 1.0], [1.0, -decay], signal), dtype=np.float64)


def _divided(series: Numbers, by: Numbers) -> Numbers:
    """The power series `series / by`, as many terms as `series` has."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], by, series), dtype=np.float64)

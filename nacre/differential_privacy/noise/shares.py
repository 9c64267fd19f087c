# pyright: reportMissingTypeStubs=false
"""Noise that several parties add to whole numbers, so that none of them knows the sum of it.

Each party adds an independent discrete Gaussian to every entry of its vector of whole numbers; the
vectors are summed where nobody sees one of them (`nacre.federated_learning.secure`). A sum of
discrete Gaussians is no discrete Gaussian, but is as near to one as `tau` says.

*Price.* Let m shares of variance s**2 be unknown to those who look, let one unit move the vector of
d whole numbers by at most D in L2, and

    tau = 10 * sum of exp(-2 pi**2 s**2 k / (k + 1)) over k = 1 … m - 1.

Then the noised sum is rho-zCDP with rho half of the smaller of

    D**2 / (m s**2) + 2 tau d,
    D**2 / (m s**2) + 2 tau D1 / (sqrt(m) s) + tau**2 d,

where D1 = min(sqrt(d) D, D**2) bounds the L1 distance of two vectors of whole numbers.

*Proof.* Let Z be the sum of m shares in one entry, W the discrete Gaussian of variance m s**2, and
s >= 1/2. Then abs(log(Z(x) / W(x))) <= tau / 2 for every whole x: Kairouz, Liu & Steinke 2021,
theorem 5, taken m - 1 times, as a bound on a ratio outlasts a further convolution. Let q be how far
the entry moves, a = abs(q) / (sqrt(m) s), and D_o the Rényi divergence of order o.

- Second line. D_o(Z + q, W + q) and D_o(W, Z) are at most o (tau / 2)**2 / 2 (Bun & Steinke 2016,
  proposition 1.4), D_o(W + q, W) is at most o a**2 / 2 (Canonne, Kamath & Steinke 2020, theorem 4).
  Roots of such bounds add up: D_o(P, R) <= k o / (k o - 1) D_p(P, Q) + D_ko(Q, R) with
  p = (k o - 1) / (k - 1), by Hölder, and the best k. So D_o(Z + q, Z) <= o (a + tau)**2 / 2.
  Entries are independent; over all of them a**2 sums up to D**2 / (m s**2), and a to at most
  D1 / (sqrt(m) s).
- First line. With y drawn from Z and x = y + q, log(Z(x - q) / Z(x)) is at most
  log(W(x - q) / W(x)) + tau = (2 y q + q**2) / (2 m s**2) + tau. Shares are sub-Gaussian,
  E exp(t y) <= exp(t**2 m s**2 / 2): completing the square leaves a sum of
  exp(-(x - c)**2 / (2 s**2)) over whole x, which is largest at a whole c, as its Fourier
  coefficients are positive. So the divergence is at most o a**2 / 2 + tau, and o > 1.

More shares than m only add independent noise to this, which is post-processing. A sum that is taken
modulo something is post-processing as well: a wrap costs accuracy and never privacy.

*Source:* Kairouz, Liu & Steinke 2021, "The distributed discrete Gaussian mechanism for federated
learning with secure aggregation" (ICML), https://arxiv.org/abs/2102.06387, theorem 5,
propositions 13 and 14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BadArgument
from nacre.core.random import Source
from nacre.differential_privacy.noise.discrete import discrete_gaussian

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

_LEAST = 0.25
"""The smallest variance of a share that the theorem covers: a deviation of a half."""
_UP = 1 + 1e-12
"""What rounding in floating point can take from a price: many times 100 operations of 2**-53."""


@dataclass(frozen=True, kw_only=True)
class NoiseShares:
    """Discrete Gaussian noise in shares, on vectors of whole numbers.

    *Guarantee:* a sum of such vectors to which `shares` parties or more have each added `drawn`
    from a source of their own is `event`-private against everyone who knows none of these shares,
    where one unit moves the sum by at most `sensitivity`. What others add changes nothing of it.

    Raises `BadArgument` for numbers that have no price: no share, or a variance below 1/4.
    """

    variance: float  # of one share, in squared units of the whole numbers
    shares: int  # that nobody who looks knows: honest parties that answered, at least
    dimension: int  # entries of the vector
    sensitivity: float  # how far one unit moves the vector, in L2: an upper bound

    def __post_init__(self) -> None:
        if self.shares < 1:
            raise BadArgument(f"shares={self.shares} must be at least 1: nobody is left to hide it")
        if self.dimension < 1:
            raise BadArgument(f"dimension={self.dimension} must be at least 1")
        if not 0 < self.sensitivity < math.inf:
            raise BadArgument(f"sensitivity={self.sensitivity} must be > 0 and finite")
        if not _LEAST <= self.variance <= 2.0**80:
            raise BadArgument(
                f"variance={self.variance} of a share must lie between 1/4 and 2**80: narrower "
                "shares add up to no known law; use a finer grid (more bits) or more noise"
            )

    @classmethod
    def of(cls, multiplier: float, *, shares: int, dimension: int, sensitivity: float) -> Self:
        """The shares whose sum has a deviation of `multiplier` sensitivities, at least."""
        if shares < 1:
            raise BadArgument(f"shares={shares} must be at least 1: nobody is left to hide it")
        variance = (multiplier * sensitivity) ** 2 / shares * _UP
        return cls(variance=variance, shares=shares, dimension=dimension, sensitivity=sensitivity)

    @property
    def deviation(self) -> float:
        """Root of the variances of the shares together, in whole numbers. The standard deviation of
        the noise is at most that: 7 % less for the narrowest shares, 1e-6 from a variance of 1 on.
        """
        return math.sqrt(self.shares * self.variance)

    @property
    def tau(self) -> float:
        """Twice the farthest that the log chance of a sum of shares is from that of a discrete
        Gaussian; rounded up."""
        rate = 2 * math.pi**2 * self.variance
        if rate > 2000:  # no double is as small
            return 0.0 if self.shares == 1 else 5e-324
        return 10 * _UP * math.fsum(math.exp(-rate * k / (k + 1)) for k in range(1, self.shares))

    @property
    def rho(self) -> float:
        """The price of one sum under zero-concentrated differential privacy; an upper bound."""
        apart = self.sensitivity / self.deviation
        far, wide = self.tau, self.dimension
        total = min(math.sqrt(wide) * self.sensitivity, self.sensitivity**2)  # in L1
        by_entry = apart**2 + 2 * far * wide
        by_root = apart**2 + 2 * far * total / self.deviation + far**2 * wide
        return min(by_entry, by_root) / 2 * _UP

    def event(self) -> DpEvent:
        """What one sum reveals at most about one unit."""
        import dp_accounting

        return dp_accounting.ZCDpEvent(self.rho)

    def drawn(self, source: Source) -> NDArray[np.int64]:  # (dimension,)
        """One party's share. `source` is the party's own, and this sum's: the same one gives the
        same share, and who knows it knows the share."""
        return discrete_gaussian(self.dimension, self.variance, source)

    def reach(self, parties: int, chance: float) -> int:
        """What no entry of the sum of `parties` shares exceeds in absolute value, but with this
        chance for the whole vector at most: sub-Gaussian tails and a union bound."""
        if not 0 < chance < 1:
            raise BadArgument(f"chance={chance} must lie between 0 and 1")
        tail = 2 * parties * self.variance * math.log(2 * self.dimension / chance)
        return math.ceil(math.sqrt(tail) * _UP)

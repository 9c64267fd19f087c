"""What a draw costs: fixed sizes by PLD and by the Rényi curve, and the ways to draw side by side.

    python benchmarks/samplers.py [--quick] [--json]

1. Draws of a fixed size under replace-one, delta 1e-5: the upper bound on epsilon by PLD, what real
   neighbours are proven to reach, and the Rényi price of dp-accounting over the upper bound.
2. Epsilon of ten epochs at one noise, in sensitivities, by each way to draw a tenth of the units;
   and bins that are thrown anew over coins of the same rate, both by their Rényi curves.
3. Milliseconds to draw a step of 1,000 from a million units.
"""

from __future__ import annotations

import argparse
import math
import time

import dp_accounting as dp
from rows import Row, show

from nacre.core.parts import Sampling
from nacre.core.random import Source
from nacre.core.types import Adjacency
from nacre.data.sampling import AllUnits, BallsInBins, CyclicPoisson, FixedSize, Poisson, Shuffled
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.events import event
from nacre.differential_privacy.noise.independent import Gaussian

DELTA = 1e-5
SETTINGS = [(0.01, 1.0, 1000), (0.1, 2.0, 200), (0.01, 0.6, 100), (0.3, 5.0, 100),
            (0.01, 1.0, 10_000), (0.001, 0.8, 20_000)]  # fmt: skip
ORDERS = [1.25, 1.5, 1.75, *range(2, 65), 80, 96, 128, 192, 256]


def fixed_sizes(settings: list[tuple[float, float, int]]) -> list[Row]:
    """Part 1."""
    rows: list[Row] = []
    relation = dp.NeighboringRelation.REPLACE_ONE
    for rate, z, steps in settings:
        made = event(
            FixedSize(round(1e6 * rate), 10**6), Gaussian(multiplier=z), steps, "replace_one"
        )
        price = epsilon(made, DELTA, "pld", "replace_one")
        theirs = dp.rdp.RdpAccountant(ORDERS, relation).compose(made).get_epsilon(DELTA)
        name = f"rate {rate:g}, noise {z:g}, {steps} steps"
        assert price.lower is not None  # a price by PLD has both
        rows.append(Row(f"{name}: epsilon by PLD", price.epsilon))
        rows.append(Row(f"{name}: epsilon of real neighbours, at least", price.lower))
        ratio = float(theirs / price.epsilon)
        rows.append(Row(f"{name}: dp-accounting (RDP) over it", ratio, target=">= 1",
                        holds=ratio >= 1))  # fmt: skip
    return rows


def ways() -> list[Row]:
    """Part 2; the noise is in sensitivities, which are two bounds under replace-one."""
    draws: list[tuple[str, Sampling, Adjacency]] = [
        ("Poisson, add-or-remove", Poisson(100, 1000), "add_or_remove"),
        ("cyclic Poisson (10 groups), add-or-remove", CyclicPoisson(50, 1000, 10), "add_or_remove"),
        ("fixed size, replace-one", FixedSize(100, 1000), "replace_one"),
        ("balls in bins, add-or-remove", BallsInBins(1000, 10), "add_or_remove"),
        ("bins anew, add-or-remove (RDP)", BallsInBins(1000, 10, anew=True), "add_or_remove"),
        ("shuffled, zero-out", Shuffled(100, 1000), "zero_out"),
        ("full batch, add-or-remove", AllUnits(1000), "add_or_remove"),
    ]
    rows: list[Row] = []
    for name, sampling, adjacency in draws:
        made = event(sampling, Gaussian(multiplier=2.0), 100, adjacency)
        found = epsilon(made, DELTA, "pld", adjacency).epsilon
        rows.append(Row(f"noise 2, 100 steps: {name}", found))
    for bins, z, steps in ((10, 2.0, 100), (100, 1.0, 1000), (1000, 0.7, 10_000)):
        size, noise = 1000 * bins, Gaussian(multiplier=z)
        anew, coins = BallsInBins(size, bins, anew=True), Poisson(1000, size)
        each = [
            epsilon(event(sampling, noise, steps, "zero_out"), DELTA, "rdp").epsilon
            for sampling in (anew, coins)
        ]
        rows.append(Row(f"{bins} bins, noise {z:g}, ten epochs: anew over coins, RDP",
                        each[0] / each[1]))  # fmt: skip
    return rows


def speed(repeats: int) -> list[Row]:
    """Part 3."""
    size, rows, key = 10**6, [], Source.fresh()
    for sampling in (Poisson(1000, size), FixedSize(1000, size), Shuffled(1000, size),
                     BallsInBins(size, 1000)):  # fmt: skip
        best = math.inf
        for step in range(repeats):
            start = time.perf_counter()
            sampling.draw(size, step, key, b"")
            best = min(best, time.perf_counter() - start)
        rows.append(Row(f"ms to draw 1,000 of 1e6: {sampling.kind}", 1000 * best))
    return rows


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    rows = fixed_sizes(SETTINGS[:3] if asked.quick else SETTINGS)
    show([*rows, *ways(), *speed(3 if asked.quick else 10)], asked.json)


if __name__ == "__main__":
    main()

"""How tight and how fast the accounts are: `python benchmarks/accounting.py [--quick] [--json]`.

Epsilon of sixteen settings between its proven bounds, beside dp-accounting's pessimistic and
optimistic prices (privacy loss distributions, its default grid, or a finer one for short runs) and
the closed form; then the seconds that one price and one calibration take, with nothing on disk.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import dp_accounting as dp
import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from rows import Row, show

from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.price import calibrate, epsilon


class Setting(NamedTuple):
    """A run: Poisson rate, noise multiplier, steps, delta."""

    rate: float
    multiplier: float
    steps: int
    delta: float = 1e-5

    def __str__(self) -> str:
        return f"q {self.rate:.3g}, z {self.multiplier:g}, T {self.steps}, delta {self.delta:g}"

    def event(self, multiplier: float | None = None) -> dp.DpEvent:
        """What the run reveals; with another multiplier where one is given."""
        noise = dp.GaussianDpEvent(self.multiplier if multiplier is None else multiplier)
        step = noise if self.rate == 1 else dp.PoissonSampledDpEvent(self.rate, noise)
        return dp.SelfComposedDpEvent(step, self.steps)


ANCHORS = [
    Setting(256 / 60000, 1.1, 14062),
    Setting(1e-3, 0.6, 100_000),
    Setting(1.0, 5.0, 1000),
    Setting(4096 / 50000, 3.0, 2500),
    Setting(1e-4, 0.5, 10_000),
    Setting(0.01, 1.0, 1),
]
MORE = [
    Setting(0.01, 1.0, 1000, 1e-9),
    Setting(0.01, 0.8, 5000, 1e-6),
    Setting(0.5, 8.0, 1000),
    Setting(0.002, 0.7, 50_000, 1e-7),
    Setting(0.1, 1.2, 100, 1e-6),
    Setting(0.05, 0.5, 1),
    Setting(1e-3, 1.0, 1_000_000, 1e-6),
    Setting(0.2, 20.0, 20_000),
    Setting(0.3, 2.0, 300, 1e-8),
    Setting(1.0, 40.0, 3000, 1e-6),
]
RARE = [  # beside the price of dp-accounting's grid, and what a price here must not exceed
    (Setting(1e-6, 0.6, 10**7, 1e-8), 0.17),
    (Setting(1e-6, 0.3, 10**6, 1e-6), 7.1),
]
TARGETS = [(0, 3.0), (1, 8.0), (2, 1.0), (3, 8.0), (4, 1.0)]  # anchor, epsilon


def tight(setting: Setting) -> list[Row]:
    """The price between its bounds, and what others say."""
    price = epsilon(setting.event(), setting.delta, "pld")
    assert price.lower is not None
    gap = 1 - price.lower / price.epsilon
    found = [
        Row(f"{setting}: epsilon", price.epsilon, price.lower, price.epsilon),
        Row(f"{setting}: gap of the bounds, relative", gap, target="<= 1e-3", holds=gap <= 1e-3),
    ]
    if setting.rate == 1:
        truth = gaussian_epsilon(setting.multiplier / setting.steps**0.5, setting.delta)
        holds = price.lower <= truth <= price.epsilon * (1 + 1e-12)
        return [*found, Row(f"{setting}: closed form", truth, target="between", holds=holds)]
    low, high = _others(setting)
    # Bounds of two libraries on one number must overlap; theirs are as far apart as their grid.
    holds = price.lower <= high and low <= price.epsilon
    what = f"{setting}: dp-accounting's bounds"
    return [*found, Row(what, high, low, high, target="overlap", holds=holds)]


def rare(setting: Setting, limit: float) -> Row:
    """A price where few steps decide, from above alone."""
    found = epsilon(setting.event(), setting.delta, "pld").epsilon
    return Row(f"{setting}: epsilon", found, target=f"<= {limit}", holds=found <= limit)


def different(number: int) -> dp.DpEvent:
    """So many different steps, each taken ten times."""
    drawn = np.random.default_rng(0)
    multipliers = drawn.uniform(0.8, 3.0, number)
    rates = np.exp(drawn.uniform(np.log(1e-3), np.log(0.05), number))
    return dp.ComposedDpEvent([
        dp.SelfComposedDpEvent(
            dp.PoissonSampledDpEvent(float(rate), dp.GaussianDpEvent(float(multiplier))), 10
        )
        for multiplier, rate in zip(multipliers, rates, strict=True)
    ])  # fmt: skip


def _others(setting: Setting) -> tuple[float, float]:
    width = min(1e-4, 0.02 / setting.steps) if setting.steps < 1000 else 1e-4
    prices: list[float] = []
    for pessimistic in (False, True):
        one: Any = pld.from_gaussian_mechanism(
            setting.multiplier, value_discretization_interval=width,
            sampling_prob=setting.rate, pessimistic_estimate=pessimistic,
        )  # fmt: skip
        prices.append(one.self_compose(setting.steps).get_epsilon_for_delta(setting.delta))
    return prices[0], prices[1]


def seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Sorted CPU seconds of `work`, each time with an empty cache."""
    found: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as empty:
            os.environ["NACRE_CACHE"] = empty
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
    return sorted(found)


def timed(what: str, work: Callable[[], object], rounds: int, limit: float) -> Row:
    """A row of the median."""
    taken = seconds(work, rounds)
    median = statistics.median(taken)
    return Row(what, median, taken[0], taken[-1], f"<= {limit:g}", median <= limit)


def main() -> None:
    """Reads the command line and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the anchors alone, once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # dp-accounting tells which method it takes
    rounds = 1 if options.quick else 5
    settings = ANCHORS if options.quick else ANCHORS + MORE
    with tempfile.TemporaryDirectory() as empty:
        os.environ["NACRE_CACHE"] = empty
        found = [row for setting in settings for row in tight(setting)]
    for setting in settings:
        work = lambda setting=setting: epsilon(setting.event(), setting.delta, "pld")  # noqa: E731
        found.append(timed(f"{setting}: one price, s", work, rounds, 0.3))
    found += [rare(setting, limit) for setting, limit in RARE]
    for number in (100, 1000):
        event = different(number)
        work = lambda event=event: epsilon(event, 1e-5, "pld")  # noqa: E731
        found.append(timed(f"{number} kinds, 10 steps each: one price, s", work, rounds, 5.0))
    for place, target in TARGETS:
        setting = ANCHORS[place]
        work = lambda setting=setting, target=target: calibrate(  # noqa: E731
            setting.event, target, setting.delta, "pld"
        )
        limit = 2.0 if setting.steps >= 100_000 else 0.5
        what = f"q {setting.rate:.3g}, T {setting.steps}: noise for epsilon {target:g}, s"
        found.append(timed(what, work, rounds, limit))
    show(found, options.json)


if __name__ == "__main__":
    main()

"""How exact statistics over parties are: one holder of all rows, central noise, distributed noise.

    python benchmarks/together.py credit_default.csv.gz

The table is that of recipes/credit.yaml (its head says how to make it). The root of the mean square
error of each answer over the repetitions, which are interleaved, and the CPU seconds of a release.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nacre
from nacre.differential_privacy.queries import Count, Histogram, Mean
from nacre.statistics.across.options import Across, CentralNoise, DistributedNoise
from nacre.statistics.query_file import Queries

PRICE: dict[str, Any] = {"epsilon": 0.5, "delta": 1e-6}
QUERIES = (
    Count(name="rows", **PRICE),
    Mean(name="age", column="AGE", low=18, high=80, **PRICE),
    Histogram(name="education", column="EDUCATION", categories=("1", "2", "3"), **PRICE),
)


def main(path: Path, repeats: int = 40) -> None:
    rows = pd.read_csv(path).loc[:, ["AGE", "EDUCATION", "LIMIT_BAL", "BILL_AMT1"]]
    bars = [int((rows["EDUCATION"] == bar).sum()) for bar in (1, 2, 3)]
    true = {
        "rows": np.array([len(rows)]),
        "age": np.array([rows["AGE"].clip(18, 80).mean()]),
        "education": np.array([*bars, len(rows) - sum(bars)]),
    }
    stream = np.random.default_rng(0)
    ways: dict[str, Callable[[Path], Any]] = {
        "one holder": lambda book: nacre.release(rows, QUERIES, ledger=book, account="all")
    }
    for count in (3, 8, 30):
        names = tuple(f"bank{number}" for number in range(count))
        dealt = rows.assign(bank=stream.choice(names, len(rows)))
        for share in (1.0, 0.8) if count > 3 else (1.0,):
            threshold = round(share * count)
            for noise in (CentralNoise(), DistributedNoise()):
                across = Across(parties=names, column="bank", threshold=threshold, noise=noise)
                asked = Queries(queries=QUERIES, across=across)
                ways[f"{count} banks, {threshold} needed, {noise.kind}"] = (
                    lambda book, a=asked, d=dealt: nacre.release_together(
                        d, a, ledger=book, account="all"
                    )
                )
    off: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for way, ask in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                book = Path(folder) / "privacy.db"
                with nacre.Ledger.open(book, create=True) as ledger:
                    for account in ("all", *(f"all/bank{number}" for number in range(30))):
                        ledger.grant(account, "example", epsilon=10, delta=1e-3)
                begun = time.process_time()
                found = ask(book)
                spent[way].append(time.process_time() - begun)
            for answer in found.answers:
                errors = np.array(answer.values) - true[answer.name]
                off[way][answer.name].append(float(np.mean(errors**2)))
    print("way", *true, "CPU seconds", sep=" | ")
    for way, each in off.items():
        errors = [f"{np.sqrt(np.mean(each[name])):.3g}" for name in true]
        print(way, *errors, f"{np.median(spent[way]):.2f}", sep=" | ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

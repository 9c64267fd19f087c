"""Small private steps beside ordinary ones: `python benchmarks/small_steps.py [--quick] [--json]`.

CPU seconds at one thread of the product's own step over those of forward, backward and
`optimizer.step()`; they take turns in one process, and each round gives one ratio. Memory is what
the first step of a process, which learns how a model lays out its rows, adds to the resident set at
its peak, over what an ordinary step adds; each in a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from commonest import COMMONEST, commonest
from gradients import in_turn, ordinary, private
from rows import Row, show
from workloads import Work, deep, encoder, workload

from nacre.gradient_clipping import BookKeeping
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.runs.run import train
from nacre.training.memory import keep_pages, resident

SMALL: dict[str, tuple[Callable[[], Work], float]] = {
    "MLP, batch 32": (lambda: workload("b", 32), 2.0),
    "width 128, depth 8, batch 64": (deep, 1.9),
    "encoder 2 x 384, batch 4, T 32": (encoder, 1.5),
    "MLP, batch 512": (lambda: workload("b"), 1.2),
}
MEDIAN, WORST, FIRST, WHOLE = 1.20, 1.35, 1.3, 1.5
TRAINED, STEPS = 256, 15


def small(rounds: int) -> list[Row]:
    """The ratio of each small step to the ordinary one."""
    found: list[Row] = []
    for name, (build, target) in SMALL.items():
        ratios, base = _ratios(build(), rounds)
        median, quarter = statistics.median(ratios), len(ratios) // 4
        low, high = ratios[quarter], ratios[-1 - quarter]
        found.append(Row(f"{name}: ordinary, ms", 1e3 * base))
        what = f"{name}: private, x ordinary"
        found.append(Row(what, median, low, high, f"<= {target:g}", median <= target))
    return found


def transformers(rounds: int, names: list[str]) -> list[Row]:
    """The same for each of the commonest transformers; their median, and the worst."""
    medians = {name: statistics.median(_ratios(commonest(name), rounds)[0]) for name in names}
    found = [Row(f"{name}: private, x ordinary", value) for name, value in medians.items()]
    middle, worst = statistics.median(medians.values()), max(medians.values())
    what = f"{len(names)} commonest transformers: "
    return [
        *found,
        Row(f"{what}median", middle, target=f"<= {MEDIAN:g}", holds=middle <= MEDIAN),
        Row(f"{what}worst", worst, target=f"<= {WORST:g}", holds=worst <= WORST),
    ]


def _ratios(work: Work, rounds: int) -> tuple[list[float], float]:
    """Of each round, in order of size, and the median seconds of an ordinary step."""
    seconds = in_turn({"ordinary": ordinary(work), "own": private(work, BookKeeping)}, rounds)
    own, base = seconds["own"], seconds["ordinary"]
    return sorted(v / b for v, b in zip(own, base, strict=True)), statistics.median(base)


def trained(rounds: int) -> list[Row]:
    """A whole step of `nacre train` (draw, sum, noise, journal, log) of the MLP at batch 256."""
    ratios: list[float] = []
    work = workload("b", TRAINED)
    plain = ordinary(work)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        features = torch.randn(8 * TRAINED, 784).clamp(-5, 5).numpy()
        np.savez(folder / "rows.npz", x=features, y=np.arange(len(features)) % 10)
        for number in range(rounds):
            few, many = (_train_seconds(folder, f"{number}-{n}", n) for n in (STEPS, 5 * STEPS))
            start = time.process_time()
            for _ in range(STEPS):
                plain()
            ratios.append((many - few) / 4 / (time.process_time() - start))
    ratios.sort()
    median, quarter = statistics.median(ratios), len(ratios) // 4
    what = f"`nacre train` of the MLP, batch {TRAINED}, x ordinary"
    low, high = ratios[quarter], ratios[-1 - quarter]
    return [Row(what, median, low, high, f"<= {WHOLE:g}", median <= WHOLE)]


def _train_seconds(folder: Path, name: str, steps: int) -> float:
    """Of one run of so many steps."""
    recipe = {
        "nacre": 1,
        "name": "mlp",
        "data": {
            "kind": "arrays", "path": "rows.npz", "shape": [784], "classes": 10,
            "size": 8 * TRAINED, "low": -5, "high": 5,
        },
        "model": {"kind": "mlp", "hidden": [512, 512]},
        "gradient_clipping": {"kind": "flat", "norm": 1.0},
        "differential_privacy": {"epsilon": 8, "delta": 1e-5},
        "training": {
            "steps": steps, "batch": TRAINED, "checkpoint": steps,
            "optimizer": {"kind": "sgd", "lr": 0.1},
        },
        "ledger": {
            "path": f"{name}.db", "dataset": "rows",
            "grant": {"epsilon": 8, "delta": 1e-5, "rule": "pld"},
        },
    }  # fmt: skip
    asked = plan(loads(yaml.safe_dump(recipe), "small_steps.yaml", folder=folder))
    start = time.process_time()
    train(asked, folder / name)
    return time.process_time() - start


def first_step() -> list[Row]:
    """Memory of the first step on a tied language model, x that of an ordinary one."""
    mapped = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}
    peaks: dict[str, float] = {}
    for engine in ("ordinary", "private"):
        command = [sys.executable, __file__, "--peak", engine]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=mapped)
        peaks[engine] = float(done.stdout.strip().splitlines()[-1])
    ratio = peaks["private"] / peaks["ordinary"]
    what = "e GPT-2 style, tied: memory of the first step, x ordinary"
    return [Row(what, ratio, target=f"<= {FIRST:g}", holds=ratio <= FIRST)]


def _measure_peak(engine: str) -> None:
    ordinary(workload("e", 2))()  # libraries are loaded
    work = workload("e")
    run = ordinary(work) if engine == "ordinary" else private(work, BookKeeping, verify="first")
    ctypes.CDLL(None).malloc_trim(0)  # or a step would fit into pages that were left
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is held
    before = resident()
    run()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak) * 1024 - before)


def main() -> None:
    """Reads the command line and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="of small steps; transformers 1/10")
    parser.add_argument("--quick", action="store_true", help="20 rounds, three transformers")
    parser.add_argument("--only", default="stnm", help="small, transformers, nacre train, memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.peak:
        _measure_peak(options.peak)
        return
    keep_pages()  # as `nacre train` does: for both alike
    names = list(COMMONEST)[::8] if options.quick else list(COMMONEST)
    found: list[Row] = []
    if "s" in options.only:
        found += small(20 if options.quick else options.rounds)
    if "t" in options.only:
        found += transformers(2 if options.quick else max(1, options.rounds // 10), names)
    if "n" in options.only:
        found += trained(1 if options.quick else 5)
    if "m" in options.only:
        found += first_step()
    show(found, options.json)


if __name__ == "__main__":
    main()

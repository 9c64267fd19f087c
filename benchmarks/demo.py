"""The figures of recipes/clinic.yaml over ten seeds, each with its own split, and import times.

    python benchmarks/demo.py [--json] [--quick] [--seeds FIRST LAST]

Every variant of one seed is scored on the same test patients. Noise is drawn from the operating
system, so two calls differ by the noise as well.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rows import Row, show

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "clinic.yaml"


def main() -> None:
    """Runs the demo once a seed and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 9), metavar=("FIRST", "LAST"))
    chosen = parser.parse_args()
    first, last = (0, 1) if chosen.quick else chosen.seeds
    results = [one(seed) for seed in range(first, last + 1)]
    show([*figures(results), *imports()], chosen.json)


def one(seed: int) -> dict[str, float]:
    """The figures of one seed, in points of a hundred, and the seconds it took."""
    from nacre.audit.run import audit_run
    from nacre.core.files import read_json
    from nacre.planning.plan import plan
    from nacre.recipe.load import load_recipe
    from nacre.runs.run import train

    start = time.perf_counter()
    recipe = replace(load_recipe(RECIPE), seed=seed)
    priced = plan(recipe)
    with tempfile.TemporaryDirectory() as folder:
        run = train(priced, Path(folder) / "clinic")
        audit_run(run)
        comparison = read_json(run.path / "comparison.json")
    found: dict[str, float] = {"seconds": time.perf_counter() - start}
    for variant in comparison["variants"]:
        for measure in ("accuracy", "attacked_accuracy", "membership_advantage"):
            found[f"{variant['name']} {measure}"] = 100 * variant[measure]["value"]
    found["epsilon"] = max(level.price.epsilon for level in priced.priced)
    return found


def figures(results: list[dict[str, float]]) -> list[Row]:
    """The demo's claims, each from the mean over seeds with the spread (one deviation)."""

    def column(name: str) -> list[float]:
        return [result[name] for result in results]

    protected, plain = column("protected accuracy"), column("unprotected accuracy")
    base = column("public base accuracy")
    fall = [a - b for a, b in zip(protected, column("protected attacked_accuracy"), strict=True)]
    plain_fall = [
        a - b for a, b in zip(plain, column("unprotected attacked_accuracy"), strict=True)
    ]
    gap = [b - a for a, b in zip(protected, plain, strict=True)]
    gain = [a - b for a, b in zip(protected, base, strict=True)]
    ratio = statistics.mean(fall) / max(1e-9, statistics.mean(plain_fall))
    return [
        Row.over("epsilon of each hospital", column("epsilon"), "<= 4", lambda x: x <= 4),
        Row.over("accuracy, protected", protected),
        Row.over("accuracy, unprotected", plain),
        Row.over("accuracy, public base", base),
        Row.over("points below unprotected", gap, "<= 3", lambda x: x <= 3),
        Row.over("points above public base", gain, ">= 2", lambda x: x >= 2),
        Row.over("points lost under attack, unprotected", plain_fall, ">= 25", lambda x: x >= 25),
        Row.over("points lost under attack, protected", fall),
        Row("protected loss / unprotected loss", ratio, None, None, "<= 0.5", ratio <= 0.5),
        Row.over("membership advantage, protected", column("protected membership_advantage")),
        Row.over("membership advantage, unprotected", column("unprotected membership_advantage")),
        Row.over("seconds a run", column("seconds"), "< 180", lambda x: x < 180),
    ]


def _differences(larger: list[float], smaller: list[float]) -> list[float]:
    """Seed by seed, so that what all variants of a seed share cancels."""
    return [a - b for a, b in zip(larger, smaller, strict=True)]


STEP = """
import torch
from nacre.core.optimizers import SGD
weights = torch.nn.Parameter(torch.zeros(1))
weights.grad = torch.ones(1)
SGD().build([weights]).step()
"""


def imports() -> list[Row]:
    """Seconds that `import nacre`, a first step and `nacre --help` take, the middle of five."""
    torch = _middle("import torch")
    both = _middle("import torch, nacre")
    bare = _middle("")
    more, step = both - torch, _middle(STEP) - torch
    shown = statistics.median(_timed([sys.executable, "-m", "nacre", "--help"]) for _ in range(5))
    return [
        Row("import nacre beyond import torch, s", more, None, None, "< 2", more < 2),
        Row("an optimizer's first step beyond import torch, s", step, None, None, "< 1", step < 1),
        Row("import torch, s", torch - bare, None, None),
        Row("nacre --help, s", shown, None, None, "< 1.5", shown < 1.5),
    ]


def _middle(code: str) -> float:
    return statistics.median(_timed([sys.executable, "-c", code or "pass"]) for _ in range(5))


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

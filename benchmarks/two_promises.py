"""What each promise of a federation costs, and both together: `python benchmarks/two_promises.py`.

MNIST dealt evenly to 150 parties of 400 images, half of them expected a round, 20 rounds of 2 local
steps, one linear layer (7,850 weights). Without privacy; with client epsilon 8 by the noise of the
server; with example epsilon 8 by that of each party; and with both. Whole runs by recipe; accuracy
on the 10,000 test images, and CPU seconds.

    python benchmarks/two_promises.py [--seeds 2] [--epsilon 8] [--json]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rows import Row, show
from tasks import DATA

import nacre as n
from nacre.report.evidence import gather

PARTIES, COHORT, ROUNDS, STEPS, BATCH = 150, 75, 20, 2, 64
MNIST = DATA / "images" / "mnist"
RECIPE = f"""
nacre: 1
name: two promises
seed: {{seed}}
data:
  kind: images
  images: {MNIST}/train-images-idx3-ubyte.gz
  labels: {MNIST}/train-labels-idx1-ubyte.gz
  test_images: {MNIST}/t10k-images-idx3-ubyte.gz
  test_labels: {MNIST}/t10k-labels-idx1-ubyte.gz
  size: 60000
  public_demonstration: true
model: {{{{kind: mlp, hidden: []}}}}
federated_learning:
  parties: {{{{kind: uniform, names: {{{{count: {PARTIES}}}}}}}}}
  rounds: {ROUNDS}
  local: {{{{steps: {STEPS}}}}}
  cohort: {{{{kind: poisson, expected: {COHORT}}}}}
training: {{{{batch: {BATCH}, checkpoint: {ROUNDS}, optimizer: {{{{kind: sgd, lr: 0.5}}}}}}}}
execution: {{{{workers: 1, threads: 1}}}}
"""
CLIENT = """
gradient_clipping: {{kind: flat, norm: 0.5}}
differential_privacy: {{unit: client, epsilon: {epsilon}, delta: 1.0e-3}}
"""
WITHIN = """
within_parties:
  gradient_clipping: {{kind: flat, norm: 1.0}}
  differential_privacy: {{unit: example, epsilon: {epsilon}, delta: 1.0e-3}}
"""
EXAMPLE = """
gradient_clipping: {{kind: flat, norm: 1.0}}
differential_privacy: {{unit: example, epsilon: {epsilon}, delta: 1.0e-3}}
"""
LEDGER = """
ledger:
  path: "{{run}}/privacy.db"
  dataset: mnist
  grant: {{epsilon: {epsilon}, delta: 1.0e-3}}
"""
INNER = "  grant_within_parties: {{epsilon: {epsilon}, delta: 1.0e-3}}\n"
PROMISES = {
    "nothing": "",
    "client": CLIENT + LEDGER,
    "example": EXAMPLE + LEDGER,
    "both": CLIENT + WITHIN + LEDGER + INNER,
}


def accuracy(promise: str, seed: int, epsilon: float, into: Path) -> tuple[float, float]:
    """Accuracy on the test images of a run with this promise, and its CPU seconds."""
    file = into.with_suffix(".yaml")
    text = RECIPE.format(seed=seed) + PROMISES[promise].format(epsilon=epsilon)
    file.write_text(text + "evaluate: {figure: accuracy}\n")
    start = time.process_time()
    run = n.train(n.plan(n.load(file)), into)
    seconds = time.process_time() - start
    n.audit_run(run)
    n.write_report(run.path)
    found = gather(run.path)["comparison"]
    assert found is not None
    figure = found["variants"][0]["accuracy"]
    assert figure is not None
    return figure["value"], seconds


def main() -> None:
    """Every promise over the seeds, interleaved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {promise: [] for promise in PROMISES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for promise, each in found.items():
                into = Path(folder) / f"{promise}-{seed}"
                each.append(accuracy(promise, seed, args.epsilon, into))
    rows: list[Row] = []
    for promise, each in found.items():
        values, seconds = zip(*each, strict=True)
        rows.append(Row.over(f"{promise}: accuracy, %", [100 * value for value in values]))
        rows.append(Row.over(f"{promise}: training, CPU seconds", seconds))
    show(rows, as_json=args.json)


if __name__ == "__main__":
    main()

"""Private accuracy on real data, beside the same model without privacy and Opacus on the same task.

    python benchmarks/utility.py [--json] [--quick] [--keep FILE] [--only PART …] [--seeds N]

MNIST and Fashion-MNIST, a subset of CIFAR-10 (fixed wavelets and a linear layer), CIFAR-10 behind
a public base, Adult, credit default, heart disease of four hospitals (small tanh networks), and HAR
sensors, once with windows and once with whole people as units; from ../shared/data. Each row: mean
and deviation over seeds, each with a key and (but for the images) a split of its own. Opacus 1.6
and the model without privacy are trained on the very rows that the run was; Opacus by its own
accountant (PRV) and ghost clipping, with the same norm, batch, steps and optimizer. Features behind
fixed wavelets or a base are computed once a process, in the CPU seconds of its first run. `--keep`
adds each finished run to FILE and leaves out those that it holds; `--only "adult eps 3"` takes the
runs whose names begin so.

`cifar base`: the base learnt CIFAR-10's training set, labels included, and the private rows are of
its test set, so that none of them was learnt from before. Its epoch may have been picked by
accuracy on that test set, though. The rows show how a private head works and no more: the base had
the same classes to learn, and leaves little to gain.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rows import Row, show
from torch import nn

import nacre as n
from nacre.core.random import digest
from nacre.data import Rows
from nacre.models import build, load
from nacre.training import features
from nacre.training.rows import Holdings, read
from nacre.training.run import Run

from tasks import DATA, TASKS, Task  # isort: skip

EPSILONS = (1.0, 3.0, 8.0)
TARGETS = {"mnist eps 3": 98.8, "fashion eps 3": 90.0}


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="heart disease at epsilon 3, one seed")
    parser.add_argument("--keep", type=Path, help="a file of finished runs")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--alone", action="store_true", help="without Opacus and the plain model")
    for name in ("lr", "norm"):
        parser.add_argument(f"--{name}", type=float, help="try another one")
    for name in ("batch", "steps"):
        parser.add_argument(f"--{name}", type=int, help="try another one")
    asked = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA} is absent: this benchmark needs the shared data")
    torch.set_num_threads(1)
    remember_features()
    done: dict[str, dict[str, Any]] = {}
    if asked.keep and asked.keep.exists():
        for line in asked.keep.read_text().splitlines():
            done |= {json.loads(line)["name"]: json.loads(line)}
    wanted = [(name, e) for name in TASKS for e in EPSILONS]
    for task, epsilon in [("heart", 3.0)] if asked.quick else wanted:
        label = f"{task} eps {epsilon:g}"
        if not label.startswith(tuple(asked.only)):
            continue
        for seed in range(asked.first, asked.first + (1 if asked.quick else asked.seeds)):
            name = f"{label} seed {seed}"
            if name not in done:
                done[name] = one(task, epsilon, seed, asked) | {"name": name, "label": label}
                if asked.keep:
                    with asked.keep.open("a") as file:
                        file.write(json.dumps(done[name]) + "\n")
    show(figures(list(done.values())), asked.json)


def one(name: str, epsilon: float, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies in points, on the same rows; and how long Nacre took, in CPU seconds."""
    task = TASKS[name].tried(asked)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = n.train(n.plan(recipe(task, epsilon, seed, Path(folder))), Path(folder) / "run")
        seconds = time.process_time() - start
        held = read(run.recipe, run.folder.key(run.folder.holder_key))
        found: dict[str, Any] = {"nacre": tested(load(run.path), held), "seconds": seconds}
        if not asked.alone:
            found |= others(task, epsilon, seed, run, held)
    return found


def recipe(task: Task, epsilon: float, seed: int, folder: Path) -> n.Recipe:
    """What is trained, with the noise that epsilon asks for."""
    data = task.data(folder)
    return n.Recipe(
        name="utility",
        seed=seed,
        folder=folder,
        data=data,
        model=task.model,
        gradient_clipping=n.Flat(norm=task.norm),
        differential_privacy=n.Privacy(
            unit=task.unit, rows_per_unit=task.rows_per_unit, epsilon=epsilon, delta=task.delta,
            accountant="pld",
        ),
        training=n.Training(
            steps=task.steps, batch=task.batch, checkpoint=10**6,
            optimizer=n.SGD(lr=task.lr, momentum=0.9),
            average=n.Average(decay=task.decay),
        ),
        execution=n.Execution(threads=1),
        ledger=n.LedgerChoice(
            path="privacy.db", dataset="utility",
            grant=n.Grant(epsilon=1.01 * epsilon, delta=task.delta, rule="pld"),
        ),
    )  # fmt: skip


_computed: dict[tuple[Any, ...], Any] = {}


def once(key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
    """What `compute` gives, computed once for each key."""
    if key not in _computed:
        _computed[key] = compute()
    return _computed[key]


def remember_features() -> None:
    """Runs of this process share the features of the same rows behind the same fixed beginning,
    which a run computes by itself: the numbers are the same, and most of the time is saved."""
    compute = features._through  # pyright: ignore

    def through(layers: nn.Module, rows: Rows, advance: Any) -> Rows:
        key = ("features", repr(layers), digest(rows.features, *layers.buffers()))
        features = once(key, lambda: compute(layers, rows, advance).features)
        return replace(rows, features=features)

    features._through = through  # pyright: ignore


def tested(model: nn.Module, held: Holdings) -> float:
    """The share of test rows that are answered rightly, in percent."""
    assert held.test is not None
    return 100 * accuracy(model, held.test)


def accuracy(model: nn.Module, rows: Rows) -> float:
    """The share of rows that are answered rightly."""
    model.eval()
    fixed = getattr(model, "beginning", None)
    if fixed is not None:
        model, rows = model.rest, _through(fixed, rows)  # pyright: ignore
    with torch.no_grad():
        blocks = zip(rows.features.split(256), rows.label.split(256), strict=True)
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in blocks)
    return right / len(rows)


def others(task: Task, epsilon: float, seed: int, run: Run, held: Holdings) -> dict[str, Any]:
    """The same model without privacy, and by Opacus where it has the unit, on the same rows."""
    schema = held.schema
    model = build(task.model, schema.shape, schema.outputs(), seed, run.recipe.folder)
    part, _ = features.trained_part(run.recipe, model, schema)
    rows, test = held.private[""], held.test
    assert test is not None
    if part is not model:
        rows, test = (_through(model.beginning, some) for some in (rows, test))  # pyright: ignore
    start = {name: value.clone() for name, value in part.state_dict().items()}
    same = digest(rows.features, rows.label, *start.values())
    key = ("plain", task.plain_lrs, task.plain_epochs, same)
    found: dict[str, Any] = {"plain": 100 * once(key, lambda: plain(part, rows, test, task))}
    if task.unit == "example":
        part.load_state_dict(start)
        private = opacus(part, rows, task, epsilon)
        found["opacus"] = 100 * accuracy(private, test)
    return found


def _through(fixed: nn.Module, rows: Rows) -> Rows:
    """The rows behind a model's fixed beginning."""
    return features._through(fixed, rows, lambda *_: None)  # pyright: ignore


def plain(model: nn.Module, rows: Rows, test: Rows, task: Task) -> float:
    """Ordinary training by Adam over shuffled batches: the best of three step sizes, by test."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    best = 0.0
    for lr in task.plain_lrs:
        model.load_state_dict(start)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        generator = torch.Generator().manual_seed(0)
        for _ in range(task.plain_epochs):
            for block in torch.randperm(len(rows), generator=generator).split(256):
                optimizer.zero_grad()
                nn.functional.cross_entropy(
                    model(rows.features[block]), rows.label[block]
                ).backward()
                optimizer.step()
        best = max(best, accuracy(model, test))
    return best


def opacus(model: nn.Module, rows: Rows, task: Task, epsilon: float) -> nn.Module:
    """DP-SGD by Opacus 1.6: Poisson draws, its own accountant and its fastest hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus import PrivacyEngine
        from opacus.accountants.utils import get_noise_multiplier

        rate = task.batch / len(rows)
        noise = get_noise_multiplier(
            target_epsilon=epsilon, target_delta=task.delta, sample_rate=rate, steps=task.steps,
            accountant="prv",
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=task.lr, momentum=0.9)
        loader = torch.utils.data.DataLoader(
            _Whole(rows.features, rows.label), batch_size=task.batch, collate_fn=lambda rows: rows
        )
        wrapped, optimizer, criterion, loader = PrivacyEngine().make_private(
            module=model.train(), optimizer=optimizer, criterion=nn.CrossEntropyLoss(),
            data_loader=loader, noise_multiplier=noise, max_grad_norm=task.norm,
            grad_sample_mode="ghost",
        )  # fmt: skip
        done = 0
        while done < task.steps:
            for block, label in loader:
                optimizer.zero_grad()
                criterion(wrapped(block), label).backward()
                optimizer.step()
                done += 1
                if done == task.steps:
                    break
    return model


class _Whole(torch.utils.data.TensorDataset):
    """Rows that are read a batch at once."""

    def __getitems__(self, places: list[int]) -> tuple[torch.Tensor, ...]:
        return self[places]  # pyright: ignore


def figures(found: list[dict[str, Any]]) -> list[Row]:
    """The table: each task and epsilon over its seeds."""
    rows: list[Row] = []
    for label in dict.fromkeys(run["label"] for run in found):
        runs = [run for run in found if run["label"] == label]
        target = TARGETS.get(label)
        for key, what in (
            ("nacre", "Nacre"), ("opacus", "Opacus 1.6"), ("plain", "without privacy"),
        ):  # fmt: skip
            values = [run[key] for run in runs if key in run]
            if values and key == "nacre" and target:
                holds = lambda value, least=target: value >= least  # noqa: E731
                rows.append(Row.over(f"{label}: {what}, %", values, f">= {target}", holds))
            elif values:
                rows.append(Row.over(f"{label}: {what}, %", values))
        rows.append(Row.over(f"{label}: CPU seconds", [run["seconds"] for run in runs]))
    return rows


if __name__ == "__main__":
    main()

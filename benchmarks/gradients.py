"""One private step against an ordinary one: `python benchmarks/gradients.py [--only ab] [--json]`.

CPU seconds at one thread; the engines take turns in one process, and each round gives one ratio to
the ordinary step (forward, backward, `optimizer.step()`). A private step is the product's own: the
clipped sum, digests of what enters it, secure noise, update. Memory is the growth of the resident
peak over a step, each engine in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rows import Row, show
from torch import Tensor, nn
from torch.nn import functional

from nacre.core.random import Source
from nacre.core.types import Batch
from nacre.differential_privacy.noise import Gaussian
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Vmapped
from nacre.training.step import Parts, State, entering, step

TARGETS = {"a": 1.40, "b": 1.15, "c": 1.20, "d": 1.02, "e": 1.15, "f": 1.15}
MEMORY = {"c": 1.45, "e": 1.25}
NAMES = {
    "a": "a small CNN, batch 256",
    "b": "b MLP, batch 512",
    "c": "c MiniLM-size, full",
    "d": "d MiniLM-size, LoRA",
    "e": "e GPT-2 style, tied",
    "f": "f GPT-2 style, untied",
}
SUMS = {"bookkeeping": BookKeeping, "grouped": Grouped, "ghost": Ghost, "vmapped": Vmapped}
VMAPPED = "a"  # b takes 200 times as long; transformers' masks cannot be mapped


@dataclass(frozen=True)
class Work:
    """A model, its batch, and the loss of each unit."""

    model: nn.Module
    batch: Batch
    losses: Callable[[nn.Module, Batch], Tensor]

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """No attack: this is its own objective."""
        return batch

    @property
    def units(self) -> int:
        """The size of the batch."""
        return len(self.batch["unit"])


def workload(name: str, batch: int | None = None, places: int | None = None) -> Work:
    """One of a to f, from the same weights each time."""
    torch.manual_seed(0)
    return {"a": _cnn, "b": _mlp}.get(name, lambda *sizes: _text(name, *sizes))(batch, places)


def _rows(units: int, **tensors: Tensor) -> Batch:
    return {
        **tensors,
        "present": torch.ones(units, dtype=torch.bool),
        "unit": torch.arange(units),
    }


def _plain(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch["features"]), batch["label"], reduction="none")


def _cnn(batch: int | None, places: int | None) -> Work:
    units = batch or 256
    model = nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, 3), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    features, label = torch.randn(units, 1, 28, 28), torch.randint(0, 10, (units,))
    return Work(model, _rows(units, features=features, label=label), _plain)


def _mlp(batch: int | None, places: int | None) -> Work:
    units = batch or 512
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    features, label = torch.randn(units, 784), torch.randint(0, 10, (units,))
    return Work(model, _rows(units, features=features, label=label), _plain)


def _text(name: str, batch: int | None, places: int | None) -> Work:
    import transformers

    transformers.logging.set_verbosity_error()
    if name in "cd":
        units, length = batch or 32, places or 64
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
        config = transformers.BertConfig(intermediate_size=1536, **sizes, **none)
        model: Any = transformers.BertForSequenceClassification(config).train()
        if name == "d":
            import peft

            chosen = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
            model = peft.get_peft_model(model, peft.LoraConfig(r=8, **chosen))
        ids = torch.randint(0, 30522, (units, length))
        tokens = {"ids": ids, "mask": torch.ones_like(ids), "label": torch.randint(0, 2, (units,))}
        return Work(model, _rows(units, **tokens), _classified)
    units, length = batch or 16, places or 128
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = transformers.GPT2Config(
        vocab_size=8192, n_embd=256, n_layer=4, n_head=4, n_positions=length, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=name == "e", **none,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).train()
    return Work(model, _rows(units, ids=torch.randint(0, 8192, (units, length))), _continued)


def _classified(model: nn.Module, batch: Batch) -> Tensor:
    outputs = model(input_ids=batch["ids"], attention_mask=batch["mask"])
    return functional.cross_entropy(outputs.logits, batch["label"], reduction="none")


def _continued(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(input_ids=batch["ids"]).logits[:, :-1]
    each = functional.cross_entropy(
        logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="none"
    )
    return each.reshape(len(batch["ids"]), -1).mean(1)


class _Drawn:
    """All units of one batch, at every step."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __len__(self) -> int:
        return self._work.units

    def numbers(self, indices: Tensor) -> Tensor:
        return self._work.batch["unit"][indices]

    def micro(self, indices: Tensor, size: int | None):
        """The batch, as the product hands it on."""
        yield self._work.batch


class _Everyone:
    """Every unit, every step: so that all engines see the same rows."""

    def __init__(self, units: int) -> None:
        self.expected = float(units)

    def draw(self, units: int, number: int, source: Source, entered: bytes) -> Tensor:
        """(units,) indices"""
        return torch.arange(units)


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)


def ordinary(work: Work) -> Callable[[], None]:
    """Forward, backward, update."""
    optimizer = _optimizer(work.model)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        work.losses(work.model, work.batch).mean().backward()
        optimizer.step()

    return run


def private(work: Work, kind: Any) -> Callable[[], None]:
    """A step as the product takes it."""
    optimizer = _optimizer(work.model)
    sums = kind(work) if kind is Vmapped else kind(work, verify="never")
    parts = Parts(
        sampling=_Everyone(work.units), sums=lambda number: sums,
        noise=Gaussian(multiplier=1.0), adjacency="add_or_remove",
    )  # fmt: skip
    source, over = Source(bytes(32)), _Drawn(work)
    state = State(work.model, optimizer, Flat(norm=1.0))

    def run() -> None:
        nonlocal state
        state, _ = step(state, over, parts, source, entering(state, source))

    return run


def opacus(work: Work, mode: str) -> Callable[[], None]:
    """Opacus 1.6 on a copy of an MLP: hooks, or ghost clipping."""
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    model = workload("b").model
    data = DataLoader(TensorDataset(work.batch["features"]), batch_size=work.units)
    criterion = nn.CrossEntropyLoss(reduction="mean")
    made = PrivacyEngine().make_private(
        module=model, optimizer=_optimizer(model), data_loader=data, criterion=criterion,
        noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False, grad_sample_mode=mode,
    )  # fmt: skip
    model, optimizer = made[0], made[1]
    criterion = made[2] if mode == "ghost" else criterion

    def run() -> None:
        optimizer.zero_grad()
        criterion(model(work.batch["features"]), work.batch["label"]).backward()
        optimizer.step()

    return run


def timed(name: str, rounds: int, engines: list[str]) -> list[Row]:
    """The ratio of each engine to the ordinary step."""
    work = workload(name)
    runs = {"ordinary": ordinary(work)}
    for engine in engines:
        if engine.startswith("opacus"):
            runs[engine] = opacus(work, engine.split()[1])
        else:
            runs[engine] = private(work, SUMS[engine])
    seconds: dict[str, list[float]] = {engine: [] for engine in runs}
    for number in range(rounds + 1):
        for engine, run in runs.items():
            start = time.process_time()
            run()
            if number:  # the first round warms up
                seconds[engine].append(time.process_time() - start)
    base = seconds.pop("ordinary")
    found = [Row(f"{NAMES[name]}: ordinary, ms", 1e3 * statistics.median(base))]
    medians: dict[str, float] = {}
    for engine, values in seconds.items():
        ratios = sorted(v / b for v, b in zip(values, base, strict=True))
        medians[engine] = statistics.median(ratios)
        target = TARGETS[name] if engine == "bookkeeping" else None
        found.append(_quartiles(f"{NAMES[name]}: {engine}, x ordinary", ratios, target))
    rivals = [m for engine, m in medians.items() if engine.startswith("opacus")]
    if rivals:
        faster = min(rivals) / medians["bookkeeping"]
        what = f"{NAMES[name]}: Opacus' best / bookkeeping"
        found.append(Row(what, faster, target=">= 1.7", holds=faster >= 1.7))
    return found


def _quartiles(what: str, values: list[float], target: float | None) -> Row:
    median = statistics.median(values)
    quarter = len(values) // 4
    low, high = values[quarter], values[-1 - quarter]
    if target is None:
        return Row(what, median, low, high)
    return Row(what, median, low, high, f"<= {target:g}", median <= target)


def memory(name: str) -> list[Row]:
    """The peak of a step over what was resident before it, against the ordinary step's."""
    peaks = {
        engine: _peak(name, engine) for engine in ("ordinary", "bookkeeping", "grouped", "ghost")
    }
    return [
        Row(
            f"{NAMES[name]}: memory of {engine}, x ordinary",
            peaks[engine] / peaks["ordinary"],
            target=f"<= {MEMORY[name]:g}" if engine == "bookkeeping" else None,
            holds=peaks[engine] / peaks["ordinary"] <= MEMORY[name]
            if engine == "bookkeeping"
            else None,
        )
        for engine in ("bookkeeping", "grouped", "ghost")
    ]


def _peak(name: str, engine: str) -> float:
    command = [sys.executable, __file__, "--peak", name, engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def _measure_peak(name: str, engine: str) -> None:
    work = workload(name)
    run = ordinary(work) if engine == "ordinary" else private(work, SUMS[engine])
    small = workload(name, batch=2)  # libraries are loaded, owners are learnt
    (ordinary(small) if engine == "ordinary" else private(small, SUMS[engine]))()
    before = _resident()
    for _ in range(3):
        run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def curves(rounds: int) -> list[Row]:
    """Milliseconds of a book-keeping step as the batch and the length grow."""
    found: list[Row] = []
    for units in (8, 16, 32):
        found += _curve("c", f"batch {units}, T 64", units, 64, rounds)
    for places in (64, 128, 256, 512):
        found += _curve("c", f"batch 4, T {places}", 4, places, rounds)
    return found


def _curve(name: str, what: str, units: int, places: int, rounds: int) -> list[Row]:
    work = workload(name, units, places)
    runs = {"ordinary": ordinary(work), "bookkeeping": private(work, BookKeeping)}
    seconds: dict[str, list[float]] = {engine: [] for engine in runs}
    for number in range(rounds + 1):
        for engine, run in runs.items():
            start = time.process_time()
            run()
            if number:
                seconds[engine].append(time.process_time() - start)
    medians = {engine: statistics.median(values) for engine, values in seconds.items()}
    return [
        Row(f"{NAMES[name]}: {what}, bookkeeping, ms", 1e3 * medians["bookkeeping"]),
        Row(f"{NAMES[name]}: {what}, x ordinary", medians["bookkeeping"] / medians["ordinary"]),
    ]


def main() -> None:
    """Reads the command line and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="abcdef", help="workloads, as `ab`")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="book-keeping alone, three rounds")
    parser.add_argument("--curves", action="store_true", help="cost against batch and length too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.peak:
        _measure_peak(*options.peak)
        return
    found: list[Row] = []
    for name in options.only:
        engines = [e for e in SUMS if e != "vmapped" or name in VMAPPED]
        if name == "b":
            engines += ["opacus hooks", "opacus ghost"]
        if options.quick:
            engines = ["bookkeeping"]
        found += timed(name, 3 if options.quick else options.rounds, engines)
        if name in MEMORY and not options.quick:
            found += memory(name)
    if options.curves:
        found += curves(max(3, options.rounds // 2))
    show(found, options.json)


if __name__ == "__main__":
    main()

"""Noise in shares beside one noise at the server: `python benchmarks/noise_in_shares.py [--quick]
[--json]`.

100 parties of 600 images of MNIST at half the side, an MLP of one hidden layer, 40 rounds of 5
local steps, whole parties protected at epsilon 8: accuracy on 10,000 test images over seeds. A sum
is over all parties, of which 80 have to answer and 5 may collude, so shares of 75 are counted. What
parties send is encoded, added modulo 2**bits and decoded by nacre's own grid; masks, which cancel,
are left out. Also CPU seconds of one party's vector of a million entries, with a share of noise and
without.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Callable

import numpy as np
import torch
from rows import Row, show
from tasks import DATA
from torch import Tensor
from torch.nn import functional as F

from nacre.core.random import Source
from nacre.core.types import BoundedSum
from nacre.data.sampling import AllUnits
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.noise.distributed import DistributedGaussian, RingSums
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.federated_learning.secure.grids.grid import Grid
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from nacre.gradient_clipping import Flat

PARTIES, THRESHOLD, COLLUDERS, EACH = 100, 80, 5, 600
SIDE, HIDDEN, CLASSES = 14, 32, 10
STEPS, BATCH, RATE, NORM = 5, 60, 0.2, 0.5
SHAPES = ((SIDE * SIDE, HIDDEN), (1, HIDDEN), (HIDDEN, CLASSES), (1, CLASSES))
DIMENSION = sum(a * b for a, b in SHAPES)
BUDGET = Budget(epsilon=8.0, delta=1e-3)

Opened = Callable[[Tensor, Source], Tensor]
"""(PARTIES, DIMENSION) clipped changes -> what the server moves the weights by, times PARTIES."""


def mechanism(noise: Gaussian | DistributedGaussian, rounds: int) -> Mechanism:
    """Over the parties, with the least noise of the budget."""
    return Mechanism(
        unit="client", sampling=AllUnits(PARTIES), clip=Flat(norm=NORM), noise=noise, steps=rounds
    ).calibrated(BUDGET, "auto")


def central(rounds: int) -> Opened:
    """One Gaussian, added by the server."""
    noise = mechanism(Gaussian(), rounds).noise

    def opened(changes: Tensor, source: Source) -> Tensor:
        total = BoundedSum({"w": changes.sum(0)}, NORM)
        return noise.add(total, None, source, "add_or_remove")[0].total["w"]

    return opened


def sums_of(bits: int, rounds: int, dimension: int = DIMENSION) -> RingSums:
    """The sums of the benchmark."""
    return RingSums(
        bits=bits, parties=PARTIES, threshold=THRESHOLD, colluders=COLLUDERS,
        dimension=dimension, bound=NORM, rounds=rounds,
    )  # fmt: skip


def grid_of(noise: object, sums: RingSums) -> NoisedGrid:
    """The grid of calibrated noise."""
    assert isinstance(noise, DistributedGaussian)
    step, shares = noise.fitted("add_or_remove")
    return NoisedGrid(bits=sums.bits, parties=PARTIES, step=step, norm=NORM, noise=shares)


def in_shares(bits: int, rounds: int) -> Opened:
    """A share of each party's own."""
    sums = sums_of(bits, rounds)
    grid = grid_of(mechanism(DistributedGaussian(sums=sums), rounds).noise, sums)

    def opened(changes: Tensor, source: Source) -> Tensor:
        each = [grid.encoded(change.numpy(), source.child(i)) for i, change in enumerate(changes)]
        return torch.from_numpy(grid.decoded(sum(each[1:], each[0]))).float()

    return opened


def plain(changes: Tensor, source: Source) -> Tensor:
    """No noise."""
    return changes.sum(0)


def images(part: str) -> tuple[Tensor, Tensor]:
    """Images at half the side in 0 … 1, and their classes."""
    folder = DATA / "images" / "mnist"
    raw = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    named = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    found = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).copy()).view(-1, 1, 28, 28)
    small = F.avg_pool2d(found.float() / 255, 2).flatten(1)
    return small, torch.from_numpy(np.frombuffer(named, np.uint8, offset=8).copy()).long()


def parts(flat: Tensor) -> list[Tensor]:
    """(..., DIMENSION) -> (..., a, b) for each shape."""
    sizes = [a * b for a, b in SHAPES]
    split = flat.split(sizes, dim=-1)
    return [x.unflatten(-1, shape) for x, shape in zip(split, SHAPES, strict=True)]


def scores(flat: Tensor, features: Tensor) -> Tensor:
    """Of one model, or of one a party."""
    first, shift, second, last = parts(flat)
    return torch.relu(features @ first + shift) @ second + last


def changes_of(weights: Tensor, features: Tensor, labels: Tensor, some: torch.Generator) -> Tensor:
    """(PARTIES, DIMENSION) of a round, clipped."""
    own = weights.expand(PARTIES, -1).clone()
    for _ in range(STEPS):
        own.requires_grad_()
        drawn = torch.randint(EACH, (PARTIES, BATCH), generator=some)
        x = features.gather(1, drawn[..., None].expand(-1, -1, features.shape[2]))
        found = scores(own, x).flatten(0, 1)
        loss = F.cross_entropy(found, labels.gather(1, drawn).flatten(), reduction="sum") / BATCH
        (slope,) = torch.autograd.grad(loss, own)
        own = (own - RATE * slope).detach()
    change = own - weights
    return change * (NORM / change.norm(dim=1, keepdim=True)).clamp(max=1)


def accuracy(opened: Opened, rounds: int, seed: int, data: tuple[Tensor, ...]) -> float:
    """Of the model after all rounds."""
    features, labels, tested, truth = data
    some = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(features), generator=some).view(PARTIES, EACH)
    starts = [torch.randn(shape, generator=some) * shape[0] ** -0.5 for shape in SHAPES]
    weights = torch.cat([start.flatten() * (start.shape[0] > 1) for start in starts])
    source = Source(bytes([seed]) * 32)
    for number in range(rounds):
        changes = changes_of(weights, features[order], labels[order], some)
        weights = weights + opened(changes, source.child(number)) / PARTIES
    return float((scores(weights, tested).argmax(1) == truth).float().mean())


def seconds(encode: Callable[[Source], object]) -> float:
    """CPU seconds of one vector: the least of five."""
    found: list[float] = []
    for again in range(5):
        start = time.process_time()
        encode(Source(bytes([again]) * 32))
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Prints the table."""
    said = argparse.ArgumentParser(description=__doc__)
    said.add_argument("--quick", action="store_true")
    said.add_argument("--json", action="store_true")
    given = said.parse_args()
    torch.set_num_threads(1)
    rounds, seeds = (5, 1) if given.quick else (40, 3)
    data = (*images("train"), *images("t10k"))
    ways: dict[str, Opened] = {
        "no privacy": plain,
        "one Gaussian at the server": central(rounds),
        "shares, 32 bits": in_shares(32, rounds),
        "shares, 16 bits": in_shares(16, rounds),
    }
    rows: list[Row] = []
    for name, opened in ways.items():
        found = [accuracy(opened, rounds, seed, data) for seed in range(seeds)]
        rows.append(Row.over(f"accuracy, {name}", found))
    entries = 100_000 if given.quick else 1_000_000
    values = np.random.default_rng(0).normal(size=entries).astype(np.float32)
    values *= np.float32(NORM) / np.linalg.norm(values)
    without = Grid(bits=32, parties=PARTIES, largest=NORM, norm=NORM)
    alone = seconds(lambda source: without.encoded(values))
    rows.append(Row(f"seconds to encode {entries:,} entries, no noise", alone))
    sums = sums_of(32, rounds, entries)
    noised = grid_of(DistributedGaussian(multiplier=1.0, sums=sums), sums)
    took = seconds(lambda source: noised.encoded(values, source))
    rows.append(Row(f"seconds to encode {entries:,} entries, with a share", took))
    show(rows, given.json)


if __name__ == "__main__":
    main()

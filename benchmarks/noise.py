"""What secure noise and digests cost a step, and whether a hundred million draws are normal.

    python benchmarks/noise.py [--json] [--quick] [--exhaustive]

Times are CPU seconds of one thread, the median of interleaved rounds with the quartiles beside it,
everything keyed by a fresh key. `--quick` draws ten million numbers in place of a hundred;
`--exhaustive` tries every word and every angle (ten minutes) for what float32 errs by.
Statistics are printed in units of what chance would exceed once in a million runs: below 1 is fine.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import algorithms
from rows import Row, show
from torch import Tensor, nn

from nacre.core.normals import box_muller, plain, rounded
from nacre.core.normals.box_muller import Normals
from nacre.core.random import Source, digest
from nacre.core.tensors import trainable
from nacre.core.types import BoundedSum
from nacre.data.sampling import AllUnits
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.gradient_clipping import Flat
from nacre.training.step import Parts, State, entering, step

BATCH = 512
LIMIT = 4.9  # deviations that one run in a million exceeds
KOLMOGOROV = 2.7  # of sqrt(n) D, the same


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="ten million draws, fewer rounds")
    parser.add_argument("--exhaustive", action="store_true", help="the error of all words alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.exhaustive:
        return show(exhaustive(), chosen.json)
    rounds = 9 if chosen.quick else 25
    rows = [*draws(rounds), *keystreams(rounds), *coins(rounds), *digests(rounds), *steps(rounds)]
    show([*rows, *law(10**7 if chosen.quick else 10**8)], chosen.json)


def interleaved(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each piece of work, round by round; one round first that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            start = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def middle(what: str, values: list[float], target: float | None = None) -> Row:
    """The median with its quartiles; with a target it must not exceed."""
    low, value, high = statistics.quantiles(values, n=4)
    if target is None:
        return Row(what, value, low, high)
    return Row(what, value, low, high, f"<= {target:g}", value <= target)


def per(seconds: list[float], count: int) -> list[float]:
    """Nanoseconds each."""
    return [each / count * 1e9 for each in seconds]


def draws(rounds: int) -> list[Row]:
    """Normals added to a sum in place, against generators that no cipher protects."""
    count, source = 1 << 22, Source.fresh()
    total, noise = torch.zeros(count), torch.empty(count)
    philox = np.random.Generator(np.random.Philox(key=1))
    found = interleaved(
        {
            "alone": lambda: alone(source, count),
            "randn": lambda: noise.normal_(),
            "exact": lambda: rounded.add_rounded_noise(source, 1e-3, [total], [total]),
            "secure": lambda: Normals(source, count).onto(total, 1e-3, total),
            "torch": lambda: total.add_(noise.normal_(), alpha=1e-3),
            "philox": lambda: total.add_(
                torch.from_numpy(philox.standard_normal(count, np.float32)), alpha=1e-3
            ),
        },
        rounds,
    )
    times = [b / a for a, b in zip(found["exact"], found["torch"], strict=True)]
    return [
        middle("ns a normal, secure, made", per(found["alone"], count), 1.5),
        middle("ns a normal, torch.randn, made", per(found["randn"], count)),
        middle(
            "ns a normal, secure, made and a sum rounded exactly", per(found["exact"], count), 1.5
        ),
        middle("ns a normal, secure, made and added in float32", per(found["secure"], count)),
        middle("ns a normal, torch.randn, made and added in float32", per(found["torch"], count)),
        middle(
            "ns a normal, NumPy's Philox, made and added in float32", per(found["philox"], count)
        ),
        Row.over("torch.randn / exact, times", times, ">= 2", lambda x: x >= 2),
    ]


def alone(source: Source, count: int) -> None:
    """Makes so many normals in blocks that stay in the cache, as a sum's noise is made."""
    blocks = box_muller.Blocks(source, count)
    for _ in range(-(-count // (2 * box_muller.PAIRS))):
        blocks.next()


def exhaustive() -> list[Row]:
    """What a normal in float32 is off by at most, over all words and angles of 32 bits each.

    The radius R of each word against both ends of its cell, and the cosine and the sine of each
    angle of a quarter turn (the others are these with other signs) against both ends of its own.
    A product R s is off by at most |s| dR + R ds + R |s| / 2**24, for cosines with |s| <= 1, for
    sines with |s| <= sqrt(1 / 2).
    """
    size = 1 << 18
    out = np.empty(2 * size, np.float32)
    cosines, sines = 0.0, 0.0
    two = np.full(size, _word_of(2.0), np.uint32)  # its radius is 2, so the product is exact
    for start in range(-(1 << 29), 1 << 29, size):
        angles = np.arange(start, start + size)
        box_muller.normals(two, angles.astype(np.uint32), out)
        for more in (0, 1):
            turn = (angles + more) * (2 * math.pi / 2**32)
            cosines = max(cosines, float(np.abs(out[:size] / 2 - np.cos(turn)).max()))
            sines = max(sines, float(np.abs(out[size:] / 2 - np.sin(turn)).max()))
    unit, worst, straight = 2.0**-24, 0.0, np.zeros(size, np.uint32)
    for start in range(0, 1 << 32, size):
        words = np.arange(start, start + size).astype(np.uint32)
        if plain.rare(words).all():
            continue
        box_muller.normals(words, straight, out)
        for more in (0, 1):
            radius = _radius(words, more)
            off = np.abs(out[:size] - radius)
            first = off + radius * (cosines + unit)
            second = off * math.sqrt(0.5) + radius * (sines + unit * math.sqrt(0.5))
            worst = max(worst, float(np.maximum(first, second)[~plain.rare(words)].max()))
    most = box_muller.ERROR / unit
    return [
        Row("largest error of a cosine, x 2^-24", cosines / unit),
        Row("largest error of a sine, x 2^-24", sines / unit),
        Row("largest error of a normal, x 2^-24", worst / unit, None, None, f"<= {most:g}",
            worst / unit <= most),
    ]  # fmt: skip


def _radius(words: np.ndarray, more: int) -> np.ndarray:
    """In float64, at one end of the words' cells."""
    left = 2.0**32 - words - more
    near = left < 2.0**31  # where the distance from 1 has the digits
    high = np.log1p(-np.where(near, left, 0) / 2.0**32)
    low = np.log(np.where(near, 2.0**32, np.maximum(2.0**32 - left, 1)) / 2.0**32)
    return np.sqrt(-2 * np.where(near, high, low))


def _word_of(radius: float) -> int:
    """A word whose radius in float32 is this number."""
    around = round(2**32 * math.exp(-(radius**2) / 2))
    words = np.arange(around - 2000, around + 2000).astype(np.uint32)
    out = np.empty(2 * len(words), np.float32)
    box_muller.normals(words, np.zeros(len(words), np.uint32), out)
    return int(words[np.flatnonzero(out[: len(words)] == np.float32(radius))[0]])


def coins(rounds: int) -> list[Row]:
    """Masks for dropout that belong to their units, against one mask for the batch."""
    units, width = torch.arange(BATCH), 2048
    stream, like = Source.fresh().stream(), torch.empty(BATCH, width)
    found = interleaved(
        {
            "keyed": lambda: stream.below(units, width, 0.1),
            "torch": lambda: like.bernoulli_(0.1),
        },
        rounds,
    )
    count = like.numel()
    return [
        middle("ns a coin, keyed by unit", per(found["keyed"], count), 1.0),
        middle("ns a coin, torch", per(found["torch"], count)),
    ]


def keystreams(rounds: int) -> list[Row]:
    """The bits of normals, by the two modes that give the same ones."""
    algorithm, zeros = algorithms.AES256(bytes(32)), memoryview(bytes(1 << 16))
    room, numbers = bytearray(len(zeros) + 15), 64 * len(zeros) // 4

    def made(counter: bool) -> None:
        encryptor = box_muller.keystream(algorithm, bytes(12), counter)
        for _ in range(64):
            encryptor.update_into(zeros, room)

    found = interleaved({"CTR": lambda: made(True), "GCM": lambda: made(False)}, rounds)
    taken = "CTR" if box_muller.counter_is_quicker() else "GCM"
    ns = {name: per(each, numbers) for name, each in found.items()}
    least = min(statistics.median(each) for each in ns.values())
    return [
        *(middle(f"ns of keystream a normal, {name}", each) for name, each in ns.items()),
        middle(f"ns of keystream a normal, as taken here ({taken})", ns[taken], 1.1 * least),
    ]


def digests(rounds: int) -> list[Row]:
    """Gigabytes a second."""
    source, tensors = Source.fresh(), {"weights": torch.randn(1 << 22)}
    data = tensors["weights"].numpy().view(np.uint8).data
    found = interleaved(
        {
            "keyed": lambda: source.digest(tensors),
            "SHA-256": lambda: digest(tensors),
            "BLAKE2b": lambda: hashlib.blake2b(data).digest(),
        },
        rounds,
    )
    speed = {name: [len(data) / each / 1e9 for each in some] for name, some in found.items()}
    return [
        Row.over(
            "GB/s of digests, keyed (GHASH, HMAC)", speed["keyed"], ">= 10", lambda x: x >= 10
        ),
        Row.over("GB/s of digests, SHA-256", speed["SHA-256"]),
        Row.over("GB/s of digests, BLAKE2b", speed["BLAKE2b"]),
    ]


@dataclass(frozen=True)
class Known:
    """Units whose clipped sum is known beforehand: what is left is the price of the step itself."""

    total: dict[str, Tensor]

    def __len__(self) -> int:
        return BATCH

    def numbers(self, indices: Tensor) -> Tensor:
        return indices

    def micro(self, indices: Tensor, size: int | None) -> list[None]:
        return [None]

    def sum(self, model: nn.Module, units: None, clip: Flat, source: Source) -> BoundedSum:
        return BoundedSum(self.total, clip.bound(1))


def steps(rounds: int) -> list[Row]:
    """An MLP 784-512-512-10 of 0.67 M weights: milliseconds a step beside its gradients."""
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    weights = trainable(model)
    known = Known({name: torch.randn(value.shape) for name, value in weights.items()})
    parts = Parts(
        sampling=AllUnits(BATCH), sums=lambda number: known.sum, noise=Gaussian(multiplier=1.0),
        adjacency="add_or_remove",
    )  # fmt: skip
    state, source = State(model, optimizer, Flat(norm=1.0)), Source.fresh()
    features, label = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))

    def private() -> None:
        step(state, known, parts, source, entering(state, source))

    def plain(noised: bool) -> None:
        for name, parameter in weights.items():
            value = known.total[name]
            value = value + torch.randn(value.shape) if noised else value
            parameter.grad = value / BATCH
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def ordinary() -> None:
        nn.functional.cross_entropy(model(features), label).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    noise = Gaussian(multiplier=1.0)
    apart = BoundedSum({name: value.clone() for name, value in known.total.items()}, 1.0)
    work: dict[str, Callable[[], object]] = {
        "ordinary": ordinary, "update": lambda: plain(False), "randn": lambda: plain(True),
        "private": private,
        "noise": lambda: noise.add(apart, None, source, "add_or_remove", consume=True),
        "digests": lambda: (entering(state, source), source.digest("sum", apart.total)),
    }  # fmt: skip
    ms = {name: [1e3 * s for s in some] for name, some in interleaved(work, rounds).items()}

    def share(name: str, base: str | None = None) -> list[float]:
        under = ms[base] if base else [0.0] * rounds
        columns = zip(ms[name], under, ms["ordinary"], strict=True)
        return [100 * (top - bottom) / whole for top, bottom, whole in columns]

    return [
        middle("ms, ordinary training, gradients and update", ms["ordinary"]),
        middle("ms, update alone, SGD", ms["update"]),
        middle("ms, update with torch.randn noise, no digests", ms["randn"]),
        middle("ms, private step without its gradients", ms["private"]),
        middle("noise, % of ordinary training", share("noise"), 9),
        middle("digests of weights and sum, % of ordinary training", share("digests"), 4),
        middle("private step beyond an update, %", share("private", "update")),
        middle("private step beyond one with torch.randn, %", share("private", "randn")),
    ]


def law(count: int) -> list[Row]:
    """Distance from the normal law, moments, tails and covariances of `count` draws."""
    drawn = Normals(Source.fresh(), count).onto(torch.zeros(count), 1.0, torch.empty(count))
    other = Normals(Source.fresh(), count).onto(torch.zeros(count), 1.0, torch.empty(count))
    found: dict[str, float] = {}
    root = math.sqrt(count) / LIMIT
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        mean = _mean(lambda x, y, p=power: x**p, drawn, drawn)
        found[f"moment {power}"] = abs(mean - moment) * math.sqrt(count / variance) / LIMIT
    for sigma in (3.0, 4.0, 5.0):
        expected = count * math.erfc(sigma / math.sqrt(2))
        beyond = int((drawn.abs() > sigma).sum())
        found[f"draws beyond {sigma:g}"] = abs(beyond - expected) / (LIMIT * expected**0.5 + 1)
    for lag in (1, 2, 8, 1 << 18, 1 << 19):
        a, b = drawn[:-lag], drawn[lag:]
        found[f"covariance at lag {lag}"] = abs(_mean(lambda x, y: x * y, a, b)) * root
        squares = _mean(lambda x, y: (x * x - 1) * (y * y - 1) / 2, a, b)
        found[f"covariance of squares at lag {lag}"] = abs(squares) * root
    found["covariance with another key"] = abs(_mean(lambda x, y: x * y, drawn, other)) * root
    found["Kolmogorov-Smirnov"] = _distance(drawn) * math.sqrt(count) / KOLMOGOROV
    return [
        Row(f"{name}, {count:.0e} draws", value, None, None, "< 1", value < 1)
        for name, value in found.items()
    ]


def _mean(of: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    """The mean of a function of two columns, in float64, a piece at a time."""
    pieces = zip(a.split(1 << 22), b.split(1 << 22), strict=True)
    return sum(float(of(x.double(), y.double()).sum()) for x, y in pieces) / len(a)


def _distance(drawn: Tensor) -> float:
    """The largest difference between the draws' distribution function and the normal one."""
    ordered, count, largest = np.sort(drawn.numpy()), len(drawn), 0.0
    for start in range(0, count, 1 << 22):
        exact = torch.special.ndtr(torch.from_numpy(ordered[start : start + (1 << 22)]).double())
        place = torch.arange(start, start + len(exact), dtype=torch.float64)
        below, above = exact - place / count, (place + 1) / count - exact
        largest = max(largest, float(below.max()), float(above.max()))
    return largest


if __name__ == "__main__":
    main()

"""The step: draw units, one bounded sum over them, noise, update. All five techniques pass here."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from nacre.core.optimizers import scale_steps
from nacre.core.parts import AnyUnits, Clip, GradientSum, Noise, NoiseState, Sampling, Shape
from nacre.core.random import Source, seed_torch
from nacre.core.tensors import scale, summed, trainable
from nacre.core.theirs import theirs
from nacre.core.types import Adjacency, BoundedSum, Release, Tensors
from nacre.models import spectral
from nacre.training.devices.portions import Devices
from nacre.training.still import Still, marks_of


class UnitSource(Protocol):
    """Where units come from: rows of one holder, or the names of the parties."""

    def __len__(self) -> int:
        """How many units there are; private."""
        ...

    def numbers(self, indices: Tensor) -> Tensor:
        """(b,) int64: a number of each unit's own, which no other unit moves."""
        ...

    def micro(self, indices: Tensor, size: int | None) -> Iterator[AnyUnits]:
        """The drawn units, at most `size` at a time; nothing for an empty draw."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the steps of one level are made of; nothing here changes between steps."""

    sampling: Sampling
    sums: Callable[[int], GradientSum]  # of a step: what a federation asks carries its round
    noise: Noise
    adjacency: Adjacency
    shape: Shape | None = None  # clipping of the whole mean gradient
    pace: Callable[[int], float] | None = None  # of a step: multiple of the optimizer's step size
    microbatch: int | None = None
    devices: Devices = field(default_factory=Devices)


@dataclass(frozen=True)
class State:
    """What a step changes. The model and the optimizer are the two mutable things."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    clip: Clip
    noise_state: NoiseState = None
    done: int = 0


def step(
    state: State,
    units: UnitSource,
    parts: Parts,
    source: Source,  # keyed by run and party
    entered: bytes,  # `entering(state, source, …)`
    since: Still | None = None,  # as the last update left the model; None: as it is now
) -> tuple[State, Release]:
    """The next state, and what was released on the way to it.

    Guarantee: sampling and attack are keyed by the step and a digest of everything that enters
    it, the noise by the sum itself as well, and by what it remembers. So a step repeated on the
    same inputs releases the same numbers; and whatever else changes (rows, code, rounding), two
    different sums never meet the same noise, which their difference would strip off.
    The power iterations of spectral norms are taken first, from the weights alone.

    Raises `Incompatible` where the trainable weights, or the optimizer's settings or state, are not
    just before the noise what they were: nothing but a noised update moves them.
    """
    number = state.done
    optimizer = state.optimizer
    still = Still.of(state.model, optimizer, source) if since is None else since.begun(optimizer)
    iterated = spectral.advance(state.model)
    drawn = parts.sampling.draw(len(units), number, source.child("sampling"), entered)
    attack = source.child("attack", number, entered)
    total = _sum(state, units, drawn, parts, attack)
    spectral.require_still(state.model, iterated)
    parts.devices.group.all_or_raise(lambda: still.require(state.model, optimizer))
    parts.devices.scatter()
    remembered = () if state.noise_state is None else (state.noise_state,)
    scale = repr((parts.noise.multiplier, parts.adjacency, total.bound))
    summed_up = source.digest("sum", entered, drawn, total.total, scale, *remembered)
    noise = source.child("noise", number, summed_up)
    release, noise_state = parts.noise.add(
        total, state.noise_state, noise, parts.adjacency, consume=True
    )
    if parts.pace is not None:
        scale_steps(state.optimizer, parts.pace(number))
    _update(state.model, state.optimizer, release, parts)
    clip = state.clip.after(release, parts.sampling.expected)
    return replace(state, clip=clip, noise_state=noise_state, done=number + 1), release


def entering(
    state: State, source: Source, context: bytes = b"", still: Still | None = None
) -> bytes:
    """Digest of what enters the next step: weights, the vectors of power iterations, clip rule,
    number, and `context`, which stands for the request that asked for it and for what is computed
    with but not moved.

    `source` is the one that `step` is keyed by. The digest is journalled where others may read it:
    without the key it tells nothing of the weights. `still`, which `step` is then given too, has
    passed over the weights already; the digest is the same.
    """
    vectors = spectral.vectors(state.model)
    parts = state.done, repr(state.clip), context, *([vectors] if vectors else [])
    marks = None if still is None else still.entered(source)
    if marks is None:
        marks = marks_of(state.model, source)
    return source.digest("entering", marks, *parts)


def _sum(
    state: State, units: UnitSource, drawn: Tensor, parts: Parts, source: Source
) -> BoundedSum:
    """The bounded sum over the drawn units; an empty draw gives zeros, which are noised too."""

    def zero() -> BoundedSum:  # only where it is needed: all weights would be passed over once more
        weights = trainable(state.model)
        bound = state.clip.bound(len(state.clip.groups(list(weights))))
        return BoundedSum.zero(summed(weights, state.clip), bound)

    sums = parts.sums(state.done)
    portions = parts.devices.portions
    portion_of = units.numbers(drawn) % portions

    def portion(number: int) -> BoundedSum:
        total: BoundedSum | None = None
        with torch.random.fork_rng(devices=[]):
            seed_torch(source.child("dropout", number).stream().seed())
            for some in units.micro(drawn[portion_of == number], parts.microbatch):
                with theirs("the model or its loss", "a step's sum was computed", surely=False):
                    more = sums(state.model, some, state.clip, source)
                if total is None:  # adding to zeros would pass over all weights once more
                    total = more
                else:
                    total += more
        return zero() if total is None else total

    return parts.devices.total(zero, portion)


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, release: Release, parts: Parts
) -> None:
    """One optimizer step on the mean gradient: the sum over the *declared* number of units.

    The release is left as it is; its ":name" entries belong to no parameter.
    """
    factor = 1 / parts.sampling.expected
    values = release.total
    if parts.shape is not None:
        sums = {name: value for name, value in values.items() if not name.startswith(":")}
        values, factor = parts.shape.shape(scale(sums, factor)), 1.0
    moved = parts.devices.moved(model)
    means = [parts.devices.part(values[name].detach(), p) for name, p in moved.items()]
    for parameter, mean in zip(moved.values(), _times(means, factor, moved), strict=True):
        parameter.grad = mean
    with theirs("the optimizer", "it took a step", surely=False):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _times(values: list[Tensor], factor: float, like: Tensors) -> Sequence[Tensor]:
    """Each value times `factor`, in the type and layout of the parameter, in one pass."""
    if all(_alike(v, p) for v, p in zip(values, like.values(), strict=True)):
        return torch._foreach_mul(values, factor)
    return [
        torch.mul(value, factor, out=torch.empty_like(parameter))
        for value, parameter in zip(values, like.values(), strict=True)
    ]


def _alike(value: Tensor, parameter: Tensor) -> bool:
    same = value.dtype == parameter.dtype and value.device == parameter.device
    same = same and type(value) is Tensor  # not split between processes
    return same and value.is_contiguous() and parameter.is_contiguous()

"""Square as a stage: a random search that needs the scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, ScoreOnly
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import score_margin
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.patches import Patches, patches
from nacre.adversarial_training.threats.region import Box, Ellipsoid, Region, chosen_rows
from nacre.core.errors import Incompatible
from nacre.core.random import Source

FIRST = 0.8
"""Share of the input that the first patches change."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after which ones the share is halved (section 3.1 and the paper's code)."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random patches at the edge of the ball; a change is kept where it raises the margin.

    *Rule of `pace`:* the margin rises about as the logarithm of the queries. From a twentieth of
    the queries on, each time their number has doubled, a row has ended that does not reach 0 by the
    last query even if each further doubling brings `pace` times what the last one brought. None
    ends no row early.

    *Source:* Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial
    attack via random search", https://arxiv.org/abs/1912.00049, algorithms 1 to 3; in L1 as Croce &
    Hein 2021, https://arxiv.org/abs/2103.01208, section 5, have it.
    """

    queries: int = 5000
    pace: float | None = None

    access: ClassVar[AccessType] = ScoreOnly

    @property
    def name(self) -> str:
        """Square with its number of queries."""
        return f"Square-{self.queries}"

    def begin(self, target: ScoreOnly, region: Region, rows: Inputs, source: Source) -> RowState:
        """A first point at the edge: stripes in a box, a relief of tiles elsewhere."""
        count, like = len(rows), rows.clean
        first, more = _moves(region).begin(region, rows, source.child("start"))
        return {
            "x": first,
            "best": rows.clean,
            "top": torch.full((count,), -torch.inf, dtype=like.dtype),
            "done": torch.zeros(count, dtype=torch.int64),
            "marked": torch.full((count,), -torch.inf, dtype=like.dtype),  # `top` at the last mark
            **more,
        }

    def advance(
        self, target: ScoreOnly, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """One query, and the next change."""
        x = state["x"]
        scores = target.scores(x)
        margin = score_margin(scores, rows.label, rows.aimed)
        better = margin > state["top"]
        after = dict(state)
        after["best"] = chosen_rows(better, x, state["best"])
        after["top"] = torch.where(better, margin, state["top"])
        after["done"] = state["done"] + 1
        ended = after["done"] >= self.queries
        if self.pace is not None:
            ended |= self._too_slow(after, self.pace)
        share = self._share(after["done"])
        moves = _moves(region)
        stream = source.child("moves").stream()
        uniform = stream.rows(rows.unit, moves.draws(region), state["done"])
        after["x"] = moves.moved(region, rows, after, uniform, share)
        return Tried(x, rows.broken(scores), after, ended)

    def _too_slow(self, after: RowState, pace: float) -> Tensor:
        """(R,) whether a row has come to a mark and is too far from 0 there; notes the mark."""
        unit = max(1, self.queries // 40)
        done, top = after["done"], after["top"]
        doublings = done // unit
        marks = (done % unit == 0) & ((doublings & (doublings - 1)) == 0)
        left = (self.queries / done.double()).log2()
        hoped = top.double() + pace * (top - after["marked"]).double() * left
        after["marked"] = torch.where(marks, top, after["marked"])
        return marks & (hoped < 0)

    def _share(self, done: Tensor) -> Tensor:
        """(R,) queries so far -> (R,) float64 share of the input that the next patch covers."""
        reached = done * 10_000 // self.queries
        return FIRST * 0.5 ** torch.bucketize(reached, torch.tensor(HALVINGS)).double()


class _Moves(Protocol):
    """How the search goes on in a ball of one kind."""

    def begin(self, region: Region, rows: Inputs, source: Source) -> tuple[Tensor, RowState]:
        """(first points, what else is remembered of each row)"""
        ...

    def draws(self, region: Region) -> int:
        """Uniform numbers a row and step."""
        ...

    def moved(
        self, region: Region, rows: Inputs, state: RowState, uniform: Tensor, share: Tensor
    ) -> Tensor:
        """The next points, each of the region."""
        ...


class _Corners:
    """In a box: a patch goes to one of its two edges, channel by channel."""

    def begin(self, region: Region, rows: Inputs, source: Source) -> tuple[Tensor, RowState]:
        found = patches(region)
        radii = region.radii.to(rows.clean)
        low = region.project(rows.clean - radii, rows.clean)
        high = region.project(rows.clean + radii, rows.clean)
        signs = found.stripes(source.stream().rows(rows.unit, found.stripe_draws))
        first = torch.where(signs.reshape(rows.clean.shape) > 0, high, low)
        return first, {"low": low, "high": high}

    def draws(self, region: Region) -> int:
        return patches(region).draws

    def moved(
        self, region: Region, rows: Inputs, state: RowState, uniform: Tensor, share: Tensor
    ) -> Tensor:
        found, best = patches(region), state["best"]
        patch, signs = found.pick(uniform, share, 1)
        low, high, flat = (_channels(state[n], found) for n in ("low", "high", "best"))
        edge = torch.where(signs > 0, high, low)
        return torch.where(patch, edge, flat).reshape(best.shape)


@dataclass(frozen=True)
class _Mass:
    """In a ball that bounds the whole move: one patch gives up its part of the move, another
    takes it, with what was not used before. All moves here are shares of the radii."""

    power: int  # 2 of the L2 ball, 1 of the L1 ball

    def begin(self, region: Region, rows: Inputs, source: Source) -> tuple[Tensor, RowState]:
        found = patches(region)
        relief = found.tiles(source.stream().rows(rows.unit, found.tile_draws))
        return self._placed(region, rows, relief), {}

    def draws(self, region: Region) -> int:
        return 2 * patches(region).draws

    def moved(
        self, region: Region, rows: Inputs, state: RowState, uniform: Tensor, share: Tensor
    ) -> Tensor:
        found = patches(region)
        radii = region.radii.to(rows.clean).double()
        move = (state["best"].double() - rows.clean.double()) / radii
        move = _channels(torch.where(radii > 0, move, torch.zeros_like(move)), found)
        taking, relief = found.relief(uniform[:, : found.draws], share, 3)
        giving, _ = found.pick(uniform[:, found.draws :], share, 3)
        both = taking | giving
        unused = (1 - self._mass(move, (1, 2))).clamp(min=0) / found.channels
        mass = unused + self._mass(move * both, (2,))
        added = self._unit(relief) + self._unit(move * taking)
        added = self._unit(added) * mass ** (1 / self.power)
        return self._placed(region, rows, torch.where(both, 0.0, move) + added)

    def _mass(self, move: Tensor, over: tuple[int, ...]) -> Tensor:
        return move.abs().pow(self.power).sum(over, keepdim=True)

    def _unit(self, move: Tensor) -> Tensor:
        """Each channel at length 1, or 0 where it is zero."""
        length = self._mass(move, (2,)) ** (1 / self.power)
        return move / torch.where(length > 0, length, torch.ones_like(length))

    def _placed(self, region: Region, rows: Inputs, move: Tensor) -> Tensor:
        """The move at full length, put at the clean inputs."""
        free = (region.radii > 0).reshape(1, move.shape[1], -1)
        move = move * free
        length = self._mass(move, (1, 2)) ** (1 / self.power)
        move = move / torch.where(length > 0, length, torch.ones_like(length))
        radii = region.radii.double()
        moved = rows.clean.double() + radii * move.reshape(rows.clean.shape)
        return region.project(moved.to(rows.clean.dtype), rows.clean)


_MOVES: dict[type[Region], _Moves] = {Box: _Corners(), Ellipsoid: _Mass(2), Diamond: _Mass(1)}


def _moves(region: Region) -> _Moves:
    moves = _MOVES.get(type(region))
    if moves is None:
        raise Incompatible(
            f"Square searches linf, l2 and l1 balls, and {type(region).__name__} is none: take "
            "another attack"
        )
    return moves


def _channels(x: Tensor, found: Patches) -> Tensor:
    """(R, *shape) -> (R, channels, N)"""
    return x.reshape(len(x), found.channels, -1)

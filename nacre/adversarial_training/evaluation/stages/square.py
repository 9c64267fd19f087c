"""Square as a stage: a random search that needs the scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, ScoreOnly
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.patches import Patches, patches
from nacre.adversarial_training.threats.region import Box, Ellipsoid, Region
from nacre.core.errors import Incompatible
from nacre.core.random import Source

FIRST = 0.8
"""Share of the input that the first patches change."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after which ones the share is halved (section 3.1 and the paper's code)."""

LOOK = 250
"""Queries before the way that a row has come is looked at: with fewer the margin says little."""

TOGETHER, AHEAD = 256, 12
"""Queries of one batch where few rows are left, since a pass of fewer costs nearly as much; and how
many of one row at most: about one in ten gains something, and what follows it is asked again."""

DRAWN, FEW = 64, 64
"""Queries of a row whose patches are drawn at once, where one takes no more than `FEW` numbers."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random patches at the edge of the ball; a change is kept where it raises the margin.

    *Rule of `way`:* after a twentieth of the queries, but at least 250, the margin has to have come
    that share of the way from the clean margin to 0: what is missing may be 1 - `way`. After half
    as many it may be the square root of that, and after twice, four times, … as many a half, a
    quarter, … of it. A row is looked at at each fifth of that number, from the second on, and has
    ended where more is missing. None ends no row early.

    The rule is for Linf: in an L2 ball rows turn late, and one in twenty was lost by such rules.

    *Source:* Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial
    attack via random search", https://arxiv.org/abs/1912.00049, algorithms 1 to 3; in L1 as Croce &
    Hein 2021, https://arxiv.org/abs/2103.01208, section 5, have it.
    """

    queries: int = 5000
    way: float | None = None

    access: ClassVar[AccessType] = ScoreOnly

    @property
    def name(self) -> str:
        """Square with its number of queries."""
        return f"Square-{self.queries}"

    def begin(self, target: ScoreOnly, region: Region, rows: Inputs, source: Source) -> RowState:
        """A first point at the edge: stripes in a box, a relief of tiles elsewhere."""
        count, like = len(rows), rows.clean
        first, more = _moves(region).begin(region, rows, source.child("start"))
        state: RowState = {
            "best": first,
            "top": torch.full((count,), -torch.inf, dtype=like.dtype),
            "done": torch.zeros(count, dtype=torch.int64),
            **more,
        }
        if _moves(region).draws(region) <= FEW:
            drawn = torch.zeros(count, dtype=torch.int64)
            placed = self._drawn(region, rows, drawn, source, DRAWN)
            state.update(drawn=drawn, placed=placed)
        if self.way is not None:
            state["far"] = rows.margins(target.scores(rows.clean))
        return state

    def advance(
        self, target: ScoreOnly, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """The next query of each row, or of few rows the next ones: what comes after a gain would
        have begun elsewhere and does not count, so that the same points are found."""
        done, top, count = state["done"], state["top"], len(rows)
        ruled = self.way is not None and isinstance(region, Box)
        marks, allowed = _marks(self.queries, self.way if ruled else None)
        next_mark = torch.searchsorted(marks, done, right=True)
        until, missing = marks[next_mark], allowed[next_mark]
        width = max(1, min(TOGETHER // count, AHEAD, int((until - done).max())))
        state, points = self._points(region, rows, state, source, width)
        scores = target.scores(points)
        margin = rows.margins(scores).reshape(count, width)
        broken = rows.broken(scores).reshape(count, width)
        counted = torch.arange(width) < (until - done)[:, None]
        gains = ((margin > top[:, None]) | broken) & counted
        gained = gains.any(1)
        # Of a row without a gain nothing is read.
        place = gains.to(torch.uint8).argmax(1)
        after, found = dict(state), torch.arange(count) * width + place
        won = gained.nonzero().squeeze(1)
        better = points.index_select(0, found[won])
        after["best"] = state["best"].index_copy(0, won, better) if len(won) else state["best"]
        after["top"] = torch.where(gained, margin.flatten()[found], top)
        tried = torch.where(gained, place + 1, counted.sum(1))
        after["done"] = done + tried
        ended = after["done"] >= self.queries
        if ruled:
            ended |= (after["done"] == until) & (after["top"] < state["far"] * missing)
        fallen = broken.flatten()[found] & gained
        return Tried(after["best"], fallen, after, ended, tried, after["top"])

    def _points(
        self, region: Region, rows: Inputs, state: RowState, source: Source, width: int
    ) -> tuple[RowState, Tensor]:
        """(what is remembered then, (R * width, *shape): the row's own next queries, if none of
        them gains anything)"""
        done, first = state["done"], state["best"]
        if not bool(done.any()):  # rows begin together
            return state, first
        if "placed" in state:
            if bool((done + width > state["drawn"] + DRAWN).any()):
                placed = self._drawn(region, rows, done, source, DRAWN)
                state = {**state, "drawn": done, "placed": placed}
            place = (done - state["drawn"])[:, None] + torch.arange(width)
            placed = state["placed"][torch.arange(len(done))[:, None], place]
        else:
            placed = self._drawn(region, rows, done, source, width)
        points = _moves(region).moved(region, rows.clean, state, placed)
        if not bool(done.all()):
            points.unflatten(0, (-1, width))[done == 0, 0] = first[done == 0]
        return state, points

    def _drawn(
        self, region: Region, rows: Inputs, first: Tensor, source: Source, count: int
    ) -> Tensor:
        """(R, count, P) the patches of `count` queries of each row, from number `first` on."""
        moves = _moves(region)
        queries = (first[:, None] + torch.arange(count)).flatten()
        stream, turns = source.child("moves").stream(), (queries - 1).clamp(min=0)
        uniform = stream.rows(_each(rows.unit, count), moves.draws(region), turns)
        placed = moves.placed(region, uniform, _shares(self.queries)[queries])
        return placed.unflatten(0, (len(rows), count))


@lru_cache(maxsize=64)
def _shares(queries: int) -> Tensor:
    """(queries + DRAWN,) float64: the share of the input that a patch covers, by query."""
    reached = torch.arange(queries + DRAWN) * 10_000 // queries
    return FIRST * 0.5 ** torch.bucketize(reached, torch.tensor(HALVINGS)).double()


@lru_cache(maxsize=64)
def _marks(queries: int, way: float | None) -> tuple[Tensor, Tensor]:
    """(M,) int64 and (M,): after how many queries a row is looked at, and the share of the way that
    may be missing then. The first query stands by itself, for nothing comes before it."""
    marks = {1: math.inf, queries: math.inf}
    if way is not None:
        look, left = max(LOOK, queries // 20), 1 - way
        for place in range(2 * (look // 5), queries, look // 5):
            marks[place] = left ** (place / look) if place <= look else left * look / place
    places = sorted(marks)
    return torch.tensor(places), torch.tensor([marks[place] for place in places])


class _Moves(Protocol):
    """How the search goes on in a ball of one kind."""

    def begin(self, region: Region, rows: Inputs, source: Source) -> tuple[Tensor, RowState]:
        """(first points, what else is remembered of each row)"""
        ...

    def draws(self, region: Region) -> int:
        """Uniform numbers a row and step."""
        ...

    def placed(
        self,
        region: Region,
        uniform: Tensor,  # (R, draws)
        share: Tensor,  # (R,) of the input
    ) -> Tensor:  # (R, P)
        """What is changed, in numbers."""
        ...

    def moved(
        self,
        region: Region,
        clean: Tensor,  # (R, *shape)
        state: RowState,
        placed: Tensor,  # (R, W, P)
    ) -> Tensor:
        """(R * W, *shape): W points of the region around the best one of each row."""
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
        return first, {"edges": torch.stack([low, high], 1)}

    def draws(self, region: Region) -> int:
        return patches(region).draws

    def placed(self, region: Region, uniform: Tensor, share: Tensor) -> Tensor:
        return patches(region).placed(uniform, share, 1)

    def moved(self, region: Region, clean: Tensor, state: RowState, placed: Tensor) -> Tensor:
        found = patches(region)
        best = _channels(state["best"], found)
        edges = state["edges"].reshape(len(best), 2, found.channels, -1)
        return found.painted(best, edges, placed.flatten(0, 1)).reshape(-1, *clean.shape[1:])


@dataclass(frozen=True)
class _Mass:
    """In a ball that bounds the whole move: one patch gives up its part of the move, another
    takes it, with what was not used before. All moves here are shares of the radii."""

    power: int  # 2 of the L2 ball, 1 of the L1 ball

    def begin(self, region: Region, rows: Inputs, source: Source) -> tuple[Tensor, RowState]:
        found = patches(region)
        relief = found.tiles(source.stream().rows(rows.unit, found.tile_draws))
        return self._placed(region, rows.clean, relief), {}

    def draws(self, region: Region) -> int:
        return 2 * patches(region).draws

    def placed(self, region: Region, uniform: Tensor, share: Tensor) -> Tensor:
        found = patches(region)
        both = uniform[:, : found.draws], uniform[:, found.draws :]
        return torch.cat([found.placed(some, share, 3) for some in both], 1)

    def moved(self, region: Region, clean: Tensor, state: RowState, placed: Tensor) -> Tensor:
        found, width = patches(region), placed.shape[1]
        radii = region.radii.to(clean).double()
        move = (state["best"].double() - clean.double()) / radii
        move = _channels(torch.where(radii > 0, move, torch.zeros_like(move)), found)
        move, clean = _each(move, width), _each(clean, width)
        takes, gives = placed.flatten(0, 1).chunk(2, 1)
        taking, relief = found.relief(takes)
        giving, _ = found.pick(gives)
        both = taking | giving
        unused = (1 - self._mass(move, (1, 2))).clamp(min=0) / found.channels
        mass = unused + self._mass(move * both, (2,))
        added = self._unit(relief) + self._unit(move * taking)
        added = self._unit(added) * mass ** (1 / self.power)
        return self._placed(region, clean, torch.where(both, 0.0, move) + added)

    def _mass(self, move: Tensor, over: tuple[int, ...]) -> Tensor:
        return move.abs().pow(self.power).sum(over, keepdim=True)

    def _unit(self, move: Tensor) -> Tensor:
        """Each channel at length 1, or 0 where it is zero."""
        length = self._mass(move, (2,)) ** (1 / self.power)
        return move / torch.where(length > 0, length, torch.ones_like(length))

    def _placed(self, region: Region, clean: Tensor, move: Tensor) -> Tensor:
        """The move at full length, put at the clean inputs."""
        free = (region.radii > 0).reshape(1, move.shape[1], -1)
        move = move * free
        length = self._mass(move, (1, 2)) ** (1 / self.power)
        move = move / torch.where(length > 0, length, torch.ones_like(length))
        radii = region.radii.double()
        moved = clean.double() + radii * move.reshape(clean.shape)
        return region.project(moved.to(clean.dtype), clean)


_MOVES: dict[type[Region], _Moves] = {Box: _Corners(), Ellipsoid: _Mass(2), Diamond: _Mass(1)}


def _moves(region: Region) -> _Moves:
    moves = _MOVES.get(type(region))
    if moves is None:
        raise Incompatible(
            f"Square searches linf, l2 and l1 balls, and {type(region).__name__} is none: take "
            "another attack"
        )
    return moves


def _each(values: Tensor, width: int) -> Tensor:
    """(R, …) -> (R * width, …): each row as many times, one after another."""
    return values if width == 1 else values.repeat_interleave(width, 0)


def _channels(x: Tensor, found: Patches) -> Tensor:
    """(R, *shape) -> (R, channels, N)"""
    return x.reshape(len(x), found.channels, -1)

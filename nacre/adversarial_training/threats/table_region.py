"""The rows of a table that an attacker could hand in instead of a clean one."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from nacre.adversarial_training.threats.region import Region, finite_or_zero
from nacre.adversarial_training.threats.repair import Repair

ENDS = 1.5
"""Random numbers are drawn from a range this much too long and cut: a third of them are its ends,
where piecewise linear models are worst."""


@dataclass(frozen=True)
class CategoryGroup:
    """The entries of a category, exactly one of which is 1."""

    places: tuple[int, ...]
    price: float  # of another category
    flag: int  # where the entry stands that says whether the category was missing, or -1


@dataclass(frozen=True, eq=False)
class TableRegion(Region):
    """Moves of named columns that keep what is declared of a row.

    What is declared is in the columns' own units, `raw = input * scale + offset`, worked out in
    float64; a column of whole numbers holds the whole number whose input is this one, bit for bit.

    *Guarantee:* whatever goes in, every row that `project` returns satisfies all that is declared,
    to the last bit of its inputs: `contains` allows for no rounding. A clean row that lies outside
    a range or breaks a relation by itself is not drawn into it: the bound is widened to that row's
    own value. A value that was missing, and for which a declared one stands, stays.
    """

    scale: Tensor  # (D,) float32, as `FeatureSpace` has it
    offset: Tensor  # (D,) float32
    least: Tensor  # (D,) float64, the smallest value, in the column's own unit
    most: Tensor  # (D,) float64
    reach: Tensor  # (D,) float64, how far a number may move; 0 for one that stays
    up: Tensor  # (D,) bool, whether it may rise
    down: Tensor  # (D,) bool
    whole: Tensor  # (D,) bool, whether it holds whole numbers
    price: Tensor  # (D,) float64, of a move by one unit
    flag: Tensor  # (D,) int64, where the entry stands that says whether it was missing, or -1
    groups: tuple[CategoryGroup, ...]
    weights: Tensor  # (K, D) float64: weights @ raw <= bounds
    bounds: Tensor  # (K,) float64
    budget: float
    share: float = 1.0  # of reach and budget

    @property
    def draws(self) -> int:
        return self.radii.numel()

    @property
    def columns(self) -> Tensor:
        """(D,) int64: equal for the entries that move as one."""
        columns = torch.arange(self.radii.numel())
        for group in self.groups:
            columns[list(group.places)] = group.places[0]
        return columns

    @property
    def relaxed(self) -> Region:
        """The box around it: no whole numbers, shares of categories, no relations, no budget."""
        return _Relaxed(self.radii, self.low, self.high, self)

    def raw(self, x: Tensor) -> Tensor:
        """(R, D) inputs -> (R, D) float64 in the columns' own units."""
        values = x.double() * self.scale.double() + self.offset.double()
        if not bool(self.whole.any()):
            return values
        rounded = values.round()
        exact = self.whole & (self.inputs_of(rounded, x) == x)
        return torch.where(exact, rounded, values)

    def scaled(self, share: float) -> Self:
        """The region with every reach and the budget this many times as large; ranges and relations
        stay, and categories move where the budget pays them."""
        radii = torch.where(self.numbers, self.radii * share, self.radii)
        return replace(self, radii=radii, share=self.share * share)

    def inputs_of(self, raw: Tensor, like: Tensor) -> Tensor:
        """(R, D) in the columns' own units -> inputs, by the steps that made the clean ones."""
        inputs = (raw.to(like.dtype) - self.offset.to(like.dtype)) / self.scale.to(like.dtype)
        return inputs.clamp(self.low.to(like.dtype), self.high.to(like.dtype))

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """The legal row that belongs to `x`: its categories are those that `x` has most of, the
        strongest changes first while the budget lasts; its numbers are moved onto the relations
        and rounded, and moves are taken back where that does not suffice."""
        if centre.device != self.radii.device:
            return self.on(centre.device).project(x, centre)
        x = torch.where(torch.isfinite(x), x, centre)
        chosen, spent = self._chosen(x, centre)
        clean = self.raw(centre)
        low, high = self.range_of(centre, clean)
        bounds = self._bounds(clean)
        repair = Repair(
            clean, low, high, self.whole, self.scale.double(), self.weights, bounds, self.price,
            self.share * self.budget - spent, 4 * torch.finfo(centre.dtype).eps,
        )  # fmt: skip
        values = repair(self._unrounded(x))
        moved = self.inputs_of(values, centre)
        # An end of the range may have no input of its own: the next one inside it is taken.
        for _ in range(2):
            seen = self.raw(moved)
            moved = torch.where(seen > high, moved.nextafter(moved.new_tensor(-math.inf)), moved)
            moved = torch.where(seen < low, moved.nextafter(moved.new_tensor(math.inf)), moved)
        moved = torch.where((values != clean) & self.numbers, moved, centre)
        moved = torch.where(self._legal(moved, clean, low, high), moved, centre)
        keeps = self._keeps(moved, clean, bounds, spent)
        numbers = torch.where(keeps[:, None], moved, centre)
        return torch.where(self.numbers, numbers, chosen)

    def start(self, centre: Tensor, uniform: Tensor) -> Tensor:
        """A random row: numbers anywhere in their range, often at its ends, any categories; then
        projected."""
        if centre.device != self.radii.device:
            return self.on(centre.device).start(centre, uniform)
        clean = self.raw(centre)
        low, high = self.range_of(centre, clean)
        share = (ENDS * (uniform.to(centre.device) - 0.5) + 0.5).clamp(0, 1)
        drawn = self.inputs_of(low + share * (high - low), centre)
        return self.project(torch.where(self.numbers, drawn, uniform.to(centre)), centre)

    def steepest(self, gradient: Tensor, step: float) -> Tensor:
        """Numbers go by that share of their reach up or down the gradient, whole ones by at least
        one; a category goes to the one with the largest gradient, by more where more is won."""
        if gradient.device != self.radii.device:
            return self.on(gradient.device).steepest(gradient, step)
        slope = finite_or_zero(gradient)
        one = torch.where(self.whole, 1 / self.scale, torch.zeros_like(self.scale))
        length = torch.maximum(step * self.radii, one if step else 0 * one).to(slope)
        move = torch.where(self.numbers & (self.radii > 0), length * slope.sign(), 0.0)
        won = [slope[:, list(g.places)].amax(1) - slope[:, list(g.places)].mean(1)
               for g in self.groups]  # fmt: skip
        if not won or not step:
            return move
        gains = torch.stack(won, 1)
        gains = gains / gains.amax(1, keepdim=True).clamp(min=torch.finfo(gains.dtype).tiny)
        for place, group in enumerate(self.groups):
            best = slope[:, list(group.places)].argmax(1)
            jump = torch.where(gains[:, place] > 0, 1 + gains[:, place], 0.0)
            index = best.new_tensor(group.places)[best]
            move = move.scatter(1, index[:, None], jump[:, None])
        return move

    def contains(self, x: Tensor, centre: Tensor, tolerance: float = 0.0) -> Tensor:
        """Whether each row satisfies all that is declared, to the last bit: the inputs of a table
        are what a file would give, so there is no `tolerance`."""
        if centre.device != self.radii.device:
            return self.on(centre.device).contains(x, centre)
        clean = self.raw(centre)
        low, high = self.range_of(centre, clean)
        legal = self._legal(x, clean, low, high) & x.isfinite()
        still = (self.radii > 0) | (x == centre)
        spent = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        sound = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for group in self.groups:
            places = list(group.places)
            same = (x[:, places] == centre[:, places]).all(1)
            sound &= same | (_one_hot(x[:, places]) & self._may_change(group, centre))
            spent += torch.where(same, 0.0, group.price)
        legal = (legal | ~self.numbers) & still
        return legal.all(1) & sound & self._keeps(x, clean, self._bounds(clean), spent)

    def violated(self, centre: Tensor) -> Tensor:
        """(R,) bool: whether the clean row breaks a declared relation by itself."""
        if centre.device != self.radii.device:
            return self.on(centre.device).violated(centre)
        values = (self.raw(centre)[:, None] * self.weights).sum(2)
        return (values > self.bounds).any(1)

    def on(self, device: torch.device) -> TableRegion:
        """The same region with its tensors on another device."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{n: t.to(device) for n, t in held.items() if isinstance(t, Tensor)})

    @cached_property
    def numbers(self) -> Tensor:
        """(D,) bool: entries that are no category's."""
        numbers = torch.ones_like(self.radii, dtype=torch.bool)
        for group in self.groups:
            numbers[list(group.places)] = False
        return numbers

    def _unrounded(self, x: Tensor) -> Tensor:
        return x.double() * self.scale.double() + self.offset.double()

    def range_of(self, centre: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D) twice: where each number may lie, in its own unit."""
        reach = self.share * self.reach
        low = torch.where(self.down, torch.maximum(self.least, clean - reach), clean)
        high = torch.where(self.up, torch.minimum(self.most, clean + reach), clean)
        # The end of a range is a whole number that scaling may have moved by a rounding.
        slack = 1e-6 * (self.scale.double() + self.offset.double().abs())
        low = torch.where(self.whole, (low - slack).ceil(), low)
        high = torch.where(self.whole, (high + slack).floor(), high)
        low, high = torch.minimum(low, clean), torch.maximum(high, clean)
        flags = self.flag.clamp(min=0)
        missing = (self.flag >= 0) & (centre[:, flags] > 0.5)
        return torch.where(missing, clean, low), torch.where(missing, clean, high)

    def _bounds(self, clean: Tensor) -> Tensor:
        """(R, K) of the relations, widened to the clean rows."""
        return torch.maximum(self.bounds, (clean[:, None] * self.weights).sum(2))

    def _legal(self, x: Tensor, clean: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(R, D) bool: whether a number lies in its range and is whole where it has to be."""
        seen = self.raw(x)
        whole = ~self.whole | (seen == seen.round()) | (seen == clean)
        return (seen >= low) & (seen <= high) & whole

    def _keeps(self, x: Tensor, clean: Tensor, bounds: Tensor, spent: Tensor) -> Tensor:
        """(R,) bool: whether the numbers keep the relations and what is left of the budget."""
        seen = self.raw(x)
        paid = (self.price * (seen - clean).abs()).sum(1) + spent
        kept = ((seen[:, None] * self.weights).sum(2) <= bounds).all(1)
        return kept & (paid <= self.share * self.budget)

    def _may_change(self, group: CategoryGroup, centre: Tensor) -> Tensor:
        """(R,) bool: whether the clean row has this category, and had it in its file."""
        known = _one_hot(centre[:, list(group.places)])
        return known if group.flag < 0 else known & (centre[:, group.flag] <= 0.5)

    def _chosen(self, x: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """(the clean rows with the categories that `x` has most of, (R,) what they cost)."""
        result, spent = centre.clone(), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if not self.groups:
            return result, spent
        strengths: list[Tensor] = []
        bests: list[Tensor] = []
        for group in self.groups:
            entries, own = x[:, list(group.places)], centre[:, list(group.places)].argmax(1)
            best = entries.argmax(1)
            won = (entries.gather(1, best[:, None]) - entries.gather(1, own[:, None])).squeeze(1)
            wins = (won > 0) & self._may_change(group, centre)
            strengths.append(torch.where(wins, won, torch.zeros_like(won)))
            bests.append(best)
        strength, best = torch.stack(strengths, 1), torch.stack(bests, 1)
        rows = torch.arange(len(x), device=x.device)
        price = spent.new_tensor([group.price for group in self.groups])
        taken = torch.zeros_like(strength, dtype=torch.bool)
        for place in strength.argsort(dim=1, descending=True, stable=True).unbind(1):
            dear = spent + price[place] > self.share * self.budget
            takes = (strength[rows, place] > 0) & ~dear
            taken[rows, place] = takes
            spent = spent + torch.where(takes, price[place], 0.0)
        for number, group in enumerate(self.groups):
            places = list(group.places)
            other = torch.nn.functional.one_hot(best[:, number], len(places)).to(centre)
            result[:, places] = torch.where(taken[:, number, None], other, centre[:, places])
        return result, spent

    def _shrink(self, x: Tensor, centre: Tensor) -> Tensor:
        return self.project(x, centre)

    def _length(self, share: Tensor) -> Tensor:
        return share.flatten(1).amax(1)


@dataclass(frozen=True, eq=False)
class _Relaxed(Region):
    """What a gradient walks in: the box of a table's region. Points of it are no rows yet."""

    table: TableRegion

    @property
    def draws(self) -> int:
        return self.table.draws

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        table = self.table
        low, high = table.range_of(centre, table.raw(centre))
        low, high = table.inputs_of(low, centre), table.inputs_of(high, centre)
        low, high = torch.minimum(low, centre), torch.maximum(high, centre)
        for group in table.groups:
            places = list(group.places)
            low[:, places], high[:, places] = 0, 1
        inside = torch.where(torch.isfinite(x), x, centre).clamp(low, high)
        return torch.where(self.radii > 0, inside, centre)

    def start(self, centre: Tensor, uniform: Tensor) -> Tensor:
        return self.table.start(centre, uniform)

    def steepest(self, gradient: Tensor, step: float) -> Tensor:
        slope = finite_or_zero(gradient)
        move = torch.where(self.table.numbers, slope.sign(), slope)
        for group in self.table.groups:
            places = list(group.places)
            own = slope[:, places] - slope[:, places].mean(1, keepdim=True)
            size = own.abs().amax(1, keepdim=True)
            move[:, places] = torch.where(size > 0, own / size, torch.zeros_like(own))
        return step * self.radii.to(slope) * move

    def _shrink(self, x: Tensor, centre: Tensor) -> Tensor:
        return self.project(x, centre)

    def _length(self, share: Tensor) -> Tensor:
        return share.flatten(1).amax(1)


def _one_hot(entries: Tensor) -> Tensor:
    """(R, C) -> (R,) bool: whether exactly one entry is 1 and the others are 0."""
    return ((entries == 1).sum(1) == 1) & ((entries == 0).sum(1) == entries.shape[1] - 1)

"""Attacks that spend no pass on rows which have stopped."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

from nacre.core.parts import Attack, Objective


@runtime_checkable
class _Packs(Attack, Protocol):
    def packing(self) -> Self:
        """The same attack, which passes on the rows alone that still climb."""
        ...


@runtime_checkable
class _Packed(Objective, Protocol):
    def packed(self) -> Self:
        """The same objective with such an attack."""
        ...


def packing(attack: Attack) -> Attack:
    """The attack without passes for rows that have stopped; itself where no row of it stops."""
    return attack.packing() if isinstance(attack, _Packs) else attack


def without_stopped_rows(objective: Objective) -> Objective:
    """The objective with an attack that spends no pass on rows which have stopped; itself where
    it has none.

    A row's perturbation is then rounded by how many rows climb beside it, so this is for training
    in which no unit's gradient is bounded. Where one is, rows that have stopped pass through the
    model with the others, and the guarantee of this folder holds bit for bit between batches of one
    shape.
    """
    return objective.packed() if isinstance(objective, _Packed) else objective

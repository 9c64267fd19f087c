"""Ghost clipping: two backward passes through one forward pass, in the least memory.

The first takes the norms, the second the same gradients once more, and each operation adds up those
of the units times their factors. A second *forward* would redraw dropout, and the bound would not
hold. Nor would it where the second pass were that of the losses times their factors: it rounds
otherwise, and where a softmax is saturated and rows are large (1e4), a unit was three bounds long.

*Source:* Li, Tramèr, Liang & Hashimoto 2022, "Large Language Models Can Be Strong Differentially
Private Learners", https://arxiv.org/abs/2110.05679, section 4; Goodfellow 2015,
https://arxiv.org/abs/1510.01799.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from nacre.core.errors import Incompatible
from nacre.core.types import Tensors
from nacre.gradient_clipping.operations.call import ParameterShares
from nacre.gradient_clipping.tape.carried_rows.single import side_by_side
from nacre.gradient_clipping.tape.contributions import Grams, squared_norms
from nacre.gradient_clipping.tape.per_parameter import Joined, computed, squared, weighted
from nacre.gradient_clipping.tape.tape import Tape
from nacre.gradient_clipping.tape.uses import Use
from nacre.gradient_clipping.taped_sum import Finish, Forward, Taped


@dataclass(frozen=True, eq=False)
class Ghost(Taped):
    """Keeps nothing of an operation once its norm is known; costs a second backward pass."""

    kind: ClassVar[str] = "ghost"
    per_part: ClassVar[bool] = False

    def passes(self, forward: Forward, groups: list[list[str]]) -> tuple[Tensor, Finish]:
        """The norms, and the sum by a second backward pass."""
        return two_passes(forward, groups, kept=set())


def two_passes(forward: Forward, groups: list[list[str]], kept: set[Use]) -> tuple[Tensor, Finish]:
    """Norms by one backward pass; then what was not kept by another one, as far as it must go.

    Raises `Incompatible` for rules with several groups: one loss has one factor.
    """
    if len(groups) != 1:
        raise Incompatible(
            f"one loss has one factor, and the clip rule gives {len(groups)} groups of parameters; "
            "use `gradients: bookkeeping`, and say `one_factor = False` in the rule"
        )
    kept = kept | _computed(forward.tape)
    first = _First(forward, kept)
    norms = first.norms()

    def finish(factors: Tensor) -> Tensors:
        total = first.sums(factors[:, 0])
        again = [use for use in forward.tape.uses if use not in kept]
        if again:
            second = _Second(forward, kept, factors[:, 0])
            forward.tape.take = second.take
            forward.tape.backward(forward.losses, again)
            for name, more in second.sums().items():
                total[name] = total[name] + more if name in total else more
        return {
            name: total[name] if name in total else weighted([], factors, parameter.detach())
            for name, parameter in forward.tape.parameters.items()
        }

    return norms[:, None], finish


def _computed(tape: Tape) -> set[Use]:
    """Uses of weights that are computed from others.

    *Why they are kept:* the backward of what computes them rounds. Where large gradients cancel in
    it, once for each unit and once for the sum of all is not the same, and what a unit adds to the
    sum could be longer than the norm that it was clipped by (1.5 bounds, seen under an orthogonal
    parametrization). Of what is kept, that is added which was measured.
    """
    return {use for use in tape.uses if any(computed(tape, tape.known[key]) for key in use.tensors)}


@dataclass(eq=False)
class _First:
    """The pass of the norms: a tensor's contributions are dropped once its norm is known."""

    forward: Forward
    kept: set[Use]
    found: Joined = field(init=False)
    stay: Joined = field(init=False)

    def __post_init__(self) -> None:
        self.found, self.stay = Joined(self.forward.tape), Joined(self.forward.tape)

    def norms(self) -> Tensor:
        """-> (B,) float64"""
        tape, units = self.forward.tape, self.forward.units
        total = torch.zeros(units, dtype=torch.float64)
        left = Counter(key for use in tape.uses for key in use.tensors)
        lone = {known.names[0] for known in tape.known.values() if len(known.names) == 1} - {
            n for known in tape.known.values() if known.derivation for n in known.names
        }

        def take(use: Use, given: ParameterShares) -> None:
            nonlocal total
            self.found.add(given)
            if use in self.kept:
                self.stay.add(given)
            for key in use.tensors:
                left[key] -= 1
                known = tape.known[key]
                if left[key] == 0 and not known.derivation and known.names[0] in lone:
                    parts = side_by_side(self.found.parts.pop(key, []))
                    if parts:
                        total = total + squared_norms(parts, Grams()).to(total.device)

        tape.take = take
        tape.backward(self.forward.losses, again=True)
        joined = self.found.by_parameter()
        total = total + squared(joined, list(joined), units, Grams())
        self.found.parts.clear()
        return total.sqrt()

    def sums(self, factors: Tensor) -> Tensors:
        """Name -> the weighted sum of what was kept, where anything was."""
        parameters = self.forward.tape.parameters
        parts = self.stay.by_parameter()
        return {n: weighted(p, factors, parameters[n].detach()) for n, p in parts.items() if p}


@dataclass(eq=False)
class _Second:
    """The pass of the sum: each contribution is added up as it comes."""

    forward: Forward
    kept: set[Use]
    factors: Tensor  # (B,)
    totals: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def take(self, use: Use, given: ParameterShares) -> None:
        """Adds up what a use gave; those that were kept are in the sum already."""
        if use in self.kept:
            return
        for tensor, part in given:
            whole = part.weighted(self.factors.to(tensor.device)).reshape(tensor.shape)
            key = id(tensor)
            self.totals[key] = self.totals[key] + whole if key in self.totals else whole

    def sums(self) -> Tensors:
        """Name -> sum, where anything was; derived tensors hand theirs to the parameters."""
        found: Tensors = {}
        for key, total in self.totals.items():
            known = self.forward.tape.known[key]
            back = [total]
            if known.derivation is not None:
                homes = [self.forward.tape.parameters[name] for name in known.names]
                kind = known.tensor.dtype
                back = torch.autograd.grad(
                    [known.tensor], homes, [total.to(kind)], retain_graph=True, allow_unused=True
                )
            for name, more in zip(known.names, back, strict=True):
                if more is not None:  # pyright: ignore[reportUnnecessaryComparison]
                    found[name] = found[name] + more if name in found else more
        return found

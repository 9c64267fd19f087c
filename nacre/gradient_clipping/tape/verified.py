"""Whether each row's gradient is its owner's alone, shown on all units of one forward pass.

A backward pass is linear in the losses. Taken once more with each unit's loss times a power of two
of its own, it brings to every entry of an operation's output the same number times the power of the
unit that answers to it, to the last bit. Where another unit answers to an entry as well, or in the
owner's place, the two passes disagree unless both units drew the same power. The entries of a unit
are compared by one product with random numbers.

What is shown is whose a gradient is. That a loss does not depend on other rows is not: a unit alone
is compared for that (`gradient_clipping.spot_check`).
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Stream
from nacre.gradient_clipping.tape.layout import Ragged
from nacre.gradient_clipping.tape.tape import Tape
from nacre.gradient_clipping.tape.uses import Use

_POWERS = 48
"""Of two: from -24 on, so that gradients stay within the range of single precision."""

_AGREES = 1e-3  # relative
_NOTHING = 1e-30


@dataclass(eq=False)
class Verification:
    """A backward pass with powers, and the one to be compared with it."""

    tape: Tape
    units: int
    powers: Tensor  # (B,)
    seed: int  # of the random numbers that entries are multiplied with
    expected: dict[Use, tuple[Tensor, Tensor]] = field(default_factory=dict)
    found: dict[Use, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Of each use: (B,) the products, and how large they are by chance."""
    drawn: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def compare(self) -> None:
        """After the pass without powers. Raises `UnsupportedLayer` where a row's gradient is not
        its owner's alone."""
        self.tape.watch = None
        for use, (product, _) in self.expected.items():
            plain, size = self.found.get(use, (torch.full_like(product, torch.nan),) * 2)
            away = (product / self.powers.to(product) - plain).abs()
            wrong = away > _AGREES * size + _NOTHING
            if bool((wrong & (plain.isfinite() | (use not in self.found))).any()):
                raise UnsupportedLayer(
                    f"{use.what} has rows that answer to other units than those that own them by "
                    "the trial (or a hook changes gradients by their size), so a unit's bound "
                    "would not hold; nothing of this step was released: use `gradients: looped`, "
                    "and report the model"
                )

    def watch(self, found: dict[Use, tuple[Tensor, Tensor]]) -> None:
        """The next backward pass notes its products there."""

        def note(use: Use, gradient: Tensor) -> None:
            if use.layout is None:  # of nobody: refused where its gradient is not zero
                return
            parts = torch.view_as_real(gradient) if gradient.is_complex() else gradient
            only = use.layout.only if isinstance(use.layout, Ragged) else None
            if only is None:
                shape = (*use.shape, *parts.shape[gradient.dim() :])
                parts = use.layout.units_first(parts.reshape(shape), self.units, use.what)
            flat = parts.reshape(self.units if only is None else 1, -1)
            flat = flat if flat.dtype == torch.float64 else flat.float()
            shown = torch.stack([flat @ self._numbers(flat), flat.norm(dim=1)])
            if only is not None:
                shown = shown.new_zeros(2, self.units).index_copy(
                    1, torch.tensor([only], device=shown.device), shown
                )
            found[use] = shown[0], shown[1]

        self.tape.watch = note

    def _numbers(self, like: Tensor) -> Tensor:
        kind = like.shape[1], like.dtype
        if kind not in self.drawn:
            draw = torch.Generator().manual_seed(self.seed)
            numbers = torch.randn(like.shape[1], generator=draw, dtype=like.dtype)
            self.drawn[kind] = numbers.to(like.device)
        return self.drawn[kind]


def begin_verification(tape: Tape, losses: Tensor, stream: Stream) -> Verification:
    """The pass with powers, through a graph that stays; the tape then watches the next one."""
    units = len(losses)
    exponents = (stream.uniform(units + 1) * _POWERS).long()
    powers = 2.0 ** (exponents[:units].to(losses.device) - _POWERS // 2)
    found = Verification(tape, units, powers, int(exponents[units]))
    found.watch(found.expected)
    with torch.enable_grad():
        scaled = losses * powers.to(losses.dtype)
    tape.backward(scaled, again=True)
    found.watch(found.found)
    return found

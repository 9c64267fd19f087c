"""The L1 ball: moves that are cheap where they are few."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import torch
from torch import Tensor

from nacre.adversarial_training.threats.region import Region, finite_or_zero

SPARSITY = 0.01
"""Share of the entries that one steepest step moves (Tramèr & Boneh 2019, SLIDE)."""


class Diamond(Region):
    """The sum of |x - centre| / radius over the entries is at most 1; equal radii give the L1 ball.

    `project` gives the nearest point of the ball *and* of the legal range, as Croce & Hein 2021,
    "Mind the box" (https://arxiv.org/abs/2103.01208, proposition 3.1) show that an attack in L1
    needs: clamping after the ball throws most of the move away. With unequal radii distances are
    measured in radii.
    """

    @property
    def draws(self) -> int:
        return self.radii.numel() + 1  # a signed length each, and the length that is not used

    def start(self, centre: Tensor, uniform: Tensor) -> Tensor:
        free = (self.radii > 0).flatten().to(centre.device)
        signed = (2 * uniform - 1).to(centre.device)
        # Exponential lengths divided by their sum, one of which is left out, are uniform in the
        # ball (Barthe et al. 2005).
        lengths = -signed.abs().log()
        lengths[:, :-1] *= free
        shares = signed[:, :-1].sign() * lengths[:, :-1] / lengths.sum(1, keepdim=True)
        radii = self.radii.to(centre.device).double()
        return self.project(centre + radii * shares.reshape(centre.shape), centre)

    def steepest(self, gradient: Tensor, step: float) -> Tensor:
        """The move of that length spread over the `SPARSITY` of the entries where the loss rises
        most for a share of the radius. One entry alone would be steeper, and would go on meeting
        the edge of the legal range."""
        radii = self.radii.to(gradient)
        worth = (radii * finite_or_zero(gradient)).flatten(1)
        kept = max(1, round(SPARSITY * int((self.radii > 0).sum())))
        if not worth.numel():
            return torch.zeros_like(gradient)
        largest = worth.abs().topk(min(kept, worth.shape[1]), dim=1)
        moved = (largest.values > 0).to(worth)
        share = moved / moved.sum(1, keepdim=True).clamp(min=1)
        shares = torch.zeros_like(worth).scatter(1, largest.indices, share) * worth.sign()
        return step * radii * shares.reshape(gradient.shape)

    def sparse(
        self,
        gradient: Tensor,  # (R, *shape)
        kept: Tensor,  # (R,) how many entries move, at least 1
    ) -> Tensor:  # (R, *shape)
        """The move of length 1 spread over the entries where the loss rises most for a share of
        the radius: `steepest` with a number of entries for each row."""
        radii = self.radii.to(gradient)
        worth = (radii * finite_or_zero(gradient)).flatten(1)
        if not worth.numel():
            return torch.zeros_like(gradient)
        size = worth.abs()
        last = kept.long().clamp(min=1, max=worth.shape[1])[:, None] - 1
        least = size.sort(1, descending=True).values.gather(1, last)
        signs = ((size >= least) & (size > 0)) * worth.sign()
        share = signs / signs.abs().sum(1, keepdim=True).clamp(min=1)
        return radii * share.reshape(gradient.shape)

    def _shrink(self, x: Tensor, centre: Tensor) -> Tensor:
        radii = self.radii.to(centre.device).double()
        move = x.double() - centre.double()
        share = torch.where(radii > 0, move / radii, torch.zeros_like(move))
        low, high = (bound.double() - centre.double() for bound in self.legal(centre))
        room = torch.where(share < 0, -low, high)
        room = torch.where(radii > 0, room / radii, torch.zeros_like(room))
        lengths = soft_threshold(share.abs().flatten(1), room.flatten(1).clamp(max=1))
        return centre + radii * share.sign() * lengths.reshape(share.shape)

    def _length(self, share: Tensor) -> Tensor:
        return share.flatten(1).abs().sum(1)


def soft_threshold(lengths: Tensor, room: Tensor) -> Tensor:
    """(R, D) lengths, at least 0, and how long each may be, at most 1 -> the nearest lengths with
    a sum of at most 1, row by row.

    They are min(max(length - t, 0), room) for the least t >= 0 whose sum is at most 1. The sum
    falls in straight pieces between the t at which an entry leaves its room or reaches 0, so that
    sorting those gives t exactly.
    """
    capped = torch.minimum(lengths, room)
    total = capped.sum(1)
    over = total > 1
    if not bool(over.any()):
        return capped
    some, rooms = lengths[over], room[over]
    places, order = torch.cat([(some - rooms).clamp(min=0), some], dim=1).sort(1)
    turns = torch.cat([torch.ones_like(some), -torch.ones_like(some)], dim=1).gather(1, order)
    slopes = turns.cumsum(1)  # entries that shrink between this place and the next
    gaps = torch.diff(places, dim=1)
    fallen = torch.cat([torch.zeros_like(gaps[:, :1]), (slopes[:, :-1] * gaps).cumsum(1)], dim=1)
    excess = (total[over] - 1)[:, None]
    at = (torch.searchsorted(fallen.contiguous(), excess, right=True) - 1).clamp(min=0)
    missing = excess - fallen.gather(1, at)
    threshold = places.gather(1, at) + missing / slopes.gather(1, at).clamp(min=1)
    shrunk = torch.minimum((some - threshold).clamp(min=0), rooms)
    result = capped.clone()
    # Rounding may leave the sum a little above 1: what is left is divided by it.
    result[over] = shrunk / shrunk.sum(1, keepdim=True).clamp(min=1)
    return result

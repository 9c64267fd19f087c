"""What a party carries from one round to the next, and what it does with it: FedProx and SCAFFOLD
in the local steps, layers of its own, compression and its remainder in what is sent."""

from __future__ import annotations

from dataclasses import dataclass

from nacre.core.parts import Shape
from nacre.core.random import Source
from nacre.core.tensors import finite, subtract
from nacre.core.types import Tensors
from nacre.federated_learning.local.drift import Drift, control_after
from nacre.federated_learning.local.kept import Memory
from nacre.federated_learning.messages import control_of, with_control, without_control
from nacre.federated_learning.options import FederatedLearning


@dataclass(frozen=True)
class BetweenRounds:
    """One party's memory, and how its recipe uses it.

    *Guarantee:* under privacy at the party everything here is computed from requests and from
    noised steps: control and remainder from changes that were sent, its own layers by the very
    steps that make the change, in which an example's gradient over shared and own layers *together*
    is clipped and noised. So it is post-processing, and adds nothing to what a round may reveal.

    *Guarantee:* where whole parties are protected its own layers may tell anything of its rows, and
    none of them leaves. What it sends in a round is a function of its rows, of what was released
    before and of its own earlier coins, and is clipped to the bound whatever it is. Given all that
    was released and the coins of the others, the round's law is therefore q of a mixture of normal
    laws, each shifted by at most the bound, beside 1 - q of one that the other parties alone
    decide, and so on the neighbour's side: by joint convexity of the hockey-stick divergence the
    pair is dominated by the one Poisson-sampled Gaussian that is priced, and rounds compose
    adaptively (Zhu et al. 2022, https://arxiv.org/abs/2106.08567, theorem 10). Of noise that is
    correlated over rounds, a turn of the cycle (bands) or the run (tree, BLT) stands for a round.
    """

    option: FederatedLearning
    lr: float  # of the local steps
    memory: Memory
    source: Source  # the party's own

    def before(self, tensors: Tensors, round_number: int) -> Before:
        """What the round with these tensors begins with."""
        known = self.memory.before(round_number) if self.option.remembers else {}
        return Before(self, tensors, known)

    def keep(self, round_number: int, tensors: Tensors) -> None:
        """Holds `tensors` for the next round; durable once this returns."""
        if self.option.remembers:
            self.memory.keep(round_number, tensors)


@dataclass(frozen=True)
class Before:
    """The beginning of a round at one party."""

    of: BetweenRounds
    asked: Tensors  # of the request: weights, and the server's control
    tensors: Tensors  # remembered: the remainder by the weights' names, the party's control, its
    # own layers

    @property
    def personal(self) -> Tensors:
        """The layers that stay here, as the last round left them; empty before the first."""
        return personal_of(self.tensors)

    def shape(self, moving: Tensors, start: Tensors, then: Shape | None) -> Shape | None:
        """What is done to each local mean gradient: `then`, and the terms against client drift."""
        local = self.of.option.local
        if not local.proximal and not local.controls:
            return then
        common = control_of(self.asked)
        own = control_of(self.tensors)
        correction = subtract(common, own) if own else common
        return Drift(
            weights=moving,
            start=start,
            proximal=local.proximal,
            correction=correction,
            then=then,
        )

    def sent(self, change: Tensors, personal: Tensors, entered: bytes) -> tuple[Tensors, Tensors]:
        """The change that travels, and what the party remembers then, `personal` among it.

        A change that is not finite, or is not with what is due beside it, is sent so, since nobody
        follows it, and nothing of it is remembered. So a party that diverged in one round takes
        part in the next one.
        """
        option = self.of.option
        remainder = {
            name: value
            for name, value in without_control(self.tensors).items()
            if not name.startswith(_PERSONAL)
        }
        due = {n: value + remainder[n] for n, value in change.items()} if remainder else change
        if not finite(due):
            return due, self.tensors
        sent, kept = due, Tensors()
        if option.compression is not None:
            source = self.of.source.child("compression", entered)
            sent = option.compression.compressed(due, source)
            if option.compression.error_feedback:
                kept = subtract(due, sent)
        own = personal if finite(personal) else self.personal
        kept |= {_PERSONAL + name: value for name, value in own.items()}
        return sent, with_control(kept, self._control_after(sent))

    def _control_after(self, sent: Tensors) -> Tensors:
        option = self.of.option
        if not option.local.controls:
            return {}
        common = control_of(self.asked)
        known = control_of(self.tensors)
        own = known or {n: value * 0 for n, value in common.items()}
        after = control_after(own, common, sent, option.local.steps * self.of.lr)
        return after if finite(after) else known


_PERSONAL = ".personal."
"""Before the name of a weight that stays with its party. No parameter's name begins so."""


def personal_of(tensors: Tensors) -> Tensors:
    """A party's own layers, by the names of the model, among what it remembers."""
    return {n.removeprefix(_PERSONAL): t for n, t in tensors.items() if n.startswith(_PERSONAL)}

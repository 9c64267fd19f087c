"""What a party does against client drift: FedProx and SCAFFOLD, as terms of each local step.

Local steps on rows of one party lead away from what all parties want. FedProx pulls back towards
the weights of the round; SCAFFOLD adds to each local gradient what all parties want beyond what
this one does, c - c_i, as far as the last rounds tell.

*Guarantee:* both terms are added to a mean gradient that is released already (noised, where the
party promises privacy). They are computed from the weights of the round, from the party's own
weights, which noised steps made, and from controls, which are computed from changes that were sent.
So they are post-processing, and no clip bound and no price depends on them. No control travels from
a party to the server: both sides compute it from the change that travels anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from nacre.core.parts import Shape
from nacre.core.tensors import scale, subtract
from nacre.core.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A party's local mean gradient with the terms of FedProx and SCAFFOLD.

    Source: Li et al. 2020 (FedProx), https://arxiv.org/abs/1812.06127, equation 2: the gradient of
    (proximal / 2) |w - w_t|² is proximal (w - w_t). Karimireddy et al. 2020 (SCAFFOLD),
    https://arxiv.org/abs/1910.06378, algorithm 1, line 10: g - c_i + c.
    """

    weights: Tensors  # the party's own, as they move
    start: Tensors  # the round's, of the layers that travel: no term acts on a party's own
    proximal: float
    correction: Tensors  # c - c_i; empty without controls
    then: Shape | None = None  # what the recipe does to the gradient of the rows, which comes first

    def shape(self, mean: Tensors) -> Tensors:
        """The mean gradient, corrected; of the same names and shapes."""
        shaped = dict(mean if self.then is None else self.then.shape(mean))
        if self.proximal:
            pulled = {n: self.weights[n].detach() - self.start[n] for n in self.start}
            shaped |= {n: shaped[n] + self.proximal * pull for n, pull in pulled.items()}
        if self.correction:
            shaped |= {n: shaped[n] + term for n, term in self.correction.items()}
        return shaped


def control_after(
    control: Tensors,  # c_i
    common: Tensors,  # c
    change: Tensors,  # what the party sent: weights after minus weights before
    travelled: float,  # K times the step size: what a gradient of 1 in every step moves
) -> Tensors:
    """The party's control after a round: its mean gradient in that round.

    Source: Karimireddy et al. 2020, algorithm 1, option II: c_i - c + (x - y_i) / (K lr).
    """
    return {n: control[n] - common[n] - change[n] / travelled for n in change}


@dataclass
class Controls:
    """The server's control c, which moves by what is released and by nothing else.

    The mean of the parties' changes of control is -c - (mean change) / (K lr), so the server needs
    no other message. Where a part of the parties is asked, it moves by their declared share.
    Source: Karimireddy et al. 2020, algorithm 1, line 17, with option II put in.
    """

    tensors: Tensors  # zeros at the start of a run
    share: float  # of the parties that a round asks, declared
    travelled: float  # K times the step size

    def follow(self, mean: Tensors) -> None:
        """Moves by the mean contribution of a round: minus the mean change, as released."""
        kept = scale(self.tensors, 1 - self.share)
        new = scale({name: mean[name] for name in kept}, self.share / self.travelled)
        self.tensors = {name: kept[name] + new[name] for name in kept}

    def put_back(self, tensors: Tensors) -> None:
        """Holds what a checkpoint had. Raises `ValueError` for other names."""
        subtract(self.tensors, tensors)  # the names and shapes agree
        self.tensors = dict(tensors)

"""What no optimizer moves stays as it was: frozen weights and buffers, compared by content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nacre.core.errors import Incompatible
from nacre.core.random import digest
from nacre.core.tensors import buffers_of, modules_of, parameters_of, trainable
from nacre.models import spectral


class Unmoved:
    """The frozen weights and buffers of a model, as they were when this was made.

    A forward pass that writes into one of them (through `.data`, or by a name under which the
    buffer is held a second time) would carry what the batch holds into the model that is handed
    over, without noise. Non-persistent buffers count too: a later step may compute with them.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> unmoved = Unmoved(model)
    >>> unmoved.require(model)
    >>> _ = model[1].running_mean.data.add_(1.0)
    >>> unmoved.require(model)
    Traceback (most recent call last):
    nacre.core.errors.Incompatible: '1.running_mean' was written into while the model was \
trained, ...
    """

    def __init__(self, model: nn.Module) -> None:
        self._digests = {name: _of(tensor) for name, tensor in _frozen(model).items()}

    def digests(self) -> list[bytes]:
        """Of each tensor, in the order of the names."""
        return [self._digests[name] for name in sorted(self._digests)]

    def require(self, model: nn.Module) -> None:
        """Raises `Incompatible`, naming the first tensor that is not as it was."""
        for name, tensor in _frozen(model).items():
            if self._digests.get(name) != _of(tensor):
                raise Incompatible(
                    f"{name!r} was written into while the model was trained, and no optimizer "
                    "moves it, so it may hold what the private rows hold, without noise: nothing "
                    "is handed over; leave out what writes there in `forward`, end this run and "
                    "start a new one"
                )


def _frozen(model: nn.Module) -> dict[str, Tensor]:
    moved = {id(p) for p in trainable(model).values()}  # a tied weight has a second name
    moved |= {id(vector) for vector in spectral.vectors(model).values()}  # watched by the step
    found = parameters_of(model) | buffers_of(model)
    return {name: tensor for name, tensor in found.items() if id(tensor) not in moved}


def _of(tensor: Tensor) -> bytes:
    return digest({"": tensor.detach()})


@dataclass(frozen=True, eq=False)
class Attributes:
    """What modules hold beside weights, buffers and modules.

    The objects themselves are kept, since the `id` of a number that a step has replaced is soon
    another's; and of tensors among them the digest, since a pass may write into one.
    """

    held: list[tuple[str, Any, bytes]]

    @classmethod
    def of(cls, model: nn.Module) -> Attributes:
        """Those of this model, as they are now."""
        return cls(
            [
                (name, value, digest({"": value.detach()}) if isinstance(value, Tensor) else b"")
                for _, module in modules_of(model)
                for name, value in module.__dict__.items()
                if name not in _TORCHS
            ]
        )

    def stand(self, model: nn.Module) -> bool:
        """Whether the model has the same ones, which hold the same."""
        now = self.of(model).held
        return len(now) == len(self.held) and all(
            name == other and value is one and content == before
            for (name, value, content), (other, one, before) in zip(now, self.held, strict=True)
        )


_TORCHS = frozenset({"_parameters", "_buffers", "_modules"})

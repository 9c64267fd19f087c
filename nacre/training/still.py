"""What noised updates alone move stays as they left it until the next one: trainable weights, and
the optimizer's settings and state."""

# Parts of torch are untyped, and an optimizer may hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from nacre.core.errors import Incompatible
from nacre.core.random import Source, raw_bytes
from nacre.core.tensors import trainable

_SMALL = 1 << 13  # bytes of a tensor that is kept as it is
_BLOCK = 1 << 11  # bytes whose words are added up

_Content = tuple[object, ...]
_Contents = Mapping[str, _Content]
_Tagging = Callable[[Tensor], bytes]
_PLAIN = (int, float, complex, str, list, tuple, type(None))

_UNPAID = (
    "which carries what the rows hold into what is handed over, without noise; nothing of this "
    "step was released"
)
_REMEDY = (
    "compute a new tensor instead (`weight.clamp(min=0)`, a parametrization), and load the model "
    "anew, since what was written stands"
)


@dataclass(frozen=True, eq=False, repr=False)
class Still:
    """Weights, settings and state as they were when this was made, to be compared by content.

    A forward pass, a loss or a data set that writes there (through `.data` or an array over the
    same memory, which no counter of PyTorch's sees) would send private numbers past the noise.
    Comparing costs one pass over the weights and the state. Of tensors that are split between
    processes the own part is compared.

    *Limits:* what an optimizer keeps outside `state` and `param_groups` is not seen. Large tensors
    of the state, and all on an accelerator, are compared by the sums of the bits of blocks of 2 KiB
    (half the time of a digest), so an exchange of numbers inside a block is not seen there.

    >>> model = nn.Linear(2, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> still = Still.of(model, optimizer, Source(bytes(32)))
    >>> still.require(model, optimizer)
    >>> _ = model.bias.data.add_(1.0)
    >>> still.require(model, optimizer)
    Traceback (most recent call last):
    nacre.core.errors.Incompatible: the trainable weight 'bias' was written into within a step, ...
    """

    weights: _Contents
    settings: _Contents
    state: _Contents
    source: Source
    marks: bytes | None = None
    """`marks_of` the weights, where one pass over them serves for both."""

    @classmethod
    def of(cls, model: nn.Module, optimizer: torch.optim.Optimizer, source: Source) -> Still:
        """As they are now; `source` keys the digests."""
        weights = contents(model, source)
        settings, state = _settings(optimizer, source), _state(model, optimizer, source)
        whole = all(map(_plain, trainable(model).values()))
        return cls(weights, settings, state, source, _joined(weights) if whole else None)

    def require(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Raises `Incompatible`, naming the first thing that is not as it was."""
        written = self.written(model)
        if written is not None:
            raise Incompatible(
                f"the trainable weight {written!r} was written into within a step, by `forward`, "
                f"the loss or the data set, {_UNPAID}: {_REMEDY}"
            )
        written = _differing(self.settings, _settings(optimizer, self.source))
        if written is not None:
            raise Incompatible(
                f"the optimizer's {written} was set within a step, by `forward`, the loss or the "
                f"data set, {_UNPAID}: set it between two steps, by what is public"
            )
        written = _differing(self.state, _state(model, optimizer, self.source))
        if written is not None:
            raise Incompatible(
                f"the optimizer's {written} was written into since the last update, by `forward`, "
                f"the loss or the data set, {_UNPAID}: leave it to the optimizer, and start again "
                "with a new one"
            )

    def written(self, model: nn.Module) -> str | None:
        """The first trainable weight that is not as it was."""
        return _differing(self.weights, contents(model, self.source))

    def entered(self, source: Source) -> bytes | None:
        """`marks_of` the weights as they were, where they were made under this source."""
        return self.marks if source is self.source else None

    def begun(self, optimizer: torch.optim.Optimizer) -> Still:
        """For the next step, with the settings of now: a loop may move them between two steps."""
        settings = _settings(optimizer, self.source)
        return replace(self, settings=settings)


def contents(model: nn.Module, source: Source) -> _Contents:
    """What the trainable weights hold, by name."""
    tag = source.tagging()
    return {n: _content(weight, tag, digested=True) for n, weight in trainable(model).items()}


def marks_of(model: nn.Module, source: Source) -> bytes:
    """What the trainable weights hold, by name: of a small one its bytes, of others the tag of them
    under `source`, so for it alone; the same wherever they lie."""
    tag = source.tagging()
    found: dict[str, _Content] = {}
    for name, weight in trainable(model).items():
        bits = raw_bytes(weight) if _size(weight) <= _SMALL else tag(weight)
        found[name] = (weight.dtype, weight.shape, bits)
    return _joined(found)


def _joined(weights: _Contents) -> bytes:
    """An encoding that no other weights have whose bits differ."""
    pieces: list[bytes] = []
    for name in sorted(weights):
        kind, shape, bits = weights[name]
        assert isinstance(bits, bytes)
        head = _head(name, kind, shape)
        pieces += [len(head).to_bytes(4, "big"), head, len(bits).to_bytes(8, "big"), bits]
    return b"".join(pieces)


@lru_cache(maxsize=4096)
def _head(name: str, kind: object, shape: object) -> bytes:
    return repr((name, str(kind), tuple(shape))).encode()  # pyright: ignore[reportArgumentType]


def _plain(weight: Tensor) -> bool:
    """Whether a weight lies whole in the processor's memory, as nearly all do."""
    return type(weight) in (Tensor, nn.Parameter) and weight.is_cpu and weight.is_contiguous()


def _settings(optimizer: torch.optim.Optimizer, source: Source) -> _Contents:
    """Step sizes and the like, which tensors each group has, and what runs beside an update."""
    found: dict[str, _Content] = {}
    tag = source.tagging()
    for number, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            where = f"`{name}`" + (f" of group {number}" if number else "")
            if name == "params":
                found[where] = tuple(id(parameter) for parameter in value)
            else:
                found.update(_all_held(value, where, tag))
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        found[f"`{hooks}`"] = tuple(getattr(optimizer, hooks, ()))
    return found


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, source: Source) -> _Contents:
    states = dict(optimizer.state)
    if not states:
        return {}
    named = {id(parameter): repr(name) for name, parameter in model.named_parameters()}
    found: dict[str, _Content] = {}
    tag = source.tagging()
    for number, (parameter, held) in enumerate(states.items()):
        of = named.get(id(parameter), f"tensor {number}")
        for name, value in held.items() if isinstance(held, Mapping) else [("state", held)]:
            found.update(_all_held(value, f"`{name}` of {of}", tag))
    return found


def _all_held(value: Any, where: str, tag: _Tagging) -> Iterator[tuple[str, _Content]]:
    """Tensors by content, plain values by how they are written, others by which they are."""
    if isinstance(value, Tensor):
        try:
            yield where, _content(value, tag)
        except RuntimeError:  # nothing of this step: a transform has wrapped it
            yield where, (id(value),)
    elif isinstance(value, Mapping):
        for name, held in value.items():
            yield from _all_held(held, f"{where}[{name!r}]", tag)
    elif isinstance(value, list | tuple) and any(isinstance(v, Tensor | Mapping) for v in value):
        for number, held in enumerate(value):
            yield from _all_held(held, f"{where}[{number}]", tag)
    elif isinstance(value, _PLAIN):
        yield where, (repr(value),)
    else:
        yield where, (id(value),)


def _content(tensor: Tensor, tag: _Tagging, *, digested: bool = False) -> _Content:
    """Equal for equal bits of the same shape; a few bytes, or as many as a small tensor has."""
    part: Any = tensor.detach()
    if hasattr(part, "to_local"):  # split between processes
        part = part.to_local()
    if part.layout != torch.strided:
        part = part.to_dense()
    if part.device.type != "cpu" or not (digested or _size(part) <= _SMALL):
        return part.dtype, part.shape, *_kept(_added_up(part), tag)
    return _kept(part.contiguous(), tag)


def _kept(part: Tensor, tag: _Tagging) -> _Content:
    size = _size(part)
    bits = ctypes.string_at(part.data_ptr(), size) if size <= _SMALL else tag(part)
    return part.dtype, part.shape, bits


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _added_up(tensor: Tensor) -> Tensor:  # (blocks,) int64 on the processor
    """The sums of the bits of blocks, with wrap-around; of an accelerator few numbers travel."""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    whole = flat.numel() // _BLOCK * _BLOCK
    sums = _words(flat[:whole]).view(-1, _BLOCK // 8).sum(1)
    rest = nn.functional.pad(flat[whole:], (0, whole + _BLOCK - flat.numel()))
    return torch.cat([sums, _words(rest).sum()[None]]).cpu()


def _words(flat: Tensor) -> Tensor:
    """Bytes as int64, copied where they do not begin at a multiple of 8."""
    return (flat if flat.storage_offset() % 8 == 0 else flat.clone()).view(torch.int64)


def _differing(before: _Contents, after: _Contents) -> str | None:
    """The first name whose content is another, or that only one of them has."""
    if before == after:
        return None
    names = [*before, *(name for name in after if name not in before)]
    return next((name for name in names if before.get(name) != after.get(name)), None)

"""Other tensors in place of a model's own, and a model that a trial leaves as it was.

`torch.func.functional_call` restores a module that is registered under two names (a Siamese
encoder, a layer kept in a list and as an attribute) to the tensors it was given: the second name
takes the first one's replacement for the original. Here each module is visited once.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.tensors import modules_of
from nacre.core.types import Tensors

_REGISTERS = (
    "_parameters", "_buffers", "_modules",
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip


@contextmanager
def swapped(model: nn.Module, values: Tensors) -> Generator[None]:
    """Inside the block the parameters and buffers of these names are `values`, wherever they are
    used; afterwards, and where the block raises, every module has its own tensors again, also
    where `forward` assigned others.

    A tensor with several names is replaced under all of them. Raises `KeyError` for a name that
    the model does not have.
    """
    registers: list[dict[str, Any]] = []
    own: dict[str, Tensor] = {}
    for prefix, module in modules_of(model):
        for register in (module._parameters, module._buffers):
            if register:
                own.update((prefix + name, t) for name, t in register.items() if t is not None)
            registers.append(register)  # an empty one too: `forward` may fill it
    if not own.keys() >= values.keys():  # by the second name of a module
        own = dict(model.named_parameters(remove_duplicate=False))
        own |= dict(model.named_buffers(remove_duplicate=False))
    instead = {id(own[name]): value for name, value in values.items()}
    before: list[tuple[dict[str, Any], dict[str, Any]]] = [(r, dict(r)) for r in registers]
    try:
        for register, entries in before:
            for name, tensor in entries.items():
                if id(tensor) in instead:
                    register[name] = instead[id(tensor)]
        yield
    finally:
        for register, entries in before:
            _put_back(register, entries)


@contextmanager
def unmoved(model: nn.Module) -> Generator[None]:
    """After the block, and where it raises, the model is what it was: which tensors it has and
    what they hold, what requires a gradient and which gradients stand, buffers, hooks, training
    modes; and so are the random numbers of torch, NumPy and Python that come next.

    *Limit:* attributes that are neither parameters nor buffers nor tensors are not kept. The
    weights are copied into the processor's memory while the block runs.
    """
    with ExitStack() as stack, torch.random.fork_rng(devices=_devices(model)):
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        for module in model.modules():
            before = dict(vars(module))
            registers = [before[name] for name in _REGISTERS if before.get(name) is not None]
            kept = [(register, dict(register)) for register in registers]
            stack.callback(_module_back, module, module.training, kept, before)
        for tensor in _tensors(model):
            stack.callback(_restore, tensor, tensor.detach().cpu().clone(), _flags(tensor))
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Generator[None]:
    """After the block, and where it raises, each buffer is what it was, and holds that."""
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(_put_back, module._buffers, dict(module._buffers))
        for buffer in model.buffers():
            stack.callback(buffer.data.copy_, buffer.detach().clone())
        yield


def _tensors(model: nn.Module) -> list[Tensor]:
    """All parameters and buffers, each once; those without a shape yet are left out."""
    found = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return [t for t in found.values() if not nn.parameter.is_lazy(t)]


def _flags(tensor: Tensor) -> tuple[bool, Tensor | None, Tensor | None, Any]:
    grad = tensor.grad if tensor.is_leaf else None
    hooks: Any = getattr(tensor, "_backward_hooks", None)
    kept = None if grad is None else grad.detach().clone()
    return tensor.requires_grad, grad, kept, None if hooks is None else dict(hooks)


def _restore(
    tensor: Tensor, value: Tensor, flags: tuple[bool, Tensor | None, Tensor | None, Any]
) -> None:
    requires, grad, kept, hooks = flags
    if tensor.shape != value.shape or tensor.dtype != value.dtype:
        tensor.data = value.to(tensor.device)
    elif not _same(tensor.detach().cpu(), value):
        tensor.data.copy_(value)
    if tensor.is_leaf:
        tensor.requires_grad_(requires)
        tensor.grad = grad
        if grad is not None and kept is not None:
            grad.data.copy_(kept)
    standing: Any = getattr(tensor, "_backward_hooks", None)
    if standing is not None:
        _put_back(standing, hooks or {})


def _same(tensor: Tensor, value: Tensor) -> bool:
    """Bit for bit, NaN included, so that a tensor nobody wrote to is not written to here."""
    if torch.equal(tensor, value):  # nearly always, and sooner than with a look for NaN
        return True
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.equal(tensor.nan_to_num(), value.nan_to_num()) and torch.equal(
            tensor.isnan(), value.isnan()
        )
    return False


def _module_back(
    module: nn.Module,
    training: bool,
    registers: list[tuple[Any, dict[str, Any]]],
    attributes: Mapping[str, Any],
) -> None:
    _attributes_back(module, attributes)
    for register, entries in registers:
        _put_back(register, entries)
    module.training = training


def _put_back(register: Any, entries: Mapping[str, Any]) -> None:
    """The same entries in the same order; a register that nobody changed is left alone."""
    if not entries and not register:  # most are empty
        return
    now = list(register.items())
    if len(now) == len(entries) and all(
        a == c and b is d for (a, b), (c, d) in zip(now, entries.items(), strict=True)
    ):
        return
    register.clear()
    register.update(entries)


def _attributes_back(module: nn.Module, before: Mapping[str, Any]) -> None:
    """Plain attributes that are tensors, or were: an older weight norm or spectral norm keeps what
    it has computed there, and a model may keep what it has seen where it had None."""
    held = vars(module)
    for name, value in list(held.items()):
        if isinstance(value, Tensor) and name not in before:
            del held[name]
        elif isinstance(value, Tensor):
            held[name] = before[name]
    held.update({name: value for name, value in before.items() if isinstance(value, Tensor)})


def _devices(model: nn.Module) -> list[int]:
    """The accelerators that the model is on, whose generators a trial may draw from."""
    return sorted({t.device.index for t in _tensors(model) if t.device.type == "cuda"})

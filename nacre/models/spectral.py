"""Spectral norm under private steps: its power iterations move buffers by the weights alone, so
they are taken once a step, where no row is near.

Both forms of torch are known: `torch.nn.utils.parametrizations.spectral_norm` and the older
`torch.nn.utils.spectral_norm`. Whatever else moves a buffer in a forward pass is refused, by
`require_no_trace`.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from nacre.core.errors import UnsupportedLayer
from nacre.core.types import Tensors


@dataclass(frozen=True, eq=False)
class _Iteration:
    """One weight's power iteration: its buffers, and what takes the next step of it."""

    vectors: tuple[Tensor, ...]
    advance: Callable[[], object]


def vectors(model: nn.Module) -> Tensors:
    """The buffers that power iterations move, by name: they follow from the weights alone."""
    found = [vector for one in _iterations(model, every=True) for vector in one.vectors]
    moved = {id(vector) for vector in found}
    if not moved:
        return {}
    return {name: buffer for name, buffer in model.named_buffers() if id(buffer) in moved}


@torch.no_grad()
def advance(model: nn.Module, times: int = 1) -> Tensors:
    """Takes the next power iterations of all weights in training mode, from the weights as they
    stand. Returns copies of the buffers, for `require_still`."""
    held = vectors(model)
    for iteration in _iterations(model) if held else ():
        for _ in range(times):
            iteration.advance()
    return {name: vector.clone() for name, vector in (vectors(model) if held else {}).items()}


def require_still(model: nn.Module, before: Tensors) -> None:
    """Raises `UnsupportedLayer` where something else than `advance` has moved these buffers."""
    for name, vector in vectors(model).items() if before else ():
        if not torch.equal(vector, before[name]):
            raise UnsupportedLayer(
                f"{name!r} moved within a step, and a spectral norm's vectors may follow from the "
                "weights alone: nothing of this step was released; leave out what writes there"
            )


def require_no_trace(before: Tensors, one: Tensors, another: Tensors, known: Tensors) -> None:
    """Raises `UnsupportedLayer` for a buffer that a forward pass has moved, but for those of power
    iterations. `one` and `another` are the buffers after passes over different rows."""
    for name, value in before.items():
        if name in known or _equal(value, one[name]):
            continue
        if _equal(one[name], another[name]):
            raise UnsupportedLayer(
                f"buffer {name!r} changes in a forward pass, whatever the rows (a counter, or an "
                "iteration of its own), and private passes leave no trace, so it would stand "
                "still; move it in your loop between two steps, or for a spectral norm use "
                "`torch.nn.utils.parametrizations.spectral_norm`, which is advanced once a step"
            )
        raise UnsupportedLayer(
            f"buffer {name!r} changes in a forward pass, so it keeps a trace of the rows that "
            "nothing protects (running statistics, a codebook that follows its inputs); remove it "
            "or freeze it"
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _iterations(model: nn.Module, *, every: bool = False) -> Iterator[_Iteration]:
    for module in model.modules():
        if parametrize.is_parametrized(module):
            parametrizations: Any = module.parametrizations
            for chain in parametrizations.values():
                yield from _of_chain(chain, every)
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm) and (every or module.training):
                yield _of_hook(hook, module)


def _of_chain(chain: Any, every: bool) -> Iterator[_Iteration]:
    """Of the parametrizations of one weight, each of which is given what those before it make."""
    steps: list[nn.Module] = list(chain)
    for place, norm in enumerate(steps):
        if isinstance(norm, _SpectralNorm) and hasattr(norm, "_u") and (every or norm.training):

            def advance(norm: Any = norm, earlier: list[nn.Module] = steps[:place]) -> None:
                weight = _entering(chain, earlier)
                norm._power_method(norm._reshape_weight_to_matrix(weight), norm.n_power_iterations)

            yield _Iteration((norm._u, norm._v), advance)


def _entering(chain: Any, earlier: list[nn.Module]) -> Tensor:
    if chain.is_tensor:
        weight = chain.original
    else:
        originals = [getattr(chain, f"original{i}") for i in range(chain.ntensors)]
        weight, earlier = earlier[0](*originals), earlier[1:]
    for step in earlier:
        weight = step(weight)
    return weight


def _of_hook(hook: SpectralNorm, module: nn.Module) -> _Iteration:
    names = (f"{hook.name}_u", f"{hook.name}_v")
    held = tuple(getattr(module, name) for name in names)
    return _Iteration(held, lambda: hook.compute_weight(module, do_power_iteration=True))

"""Which models no unit can hide in, and how to mend the commonest: BatchNorm to GroupNorm."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.core.random import seed_torch
from nacre.core.rows import assert_rowwise
from nacre.core.swapped import buffers_kept, unmoved
from nacre.core.theirs import foreign_cause
from nacre.core.types import Tensors
from nacre.models import spectral
from nacre.models.random_inputs import other, random_inputs

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
_InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d

_ROWS = 4  # enough for a first, a last and two in between
_TOLERANCE = 1e-4  # relative: another batch size may round differently


def check(model: nn.Module, shape: tuple[int, ...], tokens: int | None = None) -> None:
    """Raises `UnsupportedLayer` unless each row's output depends on that row alone.

    The model is tried on random inputs of `shape` (tokens below `tokens`, where it is given), in
    training and in evaluation mode, with the same dropout in each pass. The model and the random
    numbers that come next are afterwards as they were, also where this raises. *Limit:* mixing that
    random inputs do not show is not found. Raises `Incompatible` where the model does not take such
    inputs.
    """
    check_layers(model)
    inputs = random_inputs(shape, tokens, _ROWS)
    with unmoved(model):
        _check_mixing(model, inputs, other(inputs, tokens))


def check_layers(model: nn.Module) -> None:
    """Raises `UnsupportedLayer` for a layer or a tensor that no gradient sum can carry; by looking
    at them in training mode, without trying the model."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        for name, module in model.named_modules():
            _check_module(name or type(module).__name__, module)
    finally:
        for module, mode in modes:
            module.training = mode
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_complex():
            raise UnsupportedLayer(
                f"{name!r} is complex, and no gradient sum carries complex numbers; use its real "
                "and imaginary parts as two tensors"
            )


def _check_module(name: str, module: nn.Module) -> None:
    """Refuses what is known to mix rows, or to hold no weights yet."""
    held = not module.training and getattr(module, "running_mean", None) is not None
    if isinstance(module, _BatchNorm) and not held:
        raise UnsupportedLayer(
            f"layer {name!r} ({type(module).__name__}) normalises by the other rows of the batch, "
            "so no bound on one unit's share exists; use GroupNorm, as "
            "`nacre.models.repair.repaired(model)` does, or hold the layer in evaluation mode in "
            "the model's own `train`, which a step calls, so that it uses the statistics it has"
        )
    if isinstance(module, _InstanceNorm) and module.track_running_stats and not held:
        raise UnsupportedLayer(
            f"layer {name!r} ({type(module).__name__}) keeps statistics of the rows it has seen, "
            "which nothing protects; set `track_running_stats=False`"
        )
    if any(is_lazy(p) for p in module.parameters(recurse=False)):
        raise UnsupportedLayer(
            f"layer {name!r} ({type(module).__name__}) has no weights before its first batch; "
            "name its sizes instead of leaving them to be found"
        )


def _check_mixing(model: nn.Module, inputs: Tensor, others: Tensor) -> None:
    """Refuses rows that move each other, in either direction, and state that a pass changes."""
    run = _seeded(model)
    model.train()
    _check_outputs(run, inputs)
    with torch.no_grad():
        move_zeros(model)
    check_trace(model, lambda: _pass(model, inputs), lambda: _pass(model, inputs.flip(0)))
    assert_rowwise(run, inputs, "the model", tolerance=_TOLERANCE, other=others[0])
    # The check above moves the first row; a model in which row i reads row i + 1 needs the last.

    def backwards(rows: Tensor) -> Tensor:
        return run(rows.flip(0)).flip(0)

    assert_rowwise(backwards, inputs, "the model", tolerance=_TOLERANCE, other=others[0])
    model.eval()
    _check_alone(run, inputs)


def move_zeros(model: nn.Module) -> None:
    """Gives weights that are all zero small random values: a head that starts at zero answers
    everything by zero, and would hide what goes into it from whoever tries the model."""
    generator = torch.Generator().manual_seed(0)
    for weights in model.parameters():
        if is_lazy(weights) or not weights.is_floating_point():
            continue
        if not bool(weights.any()):
            moved = 0.02 * torch.randn(weights.shape, generator=generator)
            weights.copy_(moved.to(weights.device, weights.dtype))


def _check_outputs(run: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """Raises `Incompatible` for inputs that the model does not take or answers by no numbers."""
    try:
        with torch.no_grad():
            outputs = run(inputs)
    except Exception as error:
        raise Incompatible(
            f"the model does not take inputs of shape {tuple(inputs.shape[1:])} "
            f"({foreign_cause(error)}); correct the model or the data's shape"
        ) from error
    if not bool(torch.isfinite(outputs).all()):
        raise Incompatible(
            "the model answers random inputs by infinite numbers or NaN, so no loss exists; "
            "correct its initial weights"
        )


def _check_alone(run: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """Refuses a model whose answer to a row depends on how many others there are."""
    with torch.no_grad():
        together, alone = run(inputs)[:1], run(inputs[:1])
    size = max(1.0, float(together.abs().max()))
    if not float((together - alone).abs().max()) <= _TOLERANCE * size:
        raise UnsupportedLayer(
            "the model answers a row differently when it stands alone, so its share depends on "
            "the size of the batch; remove what divides by or counts the rows"
        )


def check_trace(
    model: nn.Module,
    one: Callable[[], object],  # a forward pass
    another: Callable[[], object],  # over other rows
) -> None:
    """Raises `UnsupportedLayer` for a buffer that a pass moves, but for those of spectral norms.
    Buffers are afterwards as they were."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    ends: list[Tensors] = []
    for run in (one, another):
        with buffers_kept(model), torch.no_grad():
            run()
            ends.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    spectral.require_no_trace(before, ends[0], ends[1], spectral.vectors(model))


def _pass(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's outputs, with the same dropout in every call."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(0)
        outputs: Tensor = model(inputs)
    return outputs


def _seeded(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model with the same dropout and the same buffers in every call."""

    def run(inputs: Tensor) -> Tensor:
        with buffers_kept(model):
            return _pass(model, inputs)

    return run


def repaired(model: nn.Module) -> nn.Module:
    """A copy with GroupNorm for BatchNorm and without running statistics in InstanceNorm.

    Scale and shift are kept; the answers change, so train again. Each group has at least four
    channels where that is possible: a group of one number would always become zero.
    """
    model = copy.deepcopy(model)
    replaced: dict[nn.Module, nn.Module] = {}  # a layer used twice stays one layer
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, _BatchNorm):
            replaced.setdefault(module, _group_norm(module))
            if not name:
                return replaced[module]
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, replaced[module])
        elif isinstance(module, _InstanceNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return model


def _group_norm(norm: _BatchNorm) -> nn.GroupNorm:
    channels = norm.num_features
    groups = max(n for n in range(1, max(1, min(32, channels // 4)) + 1) if channels % n == 0)
    new = nn.GroupNorm(groups, channels, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        new.weight, new.bias = norm.weight, norm.bias
    return new.train(norm.training)

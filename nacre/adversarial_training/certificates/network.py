"""A model as a graph of affine steps, rectifiers and sums: what bounds can be carried through.

The graph is read by torch.fx, so plain and nested `nn.Sequential`, residual blocks and modules
with a `forward` of their own are taken, as long as every step is one of those below. Everything
else is refused by name.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from nacre.adversarial_training.certificates.steps import (
    REMEDY,
    Addition,
    Network,
    NetworkStep,
    Rectifier,
    convolution_step,
    matrix_step,
    normalised_step,
    pooling_step,
    reshaping_step,
    scaled_step,
)
from nacre.core.errors import Incompatible

FAR = 1000.0
"""Times as large as normal numbers: inputs at which a model is held to its graph besides."""


def network_of(model: nn.Module, shape: Sequence[int]) -> Network:
    """The graph of `model` in evaluation mode, on inputs of this shape; `model` is not changed.

    A single output z a row becomes the scores (-z / 2, z / 2) of two classes, as an attack reads
    it. Raises `Incompatible` for a step that no bound is known of, for weights of less than 32
    bits, and for a model that computes something else than its graph (through a hook, say).
    """
    _refuse_half(model)
    with torch.random.fork_rng():
        twin = copy.deepcopy(model).double().cpu().eval().requires_grad_(False)
        if fx.Tracer().is_leaf_module(twin, ""):  # a single layer of torch, without a container
            twin = nn.Sequential(twin)
        graph = _traced(twin)
        probe = torch.randn(2, *shape, dtype=torch.float64)
        reader = _GraphReader(graph, tuple(shape))
        with torch.no_grad():
            reader.run(probe.clone())  # a first layer may write into what it is given
            network = _scores(reader.network())
            probe = torch.cat([probe, FAR * probe])
            answered = twin(probe.clone())
            if answered.dim() == 1:
                answered = answered[:, None]
            if answered.shape[1] == 1:
                answered = torch.cat([-answered / 2, answered / 2], 1)
            found = network(probe)
    if found.shape != answered.shape or not torch.allclose(found, answered, rtol=1e-9, atol=1e-9):
        raise Incompatible(
            "the model computes something else than the graph of its layers says, as a forward "
            "hook or an `if` on its numbers makes it; take it out, or certify the model by "
            "`{kind: smoothing}`"
        )
    return network


def _refuse_half(model: nn.Module) -> None:
    for name, held in (*model.named_parameters(), *model.named_buffers()):
        if (
            held.is_floating_point()
            and torch.finfo(held.dtype).eps > torch.finfo(torch.float32).eps
        ):
            raise Incompatible(
                f"{name!r} of the model is {str(held.dtype).removeprefix('torch.')}, and bounds "
                "allow for the rounding of float32: certify `model.float()`, or by "
                "`{kind: smoothing}`"
            )


def _traced(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model)
    except Exception as error:  # whatever their `forward` does with a tensor that has no numbers
        raise Incompatible(
            f"the layers of the model cannot be listed by torch.fx ({type(error).__name__}: "
            f"{error}); {REMEDY}"
        ) from error


def _scores(network: Network) -> Network:
    """The network with one column a class; refuses outputs of another form."""
    shape = network.shapes[-1]
    if shape == ():
        network = _ended(network, reshaping_step(len(network.steps), (), (1,)), (1,))
        shape = (1,)
    if len(shape) != 1:
        raise Incompatible(
            f"the model puts out shape={shape} for a row; a certificate reads one score a class"
        )
    if shape == (1,):
        signs = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
        last = matrix_step(len(network.steps), signs, torch.zeros(2, dtype=torch.float64), terms=0)
        return _ended(network, last, (2,))
    return network


def _ended(network: Network, step: NetworkStep, shape: tuple[int, ...]) -> Network:
    return Network((*network.steps, step), (*network.shapes, shape))


class _GraphReader(fx.Interpreter):
    """Runs the graph once on numbers, and writes down its steps."""

    def __init__(self, module: fx.GraphModule, shape: tuple[int, ...]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False  # it would add lines to our refusals
        self.steps: list[NetworkStep] = []
        self.shapes: list[tuple[int, ...]] = [shape]
        self.places: dict[fx.Node, int] = {}  # nodes that depend on the input
        self.ended = 0

    def network(self) -> Network:
        """What was read, up to the node that is put out."""
        return Network(tuple(self.steps[: self.ended]), tuple(self.shapes[: self.ended + 1]))

    def run_node(self, n: fx.Node) -> Any:
        """The node's value; its step is kept."""
        value = super().run_node(n)
        moving = [node for node in n.all_input_nodes if node in self.places]
        if n.op == "placeholder":
            if self.places:
                raise Incompatible(f"the model reads more than one input ({n.name}); {REMEDY}")
            self.places[n] = 0
        elif n.op == "output":
            if not isinstance(n.args[0], fx.Node) or n.args[0] not in self.places:
                raise Incompatible(f"the model does not put out one tensor of scores; {REMEDY}")
            self.ended = self.places[n.args[0]]
        elif moving and isinstance(value, Tensor):
            self.places[n] = self._step(n, value)
        return value

    def _step(self, node: fx.Node, value: Tensor) -> int:
        """The place of what this node makes."""
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            made = self._module(node, module, value)
            if made is None:
                raise Incompatible(
                    f"no bound is known for the layer {str(node.target)!r} "
                    f"({type(module).__name__}); {REMEDY}"
                )
        else:
            made = self._function(node, value)
            if made is None:
                name = getattr(node.target, "__name__", node.target)
                raise Incompatible(f"no bound is known for the function {name!r}; {REMEDY}")
        if isinstance(made, int):  # passed on as it is
            return made
        self.steps.append(made)
        self.shapes.append(tuple(value.shape[1:]))
        return len(self.steps)

    def _place(self, argument: Any) -> int | None:
        return self.places.get(argument) if isinstance(argument, fx.Node) else None

    def _number(self, argument: Any) -> Tensor:
        """A constant of the graph."""
        value = self.env[argument] if isinstance(argument, fx.Node) else argument
        return torch.as_tensor(value, dtype=torch.float64)

    def _module(self, node: fx.Node, module: nn.Module, value: Tensor) -> NetworkStep | int | None:
        source = self._place(node.args[0]) if len(node.args) == 1 and not node.kwargs else None
        if source is None:
            return None
        before, after = self.shapes[source], tuple(value.shape[1:])
        match module:
            case nn.Identity() | nn.Dropout() | nn.Dropout2d():
                return source
            case nn.ReLU():
                return Rectifier(source)
            case nn.Flatten() | nn.Unflatten():
                return reshaping_step(source, before, after)
            case nn.Linear() if len(before) == 1:
                zero = torch.zeros(before, dtype=torch.float64)
                return matrix_step(
                    source, module.weight, F.linear(zero, module.weight, module.bias)
                )
            case nn.Conv2d() if module.padding_mode == "zeros" and len(before) == 3:
                return convolution_step(source, module, before, after)
            case nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
                return pooling_step(source, module, before, torch.zeros_like(value[0]))
            case nn.BatchNorm1d() | nn.BatchNorm2d() if module.running_var is not None:
                return normalised_step(source, module, after)
            case _:
                return None

    def _function(self, node: fx.Node, value: Tensor) -> NetworkStep | int | None:
        places = [self._place(argument) for argument in node.args[:2]]
        after = tuple(value.shape[1:])
        two = _ARITHMETIC.get(node.target) == "+" and len(node.args) == 2 and not node.kwargs
        if two and places[0] is not None and places[1] is not None:
            shapes = self.shapes[places[0]], self.shapes[places[1]]
            return Addition(places[0], places[1]) if shapes == (after, after) else None
        if node.target in _ARITHMETIC and len(node.args) == 2 and not node.kwargs:
            return self._arithmetic(_ARITHMETIC[node.target], node, places, after)
        source = places[0]
        if source is None or any(place is not None for place in places[1:]):
            return None
        if node.target in (torch.relu, F.relu, "relu"):
            return Rectifier(source)
        if node.target in _RESHAPES and value.shape[:1] == (2,):  # the rows stay what they were
            return reshaping_step(source, self.shapes[source], after)
        if node.target == "contiguous":
            return source
        return None

    def _arithmetic(
        self, sign: str, node: fx.Node, places: list[int | None], after: tuple[int, ...]
    ) -> NetworkStep | None:
        """x + c, x - c, c - x, c * x, x / c."""
        left, right = places
        source = left if left is not None else right
        if source is None or (left is not None and right is not None):
            return None
        other = self._number(node.args[1] if left is not None else node.args[0])
        if (sign == "/" and left is None) or self.shapes[source] != after:
            return None
        if other.dim() > len(after):  # a constant with rows has one of them
            if other.shape[0] != 1:
                return None
            other = other[0]
        one, zero = torch.ones(after, dtype=torch.float64), torch.zeros(after, dtype=torch.float64)
        match sign:
            case "+":
                return scaled_step(source, one, zero + other)
            case "-":
                return scaled_step(source, one, zero - other) if left is not None else scaled_step(
                    source, -one, zero + other
                )  # fmt: skip
            case "*":
                return scaled_step(source, one * other, zero)
            case _:
                return scaled_step(source, one / other, zero)


_RESHAPES = (torch.flatten, torch.reshape, "flatten", "view", "reshape")
_ARITHMETIC: dict[Any, str] = {
    operator.add: "+", torch.add: "+", "add": "+", operator.sub: "-", torch.sub: "-", "sub": "-",
    operator.mul: "*", torch.mul: "*", "mul": "*", operator.truediv: "/", torch.div: "/",
    "div": "/",
}  # fmt: skip

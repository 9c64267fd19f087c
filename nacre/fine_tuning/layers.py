"""The layers of a model by name."""

# Parts of torch are untyped.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import difflib

from torch import nn

from nacre.core.errors import Incompatible


def linear_layers(model: nn.Module) -> list[str]:
    """The names of the `nn.Linear` layers, in the order in which the model declares them.

    Subclasses are left out: attention reads the weight of its own output layer without calling
    the layer, so nothing put in its place would take effect. Raises `Incompatible` where the model
    has none.
    """
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    if not names:
        raise Incompatible(
            "this choice of fine-tuning needs a linear layer and the model has none; use "
            "`fine_tuning: {kind: full}`"
        )
    return names


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of that name. Raises `Incompatible`, with the nearest name."""
    modules = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=1, cutoff=0)
        raise Incompatible(f"the model has no module {name!r}; did you mean {near[0]!r}?")
    return modules[name]

"""The layers of a model by name."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import difflib

from torch import nn

from nacre.core.errors import Incompatible
from nacre.models.gpt import Decoder
from nacre.models.stock.transformer import Transformer

# What GPT-2 calls Conv1D is a linear layer whose weight is (inputs, outputs). It is known by name,
# so that models without text need no transformers.
_TRANSPOSED = "transformers.pytorch_utils"

_NAMED = 12  # ends of names that a refusal lists

_NORMS = ("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm", "BatchNorm")

_ATTENTION = ("q_proj", "v_proj", "query", "value", "q_lin", "v_lin", "c_attn", "qkv_proj")
"""The last part of the names under which stock transformers keep the query's and the value's
projection; `c_attn` and `qkv_proj` hold query, key and value in one."""


def linear_layers(model: nn.Module) -> list[str]:
    """The names of the linear layers, in the order in which the model declares them.

    These are `nn.Linear` and the Conv1D of transformers. Subclasses are left out: attention reads
    the weight of its own output layer without calling the layer, so nothing put in its place would
    take effect. Raises `Incompatible` where the model has none.
    """
    names = [name for name, module in model.named_modules() if is_linear(module)]
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


def is_transposed(module: nn.Module) -> bool:
    """Whether this is transformers' Conv1D: linear, with the weight as (inputs, outputs)."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__ == _TRANSPOSED


def is_linear(module: nn.Module) -> bool:
    """Whether the layer is `nn.Linear` itself or transformers' Conv1D."""
    return type(module) is nn.Linear or is_transposed(module)


def is_norm(module: nn.Module) -> bool:
    """Whether the layer normalises, by its class's name: each family writes its own RMSNorm."""
    return any(name in type(module).__name__ for name in _NORMS)


def heads(model: nn.Module) -> tuple[str, ...]:
    """The modules that turn what a model knows into its answer.

    Of a pretrained model these are the new ones, random as they are at first; none in a language
    model, whose head was learnt with it, or is the very table that reads tokens. Of any other
    model, the last linear layer.
    """
    if isinstance(model, Transformer):
        return model.new_head()
    if isinstance(model, Decoder):
        return () if model.head is None else ("head",)
    return (linear_layers(model)[-1],)


def attention_projections(model: nn.Module) -> list[str]:
    """The query's and the value's projections of a stock transformer; empty for other models."""
    return [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _ATTENTION and is_linear(module)
    ]


def named(model: nn.Module, name: str) -> list[str]:
    """The modules of that full name or, where there is none, whose names end so after a dot.

    >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    >>> named(model, "0"), named(model, "0.0")
    (['0'], ['0.0'])

    Raises `Incompatible` where there is neither, with the names of the linear layers.
    """
    modules = [full for full, _ in model.named_modules()]
    if name in modules:
        return [name]
    ending = [full for full in modules if full.endswith(f".{name}")]
    if not ending:
        ends = list(dict.fromkeys(full.rpartition(".")[2] for full in linear_layers(model)))
        near = difflib.get_close_matches(name, [*modules, *ends], n=1)
        listed = ", ".join(ends[:_NAMED]) + (" and others" if len(ends) > _NAMED else "")
        remedy = f"did you mean {near[0]!r}?" if near else f"its linear layers end in {listed}"
        raise Incompatible(f"the model has no module {name!r}; {remedy}")
    return ending

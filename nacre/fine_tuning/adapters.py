"""Low-rank adapters through PEFT, which is imported in this file only, and only when needed."""

# PEFT and parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nacre.core.errors import Incompatible, Refusal
from nacre.core.random import seed_torch
from nacre.core.tensors import detached
from nacre.core.types import Tensors
from nacre.fine_tuning.layers import is_linear, is_transposed, submodule
from nacre.models.stock.transformer import Transformer

_ADAPTER = "default"  # PEFT's name for the only adapter of a model


def inject(
    model: nn.Module,
    *,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float,
    rslora: bool,
    dora: bool,
    seed: int,
) -> nn.Module:
    """The model itself, with an adapter beside each target; the adapters alone are trainable.

    Raises `Incompatible` for no target or one that is no linear layer, `Refusal` without PEFT.
    """
    _check(model, targets)
    peft = _peft()
    config = peft.LoraConfig(
        use_rslora=rslora,
        use_dora=dora,
        fan_in_fan_out=any(is_transposed(submodule(model, name)) for name in targets),
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # A pattern is matched as a whole; a list would match the ends of other names as well.
        target_modules="|".join(re.escape(_plain(name, model)) for name in targets),
    )
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        peft.inject_adapter_in_model(config, _stock(model), adapter_name=_ADAPTER)
    return model.train(model.training)  # new layers begin in training mode


def adapted(model: nn.Module) -> bool:
    """Whether there are adapters inside; answered without PEFT."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


def learnt(model: nn.Module) -> Tensors:
    """What was trained of a model with adapters, by its names in the state of the prepared model,
    each of them where one tensor has several; {} without adapters."""
    if not adapted(model):
        return {}
    state = model.state_dict(keep_vars=True)
    return detached({name: value for name, value in state.items() if value.requires_grad})


def without_adapters(model: nn.Module) -> Tensors:
    """The state of the same function without adapters, under the names of the plain model."""
    state = detached(model.state_dict())
    if not adapted(model):
        return state
    for name, layer in _layers(model):
        held = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        prefix = f"{name}.base_layer."
        base = {key.removeprefix(prefix): t for key, t in held.items() if key.startswith(prefix)}
        base["weight"] = _weight(layer)
        state |= {f"{name}.{key}": value for key, value in base.items()}
    return state


def _weight(layer: Any) -> Tensor:
    """The weight of the layer that does the same without an adapter."""
    if layer.use_dora.get(_ADAPTER):  # its lengths are those of the sum, so PEFT's own merge
        alone = copy.deepcopy(layer)
        alone.merge(adapter_names=[_ADAPTER])
        return alone.get_base_layer().weight.detach()
    return layer.get_base_layer().weight.detach() + layer.get_delta_weight(_ADAPTER).detach()


def weights(model: nn.Module) -> Tensors:
    """The adapters' weights under the names that PEFT gives them in a folder, and those of a
    pretrained model's new classifier where it was trained."""
    state = _peft().get_peft_model_state_dict(_stock(model), adapter_name=_ADAPTER)
    for head in _moved_heads(model):
        for name, value in submodule(_stock(model), head).state_dict().items():
            state[f"{head}.{name}"] = value
    return {f"base_model.model.{name}": value for name, value in state.items()}


def config(model: nn.Module) -> dict[str, Any]:
    """PEFT's description of the adapters, as JSON."""
    described: Any = _stock(model).peft_config
    facts = json.loads(json.dumps(described[_ADAPTER].to_dict(), default=sorted))
    if heads := _moved_heads(model):
        facts["modules_to_save"] = heads
    return facts


def _stock(model: nn.Module) -> nn.Module:
    """The model that others know by its names: what a `Transformer` holds, or the model itself."""
    return model.network if isinstance(model, Transformer) else model


def _plain(name: str, model: nn.Module) -> str:
    """A module's name inside `_stock(model)`."""
    return name.removeprefix("network.") if isinstance(model, Transformer) else name


def _moved_heads(model: nn.Module) -> list[str]:
    """The trained modules of a new classifier, by their names inside the stock model."""
    if not isinstance(model, Transformer):
        return []
    return [
        _plain(name, model)
        for name in model.new_head()
        if any(p.requires_grad for p in submodule(model, name).parameters())
    ]


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    lora = _peft().tuners.lora.LoraLayer
    return [(name, module) for name, module in model.named_modules() if isinstance(module, lora)]


def _check(model: nn.Module, targets: Sequence[str]) -> None:
    if not targets:
        raise Incompatible(
            "LoRA leaves the last linear layer alone and the model has no other; name one by "
            "`targets`, or use `fine_tuning: {kind: full}`"
        )
    for name in targets:
        module = submodule(model, name)
        if not is_linear(module):
            raise Incompatible(
                f"LoRA adapts linear layers and {name!r} is a {type(module).__name__}; name "
                "others by `targets`"
            )


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise Refusal(
            f"LoRA needs PEFT, which is not installed ({error}); run "
            "`pip install 'nacre[text]'` (from a checkout: `pip install -c constraints.txt -e "
            "'.[text]'`)"
        ) from error
    return peft

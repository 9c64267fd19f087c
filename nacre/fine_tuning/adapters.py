"""Low-rank adapters through PEFT, which is imported in this file only, and only when needed."""

# PEFT and parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from nacre.core.errors import Incompatible, Refusal
from nacre.core.tensors import detached
from nacre.core.types import Tensors
from nacre.fine_tuning.layers import submodule

_ADAPTER = "default"  # PEFT's name for the only adapter of a model


def inject(
    model: nn.Module,
    *,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
) -> nn.Module:
    """The model itself, with an adapter beside each target; the adapters alone are trainable.

    Raises `Incompatible` for no target or one that is no linear layer, `Refusal` without PEFT.
    """
    _check(model, targets)
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # A pattern is matched as a whole; a list would match the ends of other names as well.
        target_modules="|".join(re.escape(name) for name in targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    return model.train(model.training)  # new layers begin in training mode


def adapted(model: nn.Module) -> bool:
    """Whether there are adapters inside; answered without PEFT."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


def merged(model: nn.Module) -> Tensors:
    """The state of the same function without adapters, under the names of the plain model."""
    state = detached(model.state_dict())
    if not adapted(model):
        return state
    for name, layer in _layers(model):
        held = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        prefix = f"{name}.base_layer."
        base = {key.removeprefix(prefix): t for key, t in held.items() if key.startswith(prefix)}
        base["weight"] += layer.get_delta_weight(_ADAPTER).detach()
        state |= {f"{name}.{key}": value for key, value in base.items()}
    return state


def weights(model: nn.Module) -> Tensors:
    """The adapters' weights under the names that PEFT gives them in a folder."""
    state = _peft().get_peft_model_state_dict(model, adapter_name=_ADAPTER)
    return {f"base_model.model.{name}": value for name, value in state.items()}


def config(model: nn.Module) -> dict[str, Any]:
    """PEFT's description of the adapters, as JSON."""
    described: Any = model.peft_config
    return json.loads(json.dumps(described[_ADAPTER].to_dict(), default=sorted))


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
        if type(module) is not nn.Linear:
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

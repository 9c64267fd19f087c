"""Whether a run is of a size that this machine can hold and price, found before it is tried.

A slip of the finger in a recipe (`hidden: [1000000000]`) must end in a sentence, not in a machine
that swaps for an hour.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from nacre.core.errors import Refusal
from nacre.core.tensors import trainable
from nacre.fine_tuning import LoRA
from nacre.fine_tuning.layers import is_linear
from nacre.models import CNN, GPT, MLP, Pretrained, Scattering
from nacre.models.stock.pretrained import parameters
from nacre.planning.protection import protections_of
from nacre.recipe.places import refuse
from nacre.training.pieces import physical_memory

if TYPE_CHECKING:
    from nacre.data.dataset import Schema
    from nacre.recipe.schema import Recipe

_COPIES = 6  # the weights, their gradient, two moments of the optimizer, gradients of two units
_PRICED = 1_000_000  # steps that `pld` composes within half a minute


def fits(recipe: Recipe, schema: Schema) -> None:
    """Raises `Incompatible` for a model, a batch or a number of steps beyond all means."""
    _model_fits(recipe, schema)
    _batch_fits(recipe, schema)
    _steps_are_priced(recipe)


def adapters_fit(recipe: Recipe, model: nn.Module) -> None:
    """Raises `Incompatible` for adapters of a higher rank than any linear layer has."""
    choice = recipe.fine_tuning
    if not isinstance(choice, LoRA):
        return
    linear = [module for module in model.modules() if is_linear(module)]
    sizes = [max(weights.shape) for module in linear for weights in module.parameters(False)]
    widest = max(sizes, default=choice.rank)  # a model without any is refused with its adapters
    if choice.rank > widest:
        refuse(
            recipe,
            "fine_tuning.rank",
            f"{choice.rank} is more than the {widest} entries of the widest linear layer, so "
            "adapters would be larger than what they adapt; use a smaller rank",
        )


def _model_fits(recipe: Recipe, schema: Schema) -> None:
    if isinstance(recipe.model, Pretrained):
        _pretrained_fits(recipe, recipe.model, schema)
    if not isinstance(recipe.model, MLP | CNN | GPT | Scattering):
        return  # the others are what their code or a file makes them
    try:
        with torch.device("meta"):  # sizes without the memory
            model = recipe.build_model(schema)
        count = sum(weights.numel() for weights in trainable(model).values())
    except Refusal as error:
        refuse(recipe, "model", str(error), type(error))
    except RuntimeError:  # torch cannot even count it
        count = 2**63
    _held(recipe, count, _COPIES, "use a smaller model")


def _pretrained_fits(recipe: Recipe, model: Pretrained, schema: Schema) -> None:
    """Sized by its configuration: its weights alone may be more than the memory."""
    try:
        count = parameters(model, schema.outputs(), recipe.folder)
    except Refusal as error:
        refuse(recipe, "model", str(error), type(error))
    if recipe.fine_tuning is None or recipe.fine_tuning.kind == "full":
        _held(recipe, count, _COPIES, "use a smaller model, or `fine_tuning: {kind: lora}`")
    else:
        _held(recipe, count, 1, "use a smaller model")


def _held(recipe: Recipe, count: int, copies: int, remedy: str) -> None:
    """Raises `Incompatible` where so many weights are more than this machine holds."""
    taken = 4 * copies * count
    if taken > physical_memory():
        refuse(
            recipe,
            "model",
            f"training {count:.3g} weights takes {taken / 2**30:.3g} GiB and this machine has "
            f"{physical_memory() / 2**30:.3g}; {remedy}",
        )


def _batch_fits(recipe: Recipe, schema: Schema) -> None:
    rows = recipe.rows_per_unit or 1
    at_once = min(recipe.execution.microbatch or recipe.training.batch, recipe.training.batch)
    by_position = schema.task in ("causal_lm", "token_classification")
    answers = schema.outputs() if by_position else 1
    taken = 4 * at_once * rows * math.prod(schema.shape) * answers
    if taken > physical_memory():
        refuse(
            recipe,
            "training.batch",
            f"{at_once} units of {rows} rows take {taken / 2**30:.3g} GiB and this machine has "
            f"{physical_memory() / 2**30:.3g}; lower `training.batch`, `execution.microbatch` or "
            "`differential_privacy.rows_per_unit`",
        )


def _steps_are_priced(recipe: Recipe) -> None:
    federation = recipe.federated_learning
    if recipe.differential_privacy is None or recipe.ledger is None:
        return
    steps = recipe.training.steps
    if federation is not None:
        steps = federation.rounds * federation.local.steps
    for protection in protections_of(recipe):
        rule = protection.granted.rule if protection.granted is not None else ""
        if steps > _PRICED and "pld" in (rule, protection.privacy.accountant):
            refuse(
                recipe,
                "training.steps" if federation is None else "federated_learning.rounds",
                f"pld cannot price {steps} steps within minutes, only up to {_PRICED}; use fewer, "
                "or `accountant: rdp` and `grant: {rule: rdp}`",
            )

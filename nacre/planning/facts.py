"""What the refusals look at: the recipe, and what follows from it without a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from nacre.adversarial_training import Fast
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.core.errors import FileDamaged
from nacre.core.files import read_json
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Schema
from nacre.data.partition import Sizes
from nacre.fine_tuning.choices import Pretrain
from nacre.models import FormerRun
from nacre.recipe.schema import Recipe


@dataclass(frozen=True)
class RecipeFacts:
    """What the checks may look at: the recipe and what follows from it without reading a row."""

    recipe: Recipe
    schema: Schema
    sizes: Sizes  # declared units of each holder of rows
    model: nn.Module
    space: FeatureSpace  # names and shape; its scale is known only once public rows are read


def former_plan(recipe: Recipe, model: FormerRun) -> dict[str, Any]:
    """plan.json of the run that a recipe's base comes from. Raises `FileDamaged` without one."""
    value = read_json(recipe.folder / model.path / "plan.json")
    if not isinstance(value, dict):
        raise FileDamaged(f"{model.path}/plan.json does not hold a plan; name another run")
    return value  # pyright: ignore[reportUnknownVariableType]


def public_stage(recipe: Recipe) -> Pretrain | None:
    """The training on public rows that comes first, or None."""
    return recipe.fine_tuning.pretrain if recipe.fine_tuning is not None else None


def continues(recipe: Recipe) -> bool:
    """Whether the model of a former run is the base."""
    return isinstance(recipe.model, FormerRun)


def balls(recipe: Recipe) -> list[tuple[str, ThreatOption]]:
    """Every threat of the recipe and the key it stands under."""
    found = [
        (f"audit[{place}].ball", option.own_ball)
        for place, option in enumerate(recipe.audit)
        if option.own_ball is not None
    ]
    option = recipe.adversarial_training
    if option is not None and option.ball is not None:
        key = "ball" if isinstance(option, Fast) else "attack.ball"
        found.append((f"adversarial_training.{key}", option.ball))
    return found

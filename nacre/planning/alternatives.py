"""What a search tries: its recipe with the values of one trial in their places."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pydantic_core import ValidationError

from nacre.core.errors import RecipeError, Refusal
from nacre.data import Text
from nacre.planning.protection import Protection
from nacre.planning.refusals.evaluation import require_figure
from nacre.recipe.document import Document
from nacre.recipe.mistakes import mistakes
from nacre.recipe.options import content, validator
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.recipe.tune import PrivateScore, Settings, Tune


@dataclass(frozen=True)
class Alternative:
    """One of the recipes that a trial may draw."""

    settings: Settings
    recipe: Recipe  # without its search


def alternatives(recipe: Recipe, tune: Tune, protection: Protection) -> tuple[Alternative, ...]:
    """Every alternative of a recipe's search. Raises `Incompatible`, with the place, for a search
    that cannot be private, or whose values make no recipe."""
    _searchable(recipe, tune, protection)
    return tuple(Alternative(each, chosen(recipe, each)) for each in tune.settings())


def chosen(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial with these settings."""
    values = copy.deepcopy(content(recipe))
    del values["tune"]
    for key, value in settings.items():
        _put(recipe, values, key, value)
    try:
        made: Recipe = validator(Recipe).validate_python(values)
    except ValidationError as error:
        mistake = mistakes(error.errors(include_url=False), Document("", values, {}), Recipe)
        _refused(recipe, settings, mistake)
    origin = recipe.origin
    lines = {} if origin is None else dict(origin.lines)
    for key in settings:  # a mistake in a value is told where the search lists it
        if f"tune.over.{key}" in lines:
            lines[key] = lines[f"tune.over.{key}"]
    told = None if origin is None else replace(origin, lines=lines)
    return replace(made, folder=recipe.folder, origin=told)


def _put(recipe: Recipe, values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    inside: dict[str, Any] = values
    for section in sections:
        found: Any = inside.get(section)
        if not isinstance(found, dict):
            refuse(
                recipe,
                f"tune.over.{key}",
                f"the recipe has no section `{section}` for it to stand in; write the section, "
                "or list whole sections as values",
            )
        inside = found  # pyright: ignore[reportUnknownVariableType]
    inside[last] = copy.deepcopy(value)


def _refused(recipe: Recipe, settings: Mapping[str, Any], mistake: RecipeError) -> NoReturn:
    """Raises the mistake at the first setting that it is about, or at the search."""
    wrong = mistake.key or ""
    blamed = next((k for k in settings if wrong.startswith(k) or k.startswith(wrong)), "")
    key = f"tune.over.{blamed}" if blamed else "tune.over"
    refuse(recipe, key, f"with {settings_in_words(settings)}, `{wrong}` {mistake.message}")


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Settings in words.

    >>> settings_in_words({"training.optimizer.lr": 0.5, "training.batch": 64})
    'training.optimizer.lr: 0.5, training.batch: 64'
    """
    return ", ".join(f"{key}: {value}" for key, value in settings.items())


def tried_with(settings: Mapping[str, Any], error: Refusal) -> Refusal:
    """The refusal of one alternative; it says which."""
    found = copy.copy(error)
    found.args = (f"{error} (tried with {settings_in_words(settings)})",)
    return found


def _searchable(recipe: Recipe, tune: Tune, protection: Protection) -> None:
    """Raises `Incompatible` where the search has no price, or nothing to score by."""
    if protection.ledger.grant is not None:
        rule = protection.ledger.grant.rule
        if rule != "rdp":
            refuse(
                recipe,
                "ledger.grant.rule",
                f"a search has a price under `rdp` only, and the grant adds up by `{rule}`; use "
                "`rule: rdp`",
            )
    if protection.privacy.accountant not in ("auto", "rdp"):
        refuse(
            recipe,
            "differential_privacy.accountant",
            f"a search has no price by `{protection.privacy.accountant}`; use `rdp`",
        )
    if isinstance(recipe.data, Text) and any(key.startswith("model") for key in tune.over):
        refuse(
            recipe,
            "tune.over",
            "the model brings the tokens of the text, so it may not differ between trials; leave "
            "keys under `model` out",
        )
    if recipe.data.holdout is not None and recipe.data.holdout.protected:
        refuse(
            recipe,
            "data.holdout.protected",
            "each trial of a search would release a figure of its own, and nothing of a trial may "
            "leave; leave this out, or train without `tune`",
        )
    _scored(recipe, tune)


def _scored(recipe: Recipe, tune: Tune) -> None:
    """Raises `Incompatible` where no score can be computed from what the recipe declares."""
    if isinstance(tune.score, PrivateScore):
        if recipe.schema.task != "classification":
            refuse(
                recipe,
                "tune.score",
                f"private units are counted where an answer is right or wrong, and the task is "
                f"{recipe.schema.task}; use `score: {{kind: public, figure: loss}}`",
            )
        if recipe.federated_learning is not None:
            refuse(
                recipe,
                "tune.score",
                "no party may count the rows of all of them; use `score: {kind: public}`",
            )
        return
    if not recipe.data.has_public:
        refuse(
            recipe,
            "tune.score",
            "trials are compared on public rows, and the recipe declares none; declare `data: "
            "{public: …}`, or use `score: {kind: private}`, which is paid for",
        )
    require_figure(recipe, "tune.score.figure", tune.score.figure)

"""Refusals about figures: of another task, without rows to compute them on, of unknown groups."""

from __future__ import annotations

from nacre.figures.names import FigureName, figures_of
from nacre.planning.facts import RecipeFacts
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe


def require_figure(recipe: Recipe, key: str, name: FigureName | None) -> None:
    """Raises `Incompatible` where the recipe's task has no such figure."""
    task = recipe.schema.task
    if name is not None and name not in figures_of(task):
        listed = ", ".join(f"`{known}`" for known in figures_of(task))
        refuse(recipe, key, f"the task is {task}, which has no {name}; use one of {listed}")


def figures_fit_the_task(facts: RecipeFacts) -> None:
    """A figure that stops a run or is shown while it trains is one of the recipe's task."""
    recipe = facts.recipe
    federation, evaluate = recipe.federated_learning, recipe.evaluate
    if federation is not None and federation.stop is not None:
        require_figure(recipe, "federated_learning.stop.figure", federation.stop.figure)
    if evaluate is None or evaluate.figure is None:
        return
    require_figure(recipe, "evaluate.figure", evaluate.figure)
    if not recipe.data.has_public:
        refuse(
            recipe,
            "evaluate.figure",
            "what is shown while a run trains is computed on public rows, and the recipe declares "
            "none; declare `data: {public: …}`, or leave this out: `nacre audit` gives every "
            "figure on the test rows",
        )


def groups_are_declared(facts: RecipeFacts) -> None:
    """Figures by group need test rows, and columns whose categories the recipe lists."""
    recipe = facts.recipe
    groups = recipe.evaluate.groups if recipe.evaluate is not None else ()
    known = [column.name for column in facts.schema.columns if column.kind == "category"]
    for place, name in enumerate(groups):
        if name not in known:
            listed = ", ".join(f"`{each}`" for each in known) or "none"
            refuse(
                recipe,
                f"evaluate.groups[{place}]",
                f"{name!r} is no column with categories that the model reads; those are: {listed}",
            )
    if groups and not recipe.data.has_test:
        refuse(
            recipe,
            "evaluate.groups",
            "figures by group are computed on rows that were not trained on, and the data declare "
            "none; add `data: {holdout: {share: 0.2}}`",
        )

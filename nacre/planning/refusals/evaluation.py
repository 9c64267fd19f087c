"""Refusals about figures: of another task, without rows to compute them on, of unknown groups."""

from __future__ import annotations

from nacre.figures.measured import MOST_CLASSES
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
    if not recipe.data.has_public and not recipe.data.has_test:
        refuse(
            recipe,
            "evaluate.figure",
            "a figure is computed on test rows, and on public ones while a run trains, and the "
            "recipe declares neither; declare `data: {holdout: {share: 0.2}}`, or leave this out",
        )


def protected_figures_are_covered(facts: RecipeFacts) -> None:
    """A protected figure is made of further draws of the run's own mechanism over held-out units,
    so that mechanism must be one Gaussian release of independent draws at a time."""
    recipe, key = facts.recipe, "data.holdout.protected"
    holdout, privacy = recipe.data.holdout, recipe.differential_privacy
    if holdout is None or not holdout.protected:
        return
    if privacy is None:
        refuse(
            recipe,
            key,
            "the figure is noised as the steps are, and the recipe has no differential_privacy "
            "section; add one, or leave this out: the scores then stay in `local/`",
        )
    if facts.schema.task != "classification" or facts.schema.outputs() > MOST_CLASSES:
        refuse(
            recipe,
            key,
            f"right answers are counted of at most {MOST_CLASSES} classes, and the task is "
            f"{facts.schema.task} with {facts.schema.outputs()} outputs; leave this out",
        )
    if recipe.federated_learning is not None:
        refuse(
            recipe,
            key,
            "parties have no mechanism in common whose draws could be continued; leave this out, "
            "or train without `federated_learning`",
        )
    sampling = recipe.training.sampling.kind
    if privacy.noise.kind != "gaussian" or sampling not in ("poisson", "full"):
        refuse(
            recipe,
            key,
            f"held-out units are drawn and noised as a step does, one draw at a time, which noise "
            f"of kind {privacy.noise.kind} with {sampling} sampling does not allow; use `noise: "
            "{kind: gaussian}` and `sampling: {kind: poisson}` or `{kind: full}`",
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

"""A plan in words, put together from what its parts say of themselves; `limits.py` says what that
rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nacre.core.normals.box_muller import COMPILED
from nacre.core.optimizers import SGD
from nacre.core.parts import Sampling
from nacre.data.augment import Copies
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.options import DistributedGaussianNoise, Privacy
from nacre.figures.names import FigureName, usual
from nacre.gradient_clipping.rules import UNIT
from nacre.planning.levels import Level
from nacre.recipe.schema import Recipe
from nacre.statistics.votes import COVERED, VOTE


def counted_noun(count: int, name: str) -> str:
    """The count with its name, as `1 step` or `2 steps`."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def first_of(names: Sequence[str]) -> str:
    """Names as one, where what is said of them is alike.

    >>> first_of(["clinic/east"]), first_of(["clinic/a", "clinic/b", "clinic/c"])
    ('clinic/east', 'clinic/a and 2 others')
    """
    others = len(names) - 1
    return names[0] + (f" and {counted_noun(others, 'other')}" if others else "")


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """One figure where all are written alike, else the least and the greatest.

    >>> spread([0.5, 0.5], str), spread([4.138, 4.102], str)
    ('0.5', '4.102 to 4.138')
    """
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def holder(holder: Level) -> dict[str, Any]:
    """One account's mechanism and price as plan.json has it."""
    mechanism = holder.mechanism
    return {
        "name": holder.name or "all rows",
        "account": holder.account,
        "size": holder.size,
        **({"parties": holder.parties} if holder.parties > 1 else {}),
        "unit": mechanism.unit,
        "adjacency": mechanism.adjacency,
        "sampling": mechanism.sampling.facts(),
        "clip": mechanism.clip.facts(),
        "noise": mechanism.noise.facts(),
        "steps": mechanism.steps,
        **_evaluation(mechanism),
        **({"against": holder.against} if holder.against else {}),
        **holder.promise(),
    }


RARE = 0.2
"""Declared share of a class, below which an answer that is always the other class looks good by its
accuracy."""


def speaking_figure(recipe: Recipe) -> FigureName:
    """The figure that stands first where one figure speaks for the model.

    The one that the recipe names under `evaluate`, `stop` or `tune`; or, by the declared shares of
    the classes, AUROC of two of which one is rare, and balanced accuracy where one of several has
    nearly all; or the usual one. Declared values alone decide: what rows hold would tell of them.
    """
    federation, task = recipe.federated_learning, recipe.schema.task
    stop = federation.stop if federation is not None else None
    score = recipe.tune.score if recipe.tune is not None else None
    named: tuple[FigureName | None, ...] = (
        recipe.evaluate.figure if recipe.evaluate is not None else None,
        stop.figure if stop is not None and stop.figure != "loss" else None,  # its default
        score.figure if score is not None else None,
    )
    for figure in named:
        if figure is not None:
            return figure
    shares = (recipe.training.class_prior or {}).values()
    if task == "classification" and shares and max(shares) > 1 - RARE:
        return "auroc" if len(shares) == 2 else "balanced_accuracy"
    return usual(task)


def _evaluation(mechanism: Mechanism) -> dict[str, Any]:
    """The draws of a protected figure; {} where there are none."""
    if not mechanism.evaluation:
        return {}
    return {"evaluation": {"draws": mechanism.evaluation, "bound": VOTE}}


def techniques(recipe: Recipe) -> dict[str, str | None]:
    """One sentence for each of the five techniques; None where it is off."""
    tuning, adversarial = recipe.fine_tuning, recipe.adversarial_training
    return {
        "gradient_clipping": _clipping(recipe),
        "fine_tuning": tuning.sentence() if tuning is not None else None,
        "federated_learning": _federated(recipe),
        "differential_privacy": _privacy(recipe),
        "adversarial_training": adversarial.sentence() if adversarial is not None else None,
    }


def _clipping(recipe: Recipe) -> str | None:
    option, copies = recipe.gradient_clipping, recipe.training.augment
    if option is None:
        return None
    share, privacy = UNIT, recipe.differential_privacy
    if privacy is not None and privacy.unit == "client":
        share = "Each party's change"
        if recipe.within_parties is not None:
            inner = recipe.within_parties.gradient_clipping.sentence(UNIT)
            return f"{option.sentence(share)} Within a party: {inner}"
    elif copies is not None:
        share += f" (of the mean loss over {versions(copies)} of its {copies.subject}s)"
    return option.sentence(share)


def versions(copies: Copies) -> str:
    """What a step takes of each row: `3 random versions`, `the original and 2 random versions`."""
    drawn = counted_noun(copies.count - copies.include_original, "random version")
    return f"the original and {drawn}" if copies.include_original else drawn


def _federated(recipe: Recipe) -> str | None:
    option = recipe.federated_learning
    if option is None:
        return None
    names = option.parties.names
    local, taken = (
        counted_noun(option.local.steps, "local step"),
        option.gather.sentence(),
    )
    if drift := option.local.sentence():
        local += f" with {drift}"
    if option.compression is not None:
        local += f", and each change is sent {option.compression.sentence()}"
    if cohort := option.cohort.sentence():
        local += f", {cohort}"
    stacked = recipe.execution.stacked
    together = "" if stacked is None else f", up to {stacked} of them trained in one pass"
    if option.optimizer != SGD(lr=1.0):
        taken += f" and moves the weights by {option.optimizer.sentence()}"
    return (
        f"{len(names)} parties keep their rows and send changes of the weights, up to "
        f"{option.rounds} rounds of {local}; the server takes {taken}. "
        f"Here the parties run on one machine, in this process or in workers of it{together}."
    )


def _privacy(recipe: Recipe) -> str | None:
    option = recipe.differential_privacy
    if option is None:
        return None
    said = _promised(recipe, option)
    if recipe.within_parties is not None:
        inner = _promised(recipe, recipe.within_parties.differential_privacy)
        said += f" Within a party: {inner}"
    holdout = recipe.data.holdout
    return f"{said} {COVERED}" if holdout is not None and holdout.protected else said


def _promised(recipe: Recipe, option: Privacy) -> str:
    unit = {
        "example": "one row",
        "group": f"all rows with one value of `{getattr(recipe.data, 'unit', '')}`",
        "client": "everything one party holds",
    }[option.unit]
    return (
        f"{option.noise.sentence()} hides {unit}: epsilon at most {option.epsilon:g} at delta "
        f"{option.delta:g}, neighbours by {option.adjacency.replace('_', '-')}."
    )


def noise_words(recipe: Recipe) -> str | None:
    """Where noise comes from and how it is added; None without privacy."""
    option = recipe.differential_privacy
    if option is None:
        return None
    made = (
        "compiled code" if COMPILED else "NumPy, as the compiled code was not built at installation"
    )
    aes = "secure: AES-256 keyed by the operating system"
    inner = recipe.within_parties
    options = [option.noise, *([] if inner is None else [inner.differential_privacy.noise])]
    added = "; ".join(dict.fromkeys(noise.added for noise in options))
    if all(isinstance(noise, DistributedGaussianNoise) for noise in options):
        return f"{aes}; {added}"
    return f"{aes}, made normal by {made}; {added}"


def not_in_the_cost(recipe: Recipe) -> str:
    """What a run takes time for beside its steps over rows; empty where it is little."""
    stage = recipe.fine_tuning.pretrain if recipe.fine_tuning is not None else None
    found = [
        f"{stage.steps} steps on public rows" if stage is not None else "",
        "an unprotected twin of as many steps" if "unprotected" in recipe.compare else "",
        f"the audits ({', '.join(audit.kind for audit in recipe.audit)})" if recipe.audit else "",
    ]
    told = ", ".join(part for part in found if part)
    return f"; on top of it come {told}" if told else ""


def model(recipe: Recipe, parameters: int) -> dict[str, Any]:
    """The model in a line: kind, sizes and number of parameters."""
    return {"kind": recipe.model.kind, "parameters": parameters, "words": model_words(recipe)}


def data_words(recipe: Recipe) -> str:
    """Which rows, how many units of them are declared, and how they are scaled."""
    data = recipe.data
    return (
        f"{data.sentence()}, {counted_noun(data.size, 'declared unit')}, {data.scaling.sentence()}"
    )


def model_words(recipe: Recipe) -> str:
    """A short description, as `mlp 16`."""
    return recipe.model.sentence(recipe.folder)


def sampling_words(sampling: Sampling) -> str:
    """How a step draws, as `each unit with probability 0.77`."""
    return sampling.sentence()

"""Refusals about what a model reads: numbers or tokens, and how far they may be moved."""

from __future__ import annotations

from nacre.adversarial_training.text.table import token_table
from nacre.core.errors import Incompatible, Refusal
from nacre.data.dataset import Schema
from nacre.data.text.tokens import BPE, Bytes
from nacre.models import FormerRun, Pretrained, PythonModel
from nacre.models.stock.pretrained import starts_random
from nacre.planning.facts import RecipeFacts, balls
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe


def same_task(recipe: Recipe, schema: Schema) -> None:
    """A model is made for the task of its data; told before its weights are looked at."""
    model, task = recipe.model, schema.task
    if isinstance(model, Pretrained) and model.task != task:
        refuse(
            recipe,
            "model.task",
            f"the model is to answer {model.task} and the data are for {task}; make both the same",
        )


def shares_are_of_the_classes(recipe: Recipe, schema: Schema) -> None:
    """Declared shares are of the classes of the data, all of them; a base keeps its own bias."""
    prior = recipe.training.class_prior
    if prior is None:
        return
    key = "training.class_prior"
    if schema.task != "classification":
        refuse(recipe, key, f"shares are of classes, and the task is {schema.task}; leave it out")
    if set(prior) != set(schema.classes):
        refuse(
            recipe,
            key,
            f"it has shares of {', '.join(prior)} and the classes are "
            f"{', '.join(schema.classes)}; declare one for each",
        )
    if isinstance(recipe.model, FormerRun):
        refuse(
            recipe,
            key,
            "the model goes on from a former run, whose answers it starts with; leave it out",
        )


def tokens_are_those_of_the_base(facts: RecipeFacts) -> None:
    """A pretrained model knows its own tokens alone; others would be read as other words."""
    recipe = facts.recipe
    option = getattr(recipe.data, "tokenizer", None)
    learnt = isinstance(recipe.model, Pretrained) and not starts_random(recipe.model, recipe.folder)
    if learnt and isinstance(option, Bytes | BPE):
        refuse(
            recipe,
            "data.tokenizer",
            f"the base was trained with tokens of its own and would read those of {option.kind!r} "
            "as other words; leave the tokenizer out, or use `from_scratch: true` under `model`",
        )


def model_reads_the_inputs(facts: RecipeFacts) -> None:
    """A model of numbers cannot read tokens, nor one of tokens more tokens than it knows."""
    recipe, tokens = facts.recipe, facts.schema.tokens
    known: int | None = getattr(facts.model, "tokens", None)
    if isinstance(recipe.model, PythonModel) or (tokens is None and known is None):
        return
    if tokens is None or known is None:
        reads, given = ("tokens", "numbers") if tokens is None else ("numbers", "tokens")
        refuse(
            recipe,
            "model",
            f"it reads {reads} and the data are {given}; use another model, or data of kind "
            f"{'text' if tokens is None else 'table, arrays or images'}",
        )
    if tokens > known:
        refuse(
            recipe,
            "data.tokenizer",
            f"it has {tokens} tokens and the model knows {known}; use the model's own tokenizer",
        )
    task: str | None = getattr(facts.model, "task", None)
    if task is not None and task != facts.schema.task:
        refuse(
            recipe,
            "model.task",
            f"the model answers {task} and the data are for {facts.schema.task}; make both the "
            "same",
        )


def tokens_are_not_moved(facts: RecipeFacts) -> None:
    """An attack that moves inputs by a radius needs numbers; a token has no neighbour. One that
    moves embeddings needs tokens, and a model that looks them up in a table."""
    recipe, option = facts.recipe, facts.recipe.adversarial_training
    key = "adversarial_training"
    if facts.schema.tokens is None:
        if option is not None and option.on_tokens:
            refuse(
                recipe,
                key,
                f"{option.kind} moves the embeddings of tokens, and these rows are numbers; use "
                "`kind: madry` or `trades`",
            )
        return
    if option is not None and not option.on_tokens:
        refuse(
            recipe,
            key,
            "it moves inputs by a radius, and tokens have no distance; use `kind: freelb` or "
            "`embedding_pgd` with `threat: {radius: …}`, which move their embeddings",
        )
    for place, audit in enumerate(recipe.audit):
        if not audit.moves_inputs:
            continue
        refuse(
            recipe,
            f"audit[{place}]",
            "it moves inputs by a radius, and tokens have no distance; leave it out for text",
        )
    if option is not None:
        try:
            token_table(facts.model)
        except Incompatible as error:
            refuse(recipe, key, str(error), Incompatible)


def balls_fit_the_features(facts: RecipeFacts) -> None:
    """Radii and frozen features must name features of the table."""
    for key, ball in balls(facts.recipe):
        try:
            ball.region(facts.space)
        except Refusal as error:
            refuse(facts.recipe, key, str(error), type(error))

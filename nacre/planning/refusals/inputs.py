"""Refusals about what a model reads: numbers or tokens, and how far they may be moved."""

from __future__ import annotations

from nacre.adversarial_training.text.table import token_table
from nacre.adversarial_training.text.words import Words
from nacre.core.errors import Incompatible, Refusal
from nacre.data import AnyData, Table
from nacre.data.dataset import Schema
from nacre.data.text.tokens import BPE, Bytes, OfModel
from nacre.models import FormerRun, Pretrained, PythonModel
from nacre.models.stock.pretrained import starts_random
from nacre.planning.facts import RecipeFacts, balls
from nacre.recipe.audits import AuditOption, Evasion
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
    for place, audit in enumerate(recipe.audit):
        if audit.moves_inputs and facts.schema.tokens is not None:
            _words_can_be_replaced(facts, f"audit[{place}]", audit)
        elif isinstance(audit, Evasion) and isinstance(audit.ball, Words):
            refuse(
                recipe,
                f"audit[{place}].ball",
                "`kind: words` replaces words of texts, and these rows are numbers; give a ball "
                "with a radius, as `{kind: linf, radius: 0.1}`",
            )
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
    if option is not None:
        try:
            token_table(facts.model)
        except Incompatible as error:
            refuse(recipe, key, str(error), Incompatible)


def _words_can_be_replaced(facts: RecipeFacts, key: str, audit: AuditOption) -> None:
    """Of texts an audit can replace words, where there are words, classes and one table."""
    recipe, tokenizer = facts.recipe, getattr(facts.recipe.data, "tokenizer", None)
    if not isinstance(audit, Evasion):
        refuse(
            recipe,
            key,
            "it moves inputs by a radius, and tokens have no distance; leave it out for text",
        )
    if facts.schema.task != "classification":
        refuse(
            recipe,
            key,
            f"evasion replaces words of texts that are put into classes, and the task is "
            f"{facts.schema.task}; leave it out",
        )
    if audit.ball is not None and not isinstance(audit.ball, Words):
        refuse(
            recipe,
            f"{key}.ball",
            "it moves inputs by a radius, and tokens have no distance; use `ball: {kind: words}`, "
            "which replaces words by near ones, or leave `ball` out",
        )
    for name in ("steps", "restarts"):
        if getattr(audit, name) is not None:
            refuse(
                recipe,
                f"{key}.{name}",
                "it counts climbs along a gradient, and words are replaced without one; leave it "
                "out, and use `effort`",
            )
    if not isinstance(tokenizer, BPE | OfModel):
        refuse(
            recipe,
            key,
            "evasion replaces words, and the tokens are single bytes; use a tokenizer of pieces "
            "(`data: {tokenizer: {kind: bpe}}`), or leave it out",
        )
    try:
        token_table(facts.model)
    except Incompatible as error:
        refuse(recipe, key, str(error), Incompatible)


def balls_fit_the_features(facts: RecipeFacts) -> None:
    """Threats name features that the model reads, and relations that some row can keep."""
    recipe = facts.recipe
    for key, ball in balls(recipe):
        for place, name in ball.names():
            if (unread := _unread(recipe.data, name)) is not None:
                refuse(recipe, f"{key}.{place}", unread)
        try:
            ball.region(facts.space)
        except Incompatible as error:
            refuse(recipe, f"{key}.{error.key}" if error.key else key, error.message)
        except Refusal as error:
            refuse(recipe, key, str(error), type(error))


def _unread(data: AnyData, name: str) -> str | None:
    """Why the model does not read a column that the table has; None where it may."""
    if not isinstance(data, Table):
        return None
    if name == data.target:
        return f"{name!r} is the target, which the model answers and never reads: leave it out"
    if name in data.drop:
        return (
            f"{name!r} is dropped, so the model does not read it: leave it out, or take it out of "
            "`data.drop` and declare it in `data.columns`"
        )
    for role, column in (("unit", data.unit), ("party", data.party)):
        if name == column and name not in data.columns:
            return f"{name!r} is the {role} of a row, which the model never reads: leave it out"
    return None

"""What a finished model answers, as an auditor reads it: in evaluation mode, nothing moved."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.adversarial_training.evaluation.access import Predict
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.core.errors import Incompatible
from nacre.core.parts import Task
from nacre.core.rows import select
from nacre.core.theirs import foreign_cause
from nacre.core.types import Batch
from nacre.models.scoring import outputs_of, scored
from nacre.models.stock.transformer import Transformer

CHUNK = 1024  # rows at a time: bounds the memory of activations
_ALIKE = 8  # tokens by which rows that are asked together differ in length


def existing(batch: Batch) -> Batch:
    """The rows of a flat batch that exist: padding is dropped."""
    return select(batch, batch["present"])


@torch.no_grad()
def answers(
    model: nn.Module,
    task: Task,
    features: Tensor,  # (R, *shape)
) -> Tensor:  # (R, outputs)
    """The model's outputs, without dropout."""
    with evaluating(model):
        return outputs_of(model, task, features)


def row_outputs(model: nn.Module, task: Task) -> Predict:
    """(R, *shape) -> outputs of the model in its present mode, as an attack asks for them.

    A stock transformer of tokens is asked about rows of about the same length together, for as
    many places as the longest of them has: it masks what pads a row, so that its answers do not
    depend on it, and every place costs a row the same.
    """
    if not (isinstance(model, Transformer) and model.tokens is not None):
        return lambda x: task.predict(model, x)

    def outputs(x: Tensor) -> Tensor:
        if not len(x):  # which some transformers cannot read
            return task.predict(model, x.new_full((1, 1), -1))[:0]
        length = ((x >= 0) * torch.arange(1, x.shape[1] + 1)).amax(1).clamp(min=1)
        order = length.argsort(stable=True)
        found: list[Tensor] = []
        steps = (length[order] - 1) // _ALIKE
        for part in order.split(steps.unique_consecutive(return_counts=True)[1].tolist()):
            found.append(task.predict(model, x[part, : int(length[part[-1]])]))
        return torch.cat(found)[order.argsort()]

    return outputs


def row_losses(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """(R,) float64: the loss of each row of a flat batch, without dropout."""
    with evaluating(model):
        return scored(model, task, batch["features"], batch["label"])[0]


def right(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """(R,) bool: whether each row is answered rightly; an answer that is no number is wrong."""
    with evaluating(model):
        return scored(model, task, batch["features"], batch["label"])[1]


def require_reads(model: nn.Module, features: Tensor) -> None:
    """Raises `Incompatible` for a model that does not take these rows, or that answers a row
    otherwise when another stands beside it: an attack moves each row by itself."""
    _require_weights(model)
    row, two = features[:1], features[:2]
    with untouched(model), torch.no_grad():
        try:
            asked = [one.clone() for one in (row, row, two)]
            answers = [model(one) for one in asked]
        except (Exception, SystemExit) as error:
            raise Incompatible(
                f"the model does not take rows of shape {tuple(features.shape[1:])} "
                f"({foreign_cause(error)}); {_remedy(model, features)}"
            ) from error
    before, after = torch.cat([row, row, two]), torch.cat(asked)
    if not torch.equal(before.nan_to_num(), after.nan_to_num()):
        raise Incompatible(
            "the model writes into the rows that it is given, so an attack would lose the clean "
            "ones; let `forward` begin with a copy (`x = x.clone()`)"
        )
    if not all(isinstance(answer, Tensor) and answer.dim() for answer in answers):
        return  # what it puts out is judged where scores are read
    alone, again, beside = (answer[:1].double() for answer in answers)
    steady = alone.shape == again.shape == beside.shape and torch.equal(alone, again)
    if steady and not torch.allclose(alone, beside, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise Incompatible(
            "the model answers a row otherwise when another stands beside it (as a mean over the "
            "batch does), so no row can be attacked by itself: give a model whose answer to a row "
            "depends on that row alone"
        )


def _remedy(model: nn.Module, features: Tensor) -> str:
    """What to do about a model that fails on rows."""
    weights = [each for each in model.parameters() if each.is_floating_point()]
    if away := next((each.device for each in weights if each.device != features.device), None):
        return (
            f"its weights lie on {str(away)!r}, and rows on {str(features.device)!r}: give it as "
            f"`model.to({str(features.device)!r})`"
        )
    if not features.is_floating_point():
        return (
            "a row is its tokens, with -1 after the last: give what reads them `x.clamp(min=0)` "
            "and the mask `x >= 0`, the tokenizer that it was trained with, and by "
            "--length no more tokens than it reads"
        )
    if other := next((each.dtype for each in weights if each.dtype != torch.float32), None):
        return f"its weights are {other}, and rows torch.float32: give it as `model.float()`"
    return "give rows as it reads them, or correct it"


def _require_weights(model: nn.Module) -> None:
    """Raises `Incompatible` for a model on the device `meta`, which has shapes and no weights."""
    if any(each.is_meta for each in (*model.parameters(), *model.buffers())):
        raise Incompatible(
            "the model lies on the device 'meta', so it has no weights: load them, with "
            "`assign=True` where they are loaded into it"
        )

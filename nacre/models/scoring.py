"""How a model does on rows: its loss and whether it is right, a piece at a time."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.core.parts import Task
from nacre.core.theirs import theirs

_ROWS = 1024  # at a time: bounds the memory of activations
_TOKENS = 1 << 14
_NUMBERS = 1 << 24  # outputs


@torch.no_grad()
def scored(
    model: nn.Module,  # in the mode that the caller wants
    task: Task,
    features: Tensor,  # (R, *shape)
    label: Tensor,  # (R, …)
) -> tuple[Tensor, Tensor]:  # (R,) float64, (R,) bool
    """(losses, whether each row is answered rightly). An answer that is no number is wrong."""
    losses = torch.zeros(len(label), dtype=torch.float64)
    right = torch.zeros(len(label), dtype=torch.bool)
    for rows in _pieces(task, features):
        some, asked = features[rows], label[rows]
        if not features.is_floating_point():
            some, asked = _without_padding(some, asked)
        with theirs("the model", "rows were judged", surely=False):
            outputs = task.predict(model, some)
        losses[rows] = task.row_losses(outputs, asked).double().cpu()
        finite = outputs.isfinite().flatten(1).all(1)
        right[rows] = (task.correct(outputs, asked) & finite).cpu()
    return losses, right


@torch.no_grad()
def outputs_of(
    model: nn.Module,  # in the mode that the caller wants
    task: Task,
    features: Tensor,  # (R, *shape)
) -> Tensor:  # (R, outputs), as the task reads them
    """What the model puts out for each row, in the order of the rows."""
    with theirs("the model", "rows were judged", surely=False):
        return torch.cat([task.predict(model, some).cpu() for some in features.split(_ROWS)])


def _pieces(task: Task, features: Tensor) -> list[Tensor]:
    """Places of rows, of about the same length each where rows are tokens."""
    if features.is_floating_point():
        return list(torch.arange(len(features)).split(_ROWS))
    width = features.shape[1]
    at_once = max(1, min(_ROWS, _TOKENS // width, _NUMBERS // (width * task.outputs)))
    return list((features >= 0).sum(1).argsort(stable=True).split(at_once))


def _without_padding(features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens up to the end of the longest row; two at least, since a causal model needs a next."""
    longest = int(((features >= 0) * torch.arange(1, features.shape[1] + 1)).max())
    width = max(2, longest)
    by_position = label.shape == features.shape
    return features[:, :width], label[:, :width] if by_position else label

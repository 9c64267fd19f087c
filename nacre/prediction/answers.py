"""What a model answers to inputs: labels and probabilities, numbers, tags, how likely a text is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nacre.core.errors import DataError
from nacre.core.theirs import theirs
from nacre.data.columns.faults import rows_listed
from nacre.models.tasks import CausalLM
from nacre.prediction.signature import Signature
from nacre.prediction.texts import TokenRows

_ROWS = 1024  # at a time, a power of two: it divides a chunk, so each row is always among the same
_TOKENS = 1 << 14
_NUMBERS = 1 << 24  # outputs


@dataclass(frozen=True)
class Outcomes:
    """The answers to N rows; what is not of the task is None."""

    place: NDArray[np.int64] | None = None  # (N,) of the likeliest class
    probabilities: NDArray[np.float32] | None = None  # (N, classes)
    numbers: NDArray[np.float32] | None = None  # (N,) predicted values
    tags: list[list[int | None]] | None = None  # (N,) of each word; None beyond the row's length
    log_likelihood: NDArray[np.float64] | None = None  # (N,) mean over a document's tokens, in nats


@torch.no_grad()
def answered(
    module: nn.Module,  # in evaluation mode
    signature: Signature,
    inputs: Tensor,  # (N, *shape), scaled
) -> Outcomes:
    """Classes or numbers for rows of numbers, or for rows of tokens that are judged as wholes.

    Raises `DataError` where an answer is no finite number.
    """
    outputs = _in_blocks(module, inputs, lambda found, _: found)
    return _of_outputs(outputs, signature)


@torch.no_grad()
def answered_text(module: nn.Module, signature: Signature, rows: TokenRows) -> Outcomes:
    """The same for rows of tokens, whatever the task."""
    if signature.task == "causal_lm":
        task = CausalLM(1)
        losses = _in_blocks(
            module, rows.features,
            lambda found, part: task.row_losses(found.float(), rows.label[part, : found.shape[1]]),
        )  # fmt: skip
        _finite(losses)
        return Outcomes(log_likelihood=(-losses.double()).numpy())
    if signature.task == "token_classification":
        width = rows.features.shape[1]

        def likeliest(found: Tensor, _: slice) -> Tensor:
            _finite(found.flatten(1))
            best = found.argmax(-1)
            return torch.nn.functional.pad(best, (0, width - best.shape[1]))

        return Outcomes(tags=_tags(_in_blocks(module, rows.features, likeliest), rows))
    outputs = _in_blocks(module, rows.features, lambda found, _: found)
    return _of_outputs(outputs, signature)


def _of_outputs(outputs: Tensor, signature: Signature) -> Outcomes:
    _finite(outputs)
    if signature.task == "regression":
        return Outcomes(numbers=outputs[:, 0].float().numpy())
    shares = torch.softmax(outputs.double(), dim=1).float()
    return Outcomes(outputs.argmax(1).numpy(), shares.numpy())


def _tags(best: Tensor, rows: TokenRows) -> list[list[int | None]]:
    """Of each word the class at its first token."""
    found: list[list[int | None]] = [[None] * count for count in rows.words]
    for row, place in (rows.label >= 0).nonzero().tolist():
        found[row][int(rows.label[row, place])] = int(best[row, place])
    return found


def _in_blocks(
    module: nn.Module, inputs: Tensor, made: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """(N, …): what is made of the outputs of each block of rows."""
    tokens = not inputs.is_floating_point()
    at_once = _ROWS
    if tokens:
        outputs = int(getattr(module, "tokens", None) or 1)
        width = inputs.shape[1]
        most = max(1, min(_ROWS, _TOKENS // width, _NUMBERS // (width * outputs)))
        at_once = 1 << (most.bit_length() - 1)
    parts: list[Tensor] = []
    for start in range(0, len(inputs), at_once):
        part = slice(start, min(start + at_once, len(inputs)))
        some = _without_padding(inputs[part]) if tokens else inputs[part]
        with theirs("the model", "rows were predicted", surely=False):
            outputs_of_block: Any = module(some)
        parts.append(made(outputs_of_block, part))
    return torch.cat(parts)


def _without_padding(tokens: Tensor) -> Tensor:
    """Up to the end of the longest row; two at least, since a causal model needs a next."""
    longest = int(((tokens >= 0) * torch.arange(1, tokens.shape[1] + 1)).max())
    return tokens[:, : max(2, longest)]


def _finite(outputs: Tensor) -> None:
    bad = (~outputs.isfinite().reshape(len(outputs), -1).all(1)).nonzero()[:, 0].numpy()
    if len(bad):
        raise DataError(
            f"the model's answer is no finite number in {rows_listed(bad)} of the rows that were "
            "scored together, so their values are beyond what it can read; correct them"
        )

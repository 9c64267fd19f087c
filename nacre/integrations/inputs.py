"""What a Transformers model is given: made-up rows to try it on, and one loss for each row."""

# Parts of torch and transformers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.core.errors import DataError, Incompatible
from nacre.core.swapped import unmoved
from nacre.core.theirs import form_of, theirs
from nacre.core.types import Batch

InputLosses = Callable[[nn.Module, dict[str, Tensor]], Tensor]
"""(model, inputs of B rows) -> (B,), entry i a function of row i alone."""

DatasetRow = Mapping[str, Any]

_LENGTHS = (8, 5, 7, 3)  # tokens of the made-up rows: padding has to leave each as it is
_UNCOUNTED = -100  # the label of a token that takes no part in the loss
_AGREES = 1e-4  # relative


@dataclass(frozen=True, eq=False)
class StockLoss:
    """The loss that a stock model computes for one row alone, for many rows at once.

    By the shapes of its logits and labels: cross-entropy or squared error of a row, the mean over
    the classes of a row with several, or the mean over a row's own counted tokens (`labels` other
    than -100; 0 where none is), shifted by one for a causal language model.
    """

    shifts: bool  # whether the logits at one place answer for the label at the next

    def __call__(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """-> (B,). Raises `Incompatible` without labels, or for outputs or labels of another form.

        A model with a decoder gets the decoder's inputs from the labels, by its own rule, where the
        collator makes none.
        """
        if "labels" not in inputs:
            raise Incompatible(
                "the collated rows have no `labels`, so they have no loss; add them to the rows, "
                "or use a collator that makes them from the tokens"
            )
        given = {name: value for name, value in inputs.items() if name != "labels"}
        given |= _decoder_inputs(model, inputs)
        logits, labels = _named(model(**given), "logits").float(), inputs["labels"]
        if logits.dim() == 3 and labels.dim() == 2:
            return self._of_tokens(logits, labels)
        if logits.dim() == 2 and labels.is_floating_point():
            if labels.shape == logits.shape and labels.shape[1] > 1:
                each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
                return each.mean(1)
            return (logits.reshape(len(labels)) - labels.reshape(len(labels))).square()
        if logits.dim() == 2 and labels.dim() == 1:
            return functional.cross_entropy(logits, labels, reduction="none")
        raise Incompatible(
            f"logits of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)} are "
            "no task that is known here; give `losses`, which return one loss a row"
        )

    def _of_tokens(
        self,
        logits: Tensor,  # (B, T, V)
        labels: Tensor,  # (B, T)
    ) -> Tensor:  # (B,)
        if self.shifts:
            logits, labels = logits[:, :-1], labels[:, 1:]
        each = functional.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=_UNCOUNTED
        )
        return each.sum(1) / (labels != _UNCOUNTED).sum(1).clamp(min=1)


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """What the model is given of a batch."""
    return {name: value for name, value in batch.items() if name not in ("present", "unit")}


def _decoder_inputs(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the decoder is given where the model would make it from the labels; {} elsewhere."""
    plain = plain_model(model)
    given = any(name in inputs for name in ("decoder_input_ids", "decoder_inputs_embeds"))
    prepare = getattr(plain, "prepare_decoder_input_ids_from_labels", None)
    two = getattr(getattr(plain, "config", None), "is_encoder_decoder", False)
    if given or prepare is None or not two:
        return {}
    return {"decoder_input_ids": prepare(labels=inputs["labels"])}


def plain_model(model: Any) -> Any:
    """The model inside its adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _named(outputs: Any, name: str) -> Any:
    """An entry of what a model returned. Raises `Incompatible` where it has none."""
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    if isinstance(found, Tensor):
        return found
    raise Incompatible(
        f"the model returned {form_of(outputs)}, where a stock model returns {name!r}, so its "
        "loss of each row is not known; give `losses(model, inputs)`, which returns one loss a row"
    )


def own_loss(
    model: nn.Module,
    single: dict[str, Tensor],  # one made-up row
) -> StockLoss:
    """The loss that gives for one row what the model itself computes. Raises `Incompatible` where
    none that is known here does."""
    with unmoved(model), torch.no_grad(), theirs("the model", "it was tried on a made-up row"):
        model.eval()
        known = {loss: loss(model, single).sum() for loss in (StockLoss(False), StockLoss(True))}
        own = _named(model(**single), "loss")
    for loss, value in known.items():
        if own.numel() == 1 and torch.allclose(
            own.float().reshape(()), value, rtol=_AGREES, atol=_AGREES
        ):
            return loss
    told = f"{float(own):.6g}" if own.numel() == 1 else f"of shape {tuple(own.shape)}"
    by_shape = " or ".join(sorted({f"{float(value):.6g}" for value in known.values()}))
    raise Incompatible(
        f"the model's own loss of a made-up row is {told}, and by the shapes of its logits and "
        f"labels it would be {by_shape}; give `losses`, which return one loss a row"
    )


@dataclass(frozen=True)
class Vocabulary:
    """Which whole numbers a model knows."""

    tokens: int
    classes: int  # of a row
    token_classes: int  # of a token

    @classmethod
    def of(cls, model: Any) -> Vocabulary:
        """By the model's configuration, all of it public. Raises `Incompatible` for none."""
        plain = plain_model(model)
        config = getattr(plain, "config", None)
        if config is None:
            raise Incompatible(
                f"{type(plain).__name__} has no `config`, so which tokens and classes it knows is "
                "not known: give `sample`, a few made-up or public rows as train_dataset has them"
            )
        tokens = int(getattr(config, "vocab_size", None) or 2)
        classes = int(getattr(config, "num_labels", 2))
        each = "TokenClassification" in type(plain).__name__
        return cls(tokens, classes, classes if each else tokens)


def made_up_rows(first: Any, known: Vocabulary, equal: bool) -> list[DatasetRow]:
    """Made-up rows with the keys of `first`, of which only the types (and the shapes of pictures)
    are read: tokens in rows of different lengths, labels that exist.

    With `equal` all have one length, for a collator that does not pad. Raises `DataError` for a
    row without keys.
    """
    if not isinstance(first, Mapping):
        raise DataError(
            f"a row of train_dataset is {form_of(first)}, and made-up ones need its keys: let a "
            "row be a dict, as {'input_ids': …, 'labels': …}, or give `sample`, a few such rows"
        )
    generator = np.random.default_rng(0)
    rows: list[DatasetRow] = []
    for place, length in enumerate([max(_LENGTHS)] * len(_LENGTHS) if equal else _LENGTHS):
        tokens: list[int] = generator.integers(1, known.tokens, length).tolist()
        made = {name: _value(name, value, place, tokens, known) for name, value in first.items()}
        rows.append({name: value for name, value in made.items() if value is not None})
    return rows


def _value(name: str, like: Any, place: int, tokens: list[int], known: Vocabulary) -> Any:
    """A made-up value of this key; None for what no model takes (words, names)."""
    array = np.asarray("" if isinstance(like, str | bytes) else like)
    label = name in ("label", "labels", "label_ids")
    if array.dtype.kind == "f":
        made = np.random.default_rng(place).normal(size=array.shape)
        return made.tolist() if array.ndim < 2 else made.astype(np.float32)
    if array.dtype.kind not in "iub" or array.ndim > 1:
        return None
    if array.ndim == 0:
        return place % known.classes if label else 0
    if label:
        return [token % known.token_classes for token in tokens]
    return {"input_ids": tokens, "attention_mask": [1] * len(tokens)}.get(name, [0] * len(tokens))

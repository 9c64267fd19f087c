"""A few attacked rows for people to look at: pictures, or the features that moved the most."""

# torch types `tolist` in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nacre.audit.answers import answers
from nacre.audit.model_security.search import AttackSearch
from nacre.audit.model_security.words import text_changes
from nacre.audit.target import Target
from nacre.core.rows import select
from nacre.core.types import Batch, FeatureSpace

SHOWN = 4  # rows
TEXTS = 8  # the same of texts, which take a line each
MOVED = 5  # features of a row


def examples(target: Target, found: AttackSearch) -> dict[str, list[dict[str, Any]]]:
    """`pictures` for inputs that are images, `rows` for inputs whose entries have names, `texts`
    for tokens that read as text.

    They show the first rows whose right answer an attack changed, each at the smallest radius
    that did. Only for public rows and for their holder: the caller checks that.
    """
    broken = found.broken_at.isfinite() & (found.broken_at > 0)
    index = broken.nonzero().squeeze(1)[: SHOWN if target.text is None else TEXTS]
    clean = select(found.batch, index)
    moved = {**clean, "features": found.features[index]}
    if not len(index):
        return {"pictures": [], "rows": [], "texts": []}
    titles = _titles(target, clean, moved)
    shares: list[float] = found.broken_at[index].tolist()
    pairs = zip(clean["features"], moved["features"], strict=True)
    shown = [
        {**title, "share": share, **_shown(target, *pair)}
        for title, share, pair in zip(titles, shares, pairs, strict=True)
    ]
    return {
        "pictures": [entry for entry in shown if "shape" in entry],
        "rows": [entry for entry in shown if "changes" in entry],
        "texts": [entry for entry in shown if "words" in entry],
    }


def _titles(target: Target, clean: Batch, moved: Batch) -> list[dict[str, str]]:
    """For each row its label and the model's answers before and after, in words."""
    columns = {
        "label": [_named(target, value) for value in clean["label"]],
        "before": _answered(target, clean),
        "after": _answered(target, moved),
    }
    return [
        {name: values[row] for name, values in columns.items()} for row in range(len(clean["unit"]))
    ]


def _answered(target: Target, batch: Batch) -> list[str]:
    outputs = answers(target.model, target.task, batch["features"])
    single = target.task.kind == "regression"
    return [_named(target, v) for v in (outputs.squeeze(-1) if single else outputs.argmax(-1))]


def _named(target: Target, value: Tensor) -> str:
    """A class by its name, or its number where it has none; a value with four digits."""
    if target.task.kind == "regression":
        return f"{float(value):.4g}"
    return target.classes[int(value)] if target.classes else str(int(value))


def _shown(target: Target, clean: Tensor, moved: Tensor) -> dict[str, Any]:
    """What to draw of one row, (*shape) twice; nothing for unnamed inputs of one dimension."""
    space = target.space
    if target.text is not None:
        return {"words": text_changes(target.text, clean, moved)}
    if len(space.shape) >= 2:
        return _picture(space, clean, moved)
    return {"changes": _changes(space, clean, moved)} if space.names else {}


def _picture(space: FeatureSpace, clean: Tensor, moved: Tensor) -> dict[str, Any]:
    """Pixels from 0 to 1, in the order of memory: black is the least legal value, or the least
    seen where the range has no end."""
    both = torch.stack([clean, moved]).double()
    low, high = (bound.to(both).broadcast_to(both.shape) for bound in (space.low, space.high))
    low = torch.where(low.isfinite(), low, both.amin())
    high = torch.where(high.isfinite(), high, both.amax())
    pixels = ((both - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).flatten(1)
    return {
        "shape": list(space.shape),
        "clean": pixels[0].tolist(),
        "attacked": pixels[1].tolist(),
    }


def _changes(space: FeatureSpace, clean: Tensor, moved: Tensor) -> list[dict[str, Any]]:
    """The features that moved the most in the model's units, with values in their own and, as
    `scaled`, in the model's."""
    moves = (moved - clean).abs().flatten()
    before, after = (_raw(space, x).flatten() for x in (clean, moved))
    inputs = torch.stack([clean.flatten(), moved.flatten()], dim=1).double()  # (D, 2)
    order: list[int] = moves.argsort(descending=True, stable=True)[:MOVED].tolist()
    return [
        {
            "feature": space.names[i],
            "before": float(before[i]),
            "after": float(after[i]),
            "scaled": inputs[i].tolist(),
        }
        for i in order
        if moves[i] > 0
    ]


def _raw(space: FeatureSpace, x: Tensor) -> Tensor:
    """(*shape) float64, in the features' own units."""
    return x.double() * space.scale.to(x.device).double() + space.offset.to(x.device).double()

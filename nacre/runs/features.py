"""Features of rows behind a model's fixed beginning: computed once, not in every step.

*Why nothing else changes:* the beginning has no weights and no randomness and maps each row by
itself, so a step on its outputs computes what a step through the whole model does; and a row's
features are as private as the row, and are held where it is.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from nacre.core.types import FeatureSpace
from nacre.data.dataset import Rows
from nacre.models.scattering import Scattered
from nacre.runs.progress import Advance, Progress
from nacre.runs.rows import Holdings
from nacre.training.fixed_beginning import trained_part
from nacre.training.holders import Setting

_AT_ONCE = (
    32  # rows: they stay in the cache; always as many, so that a run resumes to the same bits
)


def passed(
    setting: Setting, held: Holdings, model: nn.Module, watch: Progress
) -> tuple[Setting, Holdings, nn.Module]:
    """Setting, rows and model of the steps: with the rows behind the fixed beginning, where the
    model has one. The part that is trained shares its weights with `model`."""
    part, schema = trained_part(setting.recipe, model, setting.schema, setting.memory)
    if not isinstance(model, Scattered) or part is model:
        return setting, held, model
    cohorts = [*held.private.values(), *([held.public] if held.public is not None else [])]
    blocks = sum(-(-len(rows) // _AT_ONCE) for rows in cohorts)
    with watch.stage("fixed features", blocks) as advance:
        private = {
            name: _through(model.beginning, rows, advance) for name, rows in held.private.items()
        }
        public = held.public and _through(model.beginning, held.public, advance)
    space = FeatureSpace(schema.shape, schema.feature_names())
    setting = replace(setting, schema=schema, space=space)
    return setting, replace(held, private=private, public=public, space=space), part


def _through(beginning: nn.Module, rows: Rows, advance: Advance) -> Rows:
    found: list[Tensor] = []
    mode = beginning.training
    beginning.eval()
    with torch.no_grad():
        for start in range(0, len(rows), _AT_ONCE):
            found.append(beginning(rows.features[start : start + _AT_ONCE]))
            advance()
    beginning.train(mode)
    return replace(rows, features=torch.cat(found)) if found else rows

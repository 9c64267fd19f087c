"""A finished model in a folder, as `nacre predict` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.core.types import Tensors
from nacre.models import save
from nacre.prediction.signature import signature_of
from nacre.recipe.schema import Recipe
from nacre.runs.rows import Holdings


def save_finished(
    recipe: Recipe,
    held: Holdings,
    weights: Tensors,  # adapters merged
    into: Path,  # an existing folder
    personal: Sequence[str] = (),  # weights that stayed with the parties of a federation
) -> None:
    """Writes model.safetensors and model.json of a run's model, which reads the run's rows."""
    schema = recipe.schema
    plain = recipe.build_model(schema)
    plain.load_state_dict(weights)
    save(
        plain, recipe.model, into, shape=schema.shape, outputs=schema.outputs(),
        task=schema.task, scaler=held.scaler.to_json(), folder=recipe.folder,
        tokenizer=held.tokenizer, signature=signature_of(recipe.data).to_json(),
        personal=personal,
    )  # fmt: skip

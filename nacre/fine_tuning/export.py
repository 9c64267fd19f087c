"""The trained weights as files: a plain model, or adapters by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.files import save_tensors, write_json
from nacre.core.types import Tensors
from nacre.fine_tuning import adapters


def merged(model: nn.Module) -> Tensors:
    """The state of the model, buffers included, as the base would hold it.

    Adapters are added into the weights beside them, so names and shapes are those that the model
    had before `prepare`. Shares no memory with the model.
    """
    return adapters.merged(model)


def export(
    model: nn.Module,
    folder: Path,  # an existing folder
    form: Literal["merged", "adapter"] = "merged",
) -> None:
    """Writes the weights, each file whole or not at all.

    `merged` gives model.safetensors, which `nacre.models.load` reads beside the run's model.json.
    `adapter` gives a folder that `peft.PeftModel.from_pretrained(base, folder)` reads: first the
    weights, then the configuration, so whoever finds the second has both. Raises `Incompatible`
    for `adapter` where the model has none.
    """
    if form == "merged":
        save_tensors(folder / "model.safetensors", merged(model))
        return
    if not adapters.adapted(model):
        raise Incompatible(
            "this model has no adapters to export: its own weights were trained; use form 'merged'"
        )
    save_tensors(folder / "adapter_model.safetensors", adapters.weights(model))
    write_json(folder / "adapter_config.json", adapters.config(model))

"""The trained weights as files: a plain model, or adapters by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.files import save_tensors, write_bytes, write_json
from nacre.core.types import Tensors
from nacre.fine_tuning import adapters
from nacre.models.stock.pooling import Pooled, export_pooling
from nacre.models.stock.transformer import Transformer, configuration


def merged(model: nn.Module) -> Tensors:
    """The state of the model, buffers included, as the base would hold it.

    Adapters are added into the weights beside them, so names and shapes are those that the model
    had before `prepare`. Shares no memory with the model.
    """
    return adapters.without_adapters(model)


def export(
    model: nn.Module,
    folder: Path,  # an existing folder
    form: Literal["merged", "adapter"] = "merged",
) -> None:
    """Writes the weights, each file whole or not at all.

    `merged` gives model.safetensors, which `nacre.models.load` reads beside the run's model.json;
    of a pretrained model, a folder that transformers' `from_pretrained(folder)` reads, with the
    tokenizer's files that came with it; where its states are pooled, `AutoModel` reads the encoder
    and sentence-transformers the whole.
    `adapter` gives a folder that `peft.PeftModel.from_pretrained(base, folder)` reads: first the
    weights, then the configuration, so a folder with the second has both. Raises `Incompatible`
    for `adapter` where the model has none or pools its states, before the first file.
    """
    if form == "adapter":
        require_peft_form(model)
    if isinstance(model, Transformer):
        for name, text in model.files.items():
            write_bytes(folder / name, text.encode("utf-8"))
    if form == "merged":
        if isinstance(model, Transformer):
            state = _stock(model)
            if isinstance(model.network, Pooled):
                export_pooling(model.network, state, folder)
            save_tensors(folder / "model.safetensors", state, {"format": "pt"})
            write_json(folder / "config.json", configuration(model))
            return
        save_tensors(folder / "model.safetensors", merged(model))
        return
    save_tensors(folder / "adapter_model.safetensors", adapters.weights(model))
    write_json(folder / "adapter_config.json", adapters.config(model))


def require_peft_form(model: nn.Module) -> None:
    """Raises `Incompatible` where the model has no adapters, or none that PEFT could read."""
    if not adapters.adapted(model):
        raise Incompatible(
            "this model has no adapters to export: its own weights were trained; use form 'merged'"
        )
    if isinstance(model, Transformer) and isinstance(model.network, Pooled):
        raise Incompatible(
            "PEFT has no form for an encoder whose states are pooled for a head; use form 'merged',"
            " or train another run with `pooling: stock` under `model`"
        )


def _stock(model: Transformer) -> Tensors:
    """The merged state under the names of the stock class; tied weights once."""
    state = {name.removeprefix("network."): value for name, value in merged(model).items()}
    tied: dict[str, str] = getattr(model.network, "all_tied_weights_keys", None) or {}
    return {name: value for name, value in state.items() if name not in tied}

"""The finished model of a run, for libraries that know nothing of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from nacre.core.errors import FileDamaged, Incompatible, RunError
from nacre.core.files import load_tensors, read_json, write_bytes, write_json
from nacre.core.run_folder import RunFolder
from nacre.core.types import Tensors
from nacre.fine_tuning import LoRA
from nacre.fine_tuning.export import export, merged, require_peft_form
from nacre.models import OWN, Code, Transformer, load, saved
from nacre.prediction.graph import onnx_graph
from nacre.prediction.predictor import load_model
from nacre.recipe.schema import Recipe
from nacre.runs import checkpoint
from nacre.runs.run import open_run

HandoverForm = Literal["merged", "adapter", "onnx"]


def hand_over(
    run: Path, into: Path, form: HandoverForm = "merged", *, code: Code = OWN
) -> list[str]:
    """Writes the finished model of `run` into the folder `into`; gives the names of its files.

    `merged` is the whole model, which `nacre predict` and `nacre.load_model(into)` read; of a
    pretrained one it is a folder for `from_pretrained(into)` as well, with its tokenizer and the
    names of its classes.
    `adapter` is what LoRA learnt alone, for `peft.PeftModel.from_pretrained(base, into)`. `onnx` is
    one graph, model.onnx, from raw rows to answers (`nacre.prediction.graph`). All are computed
    from releases, so handing them on costs no epsilon.

    Raises `RunError` for a run that is open or a folder that holds files, `Incompatible` for
    `adapter` where none was trained or states are pooled and for `onnx` where parties keep layers
    of their own, `Refusal` for a Python model without `code.runs`, `FileDamaged` where the run's
    files do not fit each other.
    """
    finished = open_run(run, code=code)
    if form == "onnx" and into.suffix.lower() == ".onnx":
        raise RunError(
            f"{into} is the name of a file, and model.onnx is written into a folder beside its "
            f"card; name one, as {into.with_suffix('')}"
        )
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise RunError(f"{into} exists and is not an empty folder; name another one")
    recipe, folder = finished.recipe, finished.folder
    # All that can fail comes before the first file.
    if form == "onnx" and saved(run).personal:
        raise Incompatible(
            f"{run} holds the common part of a federation, in which nobody has trained the layers "
            "that the parties kept, and a graph of it would answer all the same; use `--form "
            "merged`, which says so, or the model of a party in its `local/personal`"
        )
    if form == "onnx":
        graph = onnx_graph(load_model(run, code=code))
        into.mkdir(parents=True, exist_ok=True)
        write_bytes(into / "model.onnx", graph)
        return ["model.onnx"]
    if form == "merged":
        model = load(run, recipe.folder, code=recipe.code, own=recipe.model)
    else:
        model = _with_adapters(recipe, folder)
        require_peft_form(model)
    facts = _facts(folder)
    into.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Transformer):
        _name_classes(model, read_json(folder.plan))
    tokenizer: dict[str, Any] = facts.get("tokenizer") or {}
    if text := tokenizer.get("file"):
        write_bytes(into / "tokenizer.json", str(text).encode())
    export(model, into, form)
    if form == "merged":  # last: a folder that holds it holds the weights
        write_json(into / "model.json", facts)
    return sorted(path.name for path in into.iterdir())


def _facts(folder: RunFolder) -> dict[str, Any]:
    saved(folder.path)  # refuses what nacre has not written
    return cast(dict[str, Any], read_json(folder.path / "model.json"))


def _with_adapters(recipe: Recipe, folder: RunFolder) -> nn.Module:
    """The model as it was trained, adapters beside the base that the recipe names."""
    choice = recipe.fine_tuning
    if not isinstance(choice, LoRA):
        raise Incompatible(
            f"the run {folder.path} trained no adapters but the model's own weights; use "
            "`--form merged`"
        )
    kept = folder.state / checkpoint.ADAPTERS
    if not kept.exists():
        raise FileDamaged(
            f"{kept} is gone, and what was trained beside the base stands there alone; use `--form "
            "merged`"
        )
    model = recipe.build_model(recipe.schema)
    try:
        if (base := folder.state / "base.safetensors").exists():
            model.load_state_dict(load_tensors(base)[0])
        model = choice.prepare(model, recipe.seed)
        model.load_state_dict({**model.state_dict(), **load_tensors(kept)[0]})
        fits = _same(merged(model), load_tensors(folder.path / "model.safetensors")[0])
    except RuntimeError:  # another form of a base
        fits = False
    if not fits:  # the model pins both, bit for bit
        raise FileDamaged(
            f"{kept} and the base, {recipe.model.sentence(recipe.folder)}, do not give the model "
            "of the run, so one of them has changed; put it back, or use `--form merged`"
        )
    return model


def _same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def _name_classes(model: Transformer, plan: Any) -> None:
    """Writes the names of the classes into the configuration; numbers stand there else."""
    classes: list[str] = plan.get("classes") or []
    if classes and model.task in ("classification", "token_classification"):
        settings: Any = model.network.config
        settings.id2label = dict(enumerate(classes))
        settings.label2id = {name: number for number, name in enumerate(classes)}

"""An adversarial batch on disk: NAME.safetensors with the rows, and NAME.json with what they mean
and, for people, which row was broken by what, when.

Who holds the files holds the rows: they are written for their owner alone.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from torch import Tensor

from nacre.adversarial_training.evaluation.access import Outputs
from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.table import TableThreat
from nacre.audit.model_security.batch import AS_GIVEN, AdversarialBatch
from nacre.core.errors import FileDamaged, RunError
from nacre.core.files import load_tensors, read_json, tensors_to_bytes, write_bytes, write_json
from nacre.core.theirs import cause
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Regression, task_for
from nacre.recipe.options import validator

FORMAT = 1

_PRIVATE = 0o600
_ROWS = ("place", "clean", "attacked", "label", "answer", "share", "stage", "step", "margin")
_SPACE = ("scale", "offset", "low", "high", "least", "most")


def save_batch(batch: AdversarialBatch, folder: Path, name: str) -> None:
    """Writes NAME.safetensors, then NAME.json, which names the digest of the first: each is whole
    or absent, and a pair that does not belong together is refused by `load_batch`."""
    tensors = {key: getattr(batch, key) for key in _ROWS}
    tensors |= {f"space.{key}": getattr(batch.space, key) for key in _SPACE}
    if _has_units(batch.space):
        tensors["attacked_raw"] = batch.attacked_raw()
    data = tensors_to_bytes(tensors)
    facts = {
        "format": FORMAT,
        "tensors": {"file": f"{name}.safetensors", "sha256": hashlib.sha256(data).hexdigest()},
        "attacked_accuracy": batch.value,
        "rows": len(batch),
        "row_numbers": batch.row_numbers,
        "model_sha256": batch.weights,
        "threat": _threat_facts(batch.threat),
        "towards": batch.towards,
        "task": batch.task.kind,
        "outputs": batch.outputs,
        "classes": list(batch.classes),
        "width": batch.width,
        "stages": list(batch.stages),
        "shape": list(batch.space.shape),
        "names": list(batch.space.names),
        "categorical": list(batch.space.categorical),
        "choices": list(batch.space.choices),
        "broken": [_row(batch, i) for i in _broken(batch)],
    }
    write_bytes(folder / f"{name}.safetensors", data, mode=_PRIVATE)
    write_json(folder / f"{name}.json", facts, mode=_PRIVATE)


def load_batch(folder: Path, name: str) -> AdversarialBatch:
    """What `save_batch` wrote. Raises `RunError` where there is none, and `FileDamaged` for files
    that are not what was written or do not belong together."""
    file = folder / f"{name}.json"
    if not file.is_file():
        raise RunError(
            f"{folder} holds no adversarial batch {name!r} (no {file.name}); `nacre audit` writes "
            "it beside an evasion's findings"
        )
    facts = read_json(file)
    try:
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r} is unknown to this version")
        held = folder / f"{name}.safetensors"
        if _sha256(held) != facts["tensors"]["sha256"]:
            raise ValueError(f"{held.name} is not the one that it was written with")
        tensors, _ = load_tensors(held)
        return _read(facts, tensors)
    except FileDamaged:
        raise
    except OSError as error:
        raise FileDamaged(
            f"{folder / name}.safetensors cannot be read ({error.strerror}); audit again"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FileDamaged(
            f"{file} is not what nacre writes ({cause(error)}); audit again, or restore both files"
        ) from error


def batches_in(folder: Path) -> tuple[str, ...]:
    """The names of the batches that lie there, sorted."""
    return tuple(sorted(file.stem for file in folder.glob("*.json")
                        if (folder / f"{file.stem}.safetensors").is_file()))  # fmt: skip


def _read(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AdversarialBatch:
    shape = tuple(int(size) for size in facts["shape"])
    space = FeatureSpace(
        shape,
        tuple(facts["names"]),
        categorical=tuple(facts["categorical"]),
        choices=tuple(facts["choices"]),
        **{key: tensors[f"space.{key}"] for key in _SPACE},
    )
    rows = {key: tensors[key] for key in _ROWS}
    count = int(facts["rows"])
    for key, values in rows.items():
        wanted = (count, *shape) if key in ("clean", "attacked") else (count,)
        if tuple(values.shape) != wanted:
            raise ValueError(f"{key} has shape {tuple(values.shape)} where {wanted} is needed")
    classes = tuple(str(name) for name in facts["classes"])
    task = Regression() if facts["task"] == "regression" else task_for("classification", 2)
    if task.kind != facts["task"]:
        raise ValueError(f"task {facts['task']!r} is unknown")
    if facts["outputs"] not in get_args(Outputs):
        raise ValueError(f"outputs {facts['outputs']!r} are unknown")
    return AdversarialBatch(
        **rows,
        stages=tuple(str(name) for name in facts["stages"]),
        space=space,
        threat=_threat(facts["threat"]),
        task=task,
        outputs=cast(Outputs, facts["outputs"]),
        towards=None if facts["towards"] is None else int(facts["towards"]),
        classes=classes,
        width=int(facts["width"]),
        weights=str(facts["model_sha256"]),
        value=float(facts["attacked_accuracy"]),
        row_numbers=str(facts.get("row_numbers", AS_GIVEN)),  # of before there was another count
    )


def _has_units(space: FeatureSpace) -> bool:
    """Whether features have units of their own, other than the model's."""
    return bool((space.scale != 1).any() or (space.offset != 0).any())


def _threat_facts(threat: ThreatOption) -> dict[str, Any]:
    facts = asdict(threat)
    facts.pop("share", None)
    return facts


def _threat(facts: Mapping[str, Any]) -> ThreatOption:
    option = TableThreat if facts["kind"] == "table" else Ball
    return validator(option).validate_python(dict(facts))


def _broken(batch: AdversarialBatch) -> list[int]:
    """The places in the batch of rows that an attack broke, by the rows' numbers."""
    places: list[int] = (batch.stage >= 0).nonzero().squeeze(1).tolist()
    return sorted(places, key=lambda i: int(batch.place[i]))


def _row(batch: AdversarialBatch, i: int) -> dict[str, Any]:
    margin = float(batch.margin[i])
    return {
        "row": int(batch.place[i]),
        "label": _named(batch, batch.label[i]),
        "answer": _named(batch, batch.answer[i]),
        "stage": batch.stages[int(batch.stage[i])],
        "step": int(batch.step[i]),
        "share": float(batch.share[i]),
        "margin": margin if math.isfinite(margin) else None,
    }


def _named(batch: AdversarialBatch, value: Tensor) -> str | float | int | None:
    if value.is_floating_point():
        number = float(value)
        return number if math.isfinite(number) else None
    return batch.classes[int(value)] if batch.classes else int(value)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

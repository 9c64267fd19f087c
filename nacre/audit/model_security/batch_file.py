"""An adversarial batch on disk: NAME.safetensors with the rows, and NAME.json with what they mean
and, for people, which row was broken by what, when.

Who holds the files holds the rows: they are written for their owner alone.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import Outputs
from nacre.adversarial_training.text.words import Substitutions, TokenKinds, Words
from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.table import TableThreat
from nacre.audit.model_security.batch import AS_GIVEN, AdversarialBatch
from nacre.audit.model_security.facts import TextPart
from nacre.core.errors import FileDamaged, RunError
from nacre.core.files import load_tensors, read_json, tensors_to_bytes, write_bytes, write_json
from nacre.core.theirs import cause
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Regression, task_for
from nacre.recipe.options import validator

FORMAT = 2
"""Of what is written. 1, which had no texts, is read too."""

_READ = (1, 2)
_PRIVATE = 0o600
_ROWS = ("place", "clean", "attacked", "label", "answer", "share", "stage", "step", "margin")
_SPACE = ("scale", "offset", "low", "high", "least", "most")
_WORDS = ("token", "near", "kind")
_WORD, _CONTINUES = 1, 2  # kinds of tokens; 0 is any other


def save_batch(batch: AdversarialBatch, folder: Path, name: str) -> None:
    """Writes NAME.safetensors, then NAME.json, which names the digest of the first: each is whole
    or absent, and a pair that does not belong together is refused by `load_batch`."""
    tensors = {key: getattr(batch, key) for key in _ROWS}
    if batch.words is not None:
        tensors |= _compact(batch.words, batch.clean)
    else:
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
        "public": batch.public,
        "model_sha256": batch.weights,
        "threat": _threat_facts(batch.threat),
        "towards": batch.towards,
        "task": batch.task.kind,
        "outputs": batch.outputs,
        "classes": list(batch.classes),
        "width": batch.width,
        "stages": list(batch.stages),
        "shape": list(batch.clean.shape[1:]),
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
        if facts["format"] not in _READ:
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
    rows = {key: tensors[key] for key in _ROWS}
    count = int(facts["rows"])
    for key, values in rows.items():
        wanted = (count, *shape) if key in ("clean", "attacked") else (count,)
        if tuple(values.shape) != wanted:
            raise ValueError(f"{key} has shape {tuple(values.shape)} where {wanted} is needed")
    _require_rows(rows, facts)
    threat = _threat(facts["threat"])
    words = _words(threat, tensors) if isinstance(threat, Words) else None
    if words is not None and not rows["clean"].dtype == rows["attacked"].dtype == torch.int64:
        raise ValueError("texts are tokens, which are int64")
    classes = tuple(str(name) for name in facts["classes"])
    task = Regression() if facts["task"] == "regression" else task_for("classification", 2)
    if task.kind != facts["task"]:
        raise ValueError(f"task {facts['task']!r} is unknown")
    if facts["outputs"] not in get_args(Outputs):
        raise ValueError(f"outputs {facts['outputs']!r} are unknown")
    return AdversarialBatch(
        **rows,
        stages=tuple(str(name) for name in facts["stages"]),
        space=_space(facts, shape, {} if words is not None else tensors),
        threat=threat,
        task=task,
        outputs=cast(Outputs, facts["outputs"]),
        towards=None if facts["towards"] is None else int(facts["towards"]),
        classes=classes,
        width=int(facts["width"]),
        weights=str(facts["model_sha256"]),
        value=float(facts["attacked_accuracy"]),
        row_numbers=str(facts.get("row_numbers", AS_GIVEN)),  # of before there was another count
        public=bool(facts.get("public", False)),
        words=words,
        texts=() if words is None else _texts(facts["broken"], rows["place"]),
    )


def _require_rows(rows: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raises `ValueError` for rows that no attack leaves behind, and where the accuracy is not the
    share of those that stand."""
    place, label, stage = rows["place"], rows["label"], rows["stage"]
    if not len(place) or int(facts["width"]) < 1:
        raise ValueError("it holds no row, or a step of none")
    if place.dtype != torch.int64 or int(place.min()) < 0 or len(place.unique()) < len(place):
        raise ValueError("its rows are not numbered from 0 on, each once")
    of_classes = facts["task"] != "regression"
    if of_classes and (label.dtype != torch.int64 or int(label.min()) < 0):
        raise ValueError("its labels are no classes from 0 on")
    if stage.dtype != torch.int64 or not -2 <= int(stage.min()) <= int(stage.max()) < len(
        facts["stages"]
    ):
        raise ValueError("a row is broken by a stage that is not among `stages`")
    stands = float(rows["share"].isinf().double().mean())
    if float(facts["attacked_accuracy"]) != stands:
        raise ValueError(
            f"attacked_accuracy is {facts['attacked_accuracy']}, and {stands} of its rows stand"
        )


def _space(
    facts: Mapping[str, Any], shape: tuple[int, ...], tensors: Mapping[str, Tensor]
) -> FeatureSpace:
    """What the inputs mean; tokens mean what the model makes of them."""
    return FeatureSpace(
        shape,
        tuple(facts["names"]),
        categorical=tuple(facts["categorical"]),
        choices=tuple(facts["choices"]),
        **({key: tensors[f"space.{key}"] for key in _SPACE} if tensors else {}),
    )


def _compact(words: Substitutions, clean: Tensor) -> dict[str, Tensor]:
    """The candidates of the tokens that these rows hold, and the kind of every token."""
    kinds = words.vocabulary
    token = clean[(clean >= 0) & (clean < len(kinds.whole))].unique()
    token = token[kinds.whole[token]]
    kind = torch.where(kinds.whole, _WORD, torch.where(kinds.continues, _CONTINUES, 0))
    found = {"token": token, "near": words.near[token], "kind": kind.to(torch.uint8)}
    return {f"words.{key}": tensor for key, tensor in found.items()}


def _words(threat: Words, tensors: Mapping[str, Tensor]) -> Substitutions:
    """What `_compact` wrote."""
    token, near, kind = (tensors[f"words.{key}"] for key in _WORDS)
    if (token.dtype, near.dtype, kind.dtype) != (torch.int64, torch.int64, torch.uint8):
        raise ValueError("the candidates of words are not of the type that they are written in")
    known, wanted = len(kind), (len(token), threat.candidates)
    if kind.dim() != 1 or token.dim() != 1 or tuple(near.shape) != wanted:
        raise ValueError(f"words.near has shape {tuple(near.shape)} where {wanted} is needed")
    if bool((token < 0).any() | (token >= known).any() | (near < -1).any() | (near >= known).any()):
        raise ValueError(f"a candidate is no token of a vocabulary of {known}")
    every = torch.full((known, threat.candidates), -1, dtype=torch.int64)
    every[token] = near
    return Substitutions(every, TokenKinds(kind == _WORD, kind == _CONTINUES), threat.share)


def _texts(broken: Sequence[Any], place: Tensor) -> tuple[Sequence[TextPart], ...]:
    """How each row reads, in the order of the rows; () of those that no attack broke."""
    told = {
        int(row["row"]): [
            TextPart(text=str(part["text"]), now=None if part["now"] is None else str(part["now"]))
            for part in row["words"]
        ]
        for row in broken
    }
    numbers: list[int] = place.tolist()
    return tuple(told.get(number, []) for number in numbers)


def _has_units(space: FeatureSpace) -> bool:
    """Whether features have units of their own, other than the model's."""
    return bool((space.scale != 1).any() or (space.offset != 0).any())


def _threat_facts(threat: ThreatOption | Words) -> dict[str, Any]:
    facts = asdict(threat)
    if isinstance(threat, TableThreat):
        facts.pop("share")  # no key of a recipe
    return facts


def _threat(facts: Mapping[str, Any]) -> ThreatOption | Words:
    options = {"table": TableThreat, "words": Words}
    return validator(options.get(facts["kind"], Ball)).validate_python(dict(facts))


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
        **({"words": list(batch.texts[i])} if batch.texts else {}),
    }


def _named(batch: AdversarialBatch, value: Tensor) -> str | float | int | None:
    if value.is_floating_point():
        number = float(value)
        return number if math.isfinite(number) else None
    return batch.classes[int(value)] if batch.classes else int(value)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

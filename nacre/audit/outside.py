"""Attack a model that no run of ours has trained: a function of yours or a saved folder, and rows.

Nothing is known of who may see the rows, so a finding is not public unless its caller says so.
"""

# numpy's readers and torch's tensors are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nacre.adversarial_training.evaluation.access import Outputs
from nacre.adversarial_training.text.words import Words
from nacre.audit.answers import require_reads
from nacre.audit.finding import Finding
from nacre.audit.model_security.batch import AdversarialBatch
from nacre.audit.model_security.evasion import evasion
from nacre.audit.target import AuditProgress, Target, TokenText, no_progress
from nacre.core.errors import BadArgument, DataError, FileDamaged, Incompatible
from nacre.core.files import load_tensors
from nacre.core.parts import Task
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.theirs import cause
from nacre.core.types import FeatureSpace
from nacre.data.arrays import read_npz
from nacre.models.callables import OWN, Code, PythonModel, called
from nacre.models.load import load, saved
from nacre.models.tasks import Classification
from nacre.prediction.predictor import load_model
from nacre.recipe.audits import Evasion

LARGEST_CLASS = 2.0**31
"""A class's number lies below it."""


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows as a model reads them, with the right answers."""

    features: Tensor  # (R, *shape) float32
    label: Tensor  # (R,) int64, numbered from 0; float32 where the answer is a number
    names: tuple[str, ...] = ()  # of the features, where the file names them
    space: FeatureSpace | None = None  # what they mean, where the model says so
    task: Task | None = None  # classes, as many as the labels name, where it does not
    classes: tuple[str, ...] = ()  # their names; () where they have none
    place: Tensor | None = None  # (R,) int64: the rows' numbers in the file; None without one
    notes: tuple[str, ...] = ()  # what became of other rows
    text: TokenText | None = None  # how rows of tokens read; features are then (R, T) int64


def require_name(model: str) -> None:
    """Raises `BadArgument` for what is neither a folder nor `module:function`."""
    if ":" not in model and not Path(model).is_dir():
        raise BadArgument(
            f"--model {model!r} is no folder; name a run folder, or write `module:function`"
        )


def outside_model(name: str, weights: Path | None = None, code: Code = OWN) -> nn.Module:
    """The model that `name` stands for, in evaluation mode: a run folder or what `nacre export`
    wrote, or `module:function`, which is called without arguments in the working directory, with
    `weights` (.safetensors) loaded into what it returns.

    Raises `Refusal` where there is none, where its code is not trusted, or weights do not fit.
    """
    require_name(name)
    if ":" not in name:
        if weights is not None:
            raise BadArgument(f"--weights is for `module:function`; {name} holds its own weights")
        return _saved_model(Path(name), code)
    model = called(PythonModel(call=name), Path.cwd(), code)
    if weights is not None:
        if not weights.is_file():
            raise BadArgument(
                f"--weights {weights} is no file; name the .safetensors of this model"
            )
        tensors, _ = load_tensors(weights)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise FileDamaged(
                f"{weights} does not fit {name} ({cause(error)}); give the weights of this model"
            ) from error
    return model.eval()


def _saved_model(folder: Path, code: Code) -> nn.Module:
    if saved(folder).signature is None and not RunFolder(folder).recipe.is_file():
        return load(folder, code=code)  # of format 1, which does not say what its rows are
    return load_model(folder, code=code).module


def read_labelled(file: Path, label: str = "label") -> LabelledRows:
    """Rows from .npz with arrays `features` (or `x`) and `label`, or from .csv with a header, where
    every column but `label` is a number. They must be as the model reads them: nothing is scaled.

    Raises `DataError` for what is missing, no number, not finite or not whole.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist; name a file of rows, .npz or .csv")
    if file.suffix == ".npz":
        features, labels, names = *_arrays(file, label), ()
    elif file.suffix == ".csv":
        features, labels, names = _table(file, label)
    else:
        raise DataError(
            f"{file} is neither .npz nor .csv; save the rows as one of them, or give --tokenizer "
            "for texts"
        )
    if features.ndim < 2 or len(features) != len(labels) or labels.ndim != 1 or not len(labels):
        raise DataError(
            f"{file}: features of shape={features.shape} and labels of shape={labels.shape} are no "
            "rows; give (rows, …) and one label a row"
        )
    if not np.isfinite(features).all():
        raise DataError(f"{file}: some features are no finite numbers; drop or fill these rows")
    fits = (labels >= 0) & (labels < LARGEST_CLASS)  # False for NaN
    if not fits.all() or (labels != np.floor(labels)).any():
        raise DataError(f"{file}: labels must be the whole numbers of classes, from 0")
    return LabelledRows(
        torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)),
        torch.from_numpy(labels.astype(np.int64)),
        names,
        place=torch.arange(len(labels)),
    )


def _arrays(file: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    found = read_npz(file, [], others=True)
    if label not in found:
        raise DataError(
            f"{file} has no array {label!r} with the right answers (it has "
            f"{', '.join(sorted(found)) or 'none'}); name it by --label"
        )
    name = next((name for name in ("features", "x") if name in found), None)
    if name is None:
        raise DataError(f"{file} holds {sorted(found)}; name the rows `features` or `x`")
    if complex_ := next((key for key in (name, label) if found[key].dtype.kind == "c"), None):
        raise DataError(f"{file}: {complex_!r} holds complex numbers; give their parts as features")
    try:
        return found[name].astype(np.float64), found[label].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file} holds what is no number ({cause(error)})") from error


def _table(file: Path, label: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.reader(opened))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read ({cause(error)}); save it as CSV in UTF-8"
        ) from error
    header = rows[0] if rows else []
    if label not in header:
        listed = ", ".join(repr(name[:40]) for name in header[:8]) or "none"
        more = " and others" if len(header) > 8 else ""
        raise DataError(
            f"{file} has no column {label!r} (it has {listed}{more}); name the labels' column by "
            "--label, and separate columns by commas"
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{file}, line {number}: {len(row)} cells where the header has {len(header)}"
            )
    try:
        values = np.array(rows[1:], dtype=np.float64).reshape(-1, len(header))
    except ValueError as error:
        raise DataError(_no_number(file, rows, label)) from error
    place = header.index(label)
    names = tuple(name for name in header if name != label)
    return np.delete(values, place, axis=1), values[:, place], names


def _no_number(file: Path, rows: list[list[str]], label: str) -> str:
    """The sentence about the first cell that is no number."""
    for number, row in enumerate(rows[1:], start=2):
        for name, cell in zip(rows[0], row, strict=True):
            try:
                float(cell)
            except ValueError:
                remedy = "write categories as the model reads them, or give --tokenizer for texts"
                if name == label:
                    remedy = "number the classes from 0, as the columns of the model's scores"
                elif not cell.strip():
                    remedy = "fill it, or leave the row out"
                return f"{file}, line {number}, column {name!r}: {cell!r} is no number; {remedy}"
    return f"{file} holds a cell that is no number; write categories as the model reads them"


def legal_range(rows: LabelledRows, given: tuple[float, float] | None) -> tuple[float, float]:
    """The least and the largest legal input: `given`, which must hold every row; else 0 and 1 for
    pictures that lie there, and no range for tables. Raises `DataError` for rows outside, and for
    pictures whose range nobody has said."""
    if rows.text is not None:
        raise BadArgument("--range is for numbers, and the model reads texts; leave it out")
    if rows.space is not None:
        raise BadArgument("--range is for a model that does not say what is legal; this one does")
    least, most = float(rows.features.min()), float(rows.features.max())
    if given is not None:
        low, high = given
        if not low < high:
            raise BadArgument(f"--range {low:g} {high:g}: the first must be below the second")
        if least < low or most > high:
            raise DataError(
                f"the rows go from {least:g} to {most:g}, outside --range {low:g} {high:g}; scale "
                "them as the model reads them, or give their range"
            )
        return given
    if rows.features.dim() < 3:
        return float("-inf"), float("inf")
    if least < 0 or most > 1:
        raise DataError(
            f"the pictures go from {least:g} to {most:g}, and not from 0 to 1; give what is legal "
            f"by --range, as `--range 0 255`"
        )
    return 0.0, 1.0


def audit_model(
    model: nn.Module,
    rows: LabelledRows,
    option: Evasion,
    *,
    outputs: Outputs = "logits",
    legal: tuple[float, float] | None = None,
    public: bool = False,
    keep: Callable[[AdversarialBatch], None] | None = None,
    advance: AuditProgress = no_progress,
) -> Finding:
    """What an evasion of the model on these rows finds; `option` must name a ball. `keep` is given
    the rows with the points that broke them, as `batch_file.save_batch` writes them.

    The same model, rows and option give the same finding. The model is left as it was. Raises as
    `evasion` and `legal_range` do.
    """
    space, count = rows.space, len(rows.label)
    require_reads(model, rows.features)
    if space is None or legal is not None:
        low, high = (torch.tensor(bound) for bound in legal_range(rows, legal))
        space = FeatureSpace(tuple(rows.features.shape[1:]), rows.names, low=low, high=high)
    if rows.text is not None and not isinstance(option.ball, Words):
        raise Incompatible(
            "the model reads texts, and their tokens have no distance; replace words instead, by a "
            "threat of `kind: words`"
        )
    if option.ball is not None and not isinstance(option.ball, Words):
        option.ball.region(space)  # a column that is not there is refused before anything is asked
    target = Target(
        model=model,
        task=rows.task or Classification(max(2, int(rows.label.max()) + 1)),
        space=space,
        source=Source(bytes(32)),
        test={
            "features": rows.features,
            "label": rows.label,
            "present": torch.ones(count, dtype=torch.bool),
            "unit": torch.arange(count),
            **({"place": rows.place} if rows.place is not None else {}),
        },
        test_public=public,
        classes=rows.classes,
        outputs=outputs,
        text=rows.text,
        keep=keep,
    )
    found = evasion(target, option, advance)
    details = {**found.details, "notes": [*rows.notes, *found.details["notes"]]}
    return replace(found, details=details)

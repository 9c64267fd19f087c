"""The rows of a file as one model reads them, for a model that no recipe of ours audits."""

from __future__ import annotations

from pathlib import Path

from nacre.audit.declared_rows import DeclaredRows, RowsForm
from nacre.audit.declared_texts import DeclaredTexts
from nacre.audit.outside import LabelledRows, read_labelled, require_name
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.run_folder import RunFolder
from nacre.data import Scaler
from nacre.data.scaling import NoScaling, fit_scaling
from nacre.data.text.tokens import PieceTokenizer
from nacre.models import OWN, Code, saved
from nacre.prediction.predictor import signature_in, tokenizer_in


def rows_for(
    model: str,  # a folder, or module:function
    file: Path,
    label: str | None = None,
    form: RowsForm | None = None,
    texts: DeclaredTexts | None = None,  # how a function reads texts; None: it reads numbers
    code: Code = OWN,
) -> LabelledRows:
    """The rows that `model` is to be attacked on. Raises as the reader of its rows does, and
    `BadArgument` for what a saved folder says by itself."""
    require_name(model)
    declared = declared_by(Path(model), code) if Path(model).is_dir() else None
    if declared is not None and texts is not None:
        raise BadArgument(f"--tokenizer is for `module:function`; {model} says what its rows are")
    if declared is None and form == "raw":
        raise BadArgument(f"--rows raw: {model} does not say how raw rows are scaled")
    declared = declared or texts
    if isinstance(declared, DeclaredTexts):
        if form is not None:
            raise BadArgument(f"--rows {form} is for rows of numbers, and {model} reads texts")
        return declared.read(file, label)
    if declared is None:
        return read_labelled(file, label or "label")
    return declared.read(file, label, form)


def declared_by(folder: Path, code: Code = OWN) -> DeclaredRows | DeclaredTexts | None:
    """How the rows of a run folder, or of what `nacre export` wrote, are read; None where it does
    not say (model.json of format 1 without its recipe).

    Raises `RunError` for a run that has not ended, `Incompatible` for a model whose texts no attack
    moves.
    """
    if saved(folder).signature is None and not RunFolder(folder).recipe.is_file():
        return None
    signature, known = signature_in(folder, code)
    if signature.form == "text":
        if signature.task != "classification":
            raise Incompatible(
                f"{folder} holds a model of text whose task is {signature.task}; an evasion of "
                "texts is for models that put them into classes"
            )
        tokenizer = tokenizer_in(folder, known)
        if not isinstance(tokenizer, PieceTokenizer):
            raise Incompatible(
                f"{folder} holds a model that reads single bytes, and an evasion of texts replaces "
                "words that are a token each: train with a tokenizer of pieces"
            )
        return DeclaredTexts(signature, tokenizer)
    if signature.task not in ("classification", "regression"):
        raise Incompatible(f"{folder} holds a model of {signature.task}, which no evasion attacks")
    scaler = (
        fit_scaling(NoScaling(), signature.schema(), None)
        if known.scaler is None
        else Scaler.from_json(known.scaler)
    )
    return DeclaredRows(str(folder), signature, scaler)

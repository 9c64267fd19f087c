"""A finished model with its signature: rows in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nacre.core.errors import BadArgument, FileDamaged, RunError
from nacre.core.run_folder import RunFolder
from nacre.data import Rows, Scaler
from nacre.data.columns.faults import Fault
from nacre.data.text import tokens
from nacre.data.text.tokens import Tokenizer
from nacre.models import OWN, Code, SavedModel, load, saved
from nacre.models.stock.transformer import Stock
from nacre.prediction.answers import Outcomes, answered, answered_text
from nacre.prediction.columns import read_features
from nacre.prediction.faults import FaultTally
from nacre.prediction.frames import Frame, framed
from nacre.prediction.generate import continued
from nacre.prediction.row_files import Chunk, require_columns
from nacre.prediction.signature import Signature, read_signature, signature_of
from nacre.prediction.texts import token_rows, too_short


@dataclass(frozen=True)
class Scored:
    """What a chunk of rows gave."""

    answers: Outcomes | None  # None where rows were refused
    faults: list[Fault]
    without: NDArray[np.int64]  # places of rows that have no prediction


class Predictor:
    """A finished model that scores rows as its run was told to read them.

    Predictions are computed from a released model and rows that the caller holds, so they cost no
    epsilon. Those on the rows that trained are for who may see these rows.
    """

    def __init__(
        self,
        module: nn.Module,  # in evaluation mode
        signature: Signature,
        scaler: Scaler | None,
        tokenizer: Tokenizer | None,
    ) -> None:
        self.module = module
        """The bare network, in evaluation mode; its inputs are scaled rows or tokens."""
        self.signature = signature
        """What a row is, and what is answered."""
        self.scaler = scaler
        """What inputs are centred, divided and clamped by; None where they are not."""
        self._tokenizer = tokenizer

    def predict(self, frame: Frame) -> Any:
        """(N,): classes by name, or numbers; for words a list of tags a row; for a language model
        the mean log-likelihood of each document's tokens, in nats (its perplexity is exp(-x)).

        `frame` is a pandas DataFrame or a mapping of columns; an array or tensor (N, *shape) for a
        model of arrays or images; a list of texts, or of lists of words. Raises `DataError` for
        rows that the run's policy refuses; those that it drops are None, or NaN.
        """
        answers, without = self._whole(frame)
        if answers.numbers is not None or answers.log_likelihood is not None:
            found = answers.numbers if answers.numbers is not None else answers.log_likelihood
            assert found is not None
            numbers = found.copy()
            numbers[without] = np.nan
            return numbers
        if answers.tags is not None:
            tags: list[list[str | None] | None] = self.tags(answers.tags)
            for place in without.tolist():
                tags[place] = None
            return tags
        assert answers.place is not None
        names = np.array(self.signature.classes, dtype=object)[answers.place]
        names[without] = None
        return names

    def predict_proba(self, frame: Frame) -> NDArray[np.float32]:
        """(N, classes): the probability of each class, in the order of `signature.classes`; NaN
        for a row that is dropped. Raises `BadArgument` for a model of another task."""
        if self.signature.task != "classification":
            raise BadArgument(
                f"this model's task is {self.signature.task}, and probabilities are for "
                "classification; use `predict`"
            )
        answers, without = self._whole(frame)
        assert answers.probabilities is not None
        shares = answers.probabilities.copy()
        shares[without] = np.nan
        return shares

    def generate(
        self, prompt: str, tokens: int = 100, seed: int = 0, temperature: float = 1.0
    ) -> str:
        """What a language model writes after `prompt`: up to `tokens` tokens, drawn by `seed`; the
        likeliest each time at `temperature` 0. Raises `BadArgument` for another model."""
        if not self.signature.scores_text() or self._tokenizer is None:
            raise BadArgument(
                f"this model's task is {self.signature.task}, and a causal_lm alone writes text; "
                "use `predict`"
            )
        length = self.signature.shape[0]
        return continued(
            self.module, self._tokenizer, length, prompt, tokens, seed=seed, temperature=temperature
        )

    def scored(self, chunk: Chunk, tally: FaultTally, first: int, *, stripped: bool) -> Scored:
        """The answers to some rows of which the first has the number `first`; what is wrong with
        them is added to `tally`. Once rows were refused nothing is computed."""
        if self.signature.form == "text":
            assert self._tokenizer is not None
            rows, faults = token_rows(chunk.columns, self.signature, self._tokenizer, stripped)
            if self.signature.scores_text():
                lacking = {int(i) for fault in faults for i in fault.rows}
                faults += too_short(rows, lacking)
            without = tally.add(faults, first, chunk.count)
            if tally.refused:
                return Scored(None, faults, without)
            return Scored(answered_text(self.module, self.signature, rows), faults, without)
        faults: list[Fault] = []
        inputs = chunk.inputs
        if inputs is None:
            inputs, faults = read_features(chunk.columns, self.signature, chunk.count)
        without = tally.add(faults, first, chunk.count)
        if tally.refused:
            return Scored(None, faults, without)
        features = self._scaled(torch.from_numpy(np.ascontiguousarray(inputs)))
        return Scored(answered(self.module, self.signature, features), faults, without)

    def tags(self, places: list[list[int | None]]) -> list[Any]:
        """Tags by name."""
        names = self.signature.classes
        return [[None if tag is None else names[tag] for tag in row] for row in places]

    def _whole(self, frame: Frame) -> tuple[Outcomes, NDArray[np.int64]]:
        chunk = framed(frame, self.signature)
        if self.signature.form != "array":
            require_columns(list(chunk.columns), self.signature, "the frame")
        tally = FaultTally("the frame")
        found = self.scored(chunk, tally, 0, stripped=False)
        tally.check()
        assert found.answers is not None
        return found.answers, found.without

    def _scaled(self, features: Tensor) -> Tensor:
        if self.scaler is None:
            return features
        return self.scaler.apply(Rows(features, torch.zeros(len(features)))).features


def load_model(run: Path | str, *, code: Code = OWN) -> Predictor:
    """The finished model of a run folder, of what `nacre export` wrote, or of a copy of either.

    No code that the folder names is run for it without `code.runs`. Raises `RunError` for a run
    that has not ended and for a folder that does not say what its rows are, `FileDamaged` for files
    that are not what was written, `Refusal` for code that is not trusted.
    """
    place = Path(run)
    signature, known = signature_in(place, code)
    tokenizer = tokenizer_in(place, known) if signature.form == "text" else None
    scaler = None if known.scaler is None else Scaler.from_json(known.scaler)
    return Predictor(_module(place, code), signature, scaler, tokenizer)


def signature_in(run: Path, code: Code = OWN) -> tuple[Signature, SavedModel]:
    """(what the model's rows are, what else model.json says), without its weights. Raises as
    `load_model` does."""
    folder = RunFolder(run)
    if folder.recipe.is_file() and not folder.outcome.is_file():
        raise RunError(f"the training of {run} is not complete: {folder.unfinished()}")
    known = saved(run)
    if known.signature is not None:
        return read_signature(known.signature, f"{run}/model.json"), known
    if not folder.recipe.is_file():
        raise RunError(
            f"{run}/model.json does not say what the columns, ranges and classes of its rows are "
            "(files of format 1 do not); put the recipe.yaml of its run beside it, or name the run "
            "folder"
        )
    from nacre.recipe.load import load_recipe  # a second, which models of format 2 need not wait

    return signature_of(load_recipe(folder.recipe, code=code).data), known


def _module(run: Path, code: Code) -> nn.Module:
    folder = RunFolder(run)
    beside = Path(folder.fact("folder")) if folder.facts.is_file() else None
    return load(run, beside, code=code)


def tokenizer_in(run: Path, known: SavedModel) -> Tokenizer:
    """What a model of text reads by, as model.json describes it. Raises `FileDamaged`."""
    if known.tokenizer is None:
        return tokens.BYTES
    files: Mapping[str, str] = known.option.files if isinstance(known.option, Stock) else {}
    try:
        return tokens.of_description(known.tokenizer, files)
    except (KeyError, TypeError, ValueError) as error:
        raise FileDamaged(
            f"the tokenizer in {run}/model.json is not what nacre writes ({error}); restore it"
        ) from error


__all__: Sequence[str] = ("Predictor", "load_model", "signature_in", "tokenizer_in")

"""A file of rows in, the same rows with predictions out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nacre.core.errors import DataError, NacreError, Refusal
from nacre.core.files import whole_file
from nacre.models import OWN, Code, saved
from nacre.prediction.csv_file import encoding_doubt
from nacre.prediction.faults import FaultTally, notes
from nacre.prediction.predictor import Predictor, Scored, load_model, signature_in
from nacre.prediction.row_files import Chunk, open_rows
from nacre.prediction.row_writers import RowWriter, require_form, writer_for
from nacre.prediction.signature import Signature

_LISTED = 4
NOTE = "nacre_note"
"""The column that says why a row has no prediction."""

PredictionProgress = Callable[[float, int], None]
"""Called with (share of the file that was read, rows so far): first with nothing done, once run and
file are found to fit."""


@dataclass(frozen=True)
class Predicted:
    """What became of a file's rows."""

    rows: int
    without: int  # rows that have no prediction
    clamped: int  # rows of which a value was moved into its range
    columns: tuple[str, ...]  # that were added


def added_columns(signature: Signature, prefix: str = "") -> tuple[str, ...]:
    """The names of the columns that predictions fill."""
    if signature.scores_text():
        names = ["log_likelihood", "perplexity"]
    elif signature.task == "classification":
        names = ["prediction", *(f"probability_{name}" for name in signature.classes)]
    else:
        names = ["prediction"]
    if signature.may_be_empty() or signature.on_out_of_range == "clamp":
        names.append(NOTE)
    return tuple(prefix + name for name in names)


def predict_file(
    run: Path,  # a run folder, or what `nacre export` wrote
    rows: Path,
    into: Path | None,  # .csv in the run's dialect, .parquet or .jsonl; None: CSV to `stream`
    *,
    stream: BinaryIO | None = None,
    prefix: str = "",  # of the columns that are added
    code: Code = OWN,
    progress: PredictionProgress = lambda share, count: None,
    doubts: Callable[[str], None] = lambda said: None,  # told before a row is read
) -> Predicted:
    """Scores each row of a file, in its order; every column of it is kept.

    Rows that the run's policy refuses end it with a `DataError` that names column, value and rows;
    those that it drops stay, without a prediction and with a note. `into` is whole or untouched.
    Raises `DataError` for a file that does not fit before the model is read, and as `load_model`.
    """
    signature, _ = signature_in(run, code)
    if kept := saved(run).personal:
        more = " and others" if len(kept) > _LISTED else ""
        doubts(
            f"the model in {run} is the common part of a federation: nobody has trained "
            f"{', '.join(kept[:_LISTED])}{more} in it, since each party kept its own; predict by a "
            "party's model, `local/personal/PARTY` of its run"
        )
    if not prefix.isprintable():
        raise Refusal(f"`--prefix` {prefix!r} has signs that no line shows; use letters and digits")
    if into is not None:
        _require_place(run, rows, into)
    added = added_columns(signature, prefix)
    if signature.form == "columns" and (doubt := encoding_doubt(rows, signature.dialect)):
        doubts(doubt)
    with contextlib.closing(open_rows(rows, signature)) as opened:
        if taken := [name for name in added if name in opened.names]:
            raise DataError(
                f"{rows} has a column {taken[0]!r} already, which predictions would fill; name "
                "them otherwise by `--prefix`",
                column=taken[0],
            )
        model = load_model(run, code=code)
        tally = FaultTally(str(rows))
        count = 0
        with _sink(into, stream) as sink, contextlib.ExitStack() as ends:
            writer: RowWriter | None = None

            def begun() -> RowWriter:  # not before a row has passed: a header is an answer too
                made = writer_for(into, sink, [*opened.names, *added], signature.dialect)
                return ends.enter_context(contextlib.closing(made))

            for chunk in opened.chunks():
                if not count:
                    progress(0.0, 0)
                scored = model.scored(chunk, tally, count, stripped=opened.stripped)
                if scored.answers is not None:
                    kept = _kept(chunk, opened.names, rows, count)
                    found = _predictions(model, scored, chunk.count)
                    writer = writer or begun()
                    writer.write(kept | dict(zip(added, found, strict=True)))
                count += chunk.count
                progress(opened.share(), count)
            tally.check()
            if writer is None:
                begun()
    return Predicted(count, tally.dropped, tally.clamped, added)


def _require_place(run: Path, rows: Path, into: Path) -> None:
    """Raises `Refusal` where predictions cannot be written, or would take something's place."""
    require_form(into)
    if not into.parent.is_dir():
        raise Refusal(
            f"{into} cannot be written, as there is no folder {into.parent}; make it, or choose "
            "another file"
        )
    if into.resolve() == rows.resolve():
        raise Refusal(f"{into} is the file of rows itself; choose another file for predictions")
    if into.resolve().is_relative_to(run.resolve()):
        raise Refusal(
            f"{into} lies in the folder {run}, which holds the model and is left as it is; choose "
            "a file elsewhere"
        )


@contextlib.contextmanager
def _sink(into: Path | None, stream: BinaryIO | None) -> Generator[BinaryIO]:
    if into is not None:
        with whole_file(into) as file:
            yield file
        return
    if stream is None:
        raise NacreError("predictions have no place to go; name a file or a stream")
    yield stream
    stream.flush()


def _kept(chunk: Chunk, names: Any, rows: Path, first: int) -> dict[str, Any]:
    """The file's own columns, in their order; null where a chunk of JSONL lacks one."""
    if new := [name for name in chunk.columns if name not in names]:
        raise DataError(
            f"{rows} has a key {new[0]!r} after row {first} that no row before has, and the "
            "columns are written by then; give the key to the first row too, as null",
            column=new[0],
        )
    empty = [None] * chunk.count
    return {name: chunk.columns.get(name, empty) for name in names}


def _predictions(model: Predictor, scored: Scored, count: int) -> list[Any]:
    """The columns that are added, in the order of `added_columns`."""
    answers, signature = scored.answers, model.signature
    assert answers is not None
    gone = np.zeros(count, np.bool_)
    gone[scored.without] = True
    found: list[Any]
    if answers.log_likelihood is not None:
        likely = np.where(gone, 0.0, answers.log_likelihood)
        with np.errstate(over="ignore"):
            perplexity = np.exp(-likely)
        found = [_numbers(likely, gone), _numbers(perplexity, gone)]
    elif answers.tags is not None:
        tags = model.tags(answers.tags)
        found = [[None if lost else row for row, lost in zip(tags, gone.tolist(), strict=True)]]
    elif answers.numbers is not None:
        found = [_numbers(answers.numbers, gone)]
    else:
        assert answers.place is not None and answers.probabilities is not None
        places = pa.array(answers.place.astype(np.int32), mask=gone)
        labels = pa.DictionaryArray.from_arrays(places, list(signature.classes))
        shares = np.ascontiguousarray(answers.probabilities.T)
        found = [labels.dictionary_decode(), *(_numbers(share, gone) for share in shares)]
    if NOTE in added_columns(signature):
        found.append(pa.array(notes(scored.faults, count), pa.string()))
    return found


def _numbers(values: NDArray[Any], gone: NDArray[np.bool_]) -> Any:
    return pa.array(values, mask=gone)


def counts_as_json(run: Path, rows: Path, into: Path | None, found: Predicted) -> Mapping[str, Any]:
    """The counts as JSON."""
    return {
        "run": str(run),
        "rows_file": str(rows),
        "output": None if into is None else str(into),
        "rows": found.rows,
        "without_prediction": found.without,
        "clamped": found.clamped,
        "columns": list(found.columns),
    }

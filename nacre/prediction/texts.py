"""Documents as rows of tokens, read as training reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nacre.data.columns.faults import Fault
from nacre.data.text.documents import as_document, as_words, half_characters
from nacre.data.text.encode import NOT_COUNTED, Encoder
from nacre.data.text.tokens import Tokenizer
from nacre.prediction.signature import Signature, TextInputs


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens, and what counts in them."""

    features: Tensor  # (N, T) int64, -1 where a row is padded on its right
    label: Tensor  # (N, T) int64: the token that counts at a place, or the number of the word that
    # begins there; -100 elsewhere
    words: Sequence[int]  # (N,) how many words each row has; () unless words have classes


def token_rows(
    columns: Mapping[str, Any],  # name -> (N,) an Arrow array or a list of plain values
    signature: Signature,
    tokenizer: Tokenizer,
    stripped: bool,  # whether spaces around a value say nothing
) -> tuple[TokenRows, list[Fault]]:
    """(the rows, those that lack their text). A row without text has no tokens of its own."""
    inputs = signature.text
    assert inputs is not None
    tagged = signature.task == "token_classification"
    faults: list[Fault] = []
    read: dict[str, list[Any]] = {}
    for role, name in inputs.roles().items():
        values = columns[name]
        plain: list[Any] = values if isinstance(values, list) else values.to_pylist()
        if stripped:
            plain = [value.strip() if isinstance(value, str) else value for value in plain]
        read[role] = _documents(plain, name, signature, tagged, faults)
    encoder = Encoder(tokenizer, inputs.length, inputs.cut)
    return _encoded(read, signature, inputs, encoder), faults


def _documents(
    values: list[Any], name: str, signature: Signature, tagged: bool, faults: list[Fault]
) -> list[Any]:
    """Each value as text, or as words; "" or [] where there is none."""
    broken = np.array([i for i, value in enumerate(values) if half_characters(value)], np.int64)
    if len(broken):
        words = "there is half a character (a lone surrogate)"
        remedy = "write the text as UTF-8 anew"
        faults.append(Fault(name, "half a character", words, broken, "refuse", remedy))
        values = ["" if half_characters(value) else value for value in values]
    found = [as_words(value) if tagged else as_document(value) for value in values]
    lacking = np.array([i for i, value in enumerate(found) if value is None], np.int64)
    if len(lacking):
        what = "there are no words (a list is needed)" if tagged else "there is no text"
        remedy = "fill them, or train with `on_missing: drop`"
        faults.append(Fault(name, "missing", what, lacking, signature.on_missing, remedy))
    empty: Any = [] if tagged else ""
    return [empty if value is None else value for value in found]


def _encoded(
    read: Mapping[str, list[Any]], signature: Signature, inputs: TextInputs, encoder: Encoder
) -> TokenRows:
    if inputs.prompt is not None:
        found = encoder.instructions(read["prompt"], read["completion"])
        return TokenRows(found.features, found.label, ())
    texts = read["text"]
    if signature.task == "token_classification":
        # A word's number in place of its class: so each answer finds its word again.
        found = encoder.tagged(texts, [range(len(words)) for words in texts])
        return TokenRows(found.features, found.label, [len(words) for words in texts])
    reader = encoder.documents if signature.task == "causal_lm" else encoder.texts
    found = reader(texts)
    return TokenRows(found.features, found.label, ())


def too_short(rows: TokenRows, without: set[int]) -> list[Fault]:
    """Documents in which no token follows another, so that there is nothing to be scored."""
    silent = (rows.label[:, 1:] == NOT_COUNTED).all(1).nonzero()[:, 0].tolist()
    places = np.array([place for place in silent if place not in without], np.int64)
    if not len(places):
        return []
    return [Fault("", "short", "no token of it can be scored", places, "drop", "")]

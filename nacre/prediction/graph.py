"""A finished model as one ONNX graph, with its scaling and its encoding inside: raw rows in,
probabilities or numbers out, for runtimes that know nothing of Nacre or of PyTorch.
"""

from __future__ import annotations

import importlib
import io
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.errors import Incompatible, Refusal
from nacre.core.theirs import foreign_cause
from nacre.data import Column
from nacre.data.scaling import Scaler
from nacre.prediction.predictor import Predictor
from nacre.prediction.signature import Signature

_TRIED = 5  # made-up rows that the graph is held against the model on
_TOLERANCE = 1e-5
_TEXTS = ("date", "hash")


class _RawRows(nn.Module):
    """The model with everything before and after it: rows in their own units -> answers."""

    def __init__(self, model: nn.Module, signature: Signature, scaler: Scaler | None) -> None:
        super().__init__()
        self.model = model
        self.columns = signature.columns
        self.numbers = signature.task == "regression"
        self.scaler = scaler

    def forward(self, rows: Tensor) -> Tensor:
        """(N, columns), a category being its place in the declared list (all others the next) and
        yes or no 1 or 0, or (N, *shape), both float32 -> (N, classes) probabilities, or (N,)
        numbers."""
        inputs = rows
        if self.columns:
            inputs = torch.cat([_entries(c, rows[:, i]) for i, c in enumerate(self.columns)], 1)
        if self.scaler is not None:
            scaled = (inputs - self.scaler.offset) / self.scaler.scale
            # torch.clamp with tensors of infinity is no operation of ONNX: these two are.
            inputs = torch.minimum(torch.maximum(scaled, self.scaler.low), self.scaler.high)
        outputs = self.model(inputs)
        return outputs[:, 0] if self.numbers else torch.softmax(outputs.double(), 1).float()


def _entries(
    column: Column,
    values: Tensor,  # (N,)
) -> Tensor:
    """(N, entries): the number itself or its code, or one-hot."""
    if column.kind == "category":
        places = torch.arange(len(column.entries())).float()
        return (values[:, None] == places).float()
    if column.coding == "plain":
        return values[:, None]
    edges = torch.tensor(column.edges, dtype=torch.float32)
    if column.coding == "piecewise":
        return ((values[:, None] - edges[:-1]) / (edges[1:] - edges[:-1])).clamp(0.0, 1.0)
    passed = (values[:, None] >= edges[1:-1]).float()  # how many inner edges lie below
    ends = torch.ones_like(values[:, None]), torch.zeros_like(values[:, None])
    return torch.cat([ends[0], passed], 1) - torch.cat([passed, ends[1]], 1)


def _require_carried(columns: Sequence[Column]) -> None:
    """Raises `Incompatible` with all columns whose values are no numbers nor places in a list."""
    texts = [
        f"{column.name!r} ({column.kind if column.kind in _TEXTS else 'flag of a missing value'})"
        for column in columns
        if column.kind in _TEXTS or column.flag
    ]
    if texts:
        raise Incompatible(
            f"an ONNX graph takes numbers alone, and what this model reads from text is no number: "
            f"{', '.join(texts)}; use `--form merged`, a folder that `nacre predict` reads, or "
            "train without them"
        )


def onnx_graph(predictor: Predictor) -> bytes:
    """The file of the graph: one input `rows`, one output `probabilities` or `numbers`, any number
    of rows, and the signature as JSON under `nacre.signature` in its metadata.

    Rows beyond a declared range are clamped by the scaling and not refused. The graph is computed
    on made-up rows before it is given back, and held against the model to 1e-5. Raises
    `Incompatible` for a model that reads text, dates or hashed codes, where the package `onnx` is
    not installed, where PyTorch cannot write the model's operations, and where the graph answers
    otherwise.
    """
    signature = predictor.signature
    if signature.form == "text":
        raise Incompatible(
            "this model reads text, and its tokenizer is no part of an ONNX graph: use `--form "
            "merged`, a folder that `nacre predict` reads, and transformers where it is a "
            "pretrained one"
        )
    _require_carried(signature.columns)
    onnx: Any = _package("onnx")
    whole = _RawRows(predictor.module, signature, predictor.scaler).eval()
    rows = _made_up(signature)
    name = "numbers" if whole.numbers else "probabilities"
    proto = onnx.load_from_string(_traced(whole, rows, name))
    facts = {"nacre.signature": json.dumps(signature.to_json(), allow_nan=False)}
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    _require_same(proto, whole, rows, name)
    return proto.SerializeToString()


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Incompatible(
            f"the package {name} is not installed, and it writes ONNX graphs: `pip install "
            "'nacre[onnx]'`"
        ) from error


def _traced(whole: nn.Module, rows: Tensor, name: str) -> bytes:
    file: Any = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter by tracing: it needs `onnx` alone, and takes a tenth of the time of the
            # one by `torch.export`; what it traced wrongly is found by comparing.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole, (rows,), file, input_names=["rows"], output_names=[name], dynamo=False,
                dynamic_axes={"rows": {0: "count"}, name: {0: "count"}},
            )  # fmt: skip
    except Refusal:
        raise
    except Exception as error:
        raise Incompatible(
            f"PyTorch cannot write this model as an ONNX graph ({foreign_cause(error)}); use "
            "`--form merged`"
        ) from error
    return file.getvalue()


def _require_same(proto: Any, whole: nn.Module, rows: Tensor, name: str) -> None:
    """Raises `Incompatible` where onnx's own reference reads the graph as another function."""
    reference: Any = importlib.import_module("onnx.reference")
    for some in (rows, rows[:1]):
        with torch.no_grad():
            own = whole(some).numpy()
        found = reference.ReferenceEvaluator(proto).run([name], {"rows": some.numpy()})[0]
        if found.shape != own.shape or not np.allclose(
            found, own, rtol=_TOLERANCE, atol=_TOLERANCE
        ):
            raise Incompatible(
                "the ONNX graph of this model answers otherwise than the model (what it does hangs "
                "on values in a way that a trace does not hold); use `--form merged`"
            )


def _made_up(signature: Signature) -> Tensor:
    """(5, …) float32: legal rows, of what is declared alone."""
    drawn = torch.Generator().manual_seed(0)
    if signature.columns:
        columns = [_values(column, drawn) for column in signature.columns]
        return torch.stack(columns, 1)
    low, high = _range(signature.low, signature.high)
    return low + (high - low) * torch.rand(_TRIED, *signature.shape, generator=drawn)


def _values(column: Column, drawn: torch.Generator) -> Tensor:
    if column.kind in ("category", "boolean"):
        places = len(column.entries()) if column.kind == "category" else 2
        return torch.randint(places, (_TRIED,), generator=drawn).float()
    low, high = _range(column.low, column.high)
    return low + (high - low) * torch.rand(_TRIED, generator=drawn)


def _range(low: float | None, high: float | None) -> tuple[float, float]:
    """A range to draw from; an end that is not declared lies one from the other, or from 0."""
    if low is None:
        return (-1.0, 1.0) if high is None else (high - 1, high)
    return low, low + 1 if high is None else high

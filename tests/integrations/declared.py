"""What the tests of the adapters declare, and rows small enough to train on in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from nacre.core.random import Source
from nacre.core.types import Tensors
from nacre.differential_privacy.options import Privacy
from nacre.gradient_clipping import Flat
from nacre.integrations.torch import Private
from nacre.ledger import AccountSummary, Ledger
from nacre.recipe.sections import GrantOption, LedgerChoice

SIZE = 120
KEY = bytes(range(32))


def promised(folder: Path, **changed: Any) -> dict[str, Any]:
    """The declarations of a small run, as keyword arguments."""
    grant = GrantOption(epsilon=8, delta=1e-4)
    ledger = LedgerChoice(path=str(folder / "privacy.db"), dataset="rows", grant=grant)
    return {
        "privacy": Privacy(epsilon=8, delta=1e-4),
        "clip": Flat(norm=1.0),
        "ledger": ledger,
        "size": SIZE,
        **changed,
    }


def stepped(place: Path, **changed: Any) -> dict[str, Any]:
    """`promised`, and what a plain loop declares itself."""
    return {**promised(place), "batch": 30, "steps": 6, **changed}


def table(count: int = SIZE) -> TensorDataset:
    """Rows (features (4,), class)."""
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(features, (features.sum(1) > 0).long())


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def cross_entropy(model: nn.Module, features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(features), label, reduction="none")


def private(
    tmp_path: Path,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    dataset: Any = None,
    losses: Any = cross_entropy,
    **changed: Any,
) -> Private:
    """A small run, ready for its first step."""
    model = model or linear()
    optimizer = optimizer or sgd(model)
    rows = table() if dataset is None else dataset
    return Private(model, optimizer, rows, losses, **stepped(tmp_path, **changed))


def same(a: Tensors, b: Tensors) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def book(tmp_path: Path) -> AccountSummary:
    """What the ledger says of the account."""
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        return ledger.summary("rows")


def source() -> Source:
    """What a run whose key is `KEY` draws from."""
    return Source(KEY).child("run")


def own_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """What a loop without privacy does."""
    loss = cross_entropy(model, *table().tensors).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


class Sequences(nn.Module):
    """The mean of the tokens' embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embedding(x).mean(1)

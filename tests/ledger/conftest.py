"""Events, ledgers and a cache of prices of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dp_accounting as dp
import pytest

from nacre.ledger import Ledger

GAUSSIAN = dp.GaussianDpEvent(2.0)
SAMPLED = dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.0))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "privacy.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path, create=True) as opened:
        yield opened

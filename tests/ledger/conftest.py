"""Events, ledgers in both databases, and a cache of prices of their own.

Tests that take `place` run twice: on a file of SQLite, and on PostgreSQL where the variable
NACRE_TEST_POSTGRES holds the URL of a database in which schemas may be made (`.ci/run` sets it).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import dp_accounting as dp
import pytest

from nacre.ledger import Ledger

GAUSSIAN = dp.GaussianDpEvent(2.0)
SAMPLED = dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.0))


@pytest.fixture(scope="session")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of the ledger: an event costs the same in each of them."""
    return tmp_path_factory.mktemp("prices")


@pytest.fixture(autouse=True)
def own_cache(prices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(prices))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file of SQLite would be."""
    return tmp_path / "privacy.db"


@pytest.fixture
def schema() -> Iterator[str]:
    """The URL of an empty schema in PostgreSQL, gone when the test ends."""
    url = os.environ.get("NACRE_TEST_POSTGRES")
    if not url:
        reason = "NACRE_TEST_POSTGRES is not set to the URL of a database for tests"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; in CI every store is tested, see .ci/run")
        pytest.skip(reason)
    import psycopg

    name = f"nacre_{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
        connection.execute(f"DROP SCHEMA {name} CASCADE")  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Path | str:
    """Where a ledger may be made, in both kinds of store."""
    return request.getfixturevalue("path" if request.param == "sqlite" else "schema")


@pytest.fixture
def ledger(place: Path | str) -> Iterator[Ledger]:
    """An empty ledger in each kind of store."""
    with Ledger.open(place, create=True) as opened:
        yield opened

"""A federation across organisations: a stock SuperLink and four processes, with TLS and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from tests.across.deployment import Deployment, twin
from tests.across.houses import NAMES, Houses

pytestmark = pytest.mark.slow


def test_over_flower_ends_in_the_model_of_the_run_in_process(tmp_path: Path) -> None:
    """Bitwise: both go on from where all sides had met, with the same keys."""
    houses = Houses(tmp_path / "flower")
    houses.met()
    other = twin(houses, tmp_path / "process")
    expected = other.lead(other.channel(), resume=True)
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        parties = [deployment.party(name) for name in NAMES]
        server = deployment.server("--resume", "--wait", "60", "--deadline", "60")
        assert server.wait(120) == 0, server.said()
        assert [party.wait(30) for party in parties] == [0, 0, 0]
    path = tmp_path / "flower" / "server" / "run" / "model.safetensors"
    assert path.read_bytes() == (expected.path / "model.safetensors").read_bytes()

"""A party behind Flower's own SuperNode, with the inert bundle in place of `nacre party`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from tests.across.deployment import Deployment, same_end, twin
from tests.across.houses import OF_ROWS, SUMMED, Houses
from tests.conftest import ALL

pytestmark = pytest.mark.slow

AGAIN = ("--resume", "--wait", "120", "--deadline", "240")


@pytest.mark.parametrize("privacy", [OF_ROWS, SUMMED] if ALL else [SUMMED])
def test_stock_supernodes_end_in_the_model_of_the_run_in_process(
    tmp_path: Path, privacy: str
) -> None:
    """Bitwise, beside a party's own warm process; and the accounts are settled."""
    houses = Houses(tmp_path / "flower", privacy, rounds=2)
    houses.met()
    other = twin(houses, tmp_path / "process")
    other.lead(other.channel(), resume=True)
    stock = ("east", "north")
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        for name in stock:
            deployment.bundled(name)
        nodes = [deployment.supernode(name) for name in stock]
        warm = deployment.party("south")
        server = deployment.server(*AGAIN, *deployment.pinned(*stock))
        assert server.wait(400) == 0, server.said() + nodes[0].said()
        assert warm.wait(30) == 0
        for node in nodes:
            node.hears("is over", 60)
            node.kill()
    same_end(houses, other)
    for name in stock:
        assert not (houses.folder / name / "run" / "local" / "run.key").exists()


def test_a_bundle_that_the_node_did_not_pin_is_not_run(tmp_path: Path) -> None:
    """Without a signature, and with that of a key which another party pins."""
    houses = Houses(tmp_path / "flower", rounds=1)
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        for name in ("east", "north"):
            deployment.bundled(name)
        node = deployment.supernode("east")
        for pins in ([], deployment.pinned("north")):
            server = deployment.server("--wait", "25", *pins)
            assert server.wait(120) == 1, server.said()
            assert "does not take this run's bundle" in server.said()
            assert "`--bundle PARTY.bundle.json --hub HOST:PORT`" in server.said()
            server.log.unlink()
            shutil.rmtree(houses.folder / "server" / "run")
        said = node.said()
    assert "The FAB could not be verified" in said and "FAB verification failed" in said
    assert not (houses.folder / "node-east" / "flwr" / "apps").exists()
    assert not (houses.folder / "east" / "run").exists()

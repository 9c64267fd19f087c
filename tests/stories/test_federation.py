"""A federation across organisations: a stock SuperLink and four processes, with TLS and keys."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from tests.across.deployment import Deployment, same_end, twin
from tests.across.houses import NAMES, OF_ROWS, SUMMED, Houses
from tests.conftest import ALL

pytestmark = pytest.mark.slow


# Rows without secure sums reach the same end below, past kills.
@pytest.mark.parametrize("privacy", [OF_ROWS, SUMMED] if ALL else [SUMMED])
def test_over_flower_ends_in_the_model_of_the_run_in_process(tmp_path: Path, privacy: str) -> None:
    """Bitwise: both go on from where all sides had met, with the same keys."""
    houses = Houses(tmp_path / "flower", privacy)
    houses.met()
    other = twin(houses, tmp_path / "process")
    other.lead(other.channel(), resume=True)
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        parties = [deployment.party(name) for name in NAMES]
        server = deployment.server("--resume", "--wait", "60", "--deadline", "60")
        assert server.wait(120) == 0, server.said()
        assert [party.wait(30) for party in parties] == [0, 0, 0]
    same_end(houses, other)


def test_processes_that_are_killed_change_nothing(tmp_path: Path) -> None:
    """A party by Ctrl-C, the server and the SuperLink by SIGKILL, one after another, each started
    again; and a node that nobody admitted. The model is that of a run that nothing befell."""
    houses = Houses(tmp_path / "flower", rounds=20)
    houses.met()
    other = twin(houses, tmp_path / "process")
    other.lead(other.channel(), resume=True)
    again = ("--resume", "--wait", "60", "--deadline", "60")
    database = ("--database", str(tmp_path / "superlink.db"))
    with Deployment(houses) as deployment:
        deployment.prepare()
        superlink = deployment.superlink(*database)
        rogue = deployment.party("east")
        assert rogue.wait(60) == 1
        assert "refuses this node: its key is not registered there" in rogue.said()
        assert "nacre federate admit" in rogue.said()
        deployment.admit()
        parties = {name: deployment.party(name) for name in NAMES}
        server = deployment.server(*again)

        deployment.after_round(3)
        parties["north"].running.send_signal(signal.SIGINT)
        assert parties["north"].wait(60) == 130
        assert "interrupted; continue with the same command" in parties["north"].said()
        assert "Traceback" not in parties["north"].said()
        parties["north"] = deployment.party("north")
        deployment.after_round(7)
        server.kill()
        server = deployment.server(*again)
        deployment.after_round(11)
        superlink.kill()
        superlink = deployment.superlink(*database)
        if server.wait(120) != 0:  # it lost its run there, says so, and goes on in another
            assert "--resume" in server.said()
            server = deployment.server(*again)
            assert server.wait(120) == 0, server.said()
        for party in parties.values():
            assert party.wait(60) == 0, party.said()
    same_end(houses, other)


def test_a_superlink_that_forgets_everything_is_joined_anew(tmp_path: Path) -> None:
    """Without `--database` its nodes have to be admitted again: parties say so and wait for it, and
    the server goes on with `--resume`."""
    houses = Houses(tmp_path / "flower", rounds=12)
    houses.met()
    other = twin(houses, tmp_path / "process")
    other.lead(other.channel(), resume=True)
    again = ("--resume", "--wait", "60", "--deadline", "60")
    with Deployment(houses) as deployment:
        deployment.prepare()
        superlink = deployment.superlink()
        deployment.admit()
        parties = {name: deployment.party(name) for name in NAMES}
        server = deployment.server(*again)
        deployment.after_round(3)
        superlink.kill()
        deployment.superlink()
        assert server.wait(120) == 1
        assert "does not know this run any more" in server.said()
        parties["north"].hears("its key is not registered there", 60)
        deployment.admit()
        server = deployment.server(*again)
        assert server.wait(120) == 0, server.said()
        assert [party.wait(60) for party in parties.values()] == [0, 0, 0]
    same_end(houses, other)

"""Faults of a deployment, with a stock SuperLink, TLS and processes: what each side says, with
which exit code, and that the run goes on to the same model and accounts."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from tests.across.deployment import Deployment, free_port, same_end, twin
from tests.across.houses import NAMES, Houses
from tests.conftest import ALL

pytestmark = pytest.mark.slow

AGAIN = ("--resume", "--wait", "120", "--deadline", "120")
CRASHING = (sys.executable, "-m", "tests.across.crashing")


def pair(tmp_path: Path, rounds: int) -> tuple[Houses, Houses]:
    """Houses that have met, and those of the same run in one process, which has ended."""
    houses = Houses(tmp_path / "flower", rounds=rounds)
    houses.met()
    other = twin(houses, tmp_path / "process")
    other.lead(other.channel(), resume=True)
    return houses, other


def test_a_superlink_that_is_not_there_is_said_within_a_deadline(tmp_path: Path) -> None:
    """A wrong port; a wrong host as well with ALL=1."""
    houses = Houses(tmp_path)
    with Deployment(houses) as deployment:
        deployment.prepare()
        wrong_ones = (f"127.0.0.1:{free_port()}", "superlink.invalid:9092")
        for address in wrong_ones if ALL else wrong_ones[:1]:
            wrong = ("--superlink", address)
            party = deployment.party("east", *wrong, "--wait", "2")
            server = deployment.server(*wrong, "--wait", "2", "--deadline", "2")
            assert party.wait(60) == server.wait(60) == 1
            assert f"the SuperLink at {address} cannot be reached" in party.said()
            assert "start the same command again" in party.said()
            assert "it is tried again for 2 seconds" in party.said()
            assert f"the SuperLink at {address} cannot be reached" in server.said()
            assert "`--resume`" in server.said() and "Traceback" not in server.said()
            assert "Traceback" not in party.said()
            for process in (party, server):
                process.log.unlink()
            (houses.folder / "server" / "run").rename(tmp_path / f"run-{address[-4:]}")
    assert not (houses.folder / "east" / "east.db").exists()


def test_a_server_that_is_killed_at_each_message_ends_in_the_same_model(tmp_path: Path) -> None:
    """Sending and taking in, in the exchange of keys of nodes and in rounds, one after another in
    one run; each time resumed. With ALL=1 at each of the first 24 messages."""
    points = range(1, 25) if ALL else (2, 7, 12)
    houses, other = pair(tmp_path, rounds=40 if ALL else 10)
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        parties = [deployment.party(name) for name in NAMES]
        server = deployment.server(*AGAIN, program=(*CRASHING, "killed", *map(str, points), "--"))
        assert server.wait(500) == 0, server.said()
        assert server.said().count("killed at message") == len(points)
        assert [party.wait(60) for party in parties] == [0, 0, 0]
    same_end(houses, other)


@pytest.mark.skipif(not ALL, reason="a party's Ctrl-C is in test_federation.py; both with ALL=1")
@pytest.mark.parametrize("who", ["server", "north"])
def test_ctrl_c_in_a_round_ends_one_side_and_the_run_goes_on(tmp_path: Path, who: str) -> None:
    houses, other = pair(tmp_path, rounds=25)
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        processes = {name: deployment.party(name) for name in NAMES}
        processes["server"] = deployment.server(*AGAIN)
        deployment.after_round(4)
        processes[who].running.send_signal(signal.SIGINT)
        assert processes[who].wait(60) == 130
        assert "interrupted; continue with the same command" in processes[who].said()
        assert "Traceback" not in processes[who].said()
        again = deployment.server(*AGAIN) if who == "server" else deployment.party(who)
        processes[who] = again
        assert processes["server"].wait(300) == 0, processes["server"].said()
        assert [processes[name].wait(60) for name in NAMES] == [0, 0, 0]
    same_end(houses, other)


def test_parts_that_never_arrive_cost_a_deadline_and_no_more(tmp_path: Path) -> None:
    """A party announces its first answer to a round and sends no byte of it: the round goes on
    without it after the deadline, and the others' answers wait for nothing."""
    houses = Houses(tmp_path, rounds=2)
    with Deployment(houses) as deployment:
        deployment.prepare()
        deployment.superlink()
        deployment.admit()
        parties = [deployment.party(name) for name in ("east", "south")]
        program = (*CRASHING, "without-objects", "2", "--")  # the hello, and its first round
        parties.append(deployment.party("north", program=program))
        server = deployment.server("--wait", "90", "--deadline", "15")
        assert server.wait(300) == 0, server.said()
        assert [party.wait(60) for party in parties] == [0, 0, 0]
    assert server.said().count("party 'north' did not answer within 15 seconds") == 1
    assert "Traceback" not in server.said()

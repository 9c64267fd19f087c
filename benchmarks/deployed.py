"""What a message over a SuperLink costs beyond training: two nodes on loopback with TLS and keys,
which sign and check as parties do and answer at once.

Prints, for models of several sizes, seconds a round (on an idle machine), CPU seconds
a message at a node and at the server, objects a message, and bytes a parameter each way.

    python benchmarks/deployed.py [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from nacre.core.types import Unprotected
from nacre.federated_learning import Reply, RoundRequest
from nacre.federated_learning.across.keys import CA, NODE_KEY, SECRET, SIGNING_KEY, Card, node_key
from nacre.federated_learning.across.members import Meeting, RemoteParties
from nacre.federated_learning.across.voice import Voice
from nacre.federated_learning.flower.blob import records_of, taken_apart
from nacre.federated_learning.flower.node import PartyNode, serve
from nacre.federated_learning.flower.superlink import SuperLink, leading, register
from nacre.federated_learning.roster import SERVER, Identity
from nacre.runs.federation.over_flower import read_roster
from tests.across.deployment import Deployment
from tests.across.houses import Houses

RECIPE = "0" * 64
SIZES = {"CNN, 26 thousand parameters": 26_000, "1.2 million parameters": 1_200_000}


class Answering:
    """A party that has nothing to train."""

    recipe = RECIPE
    over = False

    def __init__(self, name: str) -> None:
        self._name = name

    def join(self, run: str, frozen: str) -> None:
        """Nothing to prepare."""

    def handle(self, run: str, request: bytes) -> bytes:
        """The weights, as a change."""
        asked = RoundRequest.from_bytes(request)
        return Reply("train", asked.round, self._name, asked.tensors, Unprotected("")).to_bytes()

    def leave(self, run: str) -> None:
        """Prints what the messages cost, and ends."""
        self.over = True


def node(name: str, folder: Path, address: str, ca: Path, roster: Path) -> None:
    """A party's process."""
    identity = Identity.load(name, folder / SIGNING_KEY)
    attendance, heard = Answering(name), 0
    voice = Voice(identity, read_roster(roster), attendance)
    began = time.process_time()

    def answer(data: bytes) -> bytes | None:
        nonlocal heard
        heard += 1
        return voice.answer(data)

    own = PartyNode(address=address, ca=ca, key=node_key(folder / NODE_KEY), number=folder / "n")
    serve(own, answer, lambda: attendance.over, print)
    print(json.dumps((time.process_time() - began) / heard))


def measure(deployment: Deployment, parameters: int, rounds: int) -> dict[str, float]:
    """The figures of one size."""
    keys, address = Path(deployment.at("server")), deployment.address
    ca, roster = keys / CA, deployment.folder / "roster.json"
    names = ("east", "north")
    nodes = [
        subprocess.Popen(
            [sys.executable, __file__, "node", name, deployment.at(name), address, ca, roster],
            stdout=subprocess.PIPE, text=True, env=deployment.env,
        )
        for name in names
    ]  # fmt: skip
    weights = {f"layer{i}": torch.randn(parameters // 10) for i in range(10)}
    where = SuperLink(address=address, ca=ca, secret=keys / SECRET)
    meeting = Meeting(run="bench", recipe=RECIPE, parties=names, frozen="")
    identity = Identity.load(SERVER, keys / SIGNING_KEY)
    seconds: list[float] = []
    with leading(where) as grid:
        members = RemoteParties(grid, identity, read_roster(roster), meeting, deadline=120)
        members.gather(120)
        began = time.process_time()
        for number in range(rounds):
            body = RoundRequest("train", number, RECIPE, weights).to_bytes()
            start = time.perf_counter()
            replies = members.ask(dict.fromkeys(names, body))
            seconds.append(time.perf_counter() - start)
            assert set(replies) == set(names)
        server = (time.process_time() - began) / (2 * rounds)
        members.end()
    cost = [float(each.communicate(timeout=60)[0]) for each in nodes]
    return {
        "seconds a round, median": statistics.median(seconds),
        "seconds a round, best": min(seconds),
        "CPU seconds a message at a node": statistics.mean(cost),
        "CPU seconds a message at the server": server,
        "bytes a parameter": len(body) / parameters,
    }


def objects() -> int:
    """Objects of Flower that a message is."""
    from flwr.app import Metadata
    from flwr.app.message import make_message

    about = Metadata(1, "", 1, 2, "", "", 1.8e9, 60.0, "query")
    return len(taken_apart(make_message(metadata=about, content=records_of(b"x")))[2])


def main(rounds: int) -> None:
    """Prints the table."""
    print(f"objects a message: {objects()}")
    with tempfile.TemporaryDirectory() as folder, Deployment(Houses(Path(folder))) as deployment:
        deployment.prepare()
        deployment.superlink()
        cards = [Card.load(Path(path)) for path in deployment.cards()]
        keys, address = Path(deployment.at("server")), deployment.address
        where = SuperLink(address=address, ca=keys / CA)
        register(where, {card.name: card.node for card in cards if card.name != SERVER})
        for name, parameters in SIZES.items():
            print(name)
            for figure, value in measure(deployment, parameters, rounds).items():
                print(f"  {figure}: {value:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["node"]:
        node(sys.argv[2], *map(Path, sys.argv[3:4]), sys.argv[4], *map(Path, sys.argv[5:7]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)

"""A federation as it is deployed, on loopback: a stock SuperLink, and each side a process that is
started by the command that docs/deploy.md gives for it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from nacre.ledger import Ledger
from nacre.recipe.load import loads
from nacre.runs.federation.agreed import agreed_digest
from tests.across.houses import NAMES, Houses

BIN = Path(sys.executable).parent

_KEYS: list[tempfile.TemporaryDirectory[str]] = []
"""Keys and roster of the first deployment of this process."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _hears_interrupts() -> None:
    """Programs that are started in the background ignore interrupts, and hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A process with its own group, its words in a file."""

    def __init__(self, name: str, words: Sequence[str], folder: Path, env: dict[str, str]) -> None:
        self.name, self.words = name, list(words)
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env,
                start_new_session=True, preexec_fn=_hears_interrupts,
            )  # fmt: skip

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises `AssertionError` where it does not end."""
        try:
            return self.running.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.name} still runs:\n{self.said()[-3000:]}") from error

    def hears(self, words: str, seconds: float) -> None:
        """Waits until it has said these words."""
        end = time.monotonic() + seconds
        while words not in self.said():
            assert time.monotonic() < end, f"{self.name}: {self.said()[-3000:]}"
            assert self.running.poll() is None, f"{self.name} ended: {self.said()[-3000:]}"
            time.sleep(0.05)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Ends the whole group."""
        if self.running.poll() is None:
            os.killpg(self.running.pid, how)
            self.running.wait(20)


class Deployment:
    """Keys, roster and policies of the three hospitals, and their processes."""

    def __init__(self, houses: Houses, *, show: bool = False) -> None:
        self.houses, self.folder, self._show = houses, houses.folder, show
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.hub = f"127.0.0.1:{free_port()}"
        self.keys = self.folder / "keys"
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.processes: list[Process] = []
        self.env = {
            **os.environ,
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPERGRID_API_URL": f"http://{self.hub}/v1",  # read by the SuperLink alone
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # a SuperNode starts its own programs
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def prepare(self) -> None:
        """Makes keys, roster, recipes and policies."""
        self.make_keys()
        for name in (*NAMES, "server"):
            (self.folder / name / "recipe.yaml").write_text(self.houses.text(name))
            own = loads(self.houses.text(name), folder=self.folder / name)
            (self.folder / name / "policy.yaml").write_text(
                f"nacre: 1\nrecipes: [{agreed_digest(own)}]\nunprotected: true\n"
                "units:\n  example: {epsilon: 5, delta: 1.0e-5}\n"
                "  client: {epsilon: 60, delta: 0.01}\n"
                "minimum_cohort: 3\nsecure_sum: false\n"
            )

    def make_keys(self) -> None:
        """Makes keys and roster. Deployments of one process of tests have the same: what makes them
        starts six programs."""
        roster = self.folder / "roster.json"
        if _KEYS and not self._show:
            made = Path(_KEYS[0].name)
            shutil.copytree(made / "keys", self.keys)
            shutil.copy(made / "roster.json", roster)
        else:
            self._make_keys(roster)
            _KEYS[:] = [tempfile.TemporaryDirectory(prefix="nacre-keys-")]
            shutil.copytree(self.keys, Path(_KEYS[0].name) / "keys")
            shutil.copy(roster, _KEYS[0].name)

    def _make_keys(self, roster: Path) -> None:
        self.nacre("federate", "keys", "server", "--host", "127.0.0.1", "--into", self.at("server"))
        for name in NAMES:
            self.nacre("federate", "keys", name, "--into", self.at(name))
        self.nacre("federate", "roster", *self.cards(), "-o", str(roster))

    def at(self, name: str) -> str:
        """The folder of the keys of a side."""
        return str(self.keys / name)

    def cards(self) -> list[str]:
        """All cards."""
        return [f"{self.at(name)}/{name}.card.json" for name in ("server", *NAMES)]

    def nacre(self, *words: str) -> str:
        """Runs a command to its end."""
        self.shown(["nacre", *words])
        done = subprocess.run(
            [str(BIN / "nacre"), *words], env=self.env, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str, *words: str, **more: str) -> Process:
        """Starts a process, with more variables of the environment."""
        self.shown(words)
        env = self.env | more
        program = words[0] if "/" in words[0] else str(BIN / words[0])
        process = Process(name, [program, *words[1:]], self.logs, env)
        self.processes.append(process)
        return process

    def superlink(self, *more: str) -> Process:
        """A stock SuperLink, once it listens."""
        keys = self.at("server")
        process = self.start(
            "superlink", "flower-superlink", "--host", "127.0.0.1", "--port", str(self.port),
            "--ssl-ca-certfile", f"{keys}/ca.pem", "--ssl-certfile", f"{keys}/server.pem",
            "--ssl-keyfile", f"{keys}/server.key", "--enable-supernode-auth",
            "--isolation", "process", "--superexec-auth-secret-file", f"{keys}/superexec.secret",
            "--disable-runtime-dependency-installation", *more,
        )  # fmt: skip
        process.hears("Uvicorn running", 60)
        return process

    def admit(self, *cards: str) -> None:
        """Registers the nodes of these cards; of all parties without."""
        cards = cards or tuple(self.cards())
        self.nacre("federate", "admit", *cards, "--superlink", self.address, *self._ca())

    def party(self, name: str, *more: str, program: Sequence[str] = ("nacre",)) -> Process:
        """A party's process; the last of an option counts."""
        own = self.folder / name
        return self.start(
            name, *program, "party", str(own / "recipe.yaml"), "--name", name,
            "--into", str(own / "run"), "--policy", str(own / "policy.yaml"),
            "--keys", self.at(name), *self._way(), *more,
        )  # fmt: skip

    def bundled(self, name: str) -> None:
        """Makes what a party with a stock SuperNode needs."""
        self.nacre("federate", "bundle", name, "--keys", self.at(name), "--into", self._node(name))

    def supernode(self, name: str) -> Process:
        """A stock SuperNode in place of a party's own process."""
        own, node = self.folder / name, self._node(name)
        config = {
            "recipe": own / "recipe.yaml", "name": name, "into": own / "run",
            "policy": own / "policy.yaml", "keys": self.at(name),
            "roster": self.folder / "roster.json",
        }  # fmt: skip
        return self.start(
            name, "flower-supernode", "--superlink", self.address,
            "--root-certificates", f"{self.at('server')}/ca.pem",
            "--auth-supernode-private-key", f"{node}/node.ssh",
            "--trusted-entities", f"{node}/trusted.yaml", "--port", str(free_port()),
            "--node-config", " ".join(f'{key}="{value}"' for key, value in config.items()),
            FLWR_HOME=f"{node}/flwr",
        )  # fmt: skip

    def pinned(self, *names: str) -> list[str]:
        """The options by which the server hands on the signatures of these parties."""
        files = [f"{self._node(name)}/{name}.bundle.json" for name in names]
        return ["--hub", self.hub, *(word for file in files for word in ("--bundle", file))]

    def _node(self, name: str) -> str:
        return str(self.folder / f"node-{name}")

    def server(self, *more: str, program: Sequence[str] = ("nacre",)) -> Process:
        """The server's process; the last of an option counts."""
        own = self.folder / "server"
        return self.start(
            "server", *program, "train", str(own / "recipe.yaml"), "--into", str(own / "run"),
            "--over", "flower", "--keys", self.at("server"), *self._way(), *more,
        )  # fmt: skip

    def after_round(self, number: int) -> None:
        """Waits until the server has a checkpoint after so many rounds."""
        end = time.monotonic() + 120
        state = self.folder / "server" / "run" / "state"
        while not any(int(path.stem[5:]) >= number for path in state.glob("step-*.safetensors")):
            assert time.monotonic() < end, self.processes[-1].said()[-3000:]
            time.sleep(0.02)

    def shown(self, words: Sequence[str]) -> None:
        """Prints a command, where it is to be seen."""
        if self._show:
            print("$", " ".join(words), flush=True)

    def close(self) -> None:
        """Ends every process that still runs."""
        for process in reversed(self.processes):
            process.kill()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ca(self) -> list[str]:
        return ["--ca", f"{self.at('server')}/ca.pem"]

    def _way(self) -> list[str]:
        roster = str(self.folder / "roster.json")
        return ["--roster", roster, "--superlink", self.address, *self._ca()]


def twin(houses: Houses, into: Path) -> Houses:
    """A copy of houses that have met, with the same keys in every folder."""
    shutil.copytree(houses.folder, into)
    found = object.__new__(Houses)
    found.__dict__.update(houses.__dict__, folder=into, told=[], waiting={})
    return found


def whole_and_killed(folder: Path, privacy: str, *, at: int) -> tuple[Houses, Houses]:
    """Houses whose run was never stopped, and those of the same run of which all sides were killed
    at this ask of one party, in a round after the first checkpoint, and went on."""
    whole = Houses(folder / "whole", privacy, rounds=4, checkpoint=2)
    whole.met()
    killed = twin(whole, folder / "killed")
    whole.lead(whole.channel(), resume=True)
    channel = killed.channel()
    answer, asks = channel.voices[1], list[bytes]()

    def dies(blob: bytes) -> bytes | None:
        asks.append(blob)
        if len(asks) == at:
            raise KeyboardInterrupt
        return answer(blob)

    channel.voices[1] = dies
    with pytest.raises(KeyboardInterrupt):
        killed.lead(channel, resume=True)
    for each in killed.waiting.values():
        each.close()
    killed.lead(killed.channel(), resume=True)
    return whole, killed


def same_end(houses: Houses, other: Houses) -> None:
    """Asserts the same model, bit for bit, and the same accounts of each party."""
    path = Path("server", "run", "model.safetensors")
    assert (houses.folder / path).read_bytes() == (other.folder / path).read_bytes()
    for name in NAMES:
        spent: list[tuple[float, float]] = []
        for each in (houses, other):
            with Ledger.open(each.folder / name / f"{name}.db") as ledger:
                grant = ledger.summary(f"wards/{name}").grants[0]
                spent.append((grant.epsilon_spent, grant.epsilon_taken))
        assert spent[0] == spent[1]
        assert spent[0][0] > 0

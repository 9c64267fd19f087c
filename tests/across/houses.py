"""Three hospitals with rows, recipes, ledgers and keys of their own, and a carrier in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nacre.core.run_folder import reopen
from nacre.federated_learning.across.members import Meeting, RemoteParties
from nacre.federated_learning.across.voice import Voice
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.planning.plan import covered, plan
from nacre.recipe.load import loads
from nacre.recipe.schema import Recipe
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.attending import Attending
from nacre.runs.federation.lead import Connect, lead
from nacre.runs.federation.policy import Ceiling, Policy
from nacre.runs.run import Run

NAMES = ("east", "north", "south")

RECIPE = """
nacre: 1
name: three wards
seed: 5
data:
  kind: table
  path: {path}
  target: ill
  classes: ["no", "yes"]
  columns:
    age: {{low: 0, high: 100}}
    pressure: {{low: 60, high: 200}}
  party: ward
  size: 180
model: {{kind: mlp, hidden: [6]}}
federated_learning:
  parties: {{kind: column, column: ward, sizes: {{east: 60, north: 60, south: 60}}}}
  rounds: {rounds}
  local: {{steps: 2}}
training:
  batch: 20
  steps: 1
  checkpoint: {checkpoint}
  optimizer: {{kind: sgd, lr: 0.1}}
{privacy}
"""

OF_ROWS = """
gradient_clipping: {{kind: flat, norm: 1.0}}
differential_privacy: {{unit: example, epsilon: 4, delta: 1.0e-5, noise: {{kind: gaussian}}}}
ledger:
  path: {ledger}
  dataset: wards
  grant: {{epsilon: 5, delta: 1.0e-5}}
"""

OF_PARTIES = """
gradient_clipping: {{kind: flat, norm: 1.0}}
differential_privacy: {{unit: client, epsilon: 50, delta: 1.0e-2, noise: {{kind: gaussian}}}}
ledger:
  path: {ledger}
  dataset: wards
  grant: {{epsilon: 60, delta: 1.0e-2}}
"""


OF_BOTH = """
gradient_clipping: {{kind: flat, norm: 1.0}}
differential_privacy: {{unit: client, epsilon: 50, delta: 1.0e-2, noise: {{kind: gaussian}}}}
within_parties:
  gradient_clipping: {{kind: flat, norm: 1.0}}
  differential_privacy: {{unit: example, epsilon: 4, delta: 1.0e-5, noise: {{kind: gaussian}}}}
ledger:
  path: {ledger}
  dataset: wards
  grant: {{epsilon: 60, delta: 1.0e-2}}
  grant_within_parties: {{epsilon: 5, delta: 1.0e-5}}
"""
"""Whole parties by the server's noise, and rows by that of each party."""

IN_SHARES = OF_PARTIES.replace("gaussian}}", "distributed_gaussian}}").replace(
    "delta: 1.0e-2}}\n", "delta: 1.0e-2, rule: rdp}}  # in secure sums\n"
)
"""Whole parties, which add their noise in shares to secure sums."""

SUMMED = OF_ROWS + "# in secure sums\n"
"""Example-level privacy at each party, and the server sees sums alone."""

OWN_LAYERS = OF_ROWS + "# with layers of their own\n"
"""Example-level privacy, and the last layer stays with its party."""


def table(name: str, rows: int = 60) -> pd.DataFrame:
    """The rows of one hospital."""
    stream = np.random.default_rng(sum(map(ord, name)))
    age, pressure = stream.uniform(20, 90, rows), stream.uniform(80, 180, rows)
    ill = np.where(age + pressure / 2 + stream.normal(0, 10, rows) > 120, "yes", "no")
    return pd.DataFrame({"age": age, "pressure": pressure, "ward": name, "ill": ill})


def text_of(path: str, privacy: str = OF_ROWS, *, rounds: int = 3, checkpoint: int = 1) -> str:
    """One side's recipe: its own path and its own ledger."""
    said = privacy.format(ledger=f"{Path(path).stem}.db")
    text = RECIPE.format(path=path, rounds=rounds, checkpoint=checkpoint, privacy=said)
    if "# in secure sums" in text:
        text = text.replace("  local:", "  gather: {kind: secure, threshold: 3}\n  local:")
    if "# with layers of their own" in text:
        text = text.replace("local: {steps: 2}", "local: {steps: 2, personal: [head]}")
    if "unit: client" in text:
        text = text.replace("  local:", "  few_clients: true\n  local:")
    return text


def policy(*recipes: Recipe, **changes: object) -> Policy:
    """A policy under which these recipes are followed."""
    facts: dict[str, object] = {
        "recipes": tuple(map(agreed_digest, recipes)),
        "units": {
            "example": Ceiling(epsilon=5.0, delta=1e-5),
            "client": Ceiling(epsilon=60.0, delta=1e-2),
        },
        "unprotected": True,
        "minimum_cohort": 3,
        "secure_sum": False,
    }
    return Policy(**(facts | changes))  # pyright: ignore[reportArgumentType]


PATIENCE = 5.0  # seconds for parties that do not come; those that are there may take longer


@dataclass
class LocalChannel:
    """Messages in memory: what is pushed is answered when the answers are pulled."""

    voices: dict[int, Callable[[bytes], bytes | None]]
    since: dict[int, str] = field(default_factory=dict[str, str])
    log: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    gone: set[int] = field(default_factory=set[int])
    _due: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    _count: int = 0

    def nodes(self) -> Mapping[int, str]:
        return {node: self.since.get(node, "0") for node in self.voices if node not in self.gone}

    def push(self, blobs: Mapping[int, bytes]) -> Mapping[str, int]:
        sent: dict[str, int] = {}
        for node, blob in blobs.items():
            self._count += 1
            self._due[str(self._count)] = node, blob
            sent[str(self._count)] = node
        return sent

    def pull(self, messages: Collection[str]) -> Mapping[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for number in messages:
            node, blob = self._due.get(number, (-1, b""))
            if node not in self.voices or node in self.gone:
                continue
            del self._due[number]
            reply = self.voices[node](blob)
            self.log.append((node, blob, reply))
            if reply is not None:
                found[number] = reply
        return found


class _Met(Exception):
    pass


class Houses:
    """The whole federation in one folder: `server/`, and one folder a party."""

    def __init__(self, folder: Path, privacy: str = OF_ROWS, **shape: int) -> None:
        self.folder, self.privacy, self.shape = folder, privacy, shape
        self.server = Identity.from_secret(SERVER, b"s" * 32)
        self.keys = {name: Identity.from_secret(name, name.encode().ljust(32)) for name in NAMES}
        publics = {name: key.public for name, key in self.keys.items()}
        self.roster = Roster(self.server.public, publics)
        self.told: list[str] = []
        self.waiting: dict[str, Attending] = {}
        for name in NAMES:
            (folder / name).mkdir(parents=True)
            table(name).to_csv(folder / name / f"{name}.csv", index=False)
        (folder / "server").mkdir()

    def recipe(self, name: str) -> Recipe:
        """The recipe of one side."""
        return loads(self.text(name), folder=self.folder / name)

    def text(self, name: str) -> str:
        """The same, as its file has it."""
        return text_of(f"{name}.csv", self.privacy, **self.shape)

    def attending(self, name: str, **changes: object) -> Attending:
        """A party that waits; one that waits again, where its folder stands already."""
        own = self.recipe(name)
        found = Attending(own, name, self.folder / name / "run", policy(own, **changes))
        self.waiting[name] = found
        return found

    def voice(self, name: str, **changes: object) -> Voice:
        """The end of a party."""
        attending = self.attending(name, **changes)
        attending.known_as(self.keys[name], self.roster)
        return Voice(self.keys[name], self.roster, attending, tell=self.tell)

    def tell(self, sentence: str) -> None:
        """Remembers what is said on a terminal."""
        self.told.append(sentence)

    def channel(self) -> LocalChannel:
        """A carrier to all parties."""
        return LocalChannel({i: self.voice(name).answer for i, name in enumerate(NAMES)})

    def met(self) -> None:
        """Ends where all have met and nothing was asked: the same keys lie in every folder, so two
        copies of it can be gone on with, to the same weights."""
        with suppress(_Met):
            self.lead(self.channel(), until_met=True)
        for each in self.waiting.values():
            each.close()

    def lead(
        self, channel: LocalChannel, *, resume: bool = False, into: str = "run",
        deadline: float = 20.0, until_met: bool = False,
    ) -> Run:  # fmt: skip
        """The server's run."""

        @contextmanager
        def connect(meeting: Meeting):
            members = RemoteParties(
                channel, self.server, self.roster, meeting, deadline=deadline, tell=self.tell
            )
            members.gather(PATIENCE if channel.voices else 0.2)
            if until_met:
                raise _Met
            yield members
            members.end()

        own = self.recipe("server")
        folder = self.folder / "server" / into
        again = (reopen(folder).name(), folder) if resume else None
        planned = covered(plan(own, ledger=False), again, unit="client")
        reach = Connect(identity=self.server, roster=self.roster, reach=connect)
        return lead(planned, folder, reach, resume=resume)

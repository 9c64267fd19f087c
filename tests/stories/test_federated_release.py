"""Three hospitals release statistics over Flower, each side a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nacre.ledger import Ledger
from tests.across.deployment import Deployment, Process
from tests.across.houses import NAMES
from tests.across.test_releases import Wards

pytestmark = pytest.mark.slow

POLICY = """nacre: 1
recipes: [{digest}]
units:
  example: {{epsilon: 2, delta: 1.0e-5}}
minimum_cohort: 3
"""


class DeployedWards(Deployment):
    """The processes of a release."""

    def __init__(self, wards: Wards) -> None:
        super().__init__(wards)  # pyright: ignore[reportArgumentType] - its folder is all that is used
        self.queries = str(self.folder / "queries.yaml")

    def prepare(self) -> None:
        """Makes keys, roster, queries and policies."""
        self.make_keys()
        Path(self.queries).write_bytes(self.houses.text)  # pyright: ignore[reportArgumentType]
        digest = self.nacre("federate", "digest", self.queries).strip()
        for name in NAMES:
            (self.folder / name / "policy.yaml").write_text(POLICY.format(digest=digest))

    def party(self, name: str) -> Process:
        """A party's process."""
        own = self.folder / name
        return self.start(
            name, "nacre", "party", self.queries, "--name", name, "--into", str(own / "run"),
            "--policy", str(own / "policy.yaml"), "--table", str(own / "rows.csv"),
            "--ledger", str(own / "own.db"), "--account", "ward",
            "--keys", self.at(name), *self._way(),
        )  # fmt: skip

    def server(self, *more: str) -> Process:
        """The server's process."""
        return self.start(
            "server", "nacre", "release", self.queries, "--over", "flower",
            "--into", str(self.folder / "server"), "--keys", self.at("server"), *self._way(), *more,
        )  # fmt: skip


def test_three_hospitals_release_statistics(tmp_path: Path) -> None:
    """A party is killed before the server comes, and started again; all end by themselves."""
    wards = Wards(tmp_path)
    with DeployedWards(wards) as deployed:
        deployed.prepare()
        deployed.superlink()
        deployed.admit()
        parties = {name: deployed.party(name) for name in NAMES}
        parties["north"].hears("waits at", 60)
        parties["north"].kill()
        parties["north"] = deployed.party("north")
        answers = tmp_path / "answers.json"
        assert deployed.server("--json", "-o", str(answers)).wait(120) == 0
        for process in parties.values():
            assert process.wait(60) == 0, process.said()
        found = json.loads(answers.read_text())
        assert found["parties"] == list(NAMES) and found["noise"] == "distributed"
        rows = found["answers"][0]
        assert rows["values"][0] == pytest.approx(180, abs=6 * rows["scale"])
        for name in NAMES:
            with Ledger.open(tmp_path / name / "own.db") as book:
                (run,) = book.summary("ward").runs
                assert run.journalled == 1 and run.end == "settled"
        deployed.nacre("report", str(answers), "--check")

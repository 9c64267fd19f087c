"""A release of statistics whose parties are in houses of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.core.errors import DataError, PartyError, RunError
from nacre.core.run_folder import RunFolder
from nacre.federated_learning.across.members import Meeting, RemoteParties
from nacre.federated_learning.across.voice import Voice
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.ledger import Ledger
from nacre.recipe.document import parse
from nacre.recipe.load import read_text
from nacre.runs.federation.gathering import lead_release
from nacre.runs.federation.lead import Connect
from nacre.runs.federation.policy import Ceiling, Policy
from nacre.runs.federation.releasing import Releasing
from nacre.runs.run import abandon
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.query_file import Queries
from tests.across.houses import NAMES, PATIENCE, LocalChannel, table

QUERIES = """nacre: 1
across:
  parties: [east, north, south]
  column: ward
  threshold: {threshold}
  colluders: {colluders}
  noise: {{kind: {noise}}}
queries:
  - {{kind: count, name: rows, epsilon: 0.5, delta: 1.0e-6}}
  - {{kind: mean, name: age, column: age, low: 0, high: 100, epsilon: 0.5, delta: 1.0e-6}}
  - {{kind: histogram, name: ill, column: ill, categories: ["yes"], epsilon: 1, delta: 1.0e-6}}
"""


class _Met(Exception):
    pass


class Wards:
    """Three hospitals with rows, ledgers and keys of their own, and a server without rows."""

    def __init__(
        self, folder: Path, noise: str = "distributed", threshold: int = 3, colluders: int = 1
    ) -> None:
        self.folder = folder
        said = QUERIES.format(noise=noise, threshold=threshold, colluders=colluders)
        self.text = said.encode()
        self.asked = asked_in(said)
        self.keys = {n: Identity.from_secret(n, n.encode().ljust(32)) for n in (*NAMES, SERVER)}
        self.roster = Roster(self.keys[SERVER].public, {n: self.keys[n].public for n in NAMES})
        self.told: list[str] = []
        self.waiting: dict[str, Releasing] = {}
        for name in NAMES:
            (folder / name).mkdir(parents=True, exist_ok=True)
            table(name).to_csv(folder / name / "rows.csv", index=False)
            with Ledger.open(folder / name / "own.db", create=True) as book:
                book.grant("ward", "example", epsilon=5, delta=1e-4)

    def policy(self, **changes: object) -> Policy:
        """A policy under which the release is agreed to."""
        facts: dict[str, Any] = {
            "recipes": (self.asked.digest,),
            "units": {"example": Ceiling(epsilon=2.0, delta=1e-5)},
            "minimum_cohort": 2,
            "central_noise": True,
        }
        both: dict[str, Any] = {**facts, **changes}
        return Policy(**both)

    def party(self, name: str, asked: AgreedQueries | None = None, **changes: object) -> Releasing:
        """A party that waits."""
        own = self.folder / name
        found = Releasing(
            asked or self.asked, self.text, name, own / "run", self.policy(**changes),
            table=own / "rows.csv", ledger=str(own / "own.db"), account="ward",
            tell=self.told.append,
        )  # fmt: skip
        found.known_as(self.keys[name], self.roster)
        self.waiting[name] = found
        return found

    def voice(self, name: str, **changes: object) -> Callable[[bytes], bytes | None]:
        """The end of a party."""
        party = self.party(name, **changes)  # pyright: ignore[reportArgumentType]
        return Voice(self.keys[name], self.roster, party, tell=self.told.append).answer

    def channel(self, names: tuple[str, ...] = NAMES) -> LocalChannel:
        """A carrier to these parties."""
        return LocalChannel({NAMES.index(name): self.voice(name) for name in names})

    def close(self) -> None:
        """Ends the processes of all parties."""
        for each in self.waiting.values():
            each.close()

    def gather(
        self, channel: LocalChannel, *, resume: bool = False, deadline: float = 20.0,
        met: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:  # fmt: skip
        """The server's release."""

        @contextmanager
        def connect(meeting: Meeting):
            members = RemoteParties(
                channel, self.keys[SERVER], self.roster, meeting, deadline=deadline,
                tell=self.told.append,
            )  # fmt: skip
            members.gather(PATIENCE if channel.voices else 0.2)
            met()
            yield members
            members.end()

        reach = Connect(identity=self.keys[SERVER], roster=self.roster, reach=connect)
        into = self.folder / "server"
        return lead_release(self.asked, self.text, into, reach, resume=resume)

    def journalled(self, name: str) -> list[int]:
        """Steps that a party's account was charged for, run by run."""
        with Ledger.open(self.folder / name / "own.db") as book:
            return [run.journalled for run in book.summary("ward").runs]


def asked_in(text: str) -> AgreedQueries:
    return AgreedQueries.of(read_text(parse(text.encode(), "queries"), Queries))


@pytest.mark.parametrize("noise", ["central", "distributed"])
def test_three_houses_answer_together(tmp_path: Path, noise: str) -> None:
    wards = Wards(tmp_path, noise)
    found = wards.gather(wards.channel())
    assert found["parties"] == list(NAMES) and found["missing"] == []
    rows = found["answers"][0]
    assert rows["values"][0] == pytest.approx(180, abs=6 * rows["scale"])
    assert 20 < found["answers"][1]["values"][0] < 90
    for name in NAMES:
        assert wards.journalled(name) == [1]
        assert wards.waiting[name].over
        assert not RunFolder(tmp_path / name / "run").run_key.exists()
        assert not RunFolder(tmp_path / name / "run").parties.exists()
    with pytest.raises(RunError, match=r"complete|exists"):
        wards.gather(LocalChannel({}))
    assert wards.gather(LocalChannel({}), resume=True) == found


def test_the_folder_of_a_party_holds_nothing_of_its_rows_but_under_local(tmp_path: Path) -> None:
    """All that lies outside `local/` is the same with other rows, and so is what the server has
    but for its answers."""
    found: list[dict[str, bytes]] = []
    for number, cut in enumerate((0, 17)):
        wards = Wards(tmp_path / str(number))
        path = tmp_path / str(number) / "east" / "rows.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[: len(lines) - cut]) + "\n")
        wards.gather(wards.channel())
        files = {
            str(file.relative_to(tmp_path / str(number))): file.read_bytes()
            for file in (tmp_path / str(number)).rglob("*")
            if file.is_file() and "local" not in file.parts and file.suffix not in (".csv",)
        }
        found.append({name: data for name, data in files.items() if "own." not in name})
    assert found[0].keys() == found[1].keys()
    differing = {name for name in found[0] if found[0][name] != found[1][name]}
    assert differing == {"server/outcome.json"}


def test_a_party_that_is_gone_is_left_out_down_to_the_threshold(tmp_path: Path) -> None:
    """Who was there for the keys and is gone for the sum is missing, and pays nothing."""
    wards = Wards(tmp_path, threshold=2, colluders=0)
    channel = wards.channel()
    found = wards.gather(channel, deadline=1.0, met=lambda: channel.gone.add(2))
    assert found["parties"] == ["east", "north"] and found["missing"] == ["south"]
    # Each of the two knows its own share, whatever helps the server.
    assert found["answers"][0]["shares"] == {"added": 2, "counted": 1}
    assert found["against"].endswith("and against each of the other parties")
    assert wards.journalled("south") == [0] and wards.journalled("east") == [1]


def test_below_the_threshold_the_release_is_resumed(tmp_path: Path) -> None:
    """Nothing is answered; once the party is back, all are asked again, and charged once."""
    wards = Wards(tmp_path)
    channel = wards.channel()
    with pytest.raises(PartyError, match="`threshold` is 3"):
        wards.gather(channel, deadline=0.5, met=lambda: channel.gone.add(2))
    wards.close()
    found = wards.gather(wards.channel(), resume=True)
    assert found["parties"] == list(NAMES)
    assert all(wards.journalled(name) == [1] for name in NAMES)


@pytest.mark.parametrize("place", range(5))
def test_a_process_that_dies_at_any_ask_goes_on_and_is_charged_once(
    tmp_path: Path, place: int
) -> None:
    """Server and parties end at each stage in turn: after a resumption there is one answer, and one
    charge at each party."""
    wards = Wards(tmp_path)
    channel = wards.channel()
    real, asked = RemoteParties.ask, [0]

    def dying(self: RemoteParties, requests: Any) -> Any:
        asked[0] += 1
        if asked[0] == place + 1:
            raise KeyboardInterrupt
        return real(self, requests)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RemoteParties, "ask", dying)
        with pytest.raises(KeyboardInterrupt):
            wards.gather(channel)
    wards.close()
    found = wards.gather(wards.channel(), resume=True)
    assert found["parties"] == list(NAMES)
    assert all(wards.journalled(name) == [1] for name in NAMES)


def test_parties_that_were_killed_before_the_end_leave_all_the_same(tmp_path: Path) -> None:
    """The word that a release is over finds processes that never joined it: what they hold is
    settled, and the key of their noise is destroyed."""
    wards = Wards(tmp_path)
    channel, real = wards.channel(), RemoteParties.end

    def killed(self: RemoteParties) -> None:
        wards.close()
        channel.voices.update({NAMES.index(name): wards.voice(name) for name in NAMES})
        real(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RemoteParties, "end", killed)
        wards.gather(channel)
    for name in NAMES:
        assert not RunFolder(tmp_path / name / "run").run_key.exists()
        with Ledger.open(tmp_path / name / "own.db") as book:
            assert book.summary("ward").runs[0].end == "settled"


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("noise", ["central", "distributed"])
def test_an_old_name_gets_no_second_answer_from_a_folder_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str, ended: bool
) -> None:
    """A server that gives an old release's name to parties with new keys, and so with other noise:
    the ledgers know the name and what was answered under it, whether the release ended or not."""
    wards = Wards(tmp_path, noise)
    with pytest.MonkeyPatch.context() as silent:
        if not ended:
            silent.setattr(RemoteParties, "end", lambda self: None)  # pyright: ignore
        name = wards.gather(wards.channel())["run"].removeprefix("release ")
    wards.close()
    for side in (*NAMES, "server"):
        run = tmp_path / side / "run" if side != "server" else tmp_path / side
        run.rename(tmp_path / f"{side} before")
    monkeypatch.setattr("nacre.runs.federation.gathering.secrets.token_hex", lambda size: name)
    with pytest.raises(PartyError, match="0 parties answered"):
        wards.gather(wards.channel())
    assert any("second" in sentence for sentence in wards.told), wards.told
    assert all(wards.journalled(name) == [1] for name in NAMES)


AGAINST: dict[str, tuple[dict[str, Any], str]] = {
    "digest": ({"recipes": ("a" * 64,)}, "`recipes` do not name"),
    "epsilon": ({"units": {"example": Ceiling(epsilon=1.9, delta=1e-5)}}, "spend epsilon 2"),
    "delta": ({"units": {"example": Ceiling(epsilon=2, delta=2e-6)}}, "spend delta 3e-06"),
    "unit": ({"units": {"group": Ceiling(epsilon=2, delta=1e-5)}}, "do not name 'example'"),
    "cohort": ({"minimum_cohort": 4}, "over 3 parties and it asks for more"),
    "noise": ({"central_noise": False}, "`central_noise` is not on"),
}


@pytest.mark.parametrize("case", AGAINST)
def test_a_release_that_is_not_agreed_to_is_refused_before_anything_is_charged(
    tmp_path: Path, case: str
) -> None:
    changes, words = AGAINST[case]
    wards = Wards(tmp_path, "central")
    with pytest.raises(PartyError, match=words):
        wards.party("east", **changes)
    assert not wards.journalled("east") and not (tmp_path / "east" / "run").exists()


def test_distributed_noise_needs_no_trust_in_the_server(tmp_path: Path) -> None:
    Wards(tmp_path, "distributed").party("east", central_noise=False)


def test_rows_of_another_party_are_refused(tmp_path: Path) -> None:
    wards = Wards(tmp_path)
    table("north").to_csv(tmp_path / "east" / "rows.csv", index=False)
    with pytest.raises(DataError, match="rows of 'north'"):
        wards.party("east")


def test_a_server_that_asks_another_file_is_told_so(tmp_path: Path) -> None:
    wards = Wards(tmp_path)
    other = asked_in(wards.text.decode().replace("epsilon: 1,", "epsilon: 1.5,"))
    channel = wards.channel()
    wards.asked = other
    with pytest.raises(PartyError, match="follows the recipe of digest"):
        wards.gather(channel)
    assert not any(wards.journalled(name) for name in NAMES)


def test_a_ledger_that_holds_too_little_is_the_partys_last_word(tmp_path: Path) -> None:
    """The server hears no figure of it, and the others' reservations are not spent."""
    wards = Wards(tmp_path)
    (tmp_path / "south" / "own.db").unlink()
    with Ledger.open(tmp_path / "south" / "own.db", create=True) as book:
        book.grant("ward", "example", epsilon=0.5, delta=1e-4)
    with pytest.raises(PartyError, match="its ledger does not cover") as error:
        wards.gather(wards.channel())
    assert "0.5" not in str(error.value)
    assert [wards.journalled(name) for name in ("east", "north")] in ([[0], [0]], [[], []])


def test_a_folder_goes_on_with_its_own_release_alone(tmp_path: Path) -> None:
    wards = Wards(tmp_path)
    channel = wards.channel()

    def stop() -> None:
        raise _Met

    with pytest.raises(_Met):
        wards.gather(channel, met=stop)
    wards.close()
    with pytest.raises(RunError, match="the recipe is not that"):
        text = wards.text.decode().replace("name: ill", "name: sick")
        other = asked_in(text)
        wards.party("east", other, recipes=(other.digest,))
    for name in NAMES:
        assert wards.journalled(name) == [0]
        abandon(tmp_path / name / "run")
        with Ledger.open(tmp_path / name / "own.db") as book:
            assert book.summary("ward").runs[0].end == "abandoned"
        with pytest.raises(RunError, match="has ended"):
            wards.party(name)
    abandon(tmp_path / "server")


def test_another_folder_joins_no_second_release(tmp_path: Path) -> None:
    wards = Wards(tmp_path)
    channel = wards.channel()
    wards.waiting["east"].join("release of another", "")
    with pytest.raises(PartyError, match="takes part in another release"):
        wards.gather(channel)


@pytest.mark.parametrize(
    "words",
    [
        ["release", "q.yaml", "--over", "flower"],
        ["release", "rows.csv", "q.yaml", "--over", "flower", "--into", "x"],
        ["release", "q.yaml", "--into", "x", "--ledger", "l.db", "--account", "a"],
        ["release", "rows.csv", "q.yaml", "--superlink", "h:1", "--ledger", "l", "--account", "a"],
        ["release", "q.yaml", "--over", "flower", "--into", "x", "--superlink", "h:1"],
    ],
)
def test_options_that_do_not_fit_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.yaml").write_bytes(Wards(tmp_path / "wards").text)
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 2 and "Traceback" not in found.output, found.output
    digest = CliRunner().invoke(cli, ["federate", "digest", "q.yaml"])
    assert digest.output.strip() == asked_in((tmp_path / "q.yaml").read_text()).digest

"""One side of a run across organisations, ended by hand, or looked at when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.core.errors import PartyError, RunError
from nacre.ledger import Ledger
from nacre.report.evidence import write_report
from nacre.runs.run import abandon, finish
from tests.across.houses import NAMES, OF_PARTIES, OF_ROWS, Houses, LocalChannel


@pytest.mark.parametrize("privacy", [OF_ROWS, OF_PARTIES], ids=["rows", "parties"])
def test_each_side_is_abandoned_by_itself(tmp_path: Path, privacy: str) -> None:
    """A party's account is settled and no other's is touched; the server pays for whole parties."""
    houses = Houses(tmp_path, privacy)
    houses.met()
    for name in (*NAMES, "server"):
        folder = tmp_path / name / "run"
        with pytest.raises(RunError, match="one side of a run across organisations"):
            finish(folder)
        abandon(folder)
        with pytest.raises(RunError, match="was abandoned before"):
            abandon(folder)
    for name in NAMES:
        with Ledger.open(tmp_path / name / f"{name}.db") as ledger:
            account = f"wards/{name}" if privacy is OF_ROWS else "wards"
            assert ledger.accounts() == (account,)
            assert ledger.summary(account).grants[0].epsilon_taken == 0


def test_what_was_released_stays_charged(tmp_path: Path) -> None:
    houses = Houses(tmp_path, rounds=4)
    channel = houses.channel()
    answer, asks = channel.voices[2], list[bytes]()

    def dies(blob: bytes) -> bytes | None:
        asks.append(blob)
        if len(asks) == 3:  # the hello, one round, and no more
            raise KeyboardInterrupt
        return answer(blob)

    channel.voices[2] = dies
    with pytest.raises(KeyboardInterrupt):
        houses.lead(channel)
    for each in houses.waiting.values():
        each.close()
    taken: list[float] = []
    for name in NAMES:
        abandon(tmp_path / name / "run")
        with Ledger.open(tmp_path / name / f"{name}.db") as ledger:
            taken.append(ledger.summary(f"wards/{name}").grants[0].epsilon_taken)
    assert all(0 < each < 4 for each in taken)
    assert taken[2] < taken[0] == taken[1]


def test_the_server_has_a_report(tmp_path: Path) -> None:
    """What each party was promised stands in it, and no account: those are the parties' own."""
    houses = Houses(tmp_path)
    run = houses.lead(houses.channel())
    write_report(run.path, None)
    page = (run.path / "report.html").read_text()
    assert all(name in page for name in NAMES)


def test_a_party_that_is_over_answers_no_more(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    channel = LocalChannel({i: houses.voice(name).answer for i, name in enumerate(NAMES)})
    houses.lead(channel)
    assert all(each.over for each in houses.waiting.values())
    assert not any((tmp_path / name / "run" / "local" / "run.key").exists() for name in NAMES)
    for each in houses.waiting.values():
        run = each._run  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(PartyError, match="has not joined"):
            each.handle(run, b"")

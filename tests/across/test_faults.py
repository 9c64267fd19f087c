"""Parties that are late, gone or back; a server that is killed; and the same model after all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nacre.core.errors import PartyError, RunError
from nacre.ledger import Ledger
from tests.across.deployment import twin
from tests.across.houses import (
    NAMES,
    OF_PARTIES,
    OF_ROWS,
    PATIENCE,
    SUMMED,
    Houses,
    LocalChannel,
)


def model(houses: Houses) -> bytes:
    return (houses.folder / "server" / "run" / "model.safetensors").read_bytes()


def spent(houses: Houses) -> list[float]:
    found: list[float] = []
    for name in NAMES if houses.privacy else ():
        with Ledger.open(houses.folder / name / f"{name}.db") as ledger:
            found += [
                grant.epsilon_taken
                for account in ledger.accounts()
                for grant in ledger.summary(account).grants
            ]
    return found


Answer = Callable[[bytes], bytes | None]


class Dying(LocalChannel):
    """A carrier that dies at the n-th call, with whoever uses it."""

    calls: int = 0
    last: int = 10**9

    def _counted(self) -> None:
        self.calls += 1
        if self.calls >= self.last:
            raise KeyboardInterrupt

    def push(self, blobs: Mapping[int, bytes]) -> Mapping[str, int]:
        self._counted()
        return super().push(blobs)

    def pull(self, messages):  # pyright: ignore[reportMissingParameterType]
        self._counted()
        return super().pull(messages)


@pytest.mark.slow
@pytest.mark.parametrize("privacy", [OF_ROWS, OF_PARTIES, ""], ids=["rows", "parties", "none"])
def test_a_server_that_is_killed_goes_on_to_the_same_model_and_account(
    tmp_path: Path, privacy: str
) -> None:
    """Killed at every call of its carrier, one after another, with checkpoints every second round;
    the parties live on, or are killed with it."""
    houses = Houses(tmp_path / "whole", privacy, rounds=4, checkpoint=2)
    houses.met()
    start = twin(houses, tmp_path / "start")
    whole = Dying({i: houses.voice(name).answer for i, name in enumerate(NAMES)})
    houses.lead(whole, resume=True)
    points = range(2, whole.calls, 1 if privacy == OF_ROWS else 4)
    assert whole.calls > 10
    for last in points:
        killed = twin(start, tmp_path / str(last))
        channel = Dying({i: killed.voice(name).answer for i, name in enumerate(NAMES)})
        channel.last = last
        with pytest.raises(KeyboardInterrupt):
            killed.lead(channel, resume=True)
        if last % 2:  # the parties die too, and come back
            for each in killed.waiting.values():
                each.close()
            alive = [name for name in NAMES if not killed.waiting[name].over]
            channel = LocalChannel({NAMES.index(n): killed.voice(n).answer for n in alive})
        else:
            channel = LocalChannel(channel.voices)
        if not all(each.over for each in killed.waiting.values()):
            killed.lead(channel, resume=True)
            assert model(killed) == model(houses), last
            assert spent(killed) == spent(houses), last
        shutil.rmtree(killed.folder)


def test_a_late_answer_is_not_summed_after_a_kill_either(tmp_path: Path) -> None:
    """A round counts with the answers that it was summed from, though one came since."""
    houses = Houses(tmp_path / "a", rounds=3, checkpoint=2)
    houses.met()
    start = twin(houses, tmp_path / "b")
    for each in (houses, start):
        channel = each.channel()
        late, asks = channel.voices[2], list[bytes]()

        def first_not(
            blob: bytes, late: Answer = late, asks: list[bytes] = asks, killed: bool = each is start
        ) -> bytes | None:
            asks.append(blob)
            if len(asks) == 3 and killed:  # in the second round: the first has no checkpoint
                raise KeyboardInterrupt
            reply = late(blob)
            return None if len(asks) == 2 else reply  # the hello, then the first round

        channel.voices[2] = first_not
        if each is houses:
            each.lead(channel, resume=True, deadline=0.5)
        else:
            with pytest.raises(KeyboardInterrupt):
                each.lead(channel, resume=True, deadline=0.5)
            channel.voices[2] = late
            each.lead(channel, resume=True, deadline=0.5)
        assert each.told == ["party 'south' did not answer within 0.5 seconds"]
    assert model(start) == model(houses)


def test_a_party_that_is_gone_is_left_out_and_one_that_comes_back_is_asked_again(
    tmp_path: Path,
) -> None:
    houses = Houses(tmp_path, rounds=3)
    channel = houses.channel()
    answer = channel.voices[1]
    asks = 0

    def dies(blob: bytes) -> bytes | None:
        nonlocal asks
        asks += 1
        if asks == 2:  # in its first round: it takes the request with it, and starts anew
            houses.waiting["north"].close()
            channel.voices[1] = houses.voice("north").answer
            channel.since[1] = "later"
            return None
        return answer(blob)

    channel.voices[1] = dies
    houses.lead(channel)
    assert houses.told == [], houses.told
    assert spent(houses)[0] > 0


def test_a_party_that_never_answers_costs_a_deadline_and_no_more(tmp_path: Path) -> None:
    houses = Houses(tmp_path, rounds=2)
    channel = houses.channel()
    answer, asks = channel.voices[0], []

    def silent(blob: bytes) -> bytes | None:
        asks.append(blob)
        return answer(blob) if len(asks) == 1 else None

    channel.voices[0] = silent
    houses.lead(channel, deadline=0.3)
    assert houses.told == ["party 'east' did not answer within 0.3 seconds"] * 2


def test_a_server_waits_for_all_parties_and_says_who_is_missing(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    channel = LocalChannel({0: houses.voice("east").answer})
    with pytest.raises(PartyError, match=f"north, south did not come within {PATIENCE:g} seconds"):
        houses.lead(channel)
    assert not (tmp_path / "north" / "north.db").exists()


def test_a_party_takes_part_in_one_run_of_its_folder(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    houses.lead(houses.channel())
    with pytest.raises(RunError, match="has ended"):
        houses.attending("east")
    other = Houses(tmp_path / "other")
    other.met()
    with pytest.raises(PartyError, match="takes part in another run"):
        other.lead(other.channel(), into="second")


def test_a_party_of_other_rows_or_recipe_does_not_go_on(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    houses.met()
    path = tmp_path / "east" / "east.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(RunError, match="the hmac is not that with which"):
        houses.attending("east")


def test_a_round_with_too_few_answers_for_a_secure_sum_can_be_resumed(tmp_path: Path) -> None:
    """Answers that were too few are not kept: all are asked again, and nobody is charged twice."""
    houses = Houses(tmp_path / "broken", SUMMED, rounds=3)
    houses.met()
    whole = twin(houses, tmp_path / "whole")
    whole.lead(whole.channel(), resume=True)
    channel = houses.channel()
    answer, asks = channel.voices[1], []

    def dies(blob: bytes) -> bytes | None:
        asks.append(blob)
        return answer(blob) if len(asks) < LAST_ASKS else None

    channel.voices[1] = dies
    with pytest.raises(PartyError, match="no sum is opened; see that they run and resume"):
        houses.lead(channel, resume=True, deadline=0.3)
    for each in houses.waiting.values():
        each.close()
    houses.lead(houses.channel(), resume=True)
    assert model(houses) == model(whole)
    assert spent(houses) == spent(whole)


LAST_ASKS = 6
"""Of the party that dies: hello, three for the keys, one round of two; in the second it is gone."""

"""A run whose parties are elsewhere, with all but the carrier as it is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nacre.ledger import Ledger
from nacre.runs.federation.agreed import agreed_digest
from tests.across.deployment import twin
from tests.across.houses import IN_SHARES, NAMES, SUMMED, Houses


def test_a_run_ends_with_a_model_and_each_ledger_charged(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    run = houses.lead(houses.channel())
    assert (run.path / "model.safetensors").exists()
    assert not (tmp_path / "server" / "server.db").exists()
    for name in NAMES:
        with Ledger.open(tmp_path / name / f"{name}.db") as ledger:
            assert ledger.accounts() == (f"wards/{name}",)
            spent = ledger.summary(f"wards/{name}").grants[0].epsilon_spent
            assert 3.5 < spent <= 5
    assert houses.told == []


def test_a_secure_sum_is_signed_by_the_keys_of_the_roster(tmp_path: Path) -> None:
    """Policies that ask for one agree, and every round goes through it."""
    plain, summed = Houses(tmp_path / "plain"), Houses(tmp_path / "summed", SUMMED)
    for name in NAMES:
        summed.attending(name, secure_sum=True)
    channel = summed.channel()
    run = summed.lead(channel)
    assert (run.path / "model.safetensors").exists()
    assert summed.told == []
    masked = [reply for _, blob, reply in channel.log if b"secure.mask" in blob and reply]
    assert len(masked) == 3 * len(NAMES)
    assert all(b"__metadata__" not in reply for reply in masked)  # no change in the open
    assert agreed_digest(plain.recipe("east")) != agreed_digest(summed.recipe("east"))


def test_parties_elsewhere_add_the_noise_themselves(tmp_path: Path) -> None:
    """Each from its own plan of its own recipe: the same grid, or no sum would be opened."""
    houses = Houses(tmp_path, IN_SHARES)
    channel = houses.channel()
    run = houses.lead(channel)
    assert (run.path / "model.safetensors").exists() and houses.told == []
    lines = [json.loads(line) for line in (run.path / "released.jsonl").read_text().splitlines()]
    assert [(line["how"], line["shares"]) for line in lines] == [("noised", 2)] * 3
    plan = json.loads((run.path / "plan.json").read_text())
    (party,) = plan["parties"]
    assert party["epsilon_against"]["server_and_parties"] == party["epsilon"] <= 50
    deviation = party["noise"]["multiplier"] * party["clip"]["norm"]
    assert all(line["deviation"] == pytest.approx(deviation) for line in lines)


def test_a_secure_sum_goes_on_after_all_sides_were_killed(tmp_path: Path) -> None:
    houses = Houses(tmp_path / "whole", SUMMED, rounds=4, checkpoint=2)
    houses.met()
    killed = twin(houses, tmp_path / "killed")
    houses.lead(houses.channel(), resume=True)
    channel = killed.channel()
    answer, asks = channel.voices[1], list[bytes]()

    def dies(blob: bytes) -> bytes | None:
        asks.append(blob)
        if len(asks) == 10:  # in a round after the first checkpoint
            raise KeyboardInterrupt
        return answer(blob)

    channel.voices[1] = dies
    with pytest.raises(KeyboardInterrupt):
        killed.lead(channel, resume=True)
    for each in killed.waiting.values():
        each.close()
    killed.lead(killed.channel(), resume=True)
    path = Path("server", "run", "model.safetensors")
    assert (killed.folder / path).read_bytes() == (houses.folder / path).read_bytes()

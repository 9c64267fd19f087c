"""A run whose parties are elsewhere, with all but the carrier as it is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nacre.core.files import load_tensors
from nacre.federated_learning.messages import RoundRequest
from nacre.ledger import Ledger
from nacre.models import saved
from nacre.prediction.predictor import load_model
from nacre.runs.federation.agreed import agreed_digest
from tests.across.deployment import whole_and_killed
from tests.across.houses import IN_SHARES, NAMES, OF_PARTIES, OWN_LAYERS, SUMMED, Houses


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
    houses, killed = whole_and_killed(tmp_path, SUMMED, at=10)
    path = Path("server", "run", "model.safetensors")
    assert (killed.folder / path).read_bytes() == (houses.folder / path).read_bytes()


@pytest.mark.parametrize(
    "privacy",
    [OWN_LAYERS, OWN_LAYERS + "# in secure sums\n", OF_PARTIES + "# with layers of their own"],
    ids=["of rows", "in secure sums", "of parties"],
)  # fmt: skip
def test_each_party_ends_with_its_own_model_and_sends_no_layer_of_its_own(
    tmp_path: Path, privacy: str
) -> None:
    """The last common weights come with the farewell; what is the party's own was never asked."""
    houses = Houses(tmp_path, privacy)
    channel = houses.channel()
    run = houses.lead(channel)
    common, _ = load_tensors(run.path / "model.safetensors")
    own = {name for name in common if name.startswith("head.")}
    assert saved(run.path).personal == ("head.weight", "head.bias") and own
    found = []
    for name in NAMES:
        home = tmp_path / name / "run" / "local" / "personal" / name
        state, _ = load_tensors(home / "model.safetensors")
        assert all(torch.equal(state[n], common[n]) == (n not in own) for n in common)
        assert load_model(home).signature.party == "ward"
        found.append(state["head.weight"])
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    assert not (run.path / "local" / "personal").exists()
    assert not any(b"head." in blob or b"head." in (reply or b"") for _, blob, reply in channel.log)


def test_layers_of_a_partys_own_go_on_after_all_sides_were_killed(tmp_path: Path) -> None:
    houses, killed = whole_and_killed(tmp_path, OWN_LAYERS, at=4)
    for name in NAMES:
        path = Path(name, "run", "local", "personal", name, "model.safetensors")
        one, two = (load_tensors(folder / path)[0] for folder in (killed.folder, houses.folder))
        assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("farewell", ["nothing", "no message", "another model", "not finite"])
def test_a_farewell_that_does_not_fit_leaves_no_model_and_ends_the_run(
    tmp_path: Path, farewell: str
) -> None:
    houses = Houses(tmp_path, OWN_LAYERS)
    houses.lead(houses.channel())
    again = Houses(tmp_path / "again", OWN_LAYERS)
    again.met()
    for each in again.waiting.values():
        each.close()
    told: list[str] = []
    attending = again.attending("east")
    attending.known_as(again.keys["east"], again.roster)
    attending._watch.tell = told.append  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    run = attending._folder.name()  # pyright: ignore[reportPrivateUsage]
    attending.join(run, str(attending._folder.fact("frozen")))  # pyright: ignore[reportPrivateUsage]
    common, _ = load_tensors(tmp_path / "server" / "run" / "model.safetensors")
    weights = {n: value for n, value in common.items() if not n.startswith("head.")}
    nan = {n: value * float("nan") for n, value in weights.items()}
    body = {
        "nothing": b"",
        "no message": b"farewell",
        "another model": RoundRequest("evaluate", 3, attending.recipe, common).to_bytes(),
        "not finite": RoundRequest("evaluate", 3, attending.recipe, nan).to_bytes(),
    }[farewell]
    attending.leave(run, body)
    assert attending.over and "left this party no model of its own" in told[-2]
    assert not (tmp_path / "again" / "east" / "run" / "local" / "personal").exists()

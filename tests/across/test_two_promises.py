"""Two promises across organisations: a party checks both against its policy and charges both by its
own process; the server charges that to whole parties, whose noise it adds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.core.errors import PartyError
from nacre.core.run_folder import RunFolder
from nacre.ledger import Ledger
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.report.evidence import gather
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.attending import Attending
from nacre.runs.federation.policy import Ceiling
from nacre.runs.run import abandon
from tests.across.deployment import whole_and_killed
from tests.across.houses import NAMES, OF_BOTH, OF_PARTIES, OF_ROWS, Houses, policy

EXAMPLE, CLIENT = Ceiling(epsilon=5.0, delta=1e-5), Ceiling(epsilon=60.0, delta=1e-2)


def _spent(file: Path) -> dict[str, float]:
    with Ledger.open(file) as ledger:
        assert ledger.verify() == []
        return {
            name: grant.epsilon_spent
            for name in ledger.accounts()
            for grant in ledger.summary(name).grants
        }


def test_each_side_charges_what_it_answers_for(tmp_path: Path) -> None:
    """To the same figures as in runs of either promise alone."""
    houses, alone = Houses(tmp_path / "both", OF_BOTH), Houses(tmp_path / "rows", OF_ROWS)
    whole = Houses(tmp_path / "parties", OF_PARTIES)
    run = houses.lead(houses.channel())
    assert houses.told == []
    for each in (alone, whole):
        each.lead(each.channel())
    server = _spent(tmp_path / "both" / "server" / "server.db")
    assert server == _spent(tmp_path / "parties" / "server" / "server.db")
    assert list(server) == ["wards"]
    for name in NAMES:
        own = _spent(tmp_path / "both" / name / f"{name}.db")
        assert list(own) == ["wards", f"wards/{name}"]
        assert own["wards"] == server["wards"]
        rows = _spent(tmp_path / "rows" / name / f"{name}.db")
        assert own[f"wards/{name}"] == rows[f"wards/{name}"]
    evidence = gather(run.path)
    found = {party["name"]: party for party in evidence["plan"]["parties"]}
    assert list(found) == ["all rows", *NAMES]
    assert "not against the server" in found["all rows"].get("against", "")
    assert "the server, the other parties" in found["east"].get("against", "")
    assert evidence["released"]["noised"] == 3
    assert evidence["ledger"] is not None
    assert [account["account"] for account in evidence["ledger"]["accounts"]] == ["wards"]


def test_all_sides_are_killed_and_go_on_to_the_same_model(tmp_path: Path) -> None:
    houses, killed = whole_and_killed(tmp_path, OF_BOTH, at=5)
    path = Path("server", "run", "model.safetensors")
    assert (killed.folder / path).read_bytes() == (houses.folder / path).read_bytes()
    for name in NAMES:
        accounts = Path(name, f"{name}.db")
        assert _spent(killed.folder / accounts) == _spent(houses.folder / accounts)


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({"client": CLIENT}, "`units` do not name 'example'"),
        ({"example": EXAMPLE}, "`units` do not name 'client'"),
        (
            {"client": CLIENT, "example": Ceiling(epsilon=3.0, delta=1e-5)},
            "epsilon 3.999 of unit 'example'",
        ),
        (
            {"client": CLIENT, "example": Ceiling(epsilon=5.0, delta=1e-6)},
            "delta 1e-05 of unit 'example'",
        ),
        (
            {"client": Ceiling(epsilon=9.0, delta=1e-2), "example": EXAMPLE},
            "epsilon 49.* of unit 'client'",
        ),
    ],
)
def test_a_policy_is_asked_about_both(
    tmp_path: Path, units: dict[str, Ceiling], words: str
) -> None:
    houses = Houses(tmp_path, OF_BOTH)
    with pytest.raises(PartyError, match=words):
        houses.attending("east", units=units)
    assert not (tmp_path / "east" / "east.db").exists()


def test_a_side_that_promises_rows_nothing_has_another_digest(tmp_path: Path) -> None:
    """So no server can leave the promise within parties out of its own recipe, or change it."""
    houses = Houses(tmp_path, OF_BOTH)
    text = houses.text("east")
    other = text.replace("unit: example, epsilon: 4", "unit: example, epsilon: 3")
    rule = text.replace("delta: 1.0e-5}\n", "delta: 1.0e-5, rule: pld}\n")
    assert "rule: pld" in rule and "epsilon: 3" in other
    digests = {agreed_digest(loads(said, folder=tmp_path / "east")) for said in (text, other, rule)}
    assert len(digests) == 3
    assert agreed_digest(houses.recipe("server")) in digests


DRAWN = "  cohort: {kind: poisson, expected: 2}\n  few_clients: true\n"


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("end", ["over", "abandoned"])
@pytest.mark.parametrize("privacy", [OF_PARTIES, OF_BOTH], ids=["parties", "both"])
def test_a_party_pays_for_the_rounds_that_did_not_draw_it(
    tmp_path: Path, privacy: str, end: str, asked: int
) -> None:
    """A price with sampling is that of all rounds, so none comes back after the last that drew the
    party, nor of a run that never did (else runs could be repeated until one does); what its own
    steps told of rows does come back for rounds in which it took none."""
    houses = Houses(tmp_path, privacy)
    text = houses.text("east").replace("  few_clients: true\n", DRAWN)
    own = loads(text, folder=tmp_path / "east")
    attending = Attending(own, "east", tmp_path / "east" / "run", policy(own, minimum_cohort=2))
    attending.join("a run", _frozen(attending))
    charges = attending._charges  # pyright: ignore[reportPrivateUsage]
    if asked:
        charges[""].journal(1)
    if asked and "east" in charges:
        charges["east"].journal(2)
    if end == "over":
        attending.leave("a run", b"")
    else:
        attending.close()
        abandon(tmp_path / "east" / "run")
    planned = {level.account: level for level in plan(own, ledger=False).priced}
    with Ledger.open(tmp_path / "east" / "east.db") as ledger:
        assert ledger.run("wards", "a run").journalled == planned["wards"].mechanism.steps == 3
        if privacy == OF_BOTH:
            assert ledger.run("wards/east", "a run").journalled == 2 * asked
    assert not RunFolder(tmp_path / "east" / "run").run_key.exists()


def _frozen(attending: Attending) -> str:
    from nacre.training.holders import fixed

    recipe = attending._plan.recipe  # pyright: ignore[reportPrivateUsage]
    return fixed(recipe.build_model(recipe.schema)).hex()

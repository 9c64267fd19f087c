"""A party's policy is law: whatever a job says, and whoever says it."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.core.errors import NacreError, PartyError, RecipeError
from nacre.core.run_folder import RunFolder
from nacre.core.strict import canonical
from nacre.federated_learning.across.members import Meeting, RemoteParties
from nacre.federated_learning.across.speech import asked
from nacre.federated_learning.across.voice import Voice
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.federated_learning.signed import signed_message
from nacre.recipe.load import load_recipe, loads
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.attending import Attending
from nacre.runs.federation.policy import Ceiling, Hours, Policy, read_policy
from tests.across.houses import (
    OF_PARTIES,
    OF_ROWS,
    SUMMED,
    Houses,
    LocalChannel,
    policy,
    table,
    text_of,
)

GOOD = """nacre: 1
recipes: [{digest}]
units:
  example: {{epsilon: 3, delta: 1.0e-5}}
unprotected: false
minimum_cohort: 3
secure_sum: true
rules: [mean]
attacks: [membership]
hours: {{start: "08:00", end: "18:00"}}
"""
DIGEST = "a" * 64


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


def test_a_policy_is_read(tmp_path: Path) -> None:
    found = read_policy(written(tmp_path, GOOD.format(digest=DIGEST)))
    assert found.units == {"example": Ceiling(epsilon=3, delta=1e-5)}
    assert found.secure_sum and found.hours == Hours(start="08:00", end="18:00")


@pytest.mark.parametrize("bad", [".nan", ".inf", "-.inf", "-1", "0", "true", '"3"', "1e400"])
@pytest.mark.parametrize("field", ["epsilon: 3", "delta: 1.0e-5", "minimum_cohort: 3", "nacre: 1"])
def test_no_number_of_a_policy_may_be_none(tmp_path: Path, field: str, bad: str) -> None:
    """NaN is the danger: every comparison with it is false."""
    name = field.split(":")[0]
    text = GOOD.format(digest=DIGEST).replace(field, f"{name}: {bad}")
    with pytest.raises(RecipeError, match=r"policy\.yaml"):
        read_policy(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        GOOD.format(digest=DIGEST) + "max_epsilon: 100\n",
        GOOD.format(digest=DIGEST).replace("units:", "unit:"),
        GOOD.format(digest=DIGEST).replace("example", "everybody"),
        GOOD.format(digest="any"),
        GOOD.format(digest=DIGEST).replace("18:00", "08:00"),
        GOOD.format(digest=DIGEST).replace("18:00", "25:00"),
        GOOD.format(digest=DIGEST).replace(f"recipes: [{DIGEST}]", "recipes: []"),
        GOOD.format(digest=DIGEST).replace(f"recipes: [{DIGEST}]\n", ""),
        GOOD.format(digest=DIGEST).replace("epsilon: 3, ", ""),
        "",
    ],
)
def test_what_a_policy_does_not_know_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError):
        read_policy(written(tmp_path, text))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 0.0])
def test_no_number_made_in_python_either(bad: float) -> None:
    with pytest.raises(ValueError):
        Ceiling(epsilon=bad, delta=1e-5)
    with pytest.raises(ValueError):
        Ceiling(epsilon=1.0, delta=bad)
    with pytest.raises(ValueError):
        Policy(recipes=(DIGEST,), units={}, minimum_cohort=bad)


AGAINST: dict[str, tuple[dict[str, object], str]] = {
    "epsilon": ({"units": {"example": Ceiling(epsilon=3.9, delta=1e-5)}}, "spends epsilon"),
    "delta": ({"units": {"example": Ceiling(epsilon=9.0, delta=9e-6)}}, "spends delta"),
    "unit": ({"units": {"client": Ceiling(epsilon=9.0, delta=1e-5)}}, "`units` do not name 'exam"),
    "recipe": ({"recipes": (DIGEST,)}, "`recipes` do not name"),
    "cohort": ({"minimum_cohort": 4}, "a round has 3 parties"),
    "secure sum": ({"secure_sum": True}, "it asks for a secure sum"),
    "rule": ({"rules": ("median",)}, "`rules` do not name 'mean'"),
}


@pytest.mark.parametrize("case", AGAINST)
def test_a_run_that_is_not_agreed_to_is_refused_before_anything_is_charged(
    tmp_path: Path, case: str
) -> None:
    changes, words = AGAINST[case]
    houses = Houses(tmp_path)
    with pytest.raises(PartyError, match=words):
        houses.attending("east", **changes)
    assert not (tmp_path / "east" / "east.db").exists()
    assert not (tmp_path / "east" / "run").exists()


def test_the_cohort_is_that_of_the_smallest_sum(tmp_path: Path) -> None:
    """The server says who dropped out, so a sum may be over as few as the threshold."""
    houses = Houses(tmp_path, SUMMED)
    text = houses.text("east").replace("threshold: 3}", "threshold: 2, colluders: 0}")
    own = loads(text, folder=tmp_path / "east")
    with pytest.raises(PartyError, match="a sum may be over 2 parties"):
        Attending(own, "east", tmp_path / "east" / "run", policy(own))
    Attending(own, "east", tmp_path / "east" / "run", policy(own, minimum_cohort=2))


def test_no_code_of_a_recipe_that_is_not_agreed_to_is_run(tmp_path: Path) -> None:
    """Code beside a recipe could change whatever is asked after it."""
    houses = Houses(tmp_path)
    text = houses.text("east").replace(
        "{kind: mlp, hidden: [6]}", "{kind: python, call: wards_of_nobody:built}"
    )
    mark = tmp_path / "ran"
    code = f"""
import pathlib
from beside_wards_of_nobody import outputs
from torch import nn

pathlib.Path({str(mark)!r}).touch()

def built():
    return nn.Linear(2, outputs)
"""
    (tmp_path / "east" / "wards_of_nobody.py").write_text(code)
    beside = tmp_path / "east" / "beside_wards_of_nobody.py"
    beside.write_text("outputs = 2\n")
    own = loads(text, folder=tmp_path / "east")
    with pytest.raises(PartyError, match="`recipes` do not name"):
        Attending(own, "east", tmp_path / "east" / "run", policy(own, recipes=(DIGEST,)))
    changed = tmp_path / "east" / "wards_of_nobody.py"
    agreed = policy(own)
    changed.write_text(code.replace("outputs)", "outputs, bias=False)"))
    with pytest.raises(PartyError, match="`recipes` do not name"):
        Attending(own, "east", tmp_path / "east" / "run", agreed)
    changed.write_text(code)
    beside.write_text("outputs = 1 + 1\n")
    with pytest.raises(PartyError, match="`recipes` do not name"):
        Attending(own, "east", tmp_path / "east" / "run", agreed)
    assert not mark.exists()
    Attending(own, "east", tmp_path / "east" / "run", policy(own))
    assert mark.exists()


def test_attacks_have_to_be_named(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    text = houses.text("east").replace("  size:", "  holdout: {share: 0.1}\n  size:")
    own = loads(text + "audit: [membership]\n", folder=tmp_path / "east")
    with pytest.raises(PartyError, match="`attacks` do not name 'membership'"):
        Attending(own, "east", tmp_path / "east" / "run", policy(own))
    Attending(own, "east", tmp_path / "east" / "run", policy(own, attacks=("membership",)))


def test_a_run_without_privacy_has_to_be_allowed(tmp_path: Path) -> None:
    houses = Houses(tmp_path, "")
    with pytest.raises(PartyError, match="no differential privacy"):
        houses.attending("east", unprotected=False)
    houses.attending("east")


def test_a_whole_party_is_protected_only_where_that_unit_is_named(tmp_path: Path) -> None:
    houses = Houses(tmp_path, OF_PARTIES)
    with pytest.raises(PartyError, match="`units` do not name 'client'"):
        houses.attending("east", units={"example": Ceiling(epsilon=9, delta=0.1)})


def test_a_recipe_has_no_place_for_a_policy(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    for more in ("policy: {secure_sum: false}\n", "minimum_cohort: 1\n"):
        with pytest.raises(RecipeError):
            loads(houses.text("east") + more, folder=tmp_path)


def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "POLICY",
        "SECURE_SUM",
        "MINIMUM_COHORT",
        "INSECURE",
        "UNPROTECTED",
        "PARTY_POLICY",
    ):
        monkeypatch.setenv(f"NACRE_{name}", "0")
        monkeypatch.setenv(f"NACRE_PARTY_{name}", str(tmp_path / "other.yaml"))
    with pytest.raises(PartyError, match="it asks for a secure sum"):
        Houses(tmp_path).attending("east", secure_sum=True)


def test_a_request_has_no_place_for_a_policy(tmp_path: Path) -> None:
    """More fields in a hello are refused, not passed over; its recipe's digest has to be ours."""
    houses = Houses(tmp_path)
    attending = houses.attending("east")
    voice = Voice(houses.keys["east"], houses.roster, attending, tell=houses.tell)
    facts = {"format": 1, "frozen": "", "roster": houses.roster.digest(), "nonce": "1"}
    for more in ({"policy": {"secure_sum": False}}, {"minimum_cohort": 1}, {"epsilon": 1e9}):
        body = canonical(facts | more).encode()
        about = asked("east", "run", attending.recipe, "hello", body)
        assert voice.answer(signed_message(body, about, houses.server)) is not None
    assert len(houses.told) == 3 and all("hello is of another version" in t for t in houses.told)
    body = canonical(facts).encode()
    about = replace(asked("east", "run", attending.recipe, "hello", body), recipe="1" * 64)
    voice.answer(signed_message(body, about, houses.server))
    assert "compare them by `nacre federate digest RECIPE`" in houses.told[-1]
    assert not (tmp_path / "east" / "run").exists()


def test_a_forged_roster_does_not_open_the_house(tmp_path: Path) -> None:
    """Whoever has a roster of their own signs as a server that this party does not pin."""
    houses = Houses(tmp_path)
    thief = Identity.generate(SERVER)
    forged = Roster(thief.public, houses.roster.parties)
    channel = LocalChannel({0: houses.voice("east").answer})
    attending = houses.waiting["east"]
    meeting = Meeting(run="theft", recipe=attending.recipe, parties=("east",), frozen="")
    members = RemoteParties(channel, thief, forged, meeting, deadline=0.2)
    with pytest.raises(PartyError, match="east did not come"):
        members.gather(0.2)
    assert "the signature is not that of 'server'" in houses.told[0]
    assert not (tmp_path / "east" / "run").exists()


def test_a_grant_that_does_not_cover_the_run_is_the_partys_last_word(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    text = houses.text("east").replace("grant: {epsilon: 5", "grant: {epsilon: 1")
    own = loads(text, folder=tmp_path / "east")
    with pytest.raises(NacreError, match="epsilon"):
        Attending(own, "east", tmp_path / "east" / "run", policy(own))


def test_outside_its_hours_a_party_refuses(tmp_path: Path) -> None:
    now = datetime.datetime.now()
    ago = [(now - datetime.timedelta(hours=h)).strftime("%H:%M") for h in (3, 2)]
    closed = Hours(start=ago[0], end=ago[1])
    houses = Houses(tmp_path)
    channel = LocalChannel({0: houses.voice("east", hours=closed).answer})
    attending = houses.waiting["east"]
    meeting = Meeting(run="run", recipe=attending.recipe, parties=("east",), frozen="")
    members = RemoteParties(channel, houses.server, houses.roster, meeting, deadline=0.2)
    with pytest.raises(PartyError, match=r"answers from .* of its own clock"):
        members.gather(0.5)


def test_a_file_with_rows_of_others_is_refused(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    path = tmp_path / "east" / "east.csv"
    path.write_text(path.read_text().replace("east", "north", 3))
    with pytest.raises(NacreError, match="has rows of 'north'"):
        houses.attending("east")


@pytest.mark.parametrize("privacy", [OF_ROWS, SUMMED], ids=["open", "secure"])
def test_a_refusal_that_follows_noise_is_one_a_round(tmp_path: Path, privacy: str) -> None:
    """Weights so large that a noised update is lost in them are refused, which says that it was
    small: with other weights in the same round the server would ask as often as it likes."""
    houses = Houses(tmp_path, privacy)
    houses.met()
    east = houses.attending("east")
    east.known_as(houses.keys["east"], houses.roster)
    run = str(RunFolder(tmp_path / "east" / "run").fact("run"))
    with pytest.raises(PartyError):  # no message at all: it joins
        east.handle(run, b"")
    party = east._party.__self__  # pyright: ignore
    for value, error in ((1e20, "left the trainable weight"), (0.0, "for other weights")):
        weights = {name: torch.full_like(t, value) for name, t in party._shapes.items()}
        asked = RoundRequest("train", 0, east.recipe, weights)
        with pytest.raises(NacreError, match=error):
            party._trained(asked) if privacy == SUMMED else party.handle(asked.to_bytes())
    east.close()


def test_a_party_whose_policy_does_not_allow_the_recipe_says_where_and_what_to_do(
    tmp_path: Path,
) -> None:
    table("east").to_csv(tmp_path / "east.csv", index=False)
    (tmp_path / "east.yaml").write_text(text_of("east.csv"))
    said = 'nacre: 1\nrecipes: ["{}"]\nunits: {{example: {{epsilon: 5, delta: 1.0e-5}}}}\n'
    (tmp_path / "policy.yaml").write_text(said.format("1" * 64) + "minimum_cohort: 3\n")
    words = [
        "party", str(tmp_path / "east.yaml"), "--name", "east", "--into", str(tmp_path / "run"),
        "--policy", str(tmp_path / "policy.yaml"), "--keys", "k", "--roster", "r",
        "--superlink", "127.0.0.1:1", "--insecure",
    ]  # fmt: skip
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 2
    digest = agreed_digest(load_recipe(tmp_path / "east.yaml"))
    told = f"policy.yaml: the policy of this party .* digest {digest}; .* add it there"
    assert re.search(told, " ".join(found.output.split()))
    assert not (tmp_path / "run").exists() and not (tmp_path / "east.db").exists()

"""A party that is made anew for every message, as behind a stock SuperNode; and the bundle."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")


from nacre.core.errors import BadKeys, NacreError, PartyError, Refusal
from nacre.core.files import write_json
from nacre.federated_learning.across.keys import SIGNING_KEY
from nacre.federated_learning.flower.bundle import ENTRY, Pin, answer_of_hub, bundle, bundle_digest
from nacre.federated_learning.flower.hub import serving
from nacre.ledger import Ledger
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.supernode import OwnConfiguration, answered_alone
from tests.across.deployment import free_port, twin
from tests.across.houses import NAMES, OF_PARTIES, OF_ROWS, SUMMED, Houses, LocalChannel

DIGEST = "a8d01a679a51a0f1f81675d2f0fad92ae5c3aac16a62862e1bfc7cad64c4c8e8"


def own(houses: Houses, name: str) -> dict[str, object]:
    """What the operator of a SuperNode writes, with the files that it names."""
    place = houses.folder / name
    (place / "recipe.yaml").write_text(houses.text(name))
    (place / "policy.yaml").write_text(
        f'nacre: 1\nrecipes: ["{agreed_digest(houses.recipe(name))}"]\nunprotected: true\n'
        "units:\n  example: {epsilon: 5, delta: 1.0e-5}\n  client: {epsilon: 60, delta: 0.01}\n"
        "minimum_cohort: 3\nsecure_sum: false\n"
    )
    (place / "keys").mkdir(exist_ok=True)
    houses.keys[name].save(place / "keys" / SIGNING_KEY)
    write_json(place / "roster.json", houses.roster.to_json())
    return {
        "recipe": str(place / "recipe.yaml"), "name": name, "into": str(place / "run"),
        "policy": str(place / "policy.yaml"), "keys": str(place / "keys"),
        "roster": str(place / "roster.json"),
    }  # fmt: skip


def made_anew(houses: Houses) -> LocalChannel:
    """A carrier to parties of which nothing lives longer than a message."""
    return LocalChannel(
        {i: partial(answered_alone, own(houses, name)) for i, name in enumerate(NAMES)}
    )


@pytest.mark.parametrize("privacy", [OF_ROWS, SUMMED, OF_PARTIES, ""])
def test_nothing_has_to_be_remembered_between_messages(tmp_path: Path, privacy: str) -> None:
    """The model and every account of processes that live as long as the run."""
    houses = Houses(tmp_path / "anew", privacy, rounds=3)
    houses.met()
    warm = twin(houses, tmp_path / "warm")
    expected = warm.lead(warm.channel(), resume=True)
    channel = LocalChannel(
        {i: partial(answered_alone, own(houses, name)) for i, name in enumerate(NAMES)}
    )
    run = houses.lead(channel, resume=True)
    ends = [(expected.path / "model.safetensors"), (run.path / "model.safetensors")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    for name in NAMES if privacy else ():
        account = "wards" if privacy is OF_PARTIES else f"wards/{name}"
        grants = []
        for each in (houses, warm):
            with Ledger.open(each.folder / name / f"{name}.db") as ledger:
                grants.append(ledger.summary(account).grants[0])
        assert grants[0].epsilon_spent == grants[1].epsilon_spent > 0
        assert grants[0].epsilon_taken == grants[1].epsilon_taken
    assert not any((houses.folder / n / "run" / "local" / "run.key").exists() for n in NAMES)
    assert all(reply is not None for _, _, reply in channel.log)
    last = channel.log[-len(NAMES) :]
    assert [channel.voices[node](blob) for node, blob, _ in last] == [each[2] for each in last]


def test_a_party_that_was_killed_before_the_end_leaves_all_the_same(tmp_path: Path) -> None:
    """Its process started anew hears the end as its first word: it settles and destroys its key."""
    houses = Houses(tmp_path, rounds=2)
    channel = houses.channel()
    first, heard = channel.voices[0], []

    def killed(blob: bytes) -> bytes | None:
        heard.append(blob)
        if len(heard) < 4:  # the hello and two rounds
            return first(blob)
        houses.waiting["east"].close()
        return houses.voice("east").answer(blob)

    channel.voices[0] = killed
    houses.lead(channel)
    assert len(heard) == 4 and houses.waiting["east"].over
    assert not (tmp_path / "east" / "run" / "local" / "run.key").exists()
    with Ledger.open(tmp_path / "east" / "east.db") as ledger:
        grant = ledger.summary("wards/east").grants[0]
        assert grant.epsilon_spent == grant.epsilon_taken > 0


def test_another_run_is_refused_once_the_first_has_ended(tmp_path: Path) -> None:
    houses = Houses(tmp_path, rounds=1)
    channel = LocalChannel(
        {i: partial(answered_alone, own(houses, name)) for i, name in enumerate(NAMES)}
    )
    houses.lead(channel)
    with pytest.raises(PartyError, match=r"has ended its run; its SuperNode is started anew"):
        houses.lead(channel, into="second")


def test_the_policy_is_the_partys_own_and_asked_for_every_message(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    channel = LocalChannel(
        {i: partial(answered_alone, own(houses, name)) for i, name in enumerate(NAMES)}
    )
    policy = tmp_path / "south" / "policy.yaml"
    policy.write_text(policy.read_text().replace("epsilon: 5,", "epsilon: 1,"))
    with pytest.raises(PartyError, match=r"'south' refuses this run: .*more than it allows"):
        houses.lead(channel)
    assert not (tmp_path / "south" / "south.db").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": None}, "lacks 'policy'"),
        ({"threshold": "1"}, "does not know 'threshold'"),
        ({"name": 3}, "wants text for 'name'"),
        ({"into": ""}, "wants text for 'into'"),
    ],
)
def test_a_configuration_that_is_not_whole_is_refused(
    change: dict[str, object], words: str
) -> None:
    said = dict.fromkeys(("recipe", "name", "into", "policy", "keys", "roster"), "x") | change
    with pytest.raises(Refusal, match=f"`--node-config` {words}"):
        OwnConfiguration.of({key: value for key, value in said.items() if value is not None})


def test_what_goes_wrong_at_a_party_is_told_to_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flower would send the words of an exception to the server."""
    from flwr.app import Context, Metadata, RecordDict
    from flwr.app.message import make_message

    from nacre.federated_learning.flower.blob import records_of
    from nacre.runs.federation.supernode import app

    about = Metadata(1, "m", 1, 2, "", "", 1.8e9, 60.0, "query")
    message = make_message(metadata=about, content=records_of(b"no envelope"))
    houses = Houses(tmp_path)
    for config in ({"recipe": "/home/secret.yaml"}, own(houses, "east")):
        context = Context(1, 2, config, RecordDict(), {"policy": "the server's"})  # pyright: ignore[reportArgumentType]
        reply = app(message, context)
        assert reply.has_error() and reply.error.reason == ""
    said = capsys.readouterr().err
    assert "`--node-config` lacks" in said and "a message was dropped" in said


def test_the_bundle_is_the_same_everywhere_and_holds_no_program() -> None:
    import importlib
    import io
    import zipfile

    assert bundle() == bundle() and bundle_digest(bundle()) == DIGEST
    with zipfile.ZipFile(io.BytesIO(bundle())) as file:
        assert file.namelist() == ["pyproject.toml", ".info/CONTENT"]
        assert f'clientapp = "{ENTRY}"' in file.read("pyproject.toml").decode()
    module, _, name = ENTRY.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def verified(pin: Pin, trusted: Pin, data: bytes) -> bool:
    """Whether Flower takes the bundle with this signature, where the other key is trusted."""
    from flwr.supercore.fab import Fab
    from flwr.superlink.servicer.control import control_handlers
    from flwr.supernode.start_client_internal import _verify_fab  # pyright: ignore
    from yaml import safe_load

    said = json.loads(answer_of_hub("h:1", [pin]))["verifications"]
    records = control_handlers._format_verification(said)  # pyright: ignore
    fab = Fab(bundle_digest(data), data, records)
    return _verify_fab(fab, safe_load(trusted.trusted()))


def test_flower_takes_the_pinned_bundle_and_no_other(tmp_path: Path) -> None:
    data = bundle()
    pin, other = Pin.made(data), Pin.made(data)
    assert verified(pin, pin, data)
    assert not verified(other, pin, data)
    assert not verified(pin, pin, data[:-1] + b"x")
    path = tmp_path / "east.bundle.json"
    write_json(path, pin.to_json())
    assert Pin.load(path, data) == pin
    for change in ({"signature": "00" * 64}, {"signed_at": 1}, {"key": "ssh-rsa x"}):
        write_json(path, pin.to_json() | change)
        with pytest.raises(BadKeys, match="does not sign the bundle"):
            Pin.load(path, data)
    write_json(path, pin.to_json())
    with pytest.raises(BadKeys, match="run the same version on both sides"):
        Pin.load(path, data + b"x")
    write_json(path, {"format": 1})
    with pytest.raises(BadKeys, match="is no signature of a bundle"):
        Pin.load(path, data)


def test_the_hub_answers_two_questions_and_ends() -> None:
    import requests

    address = f"127.0.0.1:{free_port()}"
    with serving(address, b'{"fab_url": 1}', b"data"):
        asked = requests.post(f"http://{address}/v1/hub/fetch-fab", data="{}", timeout=5)
        assert asked.json() == {"fab_url": 1}
        assert requests.get(f"http://{address}/f", timeout=5).content == b"data"
        assert requests.post(f"http://{address}/v1/other", data="{}", timeout=5).status_code == 404
        with pytest.raises(NacreError, match="nobody can listen"), serving(address, b"", b""):
            pass
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{address}/f", timeout=5)
    for odd in ("host", "host:", "host:0", "host:99999", ":5"):
        with pytest.raises(Refusal, match="is no HOST:PORT"), serving(odd, b"", b""):
            pass

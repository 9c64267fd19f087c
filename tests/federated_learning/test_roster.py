"""A roster pins one key a name, and a signature is that of its name alone."""

import json
import stat

import pytest

from nacre.core.errors import PartyError
from nacre.federated_learning.roster import Identity, Roster

SERVER, EAST, WEST = (
    Identity.from_secret(n, bytes([i]) * 32) for i, n in enumerate(("server", "east", "west"))
)
ROSTER = Roster(SERVER.public, {"east": EAST.public, "west": WEST.public})


def test_a_signature_is_that_of_one_name_and_body():
    for identity in (SERVER, EAST, WEST):
        ROSTER.verify(identity.name, b"body", identity.sign(b"body"))
    for name, body, signature in (
        ("west", b"body", EAST.sign(b"body")),
        ("east", b"bodx", EAST.sign(b"body")),
        ("north", b"body", EAST.sign(b"body")),
        ("east", b"body", b""),
        ("east", b"body", EAST.sign(b"body")[:-1]),
    ):
        with pytest.raises(PartyError):
            ROSTER.verify(name, body, signature)


def test_a_key_is_kept_for_its_owner_alone(tmp_path):
    path = tmp_path / "east.pem"
    east = Identity.generate("east")
    east.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Identity.load("east", path)
    assert again.public == east.public
    assert again.sign(b"x") == east.sign(b"x")
    assert "secret" in repr(east)
    assert east.public.hex() not in repr(east)
    assert Identity.generate("east").public != east.public


@pytest.mark.parametrize(
    "data", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_without_a_key_is_refused(tmp_path, data):
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    with pytest.raises(PartyError, match="no signing key"):
        Identity.load("east", path)
    with pytest.raises(PartyError, match="cannot be read"):
        Identity.load("east", tmp_path / "absent.pem")


def test_json_and_digest_stand_for_names_and_keys():
    again = Roster.from_json(json.loads(json.dumps(ROSTER.to_json())))
    assert again == ROSTER
    assert again.digest() == ROSTER.digest()
    turned = Roster(SERVER.public, {"west": WEST.public, "east": EAST.public})
    assert turned.digest() == ROSTER.digest()
    others = [
        Roster(SERVER.public, {"west": EAST.public, "east": WEST.public}),
        Roster(SERVER.public, {"east": EAST.public}),
        Roster(WEST.public, {"east": EAST.public}),
    ]
    assert len({ROSTER.digest(), *(other.digest() for other in others)}) == 4


@pytest.mark.parametrize(
    "parties",
    [
        {},
        {"": EAST.public},
        {"all": EAST.public},
        {"server": EAST.public},
        {"a\nb": EAST.public},
        {"x" * 257: EAST.public},
        {"east": EAST.public, "west": EAST.public},
        {"east": SERVER.public},
        {"east": EAST.public[:-1]},
    ],
)
def test_a_roster_that_would_count_somebody_twice_or_not_at_all_is_refused(parties):
    with pytest.raises(PartyError):
        Roster(SERVER.public, parties)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": True},
        {"more": 1},
        {"server": None},
        {"server": "ab"},
        {"parties": []},
        {"parties": {"east": EAST.public.hex().upper()}},
        {"parties": {"east": "zz" * 32}},
        {"parties": {"east": 7}},
    ],
)
def test_json_of_another_form_is_refused(change):
    with pytest.raises(PartyError):
        Roster.from_json({**ROSTER.to_json(), **change})
    for value in (None, [], "x", {"format": 1}):
        with pytest.raises(PartyError):
            Roster.from_json(value)

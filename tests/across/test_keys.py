"""Keys, cards, the roster, and what the commands say that make them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nacre.cli.main import cli
from nacre.core.errors import BadKeys, PartyError
from nacre.federated_learning.across.keys import (
    CA,
    CERTIFICATE,
    NODE_KEY,
    SIGNING_KEY,
    Card,
    keys_of_party,
    keys_of_server,
    node_key,
    roster_of,
)
from nacre.federated_learning.roster import Identity
from nacre.recipe.load import loads
from nacre.runs.federation.agreed import agreed_digest
from tests.across.houses import NAMES, Houses


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(words))
    return result.exit_code, result.output


def test_what_is_private_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    keys_of_server(tmp_path / "s", ["flower.example.org", "10.0.0.7", "::1"])
    keys_of_party(tmp_path / "p", "east")
    private = {"ca.key", "server.key", "signing.key", "superexec.secret", "node.key"}
    for path in [*(tmp_path / "s").iterdir(), *(tmp_path / "p").iterdir()]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert (mode == 0o600) == (path.name in private), path


def test_the_certificate_is_signed_by_the_authority_for_these_hosts(tmp_path: Path) -> None:
    keys_of_server(tmp_path / "s", ["flower.example.org", "10.0.0.7"])
    read = [
        x509.load_pem_x509_certificate((tmp_path / "s" / n).read_bytes()) for n in (CA, CERTIFICATE)
    ]
    authority, server = read
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["flower.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_card_has_the_public_keys_of_the_private_ones(tmp_path: Path) -> None:
    card = keys_of_party(tmp_path / "p", "east")
    assert Card.load(tmp_path / "p" / "east.card.json") == card
    assert Identity.load("east", tmp_path / "p" / SIGNING_KEY).public == card.signing
    key = node_key(tmp_path / "p" / NODE_KEY)
    assert isinstance(key.curve, ec.SECP384R1)
    public = serialization.load_ssh_public_key(card.node)
    assert public == key.public_key()


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    keys_of_party(tmp_path / "p", "east")
    with pytest.raises(PartyError, match="is not empty, and keys are kept"):
        keys_of_party(tmp_path / "p", "east")
    with pytest.raises(PartyError, match="a party cannot be called 'server'"):
        keys_of_party(tmp_path / "q", "server")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"signing": 7}, {"signing": "xy"}, {"node": "ssh-rsa AAAA"}, {"more": 1},
        {"node": "é"},
    ],
)  # fmt: skip
def test_what_is_no_card_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    keys_of_party(tmp_path / "p", "east")
    path = tmp_path / "p" / "east.card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PartyError):
        Card.load(path)
    path.write_text("no JSON")
    with pytest.raises(BadKeys, match="it is not JSON"):
        Card.load(path)


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PartyError, match="cannot be read"):
        node_key(tmp_path / "none")
    (tmp_path / "bad").write_text("no key")
    with pytest.raises(PartyError, match="holds no key of a node"):
        node_key(tmp_path / "bad")
    keys_of_party(tmp_path / "p", "east")
    with pytest.raises(PartyError, match="is not ECDSA"):
        node_key(tmp_path / "p" / SIGNING_KEY)


def test_a_roster_has_one_server_and_each_party_once(tmp_path: Path) -> None:
    server = keys_of_server(tmp_path / "s", ["localhost"])
    parties = [keys_of_party(tmp_path / name, name) for name in NAMES]
    assert tuple(roster_of([*parties, server]).parties) == NAMES
    with pytest.raises(PartyError, match="needs the card of the server"):
        roster_of(parties)
    with pytest.raises(PartyError, match="two cards are of 'east'"):
        roster_of([server, *parties, parties[0]])


def test_the_commands_make_them(tmp_path: Path) -> None:
    server, east, file = (str(tmp_path / name) for name in ("s", "e", "roster.json"))
    assert run("federate", "keys", "server", "--host", "localhost", "--into", server)[0] == 0
    assert run("federate", "keys", "east", "--into", east)[0] == 0
    cards = [f"{server}/server.card.json", f"{east}/east.card.json"]
    code, made = run("federate", "roster", *cards, "-o", file)
    assert code == 0 and made == run("federate", "roster", file)[1]
    assert run("federate", "keys", "server", "--into", str(tmp_path / "x"))[0] == 2
    assert run("federate", "keys", "west", "--host", "h", "--into", str(tmp_path / "x"))[0] == 2
    assert run("federate", "roster", *cards)[0] == 2
    code, said = run("federate", "roster", "--json", *cards, cards[1], "-o", file)
    assert code == 2 and "two cards" in said
    code, said = run("federate", "keys", "ea/st", "--into", str(tmp_path / "y"))
    assert code == 2 and "'ea/st' is to name the file of a card, so it holds no `/`" in said
    assert not (tmp_path / "y").exists()
    code, said = run("federate", "roster", cards[1])
    assert code == 2 and f"{cards[1]}: a roster has the fields" in said and "-o" in said


def test_without_tls_only_where_it_is_typed(tmp_path: Path) -> None:
    """A missing `--ca` is refused, and so are options of `--over` without it."""
    words = ["party", "r.yaml", "--name", "east", "--into", "x", "--policy", "p", "--keys", "k",
             "--roster", "r", "--superlink", "localhost:1"]  # fmt: skip
    code, said = run(*words)
    assert code == 2 and "--insecure" in said
    code, said = run(*words, "--ca", "ca.pem", "--insecure")
    assert code == 2 and "--insecure" in said
    lead = ["train", "r.yaml", "--into", "x", "--over", "flower", "--superlink", "h:1",
            "--keys", "k", "--roster", "r"]  # fmt: skip
    code, said = run(*lead)
    assert code == 2 and "--insecure" in said
    for bad in ("nan", "inf", "-1", "0"):
        code, said = run(*lead, "--ca", "ca.pem", "--deadline", bad)
        assert code == 2 and "must be a finite number above 0" in said
        code, said = run(*lead, "--ca", "ca.pem", "--wait", bad)
        assert code == 2 and "must be a finite number above 0" in said
    code, said = run("train", "r.yaml", "--into", "x", "--superlink", "h:1")
    assert code == 2 and "go with `--over flower`" in said


def test_the_digest_is_of_what_sides_share(tmp_path: Path) -> None:
    """Paths, the ledger and how the work is done are each side's own; all else counts."""
    houses = Houses(tmp_path)
    digests = {agreed_digest(houses.recipe(name)) for name in (*NAMES, "server")}
    assert len(digests) == 1
    text = houses.text("east")
    same = (
        ("grant: {epsilon: 5", "grant: {epsilon: 6"),
        ("training:", "execution: {microbatch: 8}\ntraining:"),
        ("lr: 0.1", "lr: 1.0e-1"),
    )
    other = (
        ("epsilon: 4", "epsilon: 4.5"), ("norm: 1.0", "norm: 1.5"), ("rounds: 3", "rounds: 4"),
        ("hidden: [6]", "hidden: [7]"), ("seed: 5", "seed: 6"), ("high: 100", "high: 90"),
        ("north: 60", "north: 61"), ("steps: 2", "steps: 3"),
        ("grant: {epsilon: 5, delta: 1.0e-5}", "grant: {epsilon: 5, delta: 1.0e-5, rule: pld}"),
    )  # fmt: skip
    for changes, equal in ((same, True), (other, False)):
        for before, after in changes:
            assert before in text
            changed = agreed_digest(loads(text.replace(before, after), folder=tmp_path))
            assert (changed in digests) == equal, after


@pytest.mark.parametrize("change", ["path: {low: 60, high: 201}", ""])
def test_a_column_called_path_is_no_path(tmp_path: Path, change: str) -> None:
    """Its bounds, and that it is there, decide what is trained as those of any other column do."""
    text = Houses(tmp_path).text("east").replace("    pressure:", "    path:")
    column = "    path: {low: 60, high: 200}\n"
    assert column in text
    other = text.replace(column, f"    {change}\n" if change else "")
    digests = {agreed_digest(loads(each, folder=tmp_path)) for each in (text, other)}
    assert len(digests) == 2

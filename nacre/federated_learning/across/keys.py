"""The keys of a federation: an authority and its certificate for TLS, keys of nodes, and cards by
which sides learn each other's public keys.

Private keys are PKCS8 PEM, readable by their owner alone (mode 0600); public ones travel on a card:

    {"format": 1, "name": NAME, "signing": HEX, "node": SSH}     SSH: "" on the card of the server
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nacre.core.errors import BadArgument, BadKeys, FileDamaged
from nacre.core.files import read_json, write_bytes, write_json
from nacre.federated_learning.roster import SERVER, Identity, Roster

CA, CA_KEY = "ca.pem", "ca.key"
CERTIFICATE, CERTIFICATE_KEY = "server.pem", "server.key"
NODE_KEY, SIGNING_KEY, SECRET = "node.key", "signing.key", "superexec.secret"

_YEARS_OF_AUTHORITY, _DAYS_OF_SERVER = 10, 800
_SKEW = datetime.timedelta(hours=1)  # that clocks may differ by


@dataclass(frozen=True)
class Card:
    """What one side hands to the others: its name and its public keys."""

    name: str
    signing: bytes  # raw Ed25519, 32 bytes
    node: bytes  # ECDSA P-384 as SSH writes it; empty for the server

    def save(self, path: Path) -> None:
        """Writes the card as JSON."""
        facts = {"name": self.name, "signing": self.signing.hex(), "node": self.node.decode()}
        write_json(path, {"format": 1, **facts})

    @classmethod
    def load(cls, path: Path) -> Card:
        """The card that `save` wrote. Raises `BadKeys` for anything else."""
        try:
            value: Any = read_json(path)
        except FileDamaged as error:
            raise BadKeys(str(error)) from error
        facts = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        texts: list[Any] = [facts.get(key) for key in ("name", "signing", "node")]
        if facts.keys() != {"format", "name", "signing", "node"} or facts["format"] != 1:
            raise BadKeys(f"{path} is no card; name the file that `nacre federate keys` wrote")
        if not all(isinstance(text, str) for text in texts):
            raise BadKeys(f"{path} is no card: its fields are texts; have it made anew")
        try:
            card = cls(texts[0], bytes.fromhex(texts[1]), texts[2].encode("ascii"))
            if card.name != SERVER:
                serialization.load_ssh_public_key(card.node)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadKeys(f"the card {path} holds no key ({error}); ask for it again") from error
        return card


def keys_of_server(folder: Path, hosts: Sequence[str]) -> Card:
    """Makes what the operator of the SuperLink and of the server needs, in `folder`: an authority,
    a certificate for these hosts (names or addresses), a signing key, and the SuperLink's secret.
    Returns the server's card, which stands in `folder` too.

    Raises `BadArgument` for no host, `BadKeys` where keys stand there already.
    """
    if not hosts:
        raise BadArgument("the certificate needs a name or an address of the SuperLink's machine")
    fresh(folder)
    authority_key, authority = _authority()
    key, certificate = _certificate(authority_key, authority, hosts)
    _save_key(folder / CA_KEY, authority_key)
    write_bytes(folder / CA, authority.public_bytes(serialization.Encoding.PEM))
    _save_key(folder / CERTIFICATE_KEY, key)
    write_bytes(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    write_bytes(folder / SECRET, secrets.token_hex(32).encode() + b"\n", mode=0o600)
    return _card(folder, SERVER, b"")


def keys_of_party(folder: Path, name: str) -> Card:
    """Makes what a party needs, in `folder`: the key of its node and its signing key. Returns its
    card, which stands in `folder` too. Raises `BadKeys` where keys stand there already, and for
    a name that is no name of a file."""
    if name == SERVER:
        raise BadKeys(f"a party cannot be called {SERVER!r}; give it another name")
    if name != Path(name).name or "\0" in name:
        raise BadKeys(
            f"{name!r} is to name the file of a card, so it holds no `/`; call the party something "
            "else, here and in the recipe"
        )
    fresh(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    _save_key(folder / NODE_KEY, key)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return _card(folder, name, public)


def node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key of a node. Raises `BadKeys` for a file without one."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BadKeys(
            f"the key of the node, {path}, cannot be read ({error.strerror or error}); name the "
            "folder that `nacre federate keys` made"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKeys(f"{path} holds no key of a node; restore it from a copy") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadKeys(f"the key in {path} is not ECDSA; make one by `nacre federate keys`")
    return key


def ssh_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The same key as OpenSSH writes it, without a password: Flower's own programs read no other
    form."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def roster_of(cards: Sequence[Card]) -> Roster:
    """The roster of these cards. Raises `BadKeys` unless one is the server's, and for a name
    that stands on two."""
    names = [card.name for card in cards]
    if names.count(SERVER) != 1:
        raise BadKeys("a roster needs the card of the server, once, beside those of the parties")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadKeys(f"two cards are of {twice[0]!r}; each party has its own name")
    by_name = {card.name: card.signing for card in cards}
    return Roster(by_name.pop(SERVER), by_name)


def _card(folder: Path, name: str, node: bytes) -> Card:
    identity = Identity.generate(name)
    identity.save(folder / SIGNING_KEY)
    card = Card(name, identity.public, node)
    card.save(folder / f"{name}.card.json")
    return card


def fresh(folder: Path) -> None:
    """Makes an empty folder for its owner alone. Raises `BadKeys` for one that holds anything: keys
    are never overwritten, since who lost the old ones could not answer for them any more."""
    if folder.exists() and any(folder.iterdir()):
        raise BadKeys(f"{folder} is not empty, and keys are kept; choose another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _save_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_bytes(path, pem, mode=0o600)


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP384R1())
    name = _named("Nacre federation")
    built = (
        _builder(name, name, key, _YEARS_OF_AUTHORITY * 365)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, built.sign(key, hashes.SHA384())


def _certificate(
    authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, hosts: Sequence[str]
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP384R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    built = (
        _builder(_named(hosts[0]), authority.subject, key, _DAYS_OF_SERVER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False)
        .add_extension(issuer, critical=False)
    )
    return key, built.sign(authority_key, hashes.SHA384())


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise BadArgument(f"{text!r} is no name or address of a machine: {error}") from error

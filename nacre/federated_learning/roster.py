"""Who takes part in a federation: a signing key of one's own, and the public keys of the others.

Each side pins the roster before a run. It is exchanged outside the server, since a server that
vouches for keys could invent parties.

The roster as JSON, and nothing else in it:

    {"format": 1, "server": KEY, "parties": {NAME: KEY, …}}      KEY: 64 hex digits, raw Ed25519
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from nacre.core.errors import BadKeys, PartyError
from nacre.core.files import write_bytes
from nacre.core.strict import canonical

SERVER = "server"
"""The name that the server signs under; no party has it."""
ALL = "all"
"""The receiver of a message to every party; nobody's name."""

_FORMAT = 1
_KEY = 32  # bytes of a raw Ed25519 key
_LONGEST = 256  # characters of a name


class Identity:
    """A name with the Ed25519 key that its messages are signed by."""

    __slots__ = ("_key", "name")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        fault = _misnamed(name)
        if fault is not None:
            raise BadKeys(fault)
        self.name, self._key = name, key

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A new key from the operating system. Raises `BadKeys` for no name or `all`."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_secret(cls, name: str, secret: bytes) -> Identity:
        """The key that 32 secret bytes are: the same bytes give the same key."""
        return cls(name, Ed25519PrivateKey.from_private_bytes(secret))

    @classmethod
    def load(cls, name: str, path: Path) -> Identity:
        """The key that `save` put at `path`. Raises `BadKeys` for a file without one."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise BadKeys(
                f"the signing key {path} cannot be read ({error.strerror or error}); name the file "
                "that was made with the roster"
            ) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKeys(f"{path} holds no signing key; restore it from a copy") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKeys(f"the key in {path} is not Ed25519; make one with the roster")
        return cls(name, key)

    def save(self, path: Path) -> None:
        """Puts the key at `path` as PKCS8 PEM, readable by its owner alone (mode 0600)."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_bytes(path, pem, mode=0o600)

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, body: bytes) -> bytes:
        """The signature of `body`, 64 bytes. The same body gives the same signature."""
        return self._key.sign(body)

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, <secret>)"


@dataclass(frozen=True)
class Roster:
    """The pinned public keys of a federation: the server's, and each party's by name.

    Raises `BadKeys` for a name that a party cannot have (empty, `server`, `all`), for a key that
    is not 32 bytes, and for a key that stands there twice: one machine under two names would count
    twice towards a threshold.
    """

    server: bytes
    parties: Mapping[str, bytes]
    _keys: dict[str, Ed25519PublicKey] = field(
        init=False, repr=False, compare=False, default_factory=dict[str, Ed25519PublicKey]
    )

    def __post_init__(self) -> None:
        if not self.parties:
            raise BadKeys("the roster names no party; add each with its public key")
        for name in self.parties:
            fault = _misnamed(name)
            if fault is None and name == SERVER:
                fault = f"a party cannot be called {SERVER!r}, which the server signs under"
            if fault is not None:
                raise BadKeys(f"{fault}; give it another name in the roster")
        keys = {SERVER: self.server, **self.parties}
        owners: dict[bytes, str] = {}
        for name, key in keys.items():
            if key in owners:
                raise BadKeys(
                    f"the roster has one key for {owners[key]!r} and {name!r}; each needs its own"
                )
            owners[key] = name
            self._keys[name] = _public(name, key)
        object.__setattr__(self, "parties", dict(sorted(self.parties.items())))

    def verify(self, name: str, body: bytes, signature: bytes) -> None:
        """Returns where `name` signed `body`. Raises `PartyError` otherwise, and for a name that
        the roster does not have."""
        key = self._keys.get(name)
        if key is None:
            raise PartyError(f"{name!r} is not in the roster; add its public key or refuse it")
        try:
            key.verify(signature, body)
        except InvalidSignature as error:
            raise PartyError(
                f"the signature is not that of {name!r}: the message was changed on its way, or "
                "the roster pins another key; compare the rosters of both sides"
            ) from error

    def digest(self) -> str:
        """SHA-256 of the roster, 64 hex digits: equal exactly where all names and keys are."""
        text = canonical(self.to_json())
        return hashlib.sha256(b"nacre roster\0" + text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The roster as the head of this module has it."""
        parties = {name: key.hex() for name, key in self.parties.items()}
        return {"format": _FORMAT, "server": self.server.hex(), "parties": parties}

    def must_name(self, parties: Sequence[str]) -> None:
        """Raises `BadKeys` where the key of one of these parties is not pinned."""
        missing = [name for name in parties if name not in self.parties]
        if missing:
            raise BadKeys(
                f"the roster has no key of party {missing[0]!r}, which the recipe names; make the "
                "roster with its card"
            )

    @classmethod
    def from_json(cls, value: Any) -> Roster:
        """The roster that `to_json` wrote. Raises `BadKeys` for anything else."""
        entries = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        if entries.keys() != {"format", "server", "parties"}:
            raise BadKeys("a roster has the fields format, server and parties and no others")
        if type(entries["format"]) is not int or entries["format"] != _FORMAT:
            raise BadKeys(f"the roster is not of format {_FORMAT}; write it with this version")
        parties = entries["parties"]
        if not isinstance(parties, dict):
            raise BadKeys("`parties` of the roster is no object of names and keys")
        named = cast(dict[str, Any], parties)
        return cls(
            _from_hex(SERVER, entries["server"]),
            {name: _from_hex(name, key) for name, key in named.items()},
        )


def _misnamed(name: str) -> str | None:
    """Why this is nobody's name, in words."""
    if not name or len(name) > _LONGEST or not name.isprintable():
        return f"a name has 1 to {_LONGEST} printable characters, got {name[: _LONGEST + 1]!r}"
    if name == ALL:
        return f"{ALL!r} addresses every party, so it is nobody's name"
    return None


def _from_hex(name: str, value: Any) -> bytes:
    if isinstance(value, str) and len(value) == 2 * _KEY and value == value.lower():
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise BadKeys(f"the key of {name!r} in the roster is not {2 * _KEY} lower-case hex digits")


def _public(name: str, key: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(key)
    except ValueError as error:
        raise BadKeys(
            f"the key of {name!r} in the roster is not a raw Ed25519 key of {_KEY} bytes"
        ) from error

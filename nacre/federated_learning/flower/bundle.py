"""The app bundle of a run, which says where the installed nacre is entered and holds no program.

Flower wants a bundle for every run, and a stock SuperNode runs what the bundle's `clientapp` names.
Ours names a function of the nacre that the party has installed itself (`ENTRY`), so nothing that
comes from a server is run. A stock SuperNode takes it where `--trusted-entities` lists a key that
has signed it: `Pin` makes a key that signs this one bundle and is forgotten, so the node takes
these bytes and no others. The same bytes come out on every machine.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from nacre.core.errors import BadKeys
from nacre.core.files import read_json

PUBLISHER, PROJECT, VERSION = "nacre", "federation", "1.0.0"
"""By which Flower knows the bundle. The version is that of its contents and not that of nacre."""

ENTRY = "nacre.runs.federation.supernode:app"
"""What a stock SuperNode runs, of the nacre that is installed there."""

_FILES = {
    "pyproject.toml": (
        f'[project]\nname = "{PROJECT}"\nversion = "{VERSION}"\n'
        'description = "Names the installed nacre and holds no program"\n'
        'license = "Apache-2.0"\ndependencies = []\n'
        f'[tool.flwr.app]\npublisher = "{PUBLISHER}"\n'
        f'[tool.flwr.app.components]\nserverapp = "{ENTRY}"\nclientapp = "{ENTRY}"\n'
        "[tool.flwr.app.config]\n"
    )
}


def bundle() -> bytes:
    """The bundle (a FAB of Flower): one file of settings, and the list of its hash. The same bytes
    wherever and whenever it is made."""
    files = {name: text.encode() for name, text in _FILES.items()}
    hashes = [
        f"{name},{hashlib.sha256(data).hexdigest()},{8 * len(data)}" for name, data in files.items()
    ]
    files[".info/CONTENT"] = "\n".join(hashes).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for name, data in files.items():
            about = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
            about.create_system, about.external_attr = 3, 0o644 << 16  # on any machine
            file.writestr(about, data)
    return packed.getvalue()


def bundle_digest(data: bytes) -> str:
    """Hex SHA-256, by which Flower knows a bundle too."""
    return hashlib.sha256(data).hexdigest()


def file_name(data: bytes) -> str:
    """As Flower wants the file of a bundle to be called."""
    return f"{PUBLISHER}.{PROJECT}.{VERSION}.{bundle_digest(data)[:8]}.fab"


@dataclass(frozen=True)
class Pin:
    """A key that signed one bundle, with its signature."""

    key: bytes  # Ed25519, as SSH writes it
    signed_at: int  # seconds since 1970, which Flower's signatures hold
    signature: bytes
    digest: str  # of the bundle, hex

    @classmethod
    def made(cls, data: bytes) -> Pin:
        """A new key's signature. The private key is in no file, so it signs nothing else."""
        key, now = Ed25519PrivateKey.generate(), int(time.time())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(public, now, key.sign(_signed(data, now)), bundle_digest(data))

    @property
    def number(self) -> str:
        """By which Flower knows the key."""
        return f"fpk_{hashlib.sha256(self.key).hexdigest()[:32]}"

    def trusted(self) -> bytes:
        """The file for `--trusted-entities`, which names this key alone."""
        return f"{self.number}: {json.dumps(self.key.decode())}\n".encode()

    def verification(self) -> dict[str, Any]:
        """As a hub of Flower says it to a SuperLink."""
        text = base64.urlsafe_b64encode(self.signature).rstrip(b"=").decode()
        return {"public_key_id": self.number, "signature": text, "signed_at": self.signed_at}

    def to_json(self) -> dict[str, Any]:
        """For the file that goes to the server."""
        return {
            "format": 1,
            "bundle": self.digest,
            "key": self.key.decode(),
            "signed_at": self.signed_at,
            "signature": self.signature.hex(),
        }

    @classmethod
    def load(cls, path: Path, data: bytes) -> Pin:
        """The pin in a file. Raises `BadKeys` for anything else, and for one of another bundle than
        `data`."""
        value: Any = read_json(path)
        facts = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        fields = {"format": int, "bundle": str, "key": str, "signed_at": int, "signature": str}
        if facts.keys() != fields.keys() or any(
            type(facts[name]) is not kind for name, kind in fields.items()
        ):
            raise BadKeys(
                f"{path} is no signature of a bundle; name a file that `nacre federate bundle` "
                "wrote at a party"
            )
        if facts["bundle"] != bundle_digest(data):
            raise BadKeys(
                f"{path} signs the bundle {facts['bundle'][:16]}… and this version of nacre has "
                f"{bundle_digest(data)[:16]}…; run the same version on both sides"
            )
        try:
            pin = cls(
                facts["key"].encode(), facts["signed_at"], bytes.fromhex(facts["signature"]),
                facts["bundle"],
            )  # fmt: skip
            key = load_ssh_public_key(pin.key)
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("its key is not Ed25519")
            key.verify(pin.signature, _signed(data, pin.signed_at))
        except (ValueError, OverflowError, UnsupportedAlgorithm, InvalidSignature) as error:
            said = str(error) or "the signature is not that of its key"
            raise BadKeys(f"{path} does not sign the bundle ({said}); ask for it again") from error
        return pin


def _signed(data: bytes, when: int) -> bytes:
    """What Flower signs of a bundle."""
    return when.to_bytes(8, "big") + hashlib.sha256(data).digest()


def answer_of_hub(address: str, pins: Sequence[Pin]) -> bytes:
    """What a hub answers where a SuperLink asks it for the bundle."""
    return json.dumps(
        {
            "fab_url": f"http://{address}/{PROJECT}.fab",
            "verifications": [pin.verification() for pin in pins],
        }
    ).encode()

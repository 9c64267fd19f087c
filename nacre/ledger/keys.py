"""The keys of a ledger's owner: files outside the ledger, readable by their owner alone.

- The key that sketches of rows are made and encrypted under lies beside a ledger's file, and for a
  database in the owner's configuration folder, where all who record rows need the same one. Who has
  it, and the ledger, can confirm a guess of a row.
- The key that signs heads lies in the owner's configuration folder, or where `--key` says. Who has
  it can sign heads that the owner never saw.

The signing key does not lie beside the ledger: who copies or takes over the ledger's folder would
have both, and a signature would say nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nacre.core.errors import LedgerError
from nacre.core.files import sync_folder


def configuration_folder() -> Path:
    """The owner's configuration folder, `$XDG_CONFIG_HOME/nacre` or `~/.config/nacre`; made, and
    closed to others, where it is absent."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    folder = Path(home) / "nacre"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"the folder {folder} for keys could not be made ({error.strerror or error}); set "
            "XDG_CONFIG_HOME to a folder that can be written"
        ) from error
    return folder


def fingerprint_key(place: Path | str, name: str) -> bytes:
    """The 32 bytes under which a ledger's rows are fingerprinted, made on first use.

    Raises `LedgerError` where they cannot be read or kept.
    """
    if isinstance(place, Path):
        file = place.with_name(f"{place.name}.key")
    else:
        file = configuration_folder() / f"rows-{hashlib.sha256(name.encode()).hexdigest()[:16]}.key"
    return _kept(file, os.urandom(32))


def derived(key: bytes, use: str) -> bytes:
    """32 bytes for one use of a key: what is known of one use tells nothing of another."""
    return hmac.new(key, f"nacre {use}".encode(), hashlib.sha256).digest()


def signing_key(file: Path | None = None) -> Ed25519PrivateKey:
    """The key that signs heads, made on first use.

    Raises `LedgerError` where the file holds something else, or where others may read it.
    """
    file = configuration_folder() / "signing.pem" if file is None else file
    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    text = _kept(file, made)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise LedgerError(
            f"others may read the signing key {file}, so its signatures prove nothing; use a new "
            "key, or `chmod 600` it if nobody has"
        )
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LedgerError(f"{file} is no signing key; name another file with --key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerError(f"{file} holds a key that is not Ed25519; name another file with --key")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half, 32 bytes in hex: what others know a signer by."""
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return key.public_key().public_bytes(*raw).hex()


def _kept(file: Path, made: bytes) -> bytes:
    """What `file` holds; `made`, mode 0600, where there was no file. Never replaces a key.

    It is linked into place whole: of two processes that make it at once, both use the first.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        if not file.exists():
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as opened:
                opened.write(made)
                opened.flush()
                os.fsync(opened.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, file)
            sync_folder(file.parent)
        return file.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"the key {file} could not be kept ({error.strerror or error}); its folder must be "
            "there and writable"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)

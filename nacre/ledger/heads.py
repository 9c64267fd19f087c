"""Signed heads: what is kept elsewhere, to find a ledger that was cut, rolled back or replaced.

A head names the last entry by its hash, and through the chain everything before it. A ledger that
still holds the entry of that hash holds everything that the head saw.

*What the signature adds.* It says who exported the head, so that the head may be kept by somebody
who could alter it (a mail server, a shared folder, a report). The signer's public key is itself an
entry of the ledger (`signer`), written before its first head. What a thief can do, who has

- the ledger: cut it, roll it back, or write another chain with a signer of its own. Any head that
  was kept elsewhere shows it.
- the ledger and the place where heads are kept: put both in place of the true ones. The owner's
  public key shows it (`--signer`), if that is known from elsewhere.
- the signing key: accuse a sound ledger, by a head of entries that never were. The other heads that
  were kept acquit it.
- the ledger, the key and every head: forge it whole. Nothing shows it: keep a head with others.

*Source:* Schneier & Kelsey 1999, "Secure audit logs to support computer forensics": a chain of
hashes, authenticated at points that the logging machine cannot take back. Ed25519: RFC 8032.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from nacre.core.errors import LedgerError
from nacre.core.strict import canonical, parsed
from nacre.ledger.chain import LedgerHead
from nacre.ledger.keys import public_hex

_LABEL = "nacre ledger head, format 1"


@dataclass(frozen=True, kw_only=True)
class SignedHead:
    """A head, and the word of who exported it. All of it is public."""

    first: str
    """Hash of the ledger's first entry, in hex: tells ledgers apart."""
    number: int
    """How many entries there were."""
    hash: str
    """Hash of the last one, in hex."""
    time: str
    """When it was exported, ISO 8601 in UTC; by the signer's clock, nothing depends on it."""
    signer: str
    """Ed25519 public key, in hex."""
    signature: str
    """Ed25519 signature of all the above, in hex."""

    @property
    def head(self) -> LedgerHead:
        """Number and hash alone."""
        return LedgerHead(self.number, self.hash)

    @property
    def genuine(self) -> bool:
        """Whether the signature is the signer's, over these very fields."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.signer))
            key.verify(bytes.fromhex(self.signature), _message(self.to_json()))
        except (ValueError, InvalidSignature):
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        """As `HEAD.json` has it."""
        return asdict(self)


def sign_head(head: LedgerHead, first: str, time: str, key: Ed25519PrivateKey) -> SignedHead:
    """The head with the signature of `key`."""
    unsigned = SignedHead(
        first=first,
        number=head.number,
        hash=head.hash,
        time=time,
        signer=public_hex(key),
        signature="",
    )
    return replace(unsigned, signature=key.sign(_message(unsigned.to_json())).hex())


def kept_head(text: str) -> SignedHead | str:
    """What `--against` names: a file with a signed head, or a hash in hex.

    Raises `LedgerError` where it is neither.
    """
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return text
    try:
        found = parsed(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(
            f"{text} is neither a hash of 64 hex digits nor a file that can be read "
            f"({error.strerror or error}); give one that `nacre ledger head` or a report printed"
        ) from error
    except (ValueError, RecursionError) as error:  # lists a thousand deep are no head either
        raise LedgerError(f"{text} holds no head: it is not JSON") from error
    return _read(text, found)


def _read(name: str, found: object) -> SignedHead:
    known = {field.name: int if field.name == "number" else str for field in fields(SignedHead)}
    if isinstance(found, dict):
        values = cast(dict[str, Any], found)
        if {key: type(value) for key, value in values.items()} == known:
            return SignedHead(**values)
    raise LedgerError(f"{name} holds no head as `nacre ledger head` writes it")


def _message(told: Mapping[str, Any]) -> bytes:
    """What is signed: every field but the signature, under a label of its own."""
    return canonical([_LABEL, {k: v for k, v in told.items() if k != "signature"}]).encode()

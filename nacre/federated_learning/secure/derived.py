"""Keys from keys: HKDF-SHA256, with labels that no other list of labels encodes to."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from nacre.core.errors import PartyError

KeyLabel = str | int | bytes
"""A label of a key: text, a number from 0, or bytes."""


def derived_key(key: bytes, length: int, *labels: KeyLabel) -> bytes:
    """`length` bytes for these labels; what is known of some labels says nothing about others.

    `key` has to be uniform in its 32 bytes, so the expanding half of HKDF is enough.
    Source: Krawczyk & Eronen 2010, RFC 5869.
    """
    info = b"nacre secure sum 1\0" + encoded(*labels)
    return HKDFExpand(SHA256(), length, info).derive(key)


def encoded(*labels: KeyLabel) -> bytes:
    """Labels as bytes, each with its type and its length in front, so they are read in one way."""
    parts: list[bytes] = []
    for label in labels:
        if isinstance(label, bytes):
            kind, body = b"b", label
        elif isinstance(label, str):
            kind, body = b"s", label.encode()
        else:
            kind, body = b"i", str(label).encode()
        parts += (kind, len(body).to_bytes(4, "big"), body)
    return b"".join(parts)


def agreed_key(own: X25519PrivateKey, other: bytes, *labels: KeyLabel) -> bytes:
    """32 bytes that two parties compute alike, each from its own private key and the other's public
    one, where both give the same labels.

    Raises `PartyError` for a public key of low order, whose secret anybody knows.
    """
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise PartyError(
            "a party's key for the secure sum is not a public key of X25519; it has to be made "
            "by this version of nacre"
        ) from error
    # An X25519 secret is a point of a curve and not uniform: the extracting half comes first.
    extracted = _extracted(shared)
    return derived_key(extracted, 32, "agreed", *labels)


def _extracted(secret: bytes) -> bytes:
    from cryptography.hazmat.primitives.hmac import HMAC

    code = HMAC(b"nacre secure sum 1", SHA256())
    code.update(secret)
    return code.finalize()

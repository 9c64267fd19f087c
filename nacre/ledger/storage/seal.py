"""Sketches of rows as the ledger keeps them: encrypted, and of one size.

*Guarantee:* who has the ledger and not the key beside it learns nothing of any row, and not whether
two runs had the same rows: AES-256-GCM under a nonce of its own for each entry, so equal sketches
look as different as others.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nacre.core.errors import LedgerError
from nacre.data.sketches.sketch import Sketch

_NONCE = 12  # bytes
_LABEL = b"nacre sketch, format 3"
_EARLIER = (
    b"nacre sketch, format 1",  # of cells as a dialect read them
    b"nacre sketch, format 2",  # of all parties in the account of each
)


def sealed(key: bytes, sketch: Sketch) -> str:
    """The sketch under `key` (32 bytes), as text; each call gives another."""
    nonce = os.urandom(_NONCE)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, sketch.to_bytes(), _LABEL)).decode()


@lru_cache(maxsize=4096)
def unsealed(key: bytes, text: str, account: str) -> Sketch:
    """What `sealed` gave. Raises `LedgerError`, naming the account, where `key` is another one, and
    for a sketch of the earlier form, which no rows of today can be compared with."""
    try:
        return Sketch.from_bytes(_opened(key, text, _LABEL))
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise LedgerError(
            f"the rows of account {account!r} were recorded by an earlier version of Nacre, in a "
            "form that no rows are compared with any more, so nobody can tell whether these are "
            f"the same; go on under the name {account!r}, or keep other data in another ledger"
            if is_earlier(key, text)
            else f"the rows of account {account!r} were recorded under another key than the one "
            "beside this ledger, so nobody can tell whether these are the same; put back the key "
            "file that belongs to it"
        ) from error


def _opened(key: bytes, text: str, label: bytes) -> bytes:
    data = base64.b64decode(text, validate=True)
    return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], label)


def is_earlier(key: bytes, text: str) -> bool:
    """Whether this is a sketch of an earlier form under `key`."""
    for label in _EARLIER:
        try:
            _opened(key, text, label)
        except (InvalidTag, ValueError, binascii.Error):
            continue
        return True
    return False

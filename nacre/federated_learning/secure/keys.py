"""The secrets of one party, all of them made from one that never leaves it.

    channel key     X25519, of an epoch: agrees on a key with each other party, from which both
                    derive the shares that one holds of the other's secrets
    pair secret     of a round: an element of the field, of which the round's X25519 key is made,
                    which agrees on a mask with each neighbour
    self secret     of a round: an element of the field, of which the self-mask is made

*Guarantee:* what is opened of a round is a pair secret *or* a self secret of that round. Each is
derived from the root by HKDF with its epoch and round, so it says nothing about those of any other
round, about the channel key or about the root; nothing has to be renewed after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nacre.federated_learning.secure.derived import agreed_key, derived_key
from nacre.federated_learning.secure.sharing import BYTES, DRAWN, element

SecretKind = Literal["pair", "self"]
"""Which secret a share is of."""


class EpochKeys:
    """The secrets of one party in one epoch, derived when they are asked for."""

    def __init__(self, name: str, root: bytes, context: tuple[str, str], epoch: int) -> None:
        """`root`: 32 secret bytes. `context`: run and recipe, which every key is bound to."""
        self._name = name
        self._epoch = (*context, epoch)
        self._root = derived_key(root, 32, "root", name, *self._epoch)

    def __repr__(self) -> str:
        return f"EpochKeys({self._name!r}, <secret>)"

    @cached_property
    def channel(self) -> X25519PrivateKey:
        """The key that agrees on shares."""
        return X25519PrivateKey.from_private_bytes(derived_key(self._root, 32, "channel"))

    @property
    def nonce(self) -> bytes:
        """What this party adds to the seed of the graph, 32 bytes."""
        return derived_key(self._root, 32, "nonce")

    def secret(self, kind: SecretKind, number: int) -> int:
        """The secret of a round, an element of the field."""
        return element(derived_key(self._root, DRAWN, "secret", kind, number))

    def share_key(self, other: str, channel: bytes) -> bytes:
        """32 bytes in common with another party, of which shares are derived in either direction;
        with itself, bytes of its own."""
        if other == self._name:
            return derived_key(self._root, 32, "own shares")
        names = sorted((self._name, other))
        return agreed_key(self.channel, channel, "shares", *self._epoch, *names)

    def mask_seeds(
        self,
        number: int,
        publics: Mapping[str, bytes],  # other parties' keys of the round
        asked: bytes,  # digest of the round's request
    ) -> dict[str, bytes]:
        """The seeds of the masks that this party has in common with others in a round."""
        key = round_key(self.secret("pair", number))
        return {
            other: pair_seed(key, public, self._epoch, number, asked, self._name, other)
            for other, public in publics.items()
        }


def round_key(secret: int) -> X25519PrivateKey:
    """The key of a round that its pair secret stands for."""
    return X25519PrivateKey.from_private_bytes(_of(secret, "round key"))


def pair_seed(
    own: X25519PrivateKey,
    other: bytes,
    epoch: tuple[str, str, int],
    number: int,
    asked: bytes,  # digest of the round's request: parties that were sent others share no mask
    *names: str,  # of the two, in any order
) -> bytes:
    """The seed of the mask that two parties have in common, 32 bytes."""
    return agreed_key(own, other, "mask", *epoch, number, asked, *sorted(names))


def self_seed(secret: int) -> bytes:
    """The seed of the mask that a party adds alone, 32 bytes."""
    return _of(secret, "self mask")


def commitment(secret: int) -> bytes:
    """What a self secret that was put together again is compared with, 32 bytes."""
    return _of(secret, "commitment")


def nonce_commitment(nonce: bytes) -> bytes:
    """What a nonce is compared with once it is shown, 32 bytes."""
    return derived_key(nonce, 32, "nonce commitment")


def held_share(key: bytes, kind: SecretKind, number: int, dealer: str, holder: str) -> int:
    """The share that `holder` has of a secret of `dealer`; `key` is the one they have in common."""
    return element(derived_key(key, DRAWN, "share", kind, number, dealer, holder))


def _of(secret: int, use: str) -> bytes:
    return derived_key(secret.to_bytes(BYTES, "big"), 32, use)

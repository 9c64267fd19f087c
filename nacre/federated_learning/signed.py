"""Bytes with their sender's signature over everything that they are about.

An envelope is, in this order:

    magic       15 bytes, "nacre signed 1" and a line feed
    length      4 bytes, big-endian: of the header
    header      JSON in its one canonical form, with exactly the fields of `About`
    body        any bytes
    signature   64 bytes, Ed25519 over "nacre signature\\0", magic, length, header and SHA-256(body)

*Guarantee:* what `verified_body` returns was sent by `about.sender`, as the roster pins it, to
`about.receiver` (or to all), in this run, round and recipe, in this direction and as this kind of
message: the receiver says what it expects, and every field has to be that. The signed bytes parse
in one way only, since the header has a length and one form, and what is left is the body.

*Not covered:* the same message twice within one kind, round and direction. The receiver answers
each of them once (`Party`), so a second copy gets the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from nacre.core.errors import PartyError
from nacre.core.strict import canonical, parsed
from nacre.federated_learning.roster import ALL, Identity, Roster

Direction = Literal["request", "reply"]
"""Which way a message goes: from the server, or back to it."""

LIMIT = 1 << 31
"""Bytes of an envelope, at most, where a receiver sets no smaller limit."""

_MAGIC = b"nacre signed 1\n"
_DOMAIN = b"nacre signature\0"
_SIGNATURE = 64  # bytes
_HEADER = 4096  # bytes at most
_LAST_ROUND = 2**31 - 1
_TEXTS = ("sender", "receiver", "run", "recipe", "direction", "kind")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a message is about, all of it signed."""

    sender: str
    receiver: str
    """A name, or `all`."""
    run: str
    """The run's identifier, the same at every side."""
    round: int
    """Counted from 0."""
    recipe: str
    """Hex digest of the recipe that both sides run."""
    direction: Direction
    kind: str
    """As `train`, or a step of the secure sum."""


def signed_message(body: bytes, about: About, identity: Identity) -> bytes:
    """The envelope of `body`, signed by `identity`, whose name has to be the sender's.

    The same body, `about` and identity give the same bytes. Raises `ValueError` for a sender of
    another name and for a field that `verified_body` would refuse.
    """
    if about.sender != identity.name:
        raise ValueError(f"{identity.name!r} cannot sign as {about.sender!r}")
    header = canonical(asdict(about)).encode()
    _about(header)
    head = _MAGIC + len(header).to_bytes(4, "big") + header
    return b"".join((head, body, identity.sign(_signed(head, body))))


def verified_body(
    data: bytes,
    expected: About,  # of which every field has to be that of the message
    roster: Roster,
    limit: int = LIMIT,  # bytes of the whole envelope
) -> bytes:
    """The body of an envelope. Raises `PartyError` for bytes that are no envelope, that are longer
    than `limit`, that are about anything else than expected, or that the sender did not sign."""
    return bytes(verified_message(data, expected, roster, limit)[0])


def verified_message(
    data: bytes, expected: About, roster: Roster, limit: int = LIMIT
) -> tuple[memoryview, bytes]:  # the body, and SHA-256 of all that was signed
    """As `verified_body`, without a copy of the body; the digest tells messages apart."""
    head, header, body, signature = _parts(data, limit)
    about = _about_or_refused(header)
    for name in About.__dataclass_fields__:
        found, wanted = getattr(about, name), getattr(expected, name)
        if found != wanted and not (name == "receiver" and found == ALL):
            raise PartyError(
                f"a message from {expected.sender!r} was expected and one arrived whose {name} is "
                f"{found!r} instead of {wanted!r}: it was replayed or sent to the wrong place, so "
                "it is refused"
            )
    signed = _signed(head, body)
    roster.verify(about.sender, signed, signature)
    return body, hashlib.sha256(signed).digest()


def message_digest(data: bytes) -> bytes:
    """The digest that `verified_message` gives for these bytes, *not verified*."""
    head, _, body, _ = _parts(data, LIMIT)
    return hashlib.sha256(_signed(head, body)).digest()


def addressed(data: bytes, limit: int = LIMIT) -> About:
    """What an envelope says that it is about, *not verified*: to find what to compare it with.

    Raises `PartyError` for bytes that are no envelope.
    """
    return _about_or_refused(_parts(data, limit)[1])


def enclosed(data: bytes) -> memoryview:
    """The body that an envelope holds, *not verified*. Raises `PartyError` as `addressed` does."""
    return _parts(data, LIMIT)[2]


def _parts(data: bytes, limit: int) -> tuple[bytes, bytes, memoryview, bytes]:
    """(magic, length and header; header; body; signature)"""
    start = len(_MAGIC) + 4
    if len(data) > limit:
        raise PartyError(f"a message of {len(data)} bytes arrived; {limit} are the limit")
    if len(data) < start + _SIGNATURE or not data.startswith(_MAGIC):
        raise _unreadable("it is no signed message of format 1")
    size = int.from_bytes(data[len(_MAGIC) : start], "big")
    if size > _HEADER or len(data) < start + size + _SIGNATURE:
        raise _unreadable("its header has no possible length")
    end = start + size
    view = memoryview(data)[end : len(data) - _SIGNATURE]
    return bytes(data[:end]), bytes(data[start:end]), view, bytes(data[-_SIGNATURE:])


def _about_or_refused(header: bytes) -> About:
    try:
        return _about(header)
    except (ValueError, TypeError) as error:  # decoding errors among them
        raise _unreadable(str(error)) from error


def _about(header: bytes) -> About:
    """The fields of a header. Raises `ValueError` for any that it does not have exactly."""
    if len(header) > _HEADER:
        raise ValueError(f"its header has more than {_HEADER} bytes")
    value = parsed(header)
    if not isinstance(value, dict):
        raise ValueError("its header is no object")
    fields = cast(dict[str, Any], value)
    if fields.keys() != About.__dataclass_fields__.keys():
        raise ValueError(
            f"the fields of its header are not {', '.join(About.__dataclass_fields__)}"
        )
    if any(not isinstance(fields[name], str) or not fields[name] for name in _TEXTS):
        raise ValueError("a field of its header is no text")
    if fields["direction"] not in ("request", "reply"):
        raise ValueError("its direction is neither request nor reply")
    if type(fields["round"]) is not int or not 0 <= fields["round"] <= _LAST_ROUND:
        raise ValueError("its round is no number of a round")
    if canonical(fields).encode() != header:
        raise ValueError("its header is not in its one written form")
    return About(**fields)


def _signed(head: bytes, body: bytes | memoryview) -> bytes:
    """The body enters by its digest: Ed25519 would read megabytes twice."""
    return _DOMAIN + head + hashlib.sha256(body).digest()


def _unreadable(reason: str) -> PartyError:
    return PartyError(
        f"a message arrived that cannot be read ({reason}); run the same version of nacre on both "
        "sides"
    )

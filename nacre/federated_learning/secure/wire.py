"""The bodies of a secure sum's messages: named facts as JSON, and bytes after them.

    length  4 bytes, big-endian: of the facts
    facts   JSON in its one canonical form, with exactly the fields of its kind
    data    bytes, whose meaning and length follow from the kind and the facts

    kind              request: facts, data                   reply: facts, data
    secure.advertise  epoch                                  commitment; keys: 1 + rounds, 32 each
    secure.reveal     epoch members                          nonce
    secure.share      epoch members nonces; advertisements   signature; known values by round
    secure.confirm    epoch signatures                       -
    secure.mask       epoch; a round's request               commitment how; known values, vector
    secure.sign       epoch dropped                          signature
    secure.unmask     epoch dropped signatures               -; shares, 32 bytes each

Each body is in an envelope of `nacre.federated_learning.signed`, whose `round` is the epoch in the
first four kinds. Names of parties are sorted, and so is what belongs to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from nacre.core.errors import PartyError
from nacre.core.strict import canonical, parsed
from nacre.federated_learning.messages import How, how_from_json
from nacre.federated_learning.signed import addressed, enclosed

ADVERTISE = "secure.advertise"
REVEAL = "secure.reveal"
SHARE = "secure.share"
CONFIRM = "secure.confirm"
MASK = "secure.mask"
SIGN = "secure.sign"
UNMASK = "secure.unmask"

_ONCE = (ADVERTISE, REVEAL, SHARE, CONFIRM)

EPOCHS = 16
"""Times that keys are exchanged anew, at most, since a party did not answer while they were."""

Facts = Mapping[str, Any]
"""The JSON of a body."""


def body_of(facts: Facts, *data: bytes) -> bytes:
    """A body; the same facts and data give the same bytes. Parts of data follow each other."""
    text = canonical(facts).encode()
    return b"".join((len(text).to_bytes(4, "big"), text, *data))


def read_body(body: bytes | memoryview, *fields: str) -> tuple[dict[str, Any], memoryview]:
    """(facts, data) of a body with exactly these fields. Raises `PartyError` for anything else."""
    view = memoryview(body)
    size = int.from_bytes(view[:4], "big")
    text = bytes(view[4 : 4 + size])
    try:
        if len(view) < 4 + size:
            raise ValueError("it is cut off")
        value = parsed(text)
        facts = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        if facts.keys() != set(fields):
            raise ValueError(f"its fields are not {', '.join(fields) or 'none'}")
        if canonical(facts).encode() != text:
            raise ValueError("its facts are not in their one written form")
        for name in fields:
            _CHECKS[name](facts[name])
    except (ValueError, TypeError, LookupError) as error:
        raise PartyError(
            f"a message of the secure sum cannot be read ({' '.join(str(error).split())}); run the "
            "same version of nacre on both sides"
        ) from error
    return facts, view[4 + size :]


def is_secure(data: bytes) -> bool:
    """Whether these bytes are a message of a secure sum; not verified."""
    return _kind(data).startswith("secure.")


def carries_release(data: bytes) -> bool:
    """Whether these bytes ask for a party's masked change, or are one; not verified."""
    return _kind(data) == MASK


def exchanges_keys(data: bytes) -> bool:
    """Whether these bytes belong to what is said once, before the first round; not verified."""
    return _kind(data) in _ONCE


def right_of(data: bytes) -> How:
    """By what right the change in a masked reply left its party, as the party says; not verified.

    Raises `PartyError` for other bytes.
    """
    facts, _ = read_body(enclosed(data), "commitment", "how")
    return how_from_json(facts["how"])


def with_lengths(parts: Mapping[str, bytes]) -> bytes:
    """Messages one after the other, sorted by name, with their lengths."""
    found = [len(parts[n]).to_bytes(4, "big") + parts[n] for n in sorted(parts)]
    return b"".join(found)


def split_by(names: list[str], data: memoryview) -> dict[str, bytes]:
    """What `with_lengths` put together, for these sorted names. Raises `PartyError` where it does
    not fit exactly."""
    found: dict[str, bytes] = {}
    place = 0
    for name in names:
        size = int.from_bytes(data[place : place + 4], "big")
        found[name] = bytes(data[place + 4 : place + 4 + size])
        place += 4 + size
    if place != len(data):
        raise PartyError("the advertisements of the other parties are incomplete")
    return found


def _kind(data: bytes) -> str:
    try:
        return addressed(data).kind
    except PartyError:
        return ""


def _hexed(value: Any, size: int) -> None:
    # `fromhex` alone would skip blanks and take capitals.
    if not isinstance(value, str) or bytes.fromhex(value).hex() != value or len(value) != 2 * size:
        raise ValueError(f"{value!r:.80} is not {size} bytes in lower-case hex digits")


def _epoch(value: Any) -> None:
    if type(value) is not int or not 0 <= value < EPOCHS:
        raise ValueError("its epoch is no number of an epoch")


def _texts(value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in cast(list[Any], value)):
        raise ValueError("it has no list of names")
    names = cast(list[str], value)
    if not all(name.isprintable() for name in names):  # half a surrogate pair has no bytes
        raise ValueError("a name is not printable")
    if names != sorted(set(names)):
        raise ValueError("its names are not sorted, or one stands there twice")


def _by_name(check: Callable[[Any], None]) -> Callable[[Any], None]:
    def checked(value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError("it has no object of names")
        for inner in cast(dict[str, Any], value).values():
            check(inner)

    return checked


def _entry(value: Any) -> None:
    if not isinstance(value, list) or len(cast(list[Any], value)) != 2:
        raise ValueError("a member is not its digest and its commitment")
    for inner in cast(list[Any], value):
        _hexed(inner, 32)


def _how(value: Any) -> None:
    how_from_json(value)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "epoch": _epoch,
    "members": _by_name(_entry),
    "nonces": _by_name(lambda value: _hexed(value, 32)),
    "signatures": _by_name(lambda value: _hexed(value, 64)),
    "dropped": _texts,
    "commitment": lambda value: _hexed(value, 32),
    "nonce": lambda value: _hexed(value, 32),
    "signature": lambda value: _hexed(value, 64),
    "how": _how,
}

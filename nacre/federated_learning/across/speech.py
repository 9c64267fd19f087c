"""What server and parties say to each other: the kinds of messages, and what each is bound to.

    hello    request: JSON {"format", "frozen", "nonce", "roster"}    reply: the same bytes
    ask      request: a round's request, as `Party.handle` takes it    reply: what it gives
    end      request: empty, or the last weights, as a round's request reply: empty
    refusal  reply to any of them: a sentence

Every message is an envelope of `signed.py`; its `kind` is the verb with the first 16 bytes of the
SHA-256 of the request's body. So a reply fits one request alone, whatever weights were sent before
in the same round, and a hello, which has a nonce, is not answered by an older one.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, cast

from nacre.core.errors import PartyError
from nacre.core.strict import canonical, parsed
from nacre.federated_learning.roster import SERVER
from nacre.federated_learning.signed import About

HELLO, ASK, END, REFUSAL = "hello", "ask", "end", "refusal"

_FORMAT = 1


def kind_of(verb: str, request: bytes) -> str:
    """The kind of a message about this request, with its verb."""
    return f"{verb} {hashlib.sha256(request).hexdigest()[:32]}"


def verb_of(about: About) -> str:
    """The verb of a message."""
    return about.kind.partition(" ")[0]


def asked(receiver: str, run: str, recipe: str, verb: str, body: bytes) -> About:
    """What the server's message with this body is about."""
    return About(
        sender=SERVER,
        receiver=receiver,
        run=run,
        round=round_of(body) if verb == ASK else 0,
        recipe=recipe,
        direction="request",
        kind=kind_of(verb, body),
    )


def answering(about: About, verb: str | None = None) -> About:
    """What the reply to a message is about, with the same verb or another one."""
    digest = about.kind.partition(" ")[2]
    return replace(
        about,
        sender=about.receiver,
        receiver=about.sender,
        direction="reply",
        kind=f"{verb or verb_of(about)} {digest}",
    )


def greeting(frozen: str, roster: str, nonce: str) -> bytes:
    """The body of a hello: digests of what does not travel (frozen weights) and of the roster."""
    facts = {"format": _FORMAT, "frozen": frozen, "roster": roster, "nonce": nonce}
    return canonical(facts).encode()


def greeted(body: bytes) -> dict[str, str]:
    """What `greeting` wrote. Raises `PartyError` for any other bytes."""
    try:
        value: Any = parsed(body)
    except ValueError as error:
        raise PartyError(f"the server's hello cannot be read ({error})") from error
    facts = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    if facts.keys() != {"format", "frozen", "roster", "nonce"} or facts["format"] != _FORMAT:
        raise PartyError("the server's hello is of another version of nacre; run the same one")
    return {key: str(facts[key]) for key in ("frozen", "roster", "nonce")}


def round_of(request: bytes) -> int:
    """The round that a request names in its header; 0 where it names none.

    Read without its tensors. `Party.handle` reads the whole and judges it.
    """
    try:
        size = int.from_bytes(request[:8], "little")
        facts = parsed(parsed(request[8 : 8 + size])["__metadata__"]["nacre"])
        found = facts["round"]
    except (ValueError, LookupError, TypeError):
        return 0
    return found if type(found) is int and 0 <= found < 2**31 else 0

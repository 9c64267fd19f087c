"""A party's side of a SuperLink: a warm process that answers in place.

Flower's own SuperNode starts Python, and imports torch, for every message; this loop keeps both. It
speaks the same interface with the same key, and no code comes to it.
"""

# Parts of Flower are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.retry import RetryInvoker, constant
from flwr.supernode import fleet_http_connection
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError

from nacre.core.errors import PartyError
from nacre.core.files import write_bytes
from nacre.federated_learning.flower.blob import (
    blob_of,
    put_together,
    records_of,
    silence_flower,
    taken_apart,
)
from nacre.federated_learning.flower.calls import may_pass, unreachable
from nacre.federated_learning.flower.superlink import read_file

Replying = Callable[[bytes], bytes | None]
"""Bytes in, bytes out; None where they are not worth an answer."""


@dataclass(frozen=True, kw_only=True)
class PartyNode:
    """How a party's process reaches the SuperLink."""

    address: str
    """`host:port`"""
    ca: Path | None
    """The certificate of the authority that signed the SuperLink's; None without TLS."""
    key: EllipticCurvePrivateKey | None
    """Whose public key is registered there; None registers a new one, where no key is asked for."""
    number: Path
    """A file that keeps the number that the SuperLink gave to this key."""


def serve(
    node: PartyNode,
    answer: Replying,
    done: Callable[[], bool],
    tell: Callable[[str], None],
    patience: float = 600.0,  # seconds
) -> None:
    """Answers what comes, one message after another, until `done` says so between two of them.

    A SuperLink that goes away is waited for, and joined anew when it is back. Raises `PartyError`
    where it refuses this node from the start, and where it was never reached for `patience`
    seconds; a node that was let in once waits, and `tell` hears of it, since the SuperLink may have
    started anew and its operator admits the nodes again.
    """
    silence_flower()
    known, said = False, ""

    def waits(error: Exception) -> None:
        """Says once that nobody can be reached, until somebody is."""
        nonlocal said
        found = unreachable(node.address, error, "wait")
        if said != found:
            said = found
            tell(f"{found}; it is tried again" + ("" if known else f" for {patience:g} seconds"))

    while not done():
        failed: Exception | None = None
        try:
            with _connected(node, None if known else patience, waits) as connection:
                known, said = True, ""
                try:
                    _answering(connection, answer, done)
                except Exception as error:  # which Flower would log, and go on as if all were well
                    failed = error
        except PartyError as error:
            if not known:
                raise
            if str(error) != said:
                said = str(error)
                tell(f"{said}; it is tried again")
        if failed is not None and not isinstance(failed, httpx.HTTPError):
            raise failed
        if not done():
            time.sleep(_AGAIN)


_AGAIN = 0.5  # seconds
_SOONEST, _LATEST = 0.02, 1.0  # seconds between two questions whether something has come
_PACE = 0.1  # of the time since something came last
_ARRIVES = 600.0  # seconds that the parts of a message may take after its head


def _answering(connection: Any, answer: Replying, done: Callable[[], bool]) -> None:
    _, receive, send, _, _, pull, push, confirm = connection
    last = time.monotonic()
    while not done():
        received = receive()
        if received is None:
            waited = time.monotonic() - last
            time.sleep(min(max(_SOONEST, _PACE * waited), _LATEST))
            continue
        head, tree = received
        run = head.metadata.run_id
        try:
            message = put_together(tree, lambda key, run=run: pull(run, key), _ARRIVES)
        except (ObjectPullError, UnexpectedObjectContentError, ValueError, TypeError, LookupError):
            continue  # what does not arrive whole is asked again by who wants an answer
        confirm(run, tree.object_id)
        blob = blob_of(message)
        reply = answer(blob) if blob is not None else None
        if reply is not None:
            _replied(message, reply, send, push)
        last = time.monotonic()


def _replied(message: Message, reply: bytes, send: Any, push: Any) -> None:
    head, tree, objects = taken_apart(Message(records_of(reply), reply_to=message))
    try:
        wanted, session = send(head, tree, 0.0)
        for key, data in objects.items():
            if key in wanted:
                push(message.metadata.run_id, session, key, data)
    except httpx.HTTPStatusError:
        return  # nobody waits for it any more: that run has ended


@contextmanager
def _connected(
    node: PartyNode, patience: float | None, waits: Callable[[Exception], None]
) -> Generator[Any]:
    """The connection, asked for until `patience` seconds are over (None: for ever); `waits` hears
    why it has to be asked for again. Where a SuperLink takes this node to be there still, since its
    former process was killed, that process is taken off first. Raises `PartyError` where nobody is
    let in or reached."""
    made = _patient(patience, waits)
    fleet_http_connection.make_simple_http_retry_invoker = lambda: made  # pyright: ignore
    keys = None if node.key is None else (node.key, node.key.public_key())
    for last in (False, True):
        try:
            with http_request_response(
                node.address, node.ca is None, _certificate(node), keys
            ) as connection:
                made.max_time = None  # who was let in once waits as long as it takes
                if keys is not None:
                    write_bytes(node.number, str(connection[0]).encode())
                yield connection
                return
        except _Refused as error:
            reason = error.__context__
            if isinstance(reason, (httpx.TransportError, DecodeError)):
                raise PartyError(unreachable(node.address, reason, _BY_HAND)) from error
            if isinstance(reason, httpx.HTTPStatusError) and not _of_keys(reason):
                raise PartyError(
                    f"what listens at {node.address} answers with HTTP status "
                    f"{reason.response.status_code} as no SuperLink of this version does; correct "
                    "`--superlink`, or ask its operator"
                ) from error
            if last or not _left_behind(node):
                raise PartyError(_unknown(node)) from error


def _certificate(node: PartyNode) -> bytes | None:
    return None if node.ca is None else read_file(node.ca, "the certificate of the authority")


def _left_behind(node: PartyNode) -> bool:
    """Takes a former process of this node off the SuperLink; whether there was one."""
    if node.key is None or not node.number.exists():
        return False
    interceptors: list[Any] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(node.key, node.key.public_key()),
    ]
    with FleetHttpClient.from_server_address(
        node.address, node.ca is None, _certificate(node), interceptors=interceptors
    ) as client:
        try:
            client.DeactivateNode(DeactivateNodeRequest(node_id=int(node.number.read_bytes())))
        except (httpx.HTTPError, ValueError):
            return False
    return True


def _unknown(node: PartyNode) -> str:
    return (
        f"the SuperLink at {node.address} refuses this node: its key is not registered there, or "
        "another process speaks for it; send its card to the operator, who runs `nacre federate "
        "admit` with it"
    )


_BY_HAND = "start the same command again"


def _of_keys(error: httpx.HTTPStatusError) -> bool:
    """Whether a SuperLink said so of this node."""
    return FlowerError.from_json(error.response.text) is not None


class _Refused(Exception):
    """Flower would end the process here."""


def _patient(patience: float | None, waits: Callable[[Exception], None]) -> RetryInvoker:
    """Waits for a SuperLink that cannot be reached, and for nothing else; `waits` hears why.

    Flower's own sends this process an interrupt where a SuperLink does not know the node any more.
    """
    return RetryInvoker(
        wait_gen_factory=lambda: constant(_AGAIN),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=patience,
        on_backoff=lambda state: waits(state.exception or ConnectionError()),
        jitter=None,
        should_giveup=lambda error: not may_pass(error),
    )


def _ended(code: int, message: str = "", *_: object) -> NoReturn:
    raise _Refused(message)


# Flower would end the process within five seconds, whatever catches its exit, and interrupt it
# where the SuperLink has started anew.
fleet_http_connection.flwr_exit = _ended  # pyright: ignore[reportPrivateImportUsage]
fleet_http_connection.os = SimpleNamespace(kill=lambda *_: None, getpid=os.getpid)  # pyright: ignore

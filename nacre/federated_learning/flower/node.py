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
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.retry import RetryInvoker, constant
from flwr.supernode import fleet_http_connection
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

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
    node: PartyNode, answer: Replying, done: Callable[[], bool], tell: Callable[[str], None]
) -> None:
    """Answers what comes, one message after another, until `done` says so between two of them.

    A SuperLink that goes away is waited for, and joined anew when it is back. Raises `PartyError`
    where it refuses this node from the start; one that was let in once waits, and `tell` hears of
    it, since the SuperLink may have started anew and its operator admits the nodes again.
    """
    silence_flower()
    known, said = False, ""
    while not done():
        failed: Exception | None = None
        try:
            with _connected(node) as connection:
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
def _connected(node: PartyNode) -> Generator[Any]:
    """The connection. Where a SuperLink takes this node to be there still, since its former process
    was killed, that process is taken off first. Raises `PartyError` where nobody is let in."""
    keys = None if node.key is None else (node.key, node.key.public_key())
    for last in (False, True):
        try:
            with http_request_response(
                node.address, node.ca is None, _certificate(node), keys
            ) as connection:
                if keys is not None:
                    write_bytes(node.number, str(connection[0]).encode())
                yield connection
                return
        except _Refused as error:
            if "certificate" in str(error).lower():
                raise PartyError(unreachable(node.address, error)) from error
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


class _Refused(Exception):
    """Flower would end the process here."""


def _patient() -> RetryInvoker:
    """Waits for a SuperLink that cannot be reached, for as long as it takes, and for nothing else.

    Flower's own sends this process an interrupt where a SuperLink does not know the node any more.
    """
    return RetryInvoker(
        wait_gen_factory=lambda: constant(_AGAIN),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=None,
        jitter=None,
        should_giveup=lambda error: not may_pass(error),
    )


def _ended(code: int, message: str = "", *_: object) -> NoReturn:
    raise _Refused(message)


# Flower would end the process within five seconds, whatever catches its exit, and interrupt it
# where the SuperLink has started anew.
fleet_http_connection.flwr_exit = _ended  # pyright: ignore[reportPrivateImportUsage]
fleet_http_connection.make_simple_http_retry_invoker = _patient  # pyright: ignore
fleet_http_connection.os = SimpleNamespace(kill=lambda *_: None, getpid=os.getpid)  # pyright: ignore

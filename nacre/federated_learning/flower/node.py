"""A party's side of a SuperLink: a warm process that answers in place.

Flower's own SuperNode starts Python, and imports torch, for every message; this loop keeps both. It
speaks the same interface with the same key, and no code comes to it.
"""

# Parts of Flower are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supernode.fleet_http_connection import http_request_response

from nacre.core.errors import PartyError
from nacre.federated_learning.flower.blob import (
    FlowerLog,
    blob_of,
    content,
    put_together,
    taken_apart,
)
from nacre.federated_learning.flower.superlink import read, unreachable

Answer = Callable[[bytes], bytes | None]
"""Bytes in, bytes out; None where they are not worth an answer."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """How a party's process reaches the SuperLink."""

    address: str
    """`host:port`"""
    ca: Path | None
    """The certificate of the authority that signed the SuperLink's; None without TLS."""
    key: EllipticCurvePrivateKey | None
    """Whose public key is registered there; None registers a new one, where no key is asked for."""


def serve(node: Node, answer: Answer, done: Callable[[], bool]) -> None:
    """Answers what comes, one message after another, until `done` says so between two of them.

    A SuperLink that goes away is waited for, and joined anew when it is back. Raises `PartyError`
    where it refuses this node, with what its operator has to do.
    """
    heard = FlowerLog()
    while not done():
        failed: Exception | None = None
        with _connected(node, heard) as connection:
            try:
                _answering(connection, answer, done)
            except Exception as error:  # which Flower would log, and go on as if all were well
                failed = error
        if failed is not None and not isinstance(failed, httpx.HTTPError):
            raise failed
        if failed is not None:
            time.sleep(_AGAIN)  # the SuperLink has started anew and knows no connection


_AGAIN = 0.5  # seconds
_SOONEST, _LATEST = 0.02, 1.0  # seconds between two questions whether something has come
_PACE = 0.1  # of the time since something came last
_ARRIVES = 600.0  # seconds that the parts of a message may take after its head


def _answering(connection: Any, answer: Answer, done: Callable[[], bool]) -> None:
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
    head, tree, objects = taken_apart(Message(content(reply), reply_to=message))
    try:
        wanted, session = send(head, tree, 0.0)
        for key, data in objects.items():
            if key in wanted:
                push(message.metadata.run_id, session, key, data)
    except httpx.HTTPStatusError:
        return  # nobody waits for it any more: that run has ended


@contextmanager
def _connected(node: Node, heard: FlowerLog) -> Generator[Any]:
    keys = None if node.key is None else (node.key, node.key.public_key())
    certificate = None if node.ca is None else read(node.ca, "the certificate of the authority")
    heard.last = ""
    try:
        with http_request_response(node.address, node.ca is None, certificate, keys) as connection:
            yield connection
    except SystemExit as error:  # which is how Flower ends where it is refused
        raise PartyError(_refused(node, heard.last)) from error


def _refused(node: Node, said: str) -> str:
    if "certificate" in said.lower():
        return unreachable(node.address, RuntimeError(said))
    return (
        f"the SuperLink at {node.address} refuses this node: its key is not registered there; send "
        "its public key to the operator, who runs `nacre federate admit` with it"
    )

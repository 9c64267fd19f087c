"""Bytes as a message of Flower: one record with one entry, so three objects travel and not one a
tensor."""

# Parts of Flower are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects

_RECORD, _ENTRY = "nacre", "blob"

MESSAGE_TYPE = "query"
"""As Flower sorts messages; ours are all of one kind, and say of themselves what they are."""


def records_of(blob: bytes) -> RecordDict:
    """The records that carry these bytes."""
    return RecordDict({_RECORD: ConfigRecord({_ENTRY: blob})})


def blob_of(message: Message) -> bytes | None:
    """The bytes that a message carries; None for one that carries anything else, as an error."""
    if not message.has_content() or list(message.content) != [_RECORD]:
        return None
    record = message.content[_RECORD]
    blob = record.get(_ENTRY) if isinstance(record, ConfigRecord) and len(record) == 1 else None
    return blob if isinstance(blob, bytes) else None


def taken_apart(message: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
    """(the head, the tree of its objects, their bytes by id), which go to a SuperLink one by one.
    The head has its id."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        tree = get_object_tree(message)
        objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
        return remove_content_from_message(message), tree, objects


def put_together(
    tree: ObjectTree,
    pull: Callable[[str], bytes],
    seconds: float,  # that the objects may take until they have all arrived
) -> Message:
    """The message whose objects `pull` fetches. Raises Flower's `ObjectPullError` for objects that
    do not arrive in time, and `ValueError` and its like for objects that are no message.

    An object that is not there yet is asked for again after some hundredths of a second; Flower
    itself waits a whole one.
    """
    contents: Mapping[str, bytes] = pull_objects(
        [each.object_id for each in iterate_object_tree(tree)],
        pull,
        max_time=seconds,
        max_tries_per_object=None,
        initial_backoff=0.02,
        backoff_cap=0.25,
    )
    found = inflate_object_from_contents(tree.object_id, dict(contents))
    if not isinstance(found, Message):
        raise ValueError(f"a {type(found).__name__} arrived where a message is due")
    found.metadata.__dict__["_message_id"] = tree.object_id
    return found


def silence_flower() -> None:
    """Keeps Flower's log from the terminal: what matters of it is said in words of our own."""
    log = logging.getLogger("flwr")
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.propagate = False
    log.addHandler(logging.NullHandler())

"""The server's side of a SuperLink: its run, and bytes to and from its nodes.

`nacre train` is itself the process of the run's ServerApp: it takes the run's task from a SuperLink
that was started with `--isolation process`, as Flower's own SuperExec would, and starts no process.
What Flower asks for as an app (its bundle) holds no program: `bundle.py`.
"""

# Parts of Flower are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.app import Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import fab_to_proto, message_from_proto, message_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker
from flwr.supercore.runtime import RuntimeHttpClient

from nacre.core.errors import BadKeys, PartyError
from nacre.federated_learning.flower.blob import (
    MESSAGE_TYPE,
    blob_of,
    put_together,
    records_of,
    silence_flower,
    taken_apart,
)
from nacre.federated_learning.flower.bundle import (
    PROJECT,
    PUBLISHER,
    VERSION,
    Pin,
    answer_of_hub,
    bundle,
    bundle_digest,
)
from nacre.federated_learning.flower.calls import retries, spoken
from nacre.federated_learning.flower.hub import serving

_ARRIVES = 60.0  # seconds that an answer's parts may take after its head
_TTL = 12 * 3600.0  # seconds that the SuperLink keeps a message that nobody fetches


@dataclass(frozen=True, kw_only=True)
class SuperLink:
    """Where a SuperLink listens, and how far it is trusted."""

    address: str
    """`host:port`"""
    ca: Path | None
    """The certificate of the authority that signed the SuperLink's; None without TLS."""
    secret: Path | None = None
    """The file that was given to it as `--superexec-auth-secret-file`."""

    def options(self) -> dict[str, Any]:
        """As Flower's clients take them. Raises `BadKeys` where no certificate is there."""
        if self.ca is None:
            return {"server_address": self.address, "insecure": True, "root_certificates": None}
        return {
            "server_address": self.address,
            "insecure": False,
            "root_certificates": read_file(self.ca, "the certificate of the authority"),
        }


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file. Raises `BadKeys` that says what it should have been."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadKeys(
            f"{what} cannot be read at {path} ({error.strerror or error}); name the file that "
            "`nacre federate keys` made"
        ) from error


class RunOfSuperLink:
    """A run of a SuperLink, from the inside: a `Channel` to its nodes. `leading` opens it.

    Every call ends within `patience` seconds and raises `PartyError` where the SuperLink cannot be
    reached for so long, or does not know this run any more.
    """

    def __init__(
        self, runtime: RuntimeHttpClient, run: int, where: SuperLink, tell: Callable[[str], None]
    ) -> None:
        self._runtime, self._run, self._where = runtime, run, where
        self._tell, self._said = tell, set[int]()
        self._due: dict[str, tuple[ObjectTree, float]] = {}  # answers whose parts are on their way
        self._node = Node(node_id=SUPERLINK_NODE_ID)

    def nodes(self) -> Mapping[int, str]:
        """See `Channel.nodes`."""
        found = spoken(self._where.address, lambda: self._runtime.GetNodes(GetNodesRequest()))
        return {node.node_id: node.last_activated_at for node in found.nodes}

    def push(self, blobs: Mapping[int, bytes]) -> Mapping[str, int]:
        """See `Channel.push`."""
        sent: dict[str, int] = {}
        for node, blob in blobs.items():
            message = make_message(metadata=self._about(node), content=records_of(blob))
            head, tree, objects = taken_apart(message)
            request = PushAppMessagesRequest(
                messages_list=[message_to_proto(head)], message_object_trees=[tree]
            )
            answer = spoken(
                self._where.address, lambda request=request: self._runtime.PushMessages(request)
            )
            if not answer.message_ids or not answer.message_ids[0]:
                continue  # a node that has gone since
            for key in answer.objects_to_push:
                self._push_object(key, objects[key], answer.session_id)
            sent[answer.message_ids[0]] = node
        return sent

    def pull(self, messages: Collection[str]) -> Mapping[str, bytes | None]:
        """See `Channel.pull`."""
        found: dict[str, bytes | None] = {}
        asked = [number for number in messages if number not in self._due]
        if asked:
            request = PullAppMessagesRequest(message_ids=asked)
            answer = spoken(self._where.address, lambda: self._runtime.PullMessages(request))
            for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
                head = message_from_proto(proto)
                number = head.metadata.reply_to_message_id
                if head.has_error():
                    found[number] = None
                    self._explained(head.error.code)
                else:
                    self._due[number] = tree, time.monotonic() + _ARRIVES
        return {**found, **self._arrived(set(messages))}

    def _explained(self, code: int) -> None:
        """Tells once why a stock SuperNode answers by an error. The code is the carrier's word and
        not a party's; what else stands in the error is not shown."""
        if code in _CODES and code not in self._said:
            self._said.add(code)
            self._tell(_CODES[code])

    def _about(self, node: int) -> Metadata:
        return Metadata(
            run_id=self._run,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=_TTL,
            message_type=MESSAGE_TYPE,
        )

    def _push_object(self, key: str, data: bytes, session: str) -> None:
        request = PushObjectRequest(
            node=self._node, run_id=self._run, object_id=key, object_content=data,
            session_id=session,
        )  # fmt: skip
        spoken(self._where.address, lambda: self._runtime.PushObject(request))

    def _arrived(self, messages: Collection[str]) -> Mapping[str, bytes | None]:
        """Of these answers those whose parts are all there; None for one of which a part has not
        arrived in time or is none. What is not there yet is asked for again at the next pull, so
        that nobody waits for one node's objects."""
        found: dict[str, bytes | None] = {}
        for number, (tree, until) in list(self._due.items()):
            if number not in messages:
                continue
            try:
                found[number] = self._blob(tree)
            except ObjectPullError:
                if time.monotonic() < until:
                    continue
                found[number] = None
            except (UnexpectedObjectContentError, ValueError, TypeError, LookupError):
                found[number] = None
            del self._due[number]
        return found

    def _blob(self, tree: ObjectTree) -> bytes | None:
        """The bytes of an answer. Raises `ObjectPullError` where a part of it is not there."""

        pull = make_pull_object_fn_protobuf(self._runtime.PullObject, self._node, self._run)
        message = spoken(self._where.address, lambda: put_together(tree, pull, 0.0))
        received = ConfirmMessageReceivedRequest(
            node=self._node, run_id=self._run, message_object_id=tree.object_id
        )
        with suppress(PartyError):  # the SuperLink would keep it for longer, and no more
            spoken(self._where.address, lambda: self._runtime.ConfirmMessageReceived(received))
        return blob_of(message)


_CODES = {
    ErrorCode.INVALID_FAB: (
        "a SuperNode does not take this run's bundle, since it has no signature that the node's "
        "`--trusted-entities` lists; start anew with the file that `nacre federate bundle` wrote "
        "at that party (`--bundle PARTY.bundle.json --hub HOST:PORT`)"
    ),
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: (
        "a SuperNode could not load what the bundle names: install this version of nacre there"
    ),
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: (
        "a SuperNode gave no answer; its operator reads why on its own terminal"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where a SuperLink asks for the bundle, and who has signed it."""

    address: str
    """`host:port`, which `FLWR_SUPERGRID_API_URL` of the SuperLink names."""
    pins: tuple[Pin, ...]
    """The signatures of the parties with a stock SuperNode."""


@contextmanager
def leading(
    where: SuperLink,
    patience: float = 60.0,
    *,
    hub: Hub | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Generator[RunOfSuperLink]:
    """A run of this SuperLink for as long as the block runs; ended there when the block ends.

    Calls that cannot be made are made again for `patience` seconds. With `hub` the bundle has the
    signatures that stock SuperNodes ask for. Raises `PartyError` where the SuperLink refuses the
    run, or gives its task to another process.
    """
    silence_flower()
    again = retries(patience)
    run = _started(where, again, hub)
    token = _token(where, run, again)
    runtime = RuntimeHttpClient.from_server_address(
        **where.options(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
            RuntimeTokenHttpInterceptor(token=token),
        ],
        retry_invoker=again,
    )
    beats = HeartbeatSender(lambda: _alive(runtime))
    try:
        beats.start()
        spoken(where.address, lambda: runtime.PullTaskInput(PullTaskInputRequest()))
        output = PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="interrupted")
        try:
            yield RunOfSuperLink(runtime, run, where, tell)
            output = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details="")
        finally:
            again.max_tries = 1
            with suppress(PartyError):
                spoken(where.address, lambda: runtime.PushTaskOutput(output))
    finally:
        if beats.is_running:
            beats.stop()
        runtime.close()


def _started(where: SuperLink, again: RetryInvoker, hub: Hub | None) -> int:
    """The number of a new run."""
    data = bundle()
    with ExitStack() as open_, _control(where, again) as control:
        if hub is None:
            request = StartRunRequest(fab=fab_to_proto(Fab(bundle_digest(data), data, {})))
        else:
            open_.enter_context(serving(hub.address, answer_of_hub(hub.address, hub.pins), data))
            request = StartRunRequest(app_spec=f"@{PUBLISHER}/{PROJECT}=={VERSION}")
        try:
            started = spoken(where.address, lambda: control.StartRun(request))
        except PartyError as error:
            if hub is None or not isinstance(error.__cause__, httpx.HTTPStatusError):
                raise
            raise PartyError(
                f"{error}; for `--bundle` start the SuperLink with "
                f"`FLWR_SUPERGRID_API_URL=http://{hub.address}/v1` in its environment"
            ) from error
    if not started.run_id:
        raise PartyError(f"the SuperLink at {where.address} started no run; its log says why")
    return int(started.run_id)


def register(where: SuperLink, keys: Mapping[str, bytes], patience: float = 60.0) -> list[str]:
    """Registers nodes at a SuperLink: `keys` are public keys by name, ECDSA as SSH writes them.
    Returns the names of those that it did not have yet."""
    silence_flower()
    new: list[str] = []
    with _control(where, retries(patience)) as control:
        listed = spoken(where.address, lambda: control.ListNodes(ListNodesRequest()))
        known = {bytes(node.public_key) for node in listed.nodes_info}
        for name, line in keys.items():
            key = load_ssh_public_key(line).public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
            if key not in known:
                request = RegisterNodeRequest(public_key=key, name=name)
                spoken(where.address, lambda request=request: control.RegisterNode(request))
                new.append(name)
    return new


@contextmanager
def _control(where: SuperLink, again: RetryInvoker) -> Generator[ControlHttpClient]:
    client = ControlHttpClient.from_server_address(
        **where.options(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        retry_invoker=again,
    )
    try:
        yield client
    finally:
        client.close()


def _token(where: SuperLink, run: int, again: RetryInvoker) -> str:
    """The token of the run's task, of which a SuperLink gives each to one process alone."""
    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="SuperExec")]
    if where.secret is not None:
        secret = read_file(where.secret, "the secret of the SuperLink")
        method = "/flwr.proto.Runtime/AcquireTask"
        interceptors.append(
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=[method])
        )
    client = RuntimeHttpClient.from_server_address(
        **where.options(), interceptors=interceptors, retry_invoker=again
    )
    try:
        asked = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        for _ in range(_TASKS):
            found = spoken(where.address, lambda: client.AcquireTask(asked))
            if found.HasField("task") and found.task.run_id == run:
                return str(found.token)
            if not found.HasField("task"):
                break
    finally:
        client.close()
    raise PartyError(
        f"the SuperLink at {where.address} gave this run to another process; start it with "
        "`--isolation process`, so that it starts none itself, and lead one run at a time"
    )


_TASKS = 64  # of other runs, dead ones, that may stand before ours


def _alive(runtime: RuntimeHttpClient) -> bool:
    """A heartbeat. That the SuperLink has given up on the run shows at the next call."""
    with suppress(httpx.HTTPError):
        runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    return True

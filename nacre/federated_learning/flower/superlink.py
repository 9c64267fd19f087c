"""The server's side of a SuperLink: its run, and bytes to and from its nodes.

`nacre train` is itself the process of the run's ServerApp: it takes the run's task from a SuperLink
that was started with `--isolation process`, as Flower's own SuperExec would, and starts no process.
What Flower asks for as an app (its bundle) is inert: three lines that nobody runs.
"""

# Parts of Flower are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.app import Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
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
from flwr.supercore.error import FlowerError
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
from flwr.supercore.retry import RetryInvoker, constant
from flwr.supercore.runtime import RuntimeHttpClient

from nacre.core.errors import NacreError, PartyError
from nacre.federated_learning.flower.blob import (
    MESSAGE_TYPE,
    blob_of,
    put_together,
    records_of,
    silence_flower,
    taken_apart,
)

Result = TypeVar("Result")

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
        """As Flower's clients take them. Raises `NacreError` where no certificate is there."""
        if self.ca is None:
            return {"server_address": self.address, "insecure": True, "root_certificates": None}
        return {
            "server_address": self.address,
            "insecure": False,
            "root_certificates": read_file(self.ca, "the certificate of the authority"),
        }


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file. Raises `NacreError` that says what it should have been."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise NacreError(
            f"{what} cannot be read at {path} ({error.strerror or error}); name the file that "
            "`nacre federate keys` made"
        ) from error


class RunOfSuperLink:
    """A run of a SuperLink, from the inside: a `Channel` to its nodes. `leading` opens it.

    Every call ends within `patience` seconds and raises `PartyError` where the SuperLink cannot be
    reached for so long, or does not know this run any more.
    """

    def __init__(self, runtime: RuntimeHttpClient, run: int, where: SuperLink) -> None:
        self._runtime, self._run, self._where = runtime, run, where
        self._node = Node(node_id=SUPERLINK_NODE_ID)

    def nodes(self) -> Mapping[int, str]:
        """See `Channel.nodes`."""
        found = _told(self._where, lambda: self._runtime.GetNodes(GetNodesRequest()))
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
            answer = _told(self._where, lambda request=request: self._runtime.PushMessages(request))
            if not answer.message_ids or not answer.message_ids[0]:
                continue  # a node that has gone since
            for key in answer.objects_to_push:
                self._push_object(key, objects[key], answer.session_id)
            sent[answer.message_ids[0]] = node
        return sent

    def pull(self, messages: Collection[str]) -> Mapping[str, bytes | None]:
        """See `Channel.pull`."""
        if not messages:
            return {}
        request = PullAppMessagesRequest(message_ids=list(messages))
        answer = _told(self._where, lambda: self._runtime.PullMessages(request))
        found: dict[str, bytes | None] = {}
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            head = message_from_proto(proto)
            number = head.metadata.reply_to_message_id
            found[number] = self._blob(tree) if not head.has_error() else None
        return found

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
        _told(self._where, lambda: self._runtime.PushObject(request))

    def _blob(self, tree: ObjectTree) -> bytes | None:
        """The bytes of an answer; None for an answer of which a part never arrives."""

        pull = make_pull_object_fn_protobuf(self._runtime.PullObject, self._node, self._run)
        try:
            message = _told(self._where, lambda: put_together(tree, pull, _ARRIVES))
        except (ObjectPullError, UnexpectedObjectContentError, ValueError, TypeError, LookupError):
            return None
        received = ConfirmMessageReceivedRequest(
            node=self._node, run_id=self._run, message_object_id=tree.object_id
        )
        with suppress(PartyError):  # the SuperLink would keep it for longer, and no more
            _told(self._where, lambda: self._runtime.ConfirmMessageReceived(received))
        return blob_of(message)


@contextmanager
def leading(where: SuperLink, patience: float = 60.0) -> Generator[RunOfSuperLink]:
    """A run of this SuperLink for as long as the block runs; ended there when the block ends.

    Calls that cannot be made are made again for `patience` seconds. Raises `PartyError` where the
    SuperLink refuses the run, or gives its task to another process.
    """
    silence_flower()
    retries = _retries(patience)
    with _control(where, retries) as control:
        started = _told(where, lambda: control.StartRun(StartRunRequest(fab=fab_to_proto(_app()))))
    if not started.run_id:
        raise PartyError(f"the SuperLink at {where.address} started no run; its log says why")
    token = _token(where, int(started.run_id), retries)
    runtime = RuntimeHttpClient.from_server_address(
        **where.options(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
            RuntimeTokenHttpInterceptor(token=token),
        ],
        retry_invoker=retries,
    )
    beats = HeartbeatSender(lambda: _alive(runtime))
    try:
        beats.start()
        _told(where, lambda: runtime.PullTaskInput(PullTaskInputRequest()))
        output = PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="interrupted")
        try:
            yield RunOfSuperLink(runtime, int(started.run_id), where)
            output = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details="")
        finally:
            retries.max_tries = 1
            with suppress(PartyError):
                _told(where, lambda: runtime.PushTaskOutput(output))
    finally:
        if beats.is_running:
            beats.stop()
        runtime.close()


def register(where: SuperLink, keys: Mapping[str, bytes], patience: float = 60.0) -> list[str]:
    """Registers nodes at a SuperLink: `keys` are public keys by name, ECDSA as SSH writes them.
    Returns the names of those that it did not have yet."""
    silence_flower()
    new: list[str] = []
    with _control(where, _retries(patience)) as control:
        listed = _told(where, lambda: control.ListNodes(ListNodesRequest()))
        known = {bytes(node.public_key) for node in listed.nodes_info}
        for name, line in keys.items():
            key = load_ssh_public_key(line).public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
            if key not in known:
                request = RegisterNodeRequest(public_key=key, name=name)
                _told(where, lambda request=request: control.RegisterNode(request))
                new.append(name)
    return new


@contextmanager
def _control(where: SuperLink, retries: RetryInvoker) -> Generator[ControlHttpClient]:
    client = ControlHttpClient.from_server_address(
        **where.options(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        retry_invoker=retries,
    )
    try:
        yield client
    finally:
        client.close()


def _token(where: SuperLink, run: int, retries: RetryInvoker) -> str:
    """The token of the run's task, of which a SuperLink gives each to one process alone."""
    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="SuperExec")]
    if where.secret is not None:
        secret = read_file(where.secret, "the secret of the SuperLink")
        method = "/flwr.proto.Runtime/AcquireTask"
        interceptors.append(
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=[method])
        )
    client = RuntimeHttpClient.from_server_address(
        **where.options(), interceptors=interceptors, retry_invoker=retries
    )
    try:
        asked = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        for _ in range(_TASKS):
            found = _told(where, lambda: client.AcquireTask(asked))
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


def _retries(patience: float) -> RetryInvoker:
    return RetryInvoker(
        wait_gen_factory=lambda: constant(0.5),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=patience,
        jitter=None,
        should_giveup=lambda error: not may_pass(error),
    )


def may_pass(error: Exception) -> bool:
    """Whether another try may do better."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (502, 503, 504)
    return not any(word in str(error).lower() for word in ("certificate", "ssl", "tls"))


def _told(where: SuperLink, call: Callable[[], Result]) -> Result:
    """What the call gives. Raises `PartyError` for what httpx and Flower raise of a SuperLink that
    refuses or is not there."""
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise PartyError(_refused(where, error)) from error
    except httpx.TransportError as error:
        raise PartyError(unreachable(where.address, error)) from error


def _refused(where: SuperLink, error: httpx.HTTPStatusError) -> str:
    status = error.response.status_code
    told = FlowerError.from_json(error.response.text)
    reason = told.message if told is not None else f"HTTP status {status}"
    if status in (401, 403):
        return (
            f"the SuperLink at {where.address} does not know this run any more ({reason}), as "
            "after a restart; continue with `--resume`, which starts a run of its own there"
        )
    return f"the SuperLink at {where.address} refuses ({reason}); its log says more"


def unreachable(address: str, error: Exception) -> str:
    """Why a SuperLink cannot be reached, and what to do."""
    said = " ".join(str(error).split())
    if "certificate" in said.lower():
        return (
            f"the SuperLink at {address} does not prove to be the one that `--ca` vouches for "
            f"({said}); name the authority that its certificate was signed by, and an address that "
            "the certificate is for"
        )
    return (
        f"the SuperLink at {address} cannot be reached ({said or type(error).__name__}); see that "
        "it runs and that the firewall lets its port through, then continue with `--resume`"
    )


def _app() -> Fab:
    """The bundle that Flower asks for. It is inert: nobody runs it, and it would only say so."""
    config = (
        '[project]\nname = "nacre"\nversion = "1.0.0"\n'
        "dependencies = []\n"
        '[tool.flwr.app]\npublisher = "nacre"\n'
        '[tool.flwr.app.components]\nserverapp = "inert:app"\nclientapp = "inert:app"\n'
        "[tool.flwr.app.config]\n"
    )
    code = 'raise SystemExit("this bundle is inert: nacre runs as a process of its own")\n'
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, text in {"pyproject.toml": config, "inert.py": code}.items():
            file.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), text)
    data = packed.getvalue()
    return Fab(hashlib.sha256(data).hexdigest(), data, {})

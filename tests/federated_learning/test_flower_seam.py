"""What is used of Flower, some of it internal: where it has changed, this says what and where."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from nacre.core.errors import Refusal
from nacre.federated_learning import flower
from nacre.federated_learning.flower import PINNED, require_flower

ROOT = Path(__file__).parents[2]

USED = {
    "flwr.supernode.fleet_http_connection": {
        "http_request_response": [
            "server_address", "insecure", "root_certificates", "authentication_keys", "max_retries",
            "max_wait_time",
        ],
    },
    "flwr.supercore.inflatable.inflatable_utils": {
        "pull_objects": [
            "object_ids", "pull_object_fn", "max_concurrent_pulls", "max_time",
            "max_tries_per_object", "initial_backoff", "backoff_cap",
        ],
        "inflate_object_from_contents": [
            "object_id", "object_contents", "keep_object_contents", "objects",
        ],
    },
    "flwr.supercore.inflatable.inflatable_object": {
        "get_object_tree": ["obj"], "get_all_nested_objects": ["obj"],
        "iterate_object_tree": ["tree"], "no_object_id_recompute": [],
    },
    "flwr.supercore.inflatable.inflatable_protobuf_utils": {
        "make_pull_object_fn_protobuf": ["pull_object_protobuf", "node", "run_id"],
    },
    "flwr.app.message": {
        "make_message": ["metadata", "content", "error"],
        "remove_content_from_message": ["message"],
    },
}  # fmt: skip

CLIENTS = {
    "flwr.supercore.runtime.RuntimeHttpClient": (
        "AcquireTask", "PullTaskInput", "PushTaskOutput", "SendTaskHeartbeat", "GetNodes",
        "PushMessages", "PullMessages", "PushObject", "PullObject", "ConfirmMessageReceived",
    ),
    "flwr.supercore.control.ControlHttpClient": ("StartRun", "RegisterNode", "ListNodes"),
}  # fmt: skip


def test_the_installed_version_is_the_one_that_is_spoken_to() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["flower"] == [f"flwr=={PINNED}"]
    assert version("flwr") == PINNED, "Flower has changed: go through USED, CLIENTS and the stories"


@pytest.mark.parametrize("module", USED)
def test_the_internal_functions_take_what_they_took(module: str) -> None:
    found = importlib.import_module(module)
    for name, parameters in USED[module].items():
        now = list(inspect.signature(getattr(found, name)).parameters)
        assert now == parameters, f"{module}.{name} has changed: mend nacre's folder `flower`"


@pytest.mark.parametrize("path", CLIENTS)
def test_the_clients_have_the_methods_that_are_called(path: str) -> None:
    module, _, name = path.rpartition(".")
    client = getattr(importlib.import_module(module), name)
    missing = [method for method in CLIENTS[path] if not hasattr(client, method)]
    assert not missing, f"{path} has changed: mend nacre's folder `flower`"


def test_what_a_node_gets_of_its_connection() -> None:
    """Eight things in this order; `node.py` unpacks them."""
    connection = importlib.import_module("flwr.supernode.fleet_http_connection")
    source = inspect.getsource(connection.http_request_response)
    given = source[source.index("yield (") :].split(")")[0]
    assert [word.strip() for word in given.removeprefix("yield (").split(",") if word.strip()] == [
        "node.node_id", "receive", "send", "get_run", "get_fab", "pull_object", "push_object",
        "confirm_message_received",
    ]  # fmt: skip


def test_what_is_put_in_place_of_flowers_own_ends_is_still_called() -> None:
    """`node.py` takes three names of the module: one that ends the process, one that makes its
    retries, and `os`, by which it interrupts itself."""
    connection = importlib.import_module("flwr.supernode.fleet_http_connection")
    source = inspect.getsource(connection.http_request_response)
    for call in ("flwr_exit(", "make_simple_http_retry_invoker()", "os.kill(os.getpid()"):
        assert source.count(call) == 1, f"{call} has changed: mend nacre's folder `flower`"


def test_a_blob_is_three_objects() -> None:
    """One record with one entry, whatever it holds; its bytes are not blown up."""
    from flwr.app import Metadata
    from flwr.app.message import make_message

    from nacre.federated_learning.flower.blob import blob_of, put_together, records_of, taken_apart

    blob = bytes(range(256)) * 4000
    about = Metadata(1, "", 1, 2, "", "", 1.8e9, 60.0, "query")
    head, tree, objects = taken_apart(make_message(metadata=about, content=records_of(blob)))
    assert len(objects) == 3 and head.metadata.message_id == tree.object_id
    assert sum(map(len, objects.values())) < len(blob) + 1000
    message = put_together(tree, objects.__getitem__, 5.0)
    assert blob_of(message) == blob


def test_another_version_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    require_flower()
    monkeypatch.setattr(flower, "PINNED", "0.9")
    with pytest.raises(Refusal, match=r"speaks to 0\.9.*install `nacre\[flower\]`"):
        require_flower()

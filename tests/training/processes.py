"""Several processes as `torchrun` starts them: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from nacre.training.devices.group import Group, join
from tests.forks import served

PATIENCE = 120.0
"""Seconds after which a process that says nothing has failed its test."""


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What `torchrun` tells a process."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def several(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(group, *arguments)` gives in each of `size` processes, by rank; "died" for one
    that did before it could say."""
    context = served()
    port = free_port()
    ends: list[Connection] = []
    processes = []
    for rank in range(size):
        ours, theirs = context.Pipe(duplex=False)
        told = (theirs, variables(rank, size, port), work, arguments)
        process = context.Process(target=_process, args=told)
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    found = [_heard(end) for end in ends]
    for process in processes:
        process.join()
    return found


def _heard(end: Connection) -> Any:
    assert end.poll(PATIENCE), "a process says nothing"
    try:
        fine, value = _read(end.recv_bytes())
    except EOFError:
        return "died"
    assert fine, value
    return value


def _threads_of_the_group() -> list[str]:
    names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if "gloo" in name]


def _process(
    end: Connection, told: dict[str, str], work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(told)
    try:
        with join() as group:
            found = True, work(group, *arguments)
        left = _threads_of_the_group()
        assert not left, f"threads outlive the group, and may abort the process at its end: {left}"
    except BaseException:
        found = False, traceback.format_exc()
    # As bytes: torch would send tensors as handles, which end with the process.
    end.send_bytes(_written(found))


def _written(value: Any) -> bytes:
    """Plain values as JSON, the tensors among them behind it as safetensors."""
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_plain(value, tensors)).encode()
    return len(text).to_bytes(8) + text + safetensors.torch.save(tensors)


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """What JSON has no form for as [its kind, what it holds]."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value.detach().clone().contiguous()
        return ["tensor", str(len(tensors) - 1)]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [_plain(part, tensors) for part in value]]
    if isinstance(value, dict):
        return ["dict", [[_plain(k, tensors), _plain(v, tensors)] for k, v in value.items()]]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, Path):
        return ["path", str(value)]
    raise TypeError(f"a {type(value).__name__} does not pass between processes; send its parts")


def _read(data: bytes) -> Any:
    end = 8 + int.from_bytes(data[:8])
    return _whole(json.loads(data[8:end]), safetensors.torch.load(data[end:]))


def _whole(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value that `_plain` made this of."""
    if not isinstance(value, list):
        return value
    kind, held = value
    if kind == "dict":
        return {_whole(k, tensors): _whole(v, tensors) for k, v in held}
    if kind in ("list", "tuple"):
        parts = [_whole(part, tensors) for part in held]
        return parts if kind == "list" else tuple(parts)
    simple: dict[str, Callable[[str], Any]] = {
        "tensor": tensors.__getitem__,
        "bytes": bytes.fromhex,
        "path": Path,
    }
    return simple[kind](held)


def raised(work: Callable[[], Any]) -> tuple[str, str]:
    """The kind and the sentence of the error that `work` raises."""
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", "nothing"


__all__ = ["Group", "free_port", "raised", "several", "variables"]

"""The processes of one run, as `torchrun` starts them: who writes, and how all of them agree.

One process is a group of its own, so nothing above asks how many there are. Where there are
several, the first alone writes (ledger, checkpoints, model) and the others go on when it has; what
fails anywhere ends all of them, with one sentence, told by the first.

*Trust:* the processes are one party. Weights, sums of private gradients and the run's key travel
between them as they are, unencrypted: use machines and a network that may see the rows.
"""

# torch.distributed is untyped.
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nacre.core.errors import Elsewhere, NacreError, RunError
from nacre.core.types import Tensors

T = TypeVar("T")

_TYPES = {
    str(kind): kind
    for kind in (
        torch.float64, torch.float32, torch.bfloat16, torch.float16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip

_PATIENCE = timedelta(days=7)
"""How long one process waits for another. One that died closes its connections, which is seen at
once; one that works may take as long as it needs."""


_REMEDY = "give all of them the same files, versions and kind of processor"


class Group:
    """One process that runs alone; what several do is in `_Several`."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def on_rank_zero(self, work: Callable[[], T], otherwise: T) -> T:
        """What `work` gives in the first process, and `otherwise` in the others once it is done.

        An error in the first is raised in all, in the others as `Elsewhere`.
        """
        return work()

    def broadcast(self, work: Callable[[], Any]) -> Any:
        """What `work` gives in the first process, in all of them; it must be JSON."""
        return work()

    def all_or_raise(self, work: Callable[[], T]) -> T:
        """What `work` gives in each process, once it is done in all of them.

        Where it fails anywhere, all raise: the first process the error itself, or a `NacreError`
        that names the process; the others `Elsewhere`.
        """
        return work()

    def require_equal(self, what: str, value: bytes, remedy: str = _REMEDY) -> None:
        """Raises `RunError` in all processes unless `value` (32 bytes) is the same in all."""

    def broadcast_tensors(self, tensors: Tensors) -> Tensors:
        """The tensors of the first process, in all of them; what others pass is not read."""
        return tensors

    def all_to_all(
        self,
        sent: Tensor,  # the pieces for rank 0, 1, …, one after another
        sizes: Sequence[int],  # numbers in the piece for each rank
        heard: Sequence[int],  # numbers that come from each rank
    ) -> Tensor:  # the pieces from rank 0, 1, …
        """Each process' piece for each other one."""
        return sent

    def all_gather(self, piece: Tensor) -> Tensor:
        """The pieces of all processes, which have one length, by rank."""
        return piece


class _Several(Group):
    """A process of a group of `torch.distributed`, which has been opened.

    What is said goes by gloo, from the memory of the processor, also between models on
    accelerators: one way of adding, so the same bits.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._by: dist.ProcessGroup | None = None  # the group that is open
        if "cpu:gloo" not in str(dist.get_backend_config()):  # nccl carries no processor's memory
            beside: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
            self._by = beside

    def on_rank_zero(self, work: Callable[[], T], otherwise: T) -> T:
        value = otherwise
        own: Exception | None = None
        if self.first:
            try:
                value = work()
            except Exception as error:
                own = error
        self._raise([self._tell(b"" if own is None else _failure(own))], own)
        return value

    def broadcast(self, work: Callable[[], Any]) -> Any:
        said: list[bytes] = []
        self.on_rank_zero(lambda: said.append(json.dumps(work()).encode()), None)
        return json.loads(self._tell(said[0] if said else b""))

    def all_or_raise(self, work: Callable[[], T]) -> T:
        own: Exception | None = None
        value: list[T] = []
        try:
            value.append(work())
        except Exception as error:
            own = error
        self._raise(self._all(b"" if own is None else _failure(own)), own)
        return value[0]

    def require_equal(self, what: str, value: bytes, remedy: str = _REMEDY) -> None:
        if any(other != value for other in self._all(value)):
            self.all_or_raise(lambda: _differ(what, remedy))

    def broadcast_tensors(self, tensors: Tensors) -> Tensors:
        plain = {name: value.detach().contiguous() for name, value in tensors.items()}
        like = {name: [str(t.dtype), list(t.shape)] for name, t in plain.items()}
        told = self.broadcast(lambda: like)
        if not self.first:
            plain = {n: torch.empty(shape, dtype=_TYPES[kind]) for n, (kind, shape) in told.items()}
        with connected():
            for tensor in plain.values():
                if tensor.numel():
                    dist.broadcast(tensor.view(-1).view(torch.uint8), 0, self._by)
        return plain

    def all_to_all(self, sent: Tensor, sizes: Sequence[int], heard: Sequence[int]) -> Tensor:
        received = torch.empty(sum(heard), dtype=sent.dtype)
        with connected():
            dist.all_to_all_single(received, sent, list(heard), list(sizes), self._by)
        return received

    def all_gather(self, piece: Tensor) -> Tensor:
        sizes = [len(piece)] * self.size  # gloo's own gather takes three times as long
        return self.all_to_all(piece.repeat(self.size), sizes, sizes)

    def _tell(self, message: bytes) -> bytes:
        """The first process' bytes, in all processes."""
        with connected():
            length = torch.tensor([len(message)])
            dist.broadcast(length, 0, self._by)
            text = _bytes(message) if self.first else torch.empty(int(length), dtype=torch.uint8)
            if len(text):
                dist.broadcast(text, 0, self._by)
        return text.numpy().tobytes()

    def _all(self, message: bytes) -> list[bytes]:
        """The bytes of every process, by rank."""
        with connected():
            lengths = torch.empty(self.size, dtype=torch.int64)
            dist.all_gather_single(lengths, torch.tensor([len(message)]), self._by)
            widest = int(lengths.max())
            if not widest:
                return [b""] * self.size
            texts = torch.empty(self.size * widest, dtype=torch.uint8)
            dist.all_gather_single(texts, _bytes(message.ljust(widest)), self._by)
        texts = texts.view(self.size, widest).numpy()
        return [texts[rank, : int(lengths[rank])].tobytes() for rank in range(self.size)]

    def _raise(self, failures: list[bytes], own: Exception | None) -> None:
        """Raises where one of these is not empty; failures[r] is that of rank r."""
        for rank, told in enumerate(failures):
            if not told:
                continue
            sentence, exit_code = json.loads(told)
            if self.first and rank:
                error = NacreError(f"process {rank}: {sentence}")
                error.exit_code = exit_code
                raise error
            if self.first and own is not None:
                raise own
            raise Elsewhere(sentence, exit_code) from own


def _bytes(message: bytes) -> Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else torch.empty(0)


def _failure(error: Exception) -> bytes:
    """What the other processes are told of an error: a sentence and an exit code."""
    if isinstance(error, NacreError):
        return json.dumps([str(error), error.exit_code]).encode()
    return json.dumps([f"{type(error).__name__}: {error}", NacreError.exit_code]).encode()


def _differ(what: str, remedy: str) -> None:
    raise RunError(
        f"the processes of this run do not agree on {what}, so their sums would not belong "
        f"together; {remedy}"
    )


@contextmanager
def connected() -> Generator[None]:
    """Turns the loss of a connection, inside the block, into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if "/gloo/" not in str(error) and not isinstance(error, dist.DistError):
            raise  # gloo names the file of its own that lost the connection
        raise NacreError(
            "another process of this run has ended, so the others cannot go on; what it said "
            "tells why, and what was released stays charged: start them again with `--resume`, or "
            "a script of your own with `resume=True`"
        ) from error


@contextmanager
def join() -> Generator[Group]:
    """The group that this process belongs to, by the variables that `torchrun` sets.

    A process that `torchrun` did not start is alone. A group that is open already is used and
    left open. Raises `RunError` where the others cannot be reached.
    """
    if dist.is_initialized():
        yield _Several() if dist.get_world_size() > 1 else Group()
        return
    if not several():
        yield Group()
        return
    # Imported later, its functions would take the open group for a default and keep it: its threads
    # would outlive the interpreter and now and then end the process with an abort.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the processes of this run cannot find each other ({str(error).splitlines()[0]}); "
            "start them with `torchrun --nproc_per_node N -m nacre train …`, or with your script"
        ) from error
    try:
        yield _Several()
    finally:
        if dist.is_initialized():  # a script of somebody's may have closed it
            dist.destroy_process_group()
        _forget()


def join_until_exit() -> Group:
    """The group of a script of one's own, as `join` gives it; what it opens stays open until the
    interpreter ends, since a script may train more than once and processes meet once."""
    held = ExitStack()
    group = held.enter_context(join())
    if group.size > 1:
        atexit.register(held.close)
    return group


def _forget() -> None:
    """Drops what still holds the closed group, so that its threads end here and not with the
    interpreter, which they now and then would abort: plans of sharded tensors, circles of a model.
    """
    if "torch.distributed.tensor" in sys.modules:
        from torch.distributed.tensor import _redistribute, debug

        _redistribute.clear_redistribute_planner_cache()
        debug._clear_fast_path_sharding_prop_cache()
        _clear_plans()
    gc.collect()


def _clear_plans() -> None:
    """Clears what functions of torch.distributed remember, in a frame of its own: what the loop saw
    last would be held until its end. They hang on its modules, on classes there, and on what those
    hold of its own; to look through all objects would copy the memory of a forked process."""
    left: list[Any] = [m for name, m in sys.modules.items() if name.startswith(_TORCHS)]
    met: set[int] = set()
    while left:
        thing = left.pop()
        if id(thing) in met:
            continue
        met.add(id(thing))
        kind = type(thing)
        if kind is functools._lru_cache_wrapper:
            if (thing.__module__ or "").startswith(_TORCHS):
                thing.cache_clear()
        elif kind is staticmethod or kind is classmethod:
            left.append(thing.__func__)
        elif kind is ModuleType:
            left += vars(thing).values() if thing.__name__.startswith(_TORCHS) else ()
        elif issubclass(kind, type) or kind.__module__.startswith(f"{_TORCHS}tensor."):
            left += getattr(thing, "__dict__", {}).values()


_TORCHS = "torch.distributed."


def several() -> bool:
    """Whether `torchrun` started more than this process."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")

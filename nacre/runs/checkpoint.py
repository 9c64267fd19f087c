"""What a run needs to continue bit for bit: weights, buffers, optimizer, and where it stands.

A checkpoint is whole, however many processes wrote it and however their parts were dealt.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nacre.core.errors import FileDamaged
from nacre.core.files import load_tensors, save_tensors
from nacre.core.random import digest
from nacre.core.strict import parsed
from nacre.core.types import Tensors
from nacre.training.devices.group import Group
from nacre.training.devices.portions import Devices

_KEEP = 2  # the newest, and the one before in case the newest is damaged

ADAPTERS = "adapters.safetensors"
"""In `state/` of a run that has ended: what was trained beside a base, which the model alone, whose
adapters are merged, would not show."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    done: int,
    facts: Mapping[str, Any],
) -> Path:
    """Writes `folder/step-NNNNNNNN.safetensors`, durable when this returns; keeps the last two.

    `facts` is JSON: whatever else the loop remembers. Nothing private belongs into it.
    """
    return write(folder, collected(model, optimizer), done, facts)


def collected(
    model: nn.Module,  # its weights whole
    optimizer: torch.optim.Optimizer,
    devices: Devices | None = None,
) -> Tensors:
    """All tensors of a checkpoint; for all processes at once."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    return tensors | _optimizer_tensors(optimizer, devices or Devices())


def write(
    folder: Path, tensors: Tensors, done: int, facts: Mapping[str, Any], keep: int = _KEEP
) -> Path:
    """`save`, of what was collected; keeps the last `keep`."""
    text = json.dumps({"done": done, "facts": dict(facts)}, sort_keys=True)
    path = place_of(folder, done)
    metadata = {"state": text, "digest": digest(tensors, text).hex()}
    save_tensors(path, tensors, metadata)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def place_of(folder: Path, done: int) -> Path:
    """The file of the checkpoint after `done` steps."""
    return folder / f"step-{done:08d}.safetensors"


def write_noise(folder: Path, state: Tensors, done: int) -> Path:
    """Writes what the noise remembers after `done` steps, before the checkpoint of that step.

    `folder` is in `local/`: with this in hand the noise of later steps is known in part. One more
    is kept than checkpoints, so that each of them has its own.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    return write(folder, state, done, {}, _KEEP + 1)


def read_noise(folder: Path, done: int) -> Tensors:
    """What `write_noise` wrote after `done` steps. Raises `FileDamaged` with the remedy, for that
    of another step too: noise that was taken back already would be taken back again."""
    path = place_of(folder, done)
    if not path.exists():
        raise FileDamaged(
            f"{path} is gone, and without what the noise remembers the run cannot go on from step "
            f"{done}; delete the checkpoints of the run and resume, which takes the same steps "
            "again from the start, to the same weights and at no further charge"
        )
    tensors, at, _ = read(path)
    with _whole(path):
        if (at, int(tensors["step"])) != (done, done):
            raise FileDamaged(f"it is that of step {at} under another name")
    return tensors


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def remove_all(folder: Path) -> None:
    """Removes the checkpoints in `folder`: a run that has ended goes on from none of them, and each
    holds the whole base."""
    for path in checkpoints(folder):
        path.unlink()


def restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]]:
    """Puts a checkpoint back; returns (steps done, facts). Raises `FileDamaged` with the remedy."""
    tensors, done, facts = read(path)
    put_back(path, tensors, model, optimizer)
    return done, facts


Kept = tuple[Path, Tensors, int, dict[str, Any]]
"""A checkpoint that was read: where it lies, tensors, steps done, facts."""


def read_by_first(group: Group, read_kept: Callable[[], Kept | None]) -> Kept | None:
    """What `read_kept` gives in the first process, in all of them, which may not reach its disk."""
    kept = group.on_rank_zero(read_kept, None)
    found = group.broadcast(lambda: kept and [str(kept[0]), *kept[2:]])
    if not found:
        return None
    tensors = group.broadcast_tensors(kept[1] if kept else {})
    return Path(found[0]), tensors, int(found[1]), found[2]


def read(path: Path) -> tuple[Tensors, int, dict[str, Any]]:
    """(tensors, steps done, facts) of a checkpoint. Raises `FileDamaged` with the remedy."""
    with _whole(path):
        tensors, metadata = load_tensors(path)
        text = metadata["state"]
        if digest(tensors, text).hex() != metadata["digest"]:
            raise FileDamaged("its digest does not fit")
        state = parsed(text)
        return tensors, int(state["done"]), dict(state["facts"])


def put_back(
    path: Path,  # where they came from
    tensors: Tensors,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    devices: Devices | None = None,
) -> None:
    """Writes what `read` gave into model and optimizer. Raises `FileDamaged` where it does not fit.

    Whole tensors, the same in every process; each takes its part of the optimizer's.
    """
    with _whole(path):
        model.load_state_dict(_part(tensors, "model."))
        _restore_optimizer(optimizer, tensors, devices or Devices())


@contextlib.contextmanager
def _whole(path: Path) -> Generator[None]:
    """Says of whatever goes wrong inside the block that this file is damaged."""
    try:
        yield
    except (FileDamaged, LookupError, ValueError, RuntimeError) as error:
        raise FileDamaged(
            f"the checkpoint {path} is damaged ({str(error).splitlines()[0]}); what it had "
            "released stays charged: delete this file and resume, which goes on from the "
            "checkpoint before it, or from the start, to the same weights"
        ) from error


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer, devices: Devices) -> Tensors:
    """The optimizer's state as named tensors; plain numbers become float64 tensors."""
    found: Tensors = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if value is None:
                continue
            kept = value if isinstance(value, Tensor) else torch.tensor(float(value)).double()
            found[f"optimizer.{index}.{name}"] = devices.whole(kept)
    return found


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Tensors, devices: Devices
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in _part(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        like = moved[int(index)]
        part = devices.part(value, like) if value.shape == like.shape else value
        state.setdefault(int(index), {})[slot] = part
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

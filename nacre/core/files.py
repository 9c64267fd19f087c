"""Files that are whole or absent: write to a temporary name, sync, rename."""

# safetensors is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nacre.core.errors import FileDamaged, NacreError
from nacre.core.strict import parsed
from nacre.core.types import Tensors


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Puts `data` at `path`, whole or not at all; what stood there stays until the rename.

    Raises `NacreError` with the system's reason (disk full, no right to write), and for a folder.
    """
    with whole_file(path, mode=mode) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = 0o644) -> Generator[BinaryIO]:
    """A file to write to in parts, which takes its place at `path` when the block ends well. After
    an error or an interrupt what stood there is untouched, and nothing is left beside it.

    The block writes to this file alone: any `OSError` in it becomes a `NacreError` about `path`.
    """
    if path.is_dir():
        raise NacreError(f"{path} is a folder, so no file can take its place; name a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise NacreError(
            f"{path} could not be written ({reason}); what stood there before is untouched: "
            "make room or choose another folder, then resume or begin again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Puts `value` at `path` as indented JSON; non-finite numbers are refused."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, text.encode() + b"\n", mode=mode)


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises `FileDamaged` where it cannot be read, and for what
    `write_json` never writes: a key that stands twice, a number that is not finite."""
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        known = str(error).endswith(("twice", "is not finite"))
        reason = getattr(error, "strerror", None) or (str(error) if known else "it is not JSON")
        raise FileDamaged(f"{path} cannot be read ({reason}): restore it from a copy") from error


def tensors_to_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """safetensors bytes; shared or non-contiguous tensors are copied first."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    held = Counter(t.untyped_storage().data_ptr() for t in plain.values())
    apart = {name: t if _alone(t, held) else t.clone() for name, t in plain.items()}
    return save(apart, dict(metadata) if metadata else None)


def _alone(tensor: Tensor, held: Counter[int]) -> bool:
    """Whether a tensor has its memory for itself, and all of it."""
    storage = tensor.untyped_storage()
    return held[storage.data_ptr()] == 1 and storage.nbytes() == tensor.nbytes


def save_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Puts a safetensors file at `path`, whole or not at all."""
    write_bytes(path, tensors_to_bytes(tensors, metadata))


def load_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Raises `FileDamaged`."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise FileDamaged(f"{path} is not a readable safetensors file ({error})") from error

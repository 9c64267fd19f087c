"""The one door for calls into code that is not Nacre's: what fails there is named as foreign."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from nacre.core.errors import CallFailed, NacreError


def _folders(*names: str) -> tuple[str, ...]:
    """Of the interpreter, as they are written and as they are where a link leads there."""
    paths = [Path(sysconfig.get_paths()[name]) for name in names]
    return tuple({f"{found}{os.sep}" for path in paths for found in (path, path.resolve())})


_OWN = f"{Path(__file__).parents[1]}{os.sep}"
_STANDARD = _folders("stdlib", "platstdlib")
_INSTALLED = _folders("purelib", "platlib")


@cache
def version_of(package: str) -> str:
    """The installed version of a package, looked up once: a run asks thirteen times, and each
    answer is a file that is parsed as an e-mail. Raises `PackageNotFoundError` for none."""
    return version(package)


def cause(error: BaseException) -> str:
    """The kind of an error and its message on one line.

    >>> cause(RuntimeError("size mismatch:\\n  copying"))
    'RuntimeError: size mismatch: copying'
    """
    return " ".join(f"{type(error).__name__}: {_message(error)}".split()).rstrip(":")


def _message(error: BaseException) -> str:
    """An error's own words, also where it fails at telling them."""
    try:
        return str(error)
    except Exception:
        return "(it has no message that can be read)"


def foreign_cause(error: BaseException) -> str:
    """The cause of an error, and the place of the last line of foreign code on its way."""
    place = _place(error)
    return f"{cause(error)}{f' at {place}' if place else ''}"


def form_of(value: Any) -> str:
    """What somebody's function returned, in a few words.

    >>> form_of((Tensor([1, 2]), {}))
    'a tuple (Tensor, dict)'
    >>> form_of({"loss": 0})
    "a dict with 'loss'"
    """
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(repr(name) for name in value)}"
    if isinstance(value, tuple | list):
        parts = ", ".join(type(part).__name__ for part in value[:4])
        return f"a {type(value).__name__} ({parts}{', …' if len(value) > 4 else ''})"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype)[6:]}"
    return f"something of type {type(value).__name__}"


@contextmanager
def theirs(what: str, when: str = "", *, surely: bool = True) -> Generator[None]:
    """What foreign code raises in this block becomes one sentence: whose code, the kind of error,
    its message, and the place.

    So does an exit that foreign code asks for: a run does not end by it without a word. Errors of
    Nacre, interrupts, and memory that ran out pass as they are; without `surely` so do
    errors on whose way no foreign code lies, since they are Nacre's own. Raises `CallFailed`.
    """
    try:
        yield
    except (NacreError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if _no_memory(error) or not (surely or _place(error)):
            raise
        while_ = f" while {when}" if when else ""
        raise CallFailed(
            f"{what} raised {foreign_cause(error)}{while_}: this is no code of nacre; correct it "
            "there"
        ) from error


_NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA out of memory", "CUDA error: out of memory")


def _no_memory(error: BaseException) -> bool:
    """torch has no error of its own for that on a processor; somebody's own words are no sign."""
    if type(error) is RuntimeError:
        return any(words in _message(error) for words in _NO_MEMORY)
    return type(error).__name__ == "OutOfMemoryError"


def _place(error: BaseException) -> str:
    """The innermost line that is neither Nacre's nor the standard library's: in a file of the
    user where one is on the way, else in an installed package; "" where there is none."""
    installed = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = frame.filename
        if file.startswith(_OWN):
            continue
        at = f"{file}:{frame.lineno}, in {frame.name}"
        if file.startswith(_INSTALLED):
            installed = installed or ("" if _of_torch(file) else at)
        elif not file.startswith((*_STANDARD, "<frozen")):
            return at
    return installed


def _of_torch(file: str) -> bool:
    """Torch runs everything, so that it is on the way says nothing."""
    return any(file.startswith(place + "torch" + os.sep) for place in _INSTALLED)

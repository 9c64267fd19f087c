"""Errors as one sentence and an exit code: 0 done, 1 failed, 2 refused, 3 budget, 130 interrupted,
143 terminated.

Nothing heavy is imported here, so `nacre --help` stays quick.
"""

from __future__ import annotations

import errno
import shlex
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from nacre.core.errors import Elsewhere, NacreError, RecipeError

FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143


@dataclass(frozen=True)
class Failure:
    """How an error is reported: its sentence, those of further faults, and the exit code."""

    sentence: str
    exit_code: int
    others: tuple[str, ...] = ()


class Interrupted(Exception):
    """Ctrl-C or SIGTERM during work that can be continued; the message says how."""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it."""


@contextmanager
def resumable(verb: str, recipe: Path, into: Path) -> Generator[None]:
    """Turns Ctrl-C and SIGTERM into a sentence with the command that goes on from here."""
    try:
        with _heard():
            yield
    except KeyboardInterrupt as error:
        code = TERMINATED if isinstance(error, _Terminated) else INTERRUPTED
        if not (into / "recipe.yaml").exists():
            raise Interrupted("interrupted before anything was released or charged", code) from None
        command = shlex.join(["nacre", verb, str(recipe), "--into", str(into), "--resume"])
        raise Interrupted(f"interrupted; continue with `{command}`", code) from None


@contextmanager
def unfinished(said: str) -> Generator[None]:
    """Turns Ctrl-C and SIGTERM into the sentence that the work is `interrupted; SAID`."""
    try:
        with _heard():
            yield
    except KeyboardInterrupt as error:
        code = TERMINATED if isinstance(error, _Terminated) else INTERRUPTED
        raise Interrupted(f"interrupted; {said}", code) from None


@contextmanager
def _heard() -> Generator[None]:
    """SIGTERM interrupts the block as Ctrl-C does; signals are heard by the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def failure(error: BaseException) -> Failure:
    """The sentence and the exit code of anything that can be raised."""
    match error:
        case RecipeError():
            return Failure(str(error), error.exit_code, error.others)
        case NacreError():
            return Failure(str(error), error.exit_code)
        case Interrupted():
            return Failure(str(error), error.exit_code)
        case click.Abort() | KeyboardInterrupt():
            return Failure("interrupted", INTERRUPTED)
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "nacre"
            message = error.format_message().rstrip(".")
            return Failure(f"{message} (see `{path} --help`)", REFUSED)
        case click.ClickException():
            return Failure(error.format_message(), FAILED)
        case OSError():
            return Failure(_system(error), FAILED)
        case MemoryError() | RuntimeError() if _no_memory(error):
            return Failure("memory ran out; lower `execution.microbatch`, then resume", FAILED)
        case _:
            return Failure(_unexpected(error), FAILED)


def shared(error: BaseException) -> bool:
    """Whether all processes of a run meet this error, so that the first one tells of it."""
    everywhere = Elsewhere | Interrupted | KeyboardInterrupt | click.Abort | click.ClickException
    return isinstance(error, everywhere)


def _no_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has no error of its own for that on a CPU."""
    said = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in said or "out of memory" in said


def _system(error: OSError) -> str:
    reason = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full; make room, then resume"
    return f"{where}{reason}"


def _unexpected(error: BaseException) -> str:
    reason = " ".join(str(error).split())
    return (
        f"unexpected {type(error).__name__}: {reason}; this is a fault of nacre, please report it "
        "with what the same command prints with --debug"
    )

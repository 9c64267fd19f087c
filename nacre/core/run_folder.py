"""A run folder: what may be shared, and `local/`, which may not.

    recipe.yaml plan.json outcome.json released.jsonl ledger.json    what ran, and what left
    model.json model.safetensors                                     the finished model
    state/                                              base, twin, checkpoints, replies
    local/  (mode 0700)        the run key, the split key, findings on private rows
    findings.json comparison.json evidence.json report.html          written by audit and report

While a run is open its key can strip the noise off every release. It lives in `local/` and is
destroyed by `finish` and `abandon`; `local/` belongs into no backup.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.core.errors import FileDamaged, NacreError, RunError
from nacre.core.files import read_json, sync_folder, write_bytes, write_json
from nacre.core.random import Source

FORMAT = 1
"""Of a run folder, as docs/formats/run-folder.md has it; local/run.json holds the number."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run. Making the object touches no file."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was given, byte for byte."""
        return self.path / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """What was going to run."""
        return self.path / "plan.json"

    @property
    def state(self) -> Path:
        """Checkpoints and stored replies."""
        return self.path / "state"

    @property
    def local(self) -> Path:
        """What never leaves this machine."""
        return self.path / "local"

    @property
    def outcome(self) -> Path:
        """Written once, when training is complete."""
        return self.path / "outcome.json"

    @property
    def run_key(self) -> Path:
        """The secret that keys sampling, attack and noise; absent once the run has ended."""
        return self.local / "run.key"

    @property
    def holder_key(self) -> Path:
        """Keys the split and the HMAC of the data; kept, so that audits see the same split."""
        return self.local / "holder.key"

    @property
    def facts(self) -> Path:
        """The run's name in the ledger, the HMAC of its data, and where its recipe stood."""
        return self.local / "run.json"

    def name(self) -> str:
        """The run's name in the ledger."""
        return str(self.fact("run"))

    def fact(self, key: str) -> Any:
        """One of the facts in local/run.json. Raises `FileDamaged`."""
        value = read_json(self.facts)
        if not isinstance(value, dict) or key not in value:
            raise FileDamaged(f"{self.facts} does not say {key!r}, so the run cannot be opened")
        return value[key]  # pyright: ignore[reportUnknownVariableType]

    def key(self, path: Path) -> bytes:
        """The 32 bytes in one of the two key files. Raises `FileDamaged`."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FileDamaged(f"{path} cannot be read ({error.strerror})") from error
        if len(data) != 32:
            raise FileDamaged(f"{path} holds {len(data)} bytes where a key has 32")
        return data

    @property
    def reserved(self) -> bool:
        """Whether the whole run was once reserved: from then on its ledger has to be there."""
        return (self.local / "reserved").exists()

    def mark_reserved(self) -> None:
        """Remembers that the whole run is reserved."""
        write_bytes(self.local / "reserved", b"")

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Holds the run against other processes. Raises `RunError` where one is working on it."""
        with (self.local / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"another process is working on {self.path}; wait for it, or stop it first"
                ) from error
            yield

    def sweep(self) -> None:
        """Removes what a crash left half-written; the caller holds the lock."""
        for path in self.path.rglob(".*.part*"):
            path.unlink(missing_ok=True)

    def source(self) -> Source:
        """The run's source of randomness. Raises `RunError` where the run has ended."""
        if not self.run_key.exists():
            raise RunError(
                f"{self.path} has ended (its key is destroyed), so it cannot continue; "
                "start a new run with another `--into`"
            )
        return Source(self.key(self.run_key))

    def unfinished(self) -> str:
        """Why a run has no outcome, and what to do: it is open, or was ended without a model."""
        if self.trials.exists():
            return (
                "its search is open; continue it with "
                f"`nacre tune RECIPE --into {self.path} --resume`, or end it without a model by "
                f"`nacre abandon {self.path}`"
            )
        if self.run_key.exists():
            return (
                f"it is open; continue it with `nacre run RECIPE --into {self.path} --resume`, or "
                f"end it with the model of its last checkpoint by `nacre finish {self.path}`"
            )
        return "it was abandoned, so there is no model; start a new run with another `--into`"

    @property
    def noise(self) -> Path:
        """What correlated noise remembers at each checkpoint; absent once the run has ended."""
        return self.local / "noise"

    @property
    def trials(self) -> Path:
        """What the trials of a search computed; absent once the run has ended."""
        return self.local / "trials"

    @property
    def parties(self) -> Path:
        """Replies of the parties of a simulated federation, encrypted under the run's key;
        absent once the run has ended. Under privacy of whole parties they are raw changes, which
        no noise has reached yet."""
        return self.local / "parties"

    @property
    def personal(self) -> Path:
        """Models of parties that keep layers of their own, a folder each."""
        return self.local / "personal"

    def destroy_key(self) -> None:
        """Removes what the noise remembers, the trials of a search and the replies of parties, then
        overwrites and removes the run key. On copy-on-write disks old blocks may survive."""
        for path in (self.noise, self.trials, self.parties):
            if path.exists():
                shutil.rmtree(path)
        if self.run_key.exists():
            with self.run_key.open("r+b") as file:
                file.write(bytes(32))
                file.flush()
                os.fsync(file.fileno())
            self.run_key.unlink()
            sync_folder(self.local)


def create(
    path: Path,
    recipe: bytes,
    plan: Mapping[str, Any],
    facts: Mapping[str, str],  # for local/run.json
    holder_key: bytes,
) -> RunFolder:
    """Makes a whole run folder, or none: it is built beside its place and then renamed.

    Raises `RunError` where something stands at `path`, `NacreError` where the disk refuses.
    """
    refuse_existing(path)
    building = RunFolder(path.with_name(f".{path.name}.{os.getpid()}.part"))
    try:
        building.state.mkdir(parents=True)
        building.local.mkdir(mode=0o700)
        write_bytes(building.recipe, recipe)
        write_json(building.plan, dict(plan))
        write_json(building.facts, {"format": FORMAT, **facts})
        write_bytes(building.holder_key, holder_key, mode=0o600)
        write_bytes(building.run_key, os.urandom(32), mode=0o600)
        if path.exists():
            path.rmdir()  # empty, checked above
        os.replace(building.path, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(building.path, ignore_errors=True)
        reason = error.strerror or str(error)
        raise NacreError(
            f"the run folder {path} could not be made ({reason}); nothing was charged: make room "
            "or choose another folder with `--into`"
        ) from error
    except BaseException:
        shutil.rmtree(building.path, ignore_errors=True)
        raise
    return RunFolder(path)


def refuse_existing(path: Path) -> None:
    """Raises `RunError` where something stands at `path` already; an empty folder is nothing."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(_existing(path))


def _existing(path: Path) -> str:
    folder = RunFolder(path)
    if folder.outcome.exists():
        return (
            f"the run folder {path} exists and its training is complete: read {path}/report.html, "
            "audit and report it again with `--resume`, or choose another folder with `--into`"
        )
    if folder.recipe.exists() and folder.run_key.exists():
        return (
            f"the run folder {path} exists and its run is open: continue it with `--resume`, or "
            "choose another folder with `--into`"
        )
    return f"the folder {path} exists and is not empty: choose another one with `--into`"


def reopen(path: Path) -> RunFolder:
    """The folder of a run that was started. Raises `RunError` where there is none."""
    folder = RunFolder(path)
    for place in (path, path / "private"):
        if RunFolder(place).facts.exists() and not RunFolder(place).recipe.exists():
            raise RunError(
                f"{path} holds a loop of your own and no run of a recipe: its program continues it "
                f"(`resume=True`) and ends it (`finish()`), and `nacre report {path} --check` "
                "checks its releases"
            )
    if not folder.recipe.exists() or not folder.plan.exists():
        if (path / "model.json").exists() or (path / "model.onnx").exists():
            raise RunError(
                f"{path} holds a model without its run, as `nacre export` writes it; name the "
                "folder of the run"
            )
        raise RunError(f"{path} holds no run: start one with `nacre train RECIPE --into {path}`")
    _require_format(folder)
    return folder


def _require_format(folder: RunFolder) -> None:
    """Raises `RunError` for a folder of another format; one without `local/` states none."""
    if not folder.facts.exists():
        return
    facts: Any = read_json(folder.facts)
    found = facts.get("format", 1) if isinstance(facts, dict) else 1  # 1 was not written at first
    if type(found) is not int or found != FORMAT:
        raise RunError(
            f"{folder.path} is a run folder of format {found!r}, and this version of Nacre reads "
            f"format {FORMAT}; use the version that wrote it"
        )

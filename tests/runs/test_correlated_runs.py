"""Whole runs with noise that remembers: resumed to the same bits, private state, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.errors import FileDamaged, Incompatible, LedgerError, UnsupportedEvent
from nacre.core.files import load_tensors
from nacre.planning.plan import plan
from nacre.report import gather, write_report
from nacre.runs import checkpoint, loop
from nacre.runs.run import abandon, finish, train
from tests.training.tiny import CENTRAL, FEDERATED, StopAfter, Stopped, recipe

pytestmark = pytest.mark.slow

TURNS = {
    "training__steps": 10,
    "training__batch": 20,
    "training__sampling": {"kind": "cyclic_poisson"},
    "ledger__path": "{run}/privacy.db",
}
NOISES: dict[str, dict[str, Any]] = {
    "banded": TURNS | {"differential_privacy__noise": {"kind": "banded", "bands": 4}},
    "tree": TURNS
    | {
        "differential_privacy__noise": {"kind": "tree"},
        "training__sampling": {"kind": "cyclic_poisson", "cycle": 4},
    },
    "blt": TURNS
    | {
        "differential_privacy__noise": {"kind": "blt", "buffers": 2},
        "training__sampling": {"kind": "cyclic_poisson", "cycle": 4},
    },
}
EVERY = pytest.mark.parametrize("kind", NOISES)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """One for all tests: a run of a kind has the same price in each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NACRE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path / "model.safetensors")[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopped(folder: Path, kind: str, steps: int) -> Path:
    planned = plan(recipe(folder, CENTRAL, **NOISES[kind]))
    with pytest.raises(Stopped):
        train(planned, folder / "run", observe=StopAfter(steps))
    return folder / "run"


@pytest.mark.diagonal
@EVERY
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, steps: int
) -> None:
    """The copy is taken before the first step, when the key is fixed already."""
    real = loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    run = stopped(tmp_path, kind, steps)
    for path in (run, tmp_path / "copy"):
        again = plan(recipe(tmp_path, CENTRAL, **NOISES[kind]), resume=path)
        train(again, path, resume=True)
    assert same(weights(run), weights(tmp_path / "copy"))


@EVERY
def test_what_the_noise_remembers_is_private_and_gone_at_the_end(tmp_path: Path, kind: str) -> None:
    run = stopped(tmp_path, kind, 7)
    kept = sorted(path.name for path in (run / "local" / "noise").iterdir())
    at = [path.name for path in checkpoint.checkpoints(run / "state")]
    assert set(at) <= set(kept)
    assert (run / "local" / "noise").stat().st_mode & 0o077 == 0
    for path in checkpoint.checkpoints(run / "state"):
        assert all(name.startswith(("model.", "optimizer.")) for name in load_tensors(path)[0])
    finish(run)
    assert not (run / "local" / "noise").exists()
    assert not (run / "local" / "run.key").exists()
    assert at and not checkpoint.checkpoints(run / "state")


@EVERY
def test_an_abandoned_run_keeps_no_noise(tmp_path: Path, kind: str) -> None:
    run = stopped(tmp_path, kind, 3)
    abandon(run)
    assert not (run / "local" / "noise").exists()
    assert not checkpoint.checkpoints(run / "state")


def test_a_checkpoint_without_its_noise_is_refused_and_starting_again_ends_alike(
    tmp_path: Path,
) -> None:
    run = stopped(tmp_path, "banded", 7)
    shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(run / "local" / "noise")
    again = plan(recipe(tmp_path, CENTRAL, **NOISES["banded"]), resume=run)
    with pytest.raises(FileDamaged, match="delete the checkpoints of the run"):
        train(again, run, resume=True)
    for path in checkpoint.checkpoints(run / "state"):
        path.unlink()
    train(again, run, resume=True)
    copied = plan(recipe(tmp_path, CENTRAL, **NOISES["banded"]), resume=tmp_path / "copy")
    train(copied, tmp_path / "copy", resume=True)
    assert same(weights(run), weights(tmp_path / "copy"))


def test_damaged_noise_is_found(tmp_path: Path) -> None:
    run = stopped(tmp_path, "banded", 7)
    path = sorted((run / "local" / "noise").iterdir())[-1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    again = plan(recipe(tmp_path, CENTRAL, **NOISES["banded"]), resume=run)
    with pytest.raises(FileDamaged, match="digest"):
        train(again, run, resume=True)


@EVERY
def test_plan_evidence_and_report_name_the_mechanism(tmp_path: Path, kind: str) -> None:
    planned = plan(recipe(tmp_path, CENTRAL, **NOISES[kind]))
    run = train(planned, tmp_path / "run")
    (party,) = gather(run.path)["plan"]["parties"]
    assert party["noise"]["kind"] == kind
    assert party["sampling"] == {
        "kind": "cyclic_poisson", "expected": 20.0, "rate": 20 * 4 / 120, "cycle": 4,
    }  # fmt: skip
    assert party["epsilon"] is not None and 7.9 < party["epsilon"] <= 8
    page = write_report(run.path).read_text()
    assert "every 4 steps at most" in page
    words = {"banded": "banded, 4 bands", "tree": "binary tree", "blt": "blt, 2 buffers"}
    assert words[kind] in page
    entries = json.dumps(json.loads((run.path / "ledger.json").read_text()))
    span = 4 if kind == "banded" else 10
    assert f"every {span} of them together are" in entries


@pytest.mark.parametrize(
    ("base", "change", "error", "message"),
    [
        (CENTRAL, {"training__sampling": {"kind": "poisson"}}, UnsupportedEvent, "cyclic_poisson"),
        (
            CENTRAL, {"training__sampling": {"kind": "cyclic_poisson", "cycle": 3}},
            UnsupportedEvent, "bands: 3",
        ),
        (CENTRAL, {"training__batch": 60}, Incompatible, "`batch: 30` or fewer"),
        (CENTRAL, {"training__steps": 3}, Incompatible, "`bands: 3` or fewer"),
        (
            CENTRAL, {"differential_privacy__adjacency": "replace_one"},
            UnsupportedEvent, "replace_one",
        ),
        (FEDERATED, {"training__batch": 10, "training__steps": None}, Incompatible, "a party"),
    ],
)  # fmt: skip
def test_what_is_not_proven_is_refused_by_plan(
    tmp_path: Path, base: dict[str, Any], change: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        plan(recipe(tmp_path, base, **(NOISES["banded"] | change)))


def test_cyclic_sampling_needs_no_correlated_noise(tmp_path: Path) -> None:
    change = {**TURNS, "training__sampling": {"kind": "cyclic_poisson", "cycle": 5}}
    planned = plan(recipe(tmp_path, CENTRAL, **change))
    (holder,) = planned.levels
    assert holder.mechanism.span == 5
    assert holder.price is not None and 7.9 < holder.price.epsilon <= 8


@EVERY
def test_a_step_is_not_answered_again_with_other_noise_remembered(
    tmp_path: Path, kind: str
) -> None:
    """The sum is the same, so only what the noise remembers tells the two releases apart."""
    run = stopped(tmp_path, kind, 7)  # step 7 is released, the checkpoint is of step 6
    folder = run / "local" / "noise"
    state = checkpoint.read_noise(folder, 6)
    other = {n: t + 1 if n.isdigit() else t for n, t in state.items()}
    checkpoint.write_noise(folder, other, 6)
    again = plan(recipe(tmp_path, CENTRAL, **NOISES[kind]), resume=run)
    with pytest.raises(LedgerError, match="taken before"):
        train(again, run, resume=True)

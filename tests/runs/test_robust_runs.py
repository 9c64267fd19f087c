"""Whole runs under rules against parties at fault: public rows, directions that are kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.files import load_tensors
from nacre.planning.plan import plan
from nacre.runs import checkpoint, loop
from nacre.runs.run import train
from tests.planning.test_clipping import CLIENT
from tests.training.tiny import FEDERATED, StopAfter, Stopped, changed, recipe

pytestmark = pytest.mark.slow

OPEN: dict[str, Any] = changed(
    FEDERATED,
    {
        "differential_privacy": None, "gradient_clipping": None, "ledger": None,
        "data.public": {"share": 0.2},
        "data.size": 90,
        "federated_learning.parties.names": ["a", "b", "c", "d"],
        "training.batch": 12,
    },
)  # fmt: skip
CENTRED: dict[str, Any] = {"kind": "centred_clipping", "radius": 0.3}


def _with(base: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    return changed(base, {"federated_learning.gather": {"kind": "plain", "aggregate": rule}})


RUNS: dict[str, dict[str, Any]] = {
    "centred": _with(OPEN, CENTRED),
    "centred in buckets": _with(OPEN, {"kind": "bucketing", "before": CENTRED}),
    "centred, noised": _with(CLIENT, {"kind": "centred_clipping"}),
    "centred, adaptive": changed(
        _with(CLIENT, {"kind": "centred_clipping"}),
        {"gradient_clipping": {"kind": "adaptive", "norm": 0.5}},
    ),
    "public rows": _with(OPEN, {"kind": "fltrust"}),
    "mixed": _with(
        OPEN,
        {"kind": "nearest_neighbour_mixing", "before": {"kind": "geometric_median", "bad": 1}},
    ),
}


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run / "model.safetensors")[0]


@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The direction that was followed last is in the checkpoint, and so is what it leads to."""
    real = loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(plan(recipe(tmp_path, RUNS[kind])), tmp_path / "run", observe=StopAfter(3))
    kept = [load_tensors(path)[0] for path in checkpoint.checkpoints(tmp_path / "run" / "state")]
    centred = "centred" in kind
    assert all(any(n.startswith(".direction.") for n in tensors) == centred for tensors in kept)
    for path in (tmp_path / "run", tmp_path / "copy"):
        train(plan(recipe(tmp_path, RUNS[kind]), resume=path), path, resume=True)
    ours, theirs = (_weights(tmp_path / name) for name in ("run", "copy"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_centred_clipping_of_great_radius_is_the_mean(tmp_path: Path) -> None:
    """What is taken off before is added after: the directions are those of FedAvg."""
    runs = {
        "mean": _with(OPEN, {"kind": "mean"}),
        "centred": _with(OPEN, CENTRED | {"radius": 1e6}),
        "short": _with(OPEN, CENTRED | {"radius": 1e-3}),
    }
    for name, base in runs.items():
        everyone = changed(base, {"training.sampling": {"kind": "full"}})  # no coins: no key
        train(plan(recipe(tmp_path, everyone)), tmp_path / name)
    mean, centred, short = (_weights(tmp_path / name) for name in runs)
    assert all(torch.allclose(mean[n], centred[n], atol=1e-5) for n in mean)
    assert not all(torch.allclose(mean[n], short[n], atol=1e-2) for n in mean)

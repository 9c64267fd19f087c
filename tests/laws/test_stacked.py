"""Whole runs whose parties are trained together: the numbers of training each alone; the same bits
when a run is resumed, and for any number of workers; what cannot run so is refused."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nacre.core.errors import BadArgument, Incompatible
from nacre.core.files import load_tensors
from nacre.core.types import FeatureSpace
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.recipe.sections import Execution
from nacre.runs.run import train
from nacre.runs.workers.pool import Pool, Trained
from nacre.training.holders import AtWork, Workplace
from nacre.training.local.stacked import Stacked
from nacre.training.local.trial import why_apart
from tests.laws.conftest import Sums, moved
from tests.laws.test_side_by_side import CALLED, CLIENT, MODEL, NOTHING, REMEMBERED, same_keys
from tests.training.tiny import CENTRAL, FEDERATED, StopAfter, Stopped, changed, recipe, text

pytestmark = pytest.mark.slow
__all__ = ["same_keys"]  # every key of every run is the same bytes

UNEQUAL = {"federated_learning.parties": {"kind": "dirichlet", "names": list("abcde"), "alpha": 1}}
KINDS = {
    "nothing": NOTHING,
    "unequal, poisson": changed(NOTHING, UNEQUAL | {"training.sampling": {"kind": "poisson"}}),
    "unequal, shuffled": changed(NOTHING, UNEQUAL | {"training.sampling": {"kind": "shuffled"}}),
    "adam": changed(NOTHING, {"training.optimizer": {"kind": "adam", "lr": 0.05}}),
    "client": CLIENT,
    "client, remembering": changed(CLIENT, REMEMBERED),
}


def _ran(
    folder: Path, base: dict[str, Any], stacked: int | None, stop: int = 0
) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    made = recipe(folder, changed(base, {"execution.stacked": stacked, "execution.threads": 1}))
    if stop:
        with pytest.raises(Stopped):
            train(plan(made), folder / "run", observe=StopAfter(stop))
        run = train(plan(made, resume=folder / "run"), folder / "run", resume=True)
    else:
        run = train(plan(made), folder / "run")
    return load_tensors(run.path / "model.safetensors")[0]


def _apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_the_same_bits_when_resumed_and_with_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Execution is part of the recipe, whose digest keys the run: what is asked for is set aside.
    monkeypatch.setattr("nacre.runs.run.workers_of", lambda planned: workers)
    workers = 1
    base = KINDS[kind]
    whole = _ran(tmp_path / "whole", base, 3)
    assert _apart(whole, _ran(tmp_path / "resumed", base, 3, stop=3)) == 0
    workers, theirs = 2, list[str]()
    trained, give = Pool.trained, Pool._give

    def waiting(self: Pool, *given: Any) -> dict[str, Trained]:
        self.wait()
        return trained(self, *given)

    def giving(self: Pool, worker: Any, stack: Any, job: Any) -> None:
        theirs.extend(stack)
        give(self, worker, stack, job)

    monkeypatch.setattr(Pool, "trained", waiting)
    monkeypatch.setattr(Pool, "_give", giving)
    assert _apart(whole, _ran(tmp_path / "beside", base, 3)) == 0
    assert theirs, "no worker trained any party"


def _one_by_one(self: Workplace, parties: list[AtWork], *asked: Any) -> list[Any]:
    return [self.alone(party, *asked) for party in parties]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "client" not in kind])
def test_a_round_has_the_numbers_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One round: draws of the next are keyed by its weights, whose last bits are others."""
    base = changed(KINDS[kind], {"federated_learning.rounds": 1})
    together, stacks = Workplace.together, list[int]()

    def counted(self: Workplace, parties: list[AtWork], *asked: Any) -> list[Any]:
        stacks.append(len(parties))
        return together(self, parties, *asked)

    monkeypatch.setattr(Workplace, "together", counted)
    found = _ran(tmp_path / "together", base, 3)
    assert stacks == [3, 2]
    monkeypatch.setattr(Workplace, "together", _one_by_one)
    # A party's Adam moves by the sign of a gradient that is hardly more than rounding.
    near = 1e-4 if kind == "adam" else 1e-6
    assert _apart(found, _ran(tmp_path / "apart", base, 3)) < near


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "client" in kind])
def test_the_sums_of_protected_parties_are_those_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Sums, kind: str
) -> None:
    """Sums are taken away as they enter the noise, so both runs go on from the same weights; what
    a party remembers keys its next draws, so there the first round alone can be compared."""
    _ran(tmp_path / "together", KINDS[kind], 3)
    monkeypatch.setattr(Workplace, "together", _one_by_one)
    _ran(tmp_path / "apart", KINDS[kind], 3)
    apart = moved(cut)
    assert 0 < max(apart[:1] if "remembering" in kind else apart) < 1e-5


def test_a_party_that_is_not_finite_is_trained_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every party is made to fail: each then has the bits that it has alone."""
    base = changed(NOTHING, {"federated_learning.rounds": 1})
    take, failed = Stacked.take, list[int]()

    def failing(self: Stacked, *given: Any) -> Any:
        found = take(self, *given)
        for one in found if given[1][0].entered else []:  # not in a trial
            failed.append(1)
            next(iter(one.values())).fill_(float("nan"))
        return found

    monkeypatch.setattr(Stacked, "take", failing)
    again = _ran(tmp_path / "failed", base, 3)
    assert len(failed) == 5
    monkeypatch.setattr(Workplace, "together", _one_by_one)
    assert _apart(again, _ran(tmp_path / "apart", base, 3)) == 0


REFUSED = {
    "no parties": (CENTRAL, "the recipe has no parties"),
    "noise at the party": (FEDERATED, "each party clips gradients of its own rows"),
    "rows clipped": (
        changed(NOTHING, {"gradient_clipping": {"kind": "flat", "norm": 1.0}}),
        "each party clips gradients of its own rows",
    ),
    "mean clipped": (
        changed(NOTHING, {"gradient_clipping": {"kind": "by_norm", "norm": 1.0}}),
        "clipping of the mean gradient",
    ),
    "secure": (
        changed(NOTHING, {"federated_learning.gather": {"kind": "secure", "threshold": 4},
                          "gradient_clipping": {"kind": "flat", "norm": 1.0}}),
        "a secure sum asks every party|each party clips gradients",
    ),
    "attack": (
        changed(NOTHING, {"adversarial_training": {
            "kind": "madry",
            "attack": {"kind": "fgsm", "ball": {"kind": "linf", "radius": 0.1}},
        }}),
        "the search for adversarial inputs",
    ),
    "dropout": (CALLED, "the model draws random numbers in training"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_stacked_is_refused_with_the_remedy(tmp_path: Path, kind: str) -> None:
    base, why = REFUSED[kind]
    (tmp_path / "ours.py").write_text(MODEL)
    made = recipe(tmp_path, changed(base, {"execution.stacked": 2}))
    with pytest.raises(Incompatible, match=rf"`execution\.stacked`: ({why}).*; leave it out"):
        plan(made)


BODIES = {
    "looks at numbers": ("x * 2 if x.sum() > 0 else x", "cannot run for several parties at once"),
    "draws of NumPy": (
        "x * float(__import__('numpy').random.rand())", "made-up parties got other numbers"
    ),
    "attribute": ("self.seen(x)", "a forward pass sets attributes"),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_a_model_that_cannot_is_refused(body: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.count = nn.Linear(4, 3), 0

        def seen(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(eval(BODIES[body][0], {"x": x, "self": self}))

    asked = loads(text(NOTHING, execution__stacked=2))
    space = FeatureSpace((4,), low=torch.tensor(-9.0), high=torch.tensor(9.0))
    reason = why_apart(asked, asked.schema, space, Net())
    assert reason is not None and BODIES[body][1] in reason


@pytest.mark.parametrize("count", [1, 101])
def test_how_many_has_a_range(count: int) -> None:
    with pytest.raises(BadArgument, match=f"stacked={count} must be from 2 to 100"):
        Execution(stacked=count)

"""The guard against catastrophic overfitting: when it speaks, and what it goes back to."""

import json
import math

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball, Guard
from nacre.adversarial_training.objectives import OVERFITTED, Guarded, best_point
from nacre.core.files import load_tensors
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification
from nacre.planning.plan import plan
from nacre.report.evidence import write_report
from nacre.runs.run import train
from tests.laws.zoo import snapshot
from tests.planning.test_clipping import DIGITS
from tests.training.tiny import StopAfter, Stopped, changed, recipe

FAST = changed(
    DIGITS,
    {
        "training.steps": 6,
        "training.checkpoint": 1,
        "adversarial_training": {
            "kind": "fast",
            "ball": {"radius": 0.2},
            "guard": {"rows": 32, "steps": 2},
        },
    },
)


class Masked(nn.Module):
    """Two classes by the sign of the first entry, with a ripple whose slope at the grid of the
    clean rows points the wrong way: one step is misled, a search is not."""

    def forward(self, x):
        first = x[:, 0]
        margin = 4 * first - 0.1 * torch.sin(16 * math.pi * first)
        return torch.stack([-margin, margin], 1)


def _guarded(model_rows, label):
    region = Ball(radius=0.2).region(FeatureSpace((1,)))
    batch = {"features": model_rows, "label": label}
    return Guarded(Guard(rows=64, steps=20), Classification(2), region, batch)


def test_a_masked_gradient_shows_between_fgsm_and_pgd():
    """At +-1/8 the slope of the margin is 4 - 1.6 pi < 0: FGSM goes the wrong way, a search with
    random starts finds the boundary at 0."""
    rows = torch.tensor([[0.125], [-0.125]] * 32)
    label = torch.tensor([1, 0] * 32)
    guarded, model = _guarded(rows, label), Masked().train()
    before = snapshot(model)
    found = guarded.measured(model)
    assert found["fgsm"] == 1.0
    assert found["pgd"] < 0.75
    assert guarded.measured(model) == found
    assert snapshot(model) == before


def test_a_guard_speaks_where_pgd_breaks_through_and_fgsm_does_not():
    guard, healthy = Guard(floor=0.5), {"fgsm": 0.7, "pgd": 0.6}
    assert not guard.collapsed([])
    assert not guard.collapsed([healthy])
    assert guard.collapsed([healthy, {"fgsm": 0.95, "pgd": 0.29}])
    assert not guard.collapsed([healthy, {"fgsm": 0.95, "pgd": 0.31}])
    # Where both fall the model has got worse, which is another thing.
    assert not guard.collapsed([healthy, {"fgsm": 0.3, "pgd": 0.1}])
    assert not guard.collapsed([{"fgsm": 0.1, "pgd": 0.0}, {"fgsm": 0.1, "pgd": 0.0}])


def test_the_first_of_the_best_points_is_kept():
    assert best_point([{"pgd": 0.2}, {"pgd": 0.5}, {"pgd": 0.5}, {"pgd": 0.4}]) == 1
    model, curve = nn.Linear(1, 2), []
    guarded = _guarded(torch.zeros(2, 1), torch.tensor([0, 1]))
    seen = []
    for pgd in (0.2, 0.5, 0.5, 0.1):
        nn.init.normal_(model.weight)
        seen.append(model.weight.detach().clone())
        curve.append({"round": len(seen), "pgd": pgd, "fgsm": 0.6})
        guarded.follow(model, curve)
    guarded.hand_over(model)
    assert torch.equal(model.weight, seen[1])
    assert guarded.step(curve) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"floor": math.nan}, "floor=nan must lie between 0 and 1"),
        ({"floor": 1.0}, "floor=1.0 must lie between 0 and 1"),
        ({"steps": 1}, "steps=1 must be at least 2: FGSM has one"),
        ({"rows": 0}, "rows=0 must be at least 1"),
    ],
)
def test_a_guard_that_could_not_tell_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Guard(**wrong)


def _measuring(monkeypatch):
    """A training that collapses at the third look; what is measured is made up, all else is the
    run's own."""
    kept = []

    def measured(self, model):
        at = len(kept)
        kept.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return {"fgsm": 0.8, "pgd": (0.3, 0.6, 0.1, 0.1)[at]}

    monkeypatch.setattr(Guarded, "measured", measured)
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("average", [None, {"decay": 0.5}])
def test_a_run_that_collapses_ends_with_the_best_checkpoint(tmp_path, monkeypatch, average):
    kept = _measuring(monkeypatch)
    asked = recipe(tmp_path, FAST, training__average=average)
    train(plan(asked), tmp_path / "run")
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert (outcome["stopped"], outcome["done"], outcome["released"]) == (OVERFITTED, 2, 3)
    assert [point["pgd"] for point in outcome["curve"]] == [0.3, 0.6, 0.1]
    weights = load_tensors(tmp_path / "run" / "model.safetensors")[0]
    assert all(torch.equal(weights[name], value) for name, value in kept[1].items())
    write_report(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "fell from 60.0% to 10.0% while under FGSM it was 80.0%" in " ".join(page.split())
    assert "the model is that of step 2" in " ".join(page.split())
    assert "under FGSM 80.0% to 80.0%; under PGD 30.0% to 10.0%." in " ".join(page.split())


@pytest.mark.slow
def test_the_best_checkpoint_survives_an_interruption(tmp_path, monkeypatch):
    kept = _measuring(monkeypatch)
    planned = plan(recipe(tmp_path, FAST))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(2))
    train(plan(recipe(tmp_path, FAST), resume=tmp_path / "run"), tmp_path / "run", resume=True)
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert (outcome["stopped"], outcome["done"]) == (OVERFITTED, 2)
    weights = load_tensors(tmp_path / "run" / "model.safetensors")[0]
    assert all(torch.equal(weights[name], value) for name, value in kept[1].items())


@pytest.mark.slow
def test_a_run_that_does_not_collapse_keeps_its_last_weights(tmp_path):
    asked = recipe(tmp_path, changed(FAST, {"training.checkpoint": 3}))
    train(plan(asked), tmp_path / "run")
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert (outcome["stopped"], outcome["done"]) == ("completed", 6)
    assert [point["round"] for point in outcome["curve"]] == [3, 6]
    assert all(0 <= point["pgd"] <= 1 for point in outcome["curve"])

"""Declared shares of classes: where answers start, and how much a rare class counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from nacre.adversarial_training import Standard
from nacre.core.errors import Refusal
from nacre.core.random import Source
from nacre.gradient_clipping import GRADIENT_SUMS, Flat
from nacre.models import Classification
from nacre.planning.plan import plan
from nacre.training.pieces import learnt_task
from tests.laws.zoo import MLP
from tests.training.tiny import CENTRAL, TABLE, recipe

PRIOR = {"no": 0.88, "yes": 0.12}
WEIGHTS = (0.2, 1.0, 4.0)


@pytest.mark.parametrize(
    "kind", [kind for kind in GRADIENT_SUMS if kind.per_unit], ids=lambda kind: kind.kind
)
def test_a_weight_comes_before_the_clip(kind: Any) -> None:
    """Each unit's weighted gradient, clipped by hand; so the bound is the clip norm as before."""
    batch, clip = MLP.batch(6), Flat(norm=0.3)
    found = kind(Standard(Classification(3, WEIGHTS)))(MLP.model(), batch, clip, Source(bytes(32)))
    model = MLP.model()
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for place in range(6):
        outputs = model(batch["features"][place : place + 1])
        label = batch["label"][place : place + 1]
        loss = WEIGHTS[int(label)] * functional.cross_entropy(outputs, label)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        for total, gradient in zip(expected, gradients, strict=True):
            total += gradient * min(1.0, 0.3 / norm)
    assert found.bound == 0.3
    for one, other in zip(found.total.values(), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_balanced_weights_are_those_of_the_declared_shares(tmp_path: Path) -> None:
    tried = recipe(tmp_path, TABLE, training__class_prior=PRIOR, training__class_weights="balanced")
    task = learnt_task(tried, tried.schema)
    assert isinstance(task, Classification)
    assert task.weights == pytest.approx((1 / (2 * 0.88), 1 / (2 * 0.12)))
    assert sum(w * p for w, p in zip(task.weights, PRIOR.values(), strict=True)) == pytest.approx(1)
    plain = recipe(tmp_path, TABLE, training__class_prior=PRIOR)
    assert learnt_task(plain, plain.schema) == Classification(2)


def test_answers_start_at_the_declared_shares(tmp_path: Path) -> None:
    """With balanced weights at equal shares: where a loss so weighted pulls a model that knows
    nothing of its inputs."""
    plain = recipe(tmp_path, TABLE)
    model = plain.build_model(plain.schema)
    prior = recipe(tmp_path, TABLE, training__class_prior=PRIOR)
    started = prior.build_model(prior.schema)
    bias = started.head.bias.detach()  # type: ignore[union-attr]
    assert torch.softmax(bias, 0).tolist() == pytest.approx([0.88, 0.12])
    for (name, one), other in zip(model.named_parameters(), started.parameters(), strict=True):
        assert name == "head.bias" or torch.equal(one, other)
    both = recipe(tmp_path, TABLE, training__class_prior=PRIOR, training__class_weights="balanced")
    bias = both.build_model(both.schema).head.bias.detach()  # type: ignore[union-attr]
    assert torch.softmax(bias, 0).tolist() == pytest.approx([0.5, 0.5])
    task = learnt_task(both, both.schema)
    outputs = bias.clone().requires_grad_()
    shares = torch.tensor([0.88, 0.12])
    loss = (shares * task.row_losses(outputs.expand(2, 2), torch.tensor([0, 1]))).sum()
    (pull,) = torch.autograd.grad(loss, outputs)
    assert pull.abs().max() < 1e-7


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (TABLE, {"training__class_weights": "balanced"}, "`training.class_weights`.*needs `class"),
        (TABLE, {"training__class_prior": {"no": 0.5, "yes": 0.4}}, "shares of sum 0.9, and all"),
        (TABLE, {"training__class_prior": {"no": 1.0, "yes": 0.0}}, "must lie between 0 and 1"),
        (TABLE, {"training__class_prior": {"no": 0.5, "ill": 0.5}}, "the classes are no, yes; dec"),
        (CENTRAL, {"training__class_prior": PRIOR}, "the classes are setosa, versicolor, v"),
        (TABLE, {"training__class_prior": PRIOR, "data__task": "regression", "data__classes": None,
                 "data__target": "age", "data__drop": ["hospital", "ill"], "data__columns": {
                     "sex": {"categories": ["f", "m"]}, "dose": {"low": 0, "high": 10}}},
         "shares are of classes, and the task is regression"),
    ],
)  # fmt: skip
def test_shares_that_do_not_fit_are_refused(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        plan(recipe(tmp_path, base, **changes), ledger=False)


def test_a_plan_says_what_rests_on_declared_shares(tmp_path: Path) -> None:
    tried = recipe(tmp_path, TABLE, training__class_prior=PRIOR, training__class_weights="balanced")
    planned = plan(tried, ledger=False)
    assert any("`training.class_prior` are public" in words for words in
               planned.to_json()["assumptions"])  # fmt: skip
    plain = plan(recipe(tmp_path, TABLE), ledger=False)
    assert [level.promise() for level in planned.priced] == [
        level.promise() for level in plain.priced
    ]

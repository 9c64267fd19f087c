"""A model and tensors in hand, through `nacre.attack`."""

import numpy as np
import pytest
import torch
from torch import nn

import nacre as n
from nacre.audit.model_security.batch import reproduced
from nacre.audit.outside import LabelledRows, audit_model
from nacre.core.errors import Incompatible

WEIGHTS = torch.tensor([1.5, -0.5, 0.25, 2.0])


@pytest.fixture
def linear():
    """A linear model of two classes with rows from 0 to 1, some of which it gets wrong."""
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(4), WEIGHTS]))
        model.bias.copy_(torch.tensor([0.0, -1.6]))
    rows = torch.rand(90, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    label = (rows @ WEIGHTS > 1.6).long()
    label[::9] = 1 - label[::9]
    return model, rows, label


def test_a_linear_model_is_broken_where_its_margin_is_spent(linear):
    model, rows, label = linear
    found = n.attack(model, rows, label, ball=n.Ball(radius=0.1), effort="quick")
    margin = (rows @ WEIGHTS - 1.6) * (2 * label - 1)
    stands = margin > 0.1 * WEIGHTS.abs().sum()
    assert torch.equal(found.robust, stands) and torch.equal(found.rows, torch.arange(90))
    assert found.accuracy == stands.double().mean() and found.low < found.accuracy < found.high
    assert found.clean_accuracy == 0.8888888888888888 and found.confidence == 0.95
    moved = found.adversarial
    assert (moved - rows).abs().max() <= 0.1 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    assert torch.equal(model(moved).argmax(1), found.answers)
    assert torch.equal(found.answers == label, stands) and torch.equal(found.margins < 0, stands)
    assert torch.equal(found.share == 0, margin < 0)
    broke = [by is not None for by in found.broken_by]
    assert broke == ((margin > 0) & ~stands).tolist()
    assert {by for by in found.broken_by if by} <= {stage["name"] for stage in found.stages}
    assert all((step > 0) == fell for step, fell in zip(found.steps.tolist(), broke, strict=True))
    assert sum(stage["broke"] for stage in found.stages) == sum(broke)
    assert found.warnings == () and reproduced(found.batch, model).holds
    assert found.sentence() == (
        f"88.9% clean, {found.accuracy:.1%} under attack "
        f"({found.low:.1%} to {found.high:.1%}), 90 rows"
    )


def test_it_is_what_the_audit_of_a_model_finds(linear):
    model, rows, label = linear
    ball = n.Ball(radius=0.05)
    found = n.attack(
        model, rows.numpy().astype(np.float64), label.tolist(), ball=ball, effort="quick"
    )
    same = audit_model(
        model, LabelledRows(rows, label), n.Evasion(ball=ball, effort="quick"), legal=(0, 1)
    )
    assert found.finding == same


def test_the_model_and_the_rows_are_left_as_they_were(linear):
    model, rows, label = linear
    model = nn.Sequential(nn.Dropout(0.5), model).train()
    before, state = rows.clone(), torch.random.get_rng_state()
    one, two = (
        n.attack(model, rows.requires_grad_(), label, ball=n.Ball(radius=0.1), effort="quick")
        for _ in range(2)
    )
    assert one.finding == two.finding and torch.equal(one.adversarial, two.adversarial)
    assert all(part.training for part in model.modules()) and rows.grad is None
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(before, rows) and torch.equal(state, torch.random.get_rng_state())


def test_an_attacker_who_wants_one_class(linear):
    model, rows, label = linear
    found = n.attack(model, rows, label, ball=n.Ball(radius=0.1), effort="quick", towards=0)
    assert torch.equal(found.rows, label.nonzero().squeeze(1))
    assert torch.equal(found.answers == 0, ~found.robust)


def test_probabilities_read_as_logits_are_no_evidence(linear):
    model, rows, label = linear
    flat = nn.Sequential(model, nn.Softmax(1))
    with torch.no_grad():
        model.weight *= 200
        model.bias *= 200
    ball = n.Ball(radius=0.1)
    doubted = n.attack(flat, rows, label, ball=ball, effort="quick")
    assert doubted.warnings and doubted.finding.verdict == "not evidence"
    assert "not evidence: " in doubted.sentence()
    read = n.attack(flat, rows, label, ball=ball, effort="quick", outputs="probabilities")
    assert read.accuracy <= doubted.accuracy


def test_a_table_of_another_moves_by_named_columns(linear):
    model, rows, label = linear
    threat = n.TableThreat(columns={"dose": n.ColumnMove(reach=0.2)})
    names = ("age", "pulse", "weight", "dose")
    ends = {"low": float("-inf"), "high": float("inf")}
    found = n.attack(model, 3 * rows - 1, label, ball=threat, names=names, effort="quick", **ends)
    moved = (found.adversarial - (3 * rows - 1)).abs().amax(0)
    assert moved[:3].max() == 0 and 0 < moved[3] <= 0.2 + 1e-6


@pytest.mark.parametrize(
    ("features", "label", "more", "words"),
    [
        (torch.rand(3, 4) + 1.5, [0, 1, 1], {}, "outside low=0 to high=1"),
        (torch.rand(3, 4) - 3, [0, 1, 1], {"low": -1.0}, "outside low=-1 to high=1"),
        (torch.full((3, 4), torch.nan), [0, 1, 1], {}, "3 of 3 rows hold NaN"),
        (torch.rand(3, 4), [0, 1, 1], {"low": 2.0}, "low=2 must be below high=1"),
        (torch.rand(3, 4), [0, 1, 1], {"high": float("nan")}, "must be below high=nan"),
        (torch.rand(4), [0, 1, 1, 0], {}, r"features have shape \(4,\)"),
        (torch.rand(0, 4), [], {}, r"features have shape \(0, 4\)"),
        (torch.zeros(3, 4, dtype=torch.uint8), [0, 1, 1], {}, "features are uint8"),
        ([["a", "b"]], [0], {}, "features are no numbers"),
        (torch.rand(3, 4), [0, 1], {}, "3 rows and 2 labels"),
        (torch.rand(3, 4), [[0, 1]] * 3, {}, r"labels have shape \(3, 2\)"),
        (torch.rand(3, 4), [0.5, 1, 1], {}, "labels are float32"),
        (torch.rand(3, 4), [0, -1, 1], {}, "labels hold -1"),
        (torch.rand(3, 4), [0, 1, 1], {"names": ("a",)}, "1 names for rows of 4"),
        (torch.rand(3, 4), [0, 1, 1], {"effort": "most"}, "effort='most'"),
        (torch.rand(3, 4), [0, 1, 1], {"outputs": "scores"}, "outputs='scores'"),
        (torch.rand(3, 4), [0, 1, 1], {"ball": 0.1}, "ball=0.1 is no threat"),
    ],
)
def test_what_is_no_row_or_no_label_is_refused(linear, features, label, more, words):
    with pytest.raises(ValueError, match=words) as refused:
        n.attack(linear[0], features, label, **{"ball": n.Ball(radius=0.1), **more})
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250


def test_what_does_not_fit_the_model_is_refused(linear):
    model, rows, label = linear
    asked = {"ball": n.Ball(radius=0.1), "effort": "quick"}
    with pytest.raises(Incompatible, match="from 0 to 2 and the model scores 2 classes"):
        n.attack(model, rows[:3], [0, 1, 2], **asked)
    with pytest.raises(Incompatible, match="does not take rows of shape"):
        n.attack(model, rows[:, :3], label, **asked)
    with pytest.raises(Incompatible, match="towards='7' is no class"):
        n.attack(model, rows, label, towards=7, **asked)
    with pytest.raises(ValueError, match=r"function and no torch\.nn\.Module"):
        n.attack(lambda x: x, rows, label, **asked)
    with pytest.raises(ValueError, match=r"lies on meta and attacks run on the CPU"):
        n.attack(nn.Linear(4, 2, device="meta"), rows, label, **asked)

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nacre.adversarial_training.certificates import CERTIFICATES, CROWN, IBP, Smoothing
from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.table import ColumnMove, TableThreat
from nacre.audit.bounds import clopper_pearson
from nacre.audit.model_security.certificate import certificate
from nacre.audit.model_security.evasion import evasion
from nacre.core.errors import DataError, Incompatible
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Regression
from nacre.recipe.audits import CertificateAudit, Evasion

WEIGHTS = [1.5, -0.5, 0.25, 0.0, 2.0, -1.0]
METHODS = (IBP(), CROWN(), Smoothing(deviation=0.3, samples=1000))


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def test_all_methods_are_audited_here():
    assert {type(method) for method in METHODS} == set(CERTIFICATES)


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_of_a_linear_model_exactly_what_stands_is_certified(target, rows, linear, kind):
    batch, ball = rows(200, 1), Ball(kind=kind, radius=0.4)
    finding = certificate(
        target(linear(WEIGHTS, 0.1), test=batch), CertificateAudit(ball=ball, confidence=0.9)
    )
    score = batch["features"] @ torch.tensor(WEIGHTS) + 0.1
    margins = torch.where(batch["label"] == 1, score, -score)
    length = sum(abs(w) for w in WEIGHTS) if kind == "linf" else math.hypot(*WEIGHTS)
    for point in finding.details["curve"]:
        standing = int((margins > point["radius"] * length).sum())
        assert point["value"] == standing / 200
        assert (point["low"], point["high"]) == clopper_pearson(standing, 200, 0.9)
    assert finding.value == finding.details["curve"][-1]["value"]
    assert "changes the answer" in finding.claim and "CROWN" in finding.measure


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_the_curve_falls_and_lies_below_that_of_attacks(target, rows, method):
    model, ball = network(1), Ball(kind="l2", radius=0.5)
    batch = rows(80, 2)
    with torch.no_grad():
        batch = {**batch, "label": model(batch["features"]).argmax(1)}
    audited = target(model, test=batch)
    proved = certificate(audited, CertificateAudit(ball=ball, method=method))
    values = [point["value"] for point in proved.details["curve"]]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    if not method.smooths:  # an attack of one answer says nothing about the vote
        attacked = evasion(audited, Evasion(ball=ball, effort="quick"))
        for point, other in zip(proved.details["curve"], attacked.details["curve"], strict=True):
            assert point["value"] <= other["value"]
    assert bool(proved.details["notes"]) == method.smooths


def test_the_failure_of_votes_is_given_away_in_the_interval(target, rows):
    method = Smoothing(deviation=0.3, samples=1000, failure=0.05)
    option = CertificateAudit(ball=Ball(kind="l2", radius=0.05), method=method)
    finding = certificate(target(network(3), test=rows(60, 4)), option)
    low, high = clopper_pearson(round(finding.value * 60), 60, 0.95)
    assert (finding.low, finding.high) == (max(0.0, low - 0.05), high)


def test_of_many_rows_some_are_drawn(target, rows):
    option = CertificateAudit(ball=Ball(radius=0.1), rows=25)
    audited = target(network(3), test=rows(60, 4))
    finding = certificate(audited, option)
    assert finding.details["rows_tested"] == 25
    assert certificate(audited, option) == finding


def test_the_ball_of_training_is_taken_where_none_is_named(target, rows):
    audited = target(network(3), test=rows(10, 4), ball=Ball(radius=0.25))
    assert certificate(audited, CertificateAudit()).details["ball"]["radius"] == 0.25


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ball": None}, "needs a ball"),
        ({"ball": TableThreat(columns={"a": ColumnMove(reach=1)})}, "threat of kind 'table'"),
        ({"test": None}, "needs test rows"),
        ({"task": Regression()}, "which class"),
        ({"model": nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))}, "Tanh"),
    ],
)
def test_what_is_missing_is_said(target, rows, change, words):
    audited = replace(target(network(3), test=rows(10, 4), ball=Ball(radius=0.25)), **change)
    with pytest.raises(Incompatible, match=words):
        certificate(audited, CertificateAudit())


class Crowd(nn.Module):
    """A row's scores lean on the batch's mean: among copies of one row, noise goes out of it."""

    def __init__(self):
        super().__init__()
        self.model = network(3)

    def forward(self, x):
        return self.model(0.2 * x + 0.8 * x.mean(0))


def test_votes_that_lean_on_each_other_certify_nothing(target, rows):
    option = CertificateAudit(ball=Ball(kind="l2", radius=0.5), method=Smoothing(deviation=0.3))
    with pytest.raises(Incompatible, match="when another stands beside it"):
        certificate(target(Crowd(), test=rows(30, 4)), option)


def test_an_empty_test_set_is_refused(target, rows):
    with pytest.raises(DataError, match="empty"):
        certificate(target(network(3), test=rows(0, 4), ball=Ball(radius=0.25)), CertificateAudit())


def test_pictures_in_their_own_space_keep_their_range(target, rows):
    space = FeatureSpace((6,), low=torch.zeros(6), high=torch.ones(6))
    batch = rows(20, 5)
    batch = {**batch, "features": batch["features"].sigmoid()}
    model, ball = network(6), Ball(radius=0.3)
    free, kept = (
        certificate(target(model, test=batch, space=s), CertificateAudit(ball=ball)).value
        for s in (FeatureSpace((6,)), space)
    )
    assert free <= kept

"""Each probe has a net that only it was made for, and honest nets set none of them off."""

import threading

import pytest
import torch
from torch import nn

from nacre.adversarial_training.threats.ball import Ball
from nacre.audit.model_security.beside import asked_otherwise
from nacre.audit.model_security.evasion import evasion
from nacre.audit.model_security.signs import PROBES, unbounded, unconfirmed, unconfirmed_notes
from nacre.audit.outside import LabelledRows, audit_model
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Regression
from nacre.recipe.audits import Evasion

WEIGHTS = [1.5, -0.5, 0.25, 0.0, 2.0, -1.0]
QUICK = Evasion(effort="quick")


class Backwards(torch.autograd.Function):
    """Answers as its argument, with a gradient that is changed on its way back."""

    @staticmethod
    def forward(ctx, x, change):
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return ctx.change(slope), None


class Wrapped(nn.Module):
    """`model` with something done to what goes in and what comes out."""

    def __init__(self, model, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x):
        return self.after(self.model(self.before(x)))


def random_output(model):
    return Wrapped(model, after=lambda scores: scores + 0.01 * torch.randn_like(scores))


def softmax_output(model):
    return Wrapped(model, after=lambda scores: scores.softmax(1))


def rounded(model):
    return Wrapped(model, before=lambda x: torch.round(8 * x) / 8)


def reversed_gradient(model):
    return Wrapped(model, before=lambda x: Backwards.apply(x, lambda slope: -slope))


def scrambled_gradient(model):
    """A gradient that is another's: that of the features in another order."""
    return Wrapped(model, before=lambda x: Backwards.apply(x, lambda slope: slope.roll(2, 1)))


def rugged(model):
    """Ripples on each feature: a climb ends on the next one, and others are higher."""
    return Wrapped(model, before=lambda x: 0.2 * x + 0.25 * torch.sin(17 * x) * torch.cos(5.3 * x))


class Peak(nn.Module):
    """One class nearly everywhere: no gradient leads to the other one's few places."""

    def forward(self, x):
        near = (x.square().sum(1) < 1e-4).float()
        return torch.stack([1 - 2 * near, 2 * near], 1) + 0 * x[:, :2]


class Crowd(nn.Module):
    """Scores that a part of the batch's mean is added to."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x + 0.05 * x.mean(0))


class Watchful(Crowd):
    """Answers as its model while gradients are computed, and by rougher inputs else."""

    def forward(self, x):
        return self.model(x if torch.is_grad_enabled() else torch.round(x))


class Placed(Crowd):
    """Answers the first row of a batch otherwise than those after it."""

    def forward(self, x):
        shift = torch.zeros_like(x)
        shift[0] = 0.5
        return self.model(x + shift)


MADE = {
    "other_answers": Crowd,
    "unconfirmed_points": Watchful,
    "random_output": random_output,
    "softmax_output": softmax_output,
    "vanishing_gradient": rounded,
    "loss_not_rising": reversed_gradient,
    "square_beats_gradient": rounded,
    "more_still_helps": rugged,
    "unbounded_radius": lambda model: Peak(),
    "transfer_beats_white_box": scrambled_gradient,
}


def test_every_probe_has_a_net_of_its_own():
    assert MADE.keys() == PROBES.keys()


@pytest.mark.parametrize("name", list(MADE))
def test_a_net_made_for_a_probe_sets_it_off(target, rows, linear, name):
    model = MADE[name](linear(WEIGHTS, 0.1))
    batch = rows(300, 6)
    finding = evasion(target(model, test=batch, ball=Ball(radius=0.3)), QUICK)
    sign = finding.details["signs"][name]
    assert sign["warning"], finding.details["signs"]
    assert sign["warning"] in finding.details["warnings"]
    assert finding.verdict == "not evidence" and "says nothing" in finding.meaning
    assert f"not evidence: {sign['warning']}" in finding.details["notes"]


def learnt(outputs, activation, batch):
    """A net that has learnt the labels."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 32), activation, nn.Linear(32, outputs))
    for _ in range(150):
        scores = model(batch["features"])
        scores = torch.cat([-scores / 2, scores / 2], 1) if outputs == 1 else scores
        loss = nn.functional.cross_entropy(scores, batch["label"])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight -= gradient
    return model


HONEST = {
    "linear": (lambda linear, batch: linear(WEIGHTS, 0.1), "quick"),
    "deep": (lambda linear, batch: learnt(2, nn.ReLU(), batch), "quick"),
    "smooth": (lambda linear, batch: learnt(2, nn.Tanh(), batch), "quick"),
    "one output": (lambda linear, batch: learnt(1, nn.ReLU(), batch), "quick"),
    # Its softmax is 0 or 1 in float32: only a loss that no factor changes sees anything.
    "confident": (
        lambda linear, batch: Wrapped(linear(WEIGHTS, 0.1), after=lambda s: 1e6 * s),
        "standard",
    ),
}


def taught(rows, linear):
    batch = rows(300, 6)
    with torch.no_grad():
        batch["label"] = linear(WEIGHTS, 0.1)(batch["features"]).argmax(1)
    return batch


@pytest.mark.diagonal
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("kind", list(HONEST))
def test_an_honest_net_sets_nothing_off(target, rows, linear, kind, norm):
    batch = taught(rows, linear)
    made, effort = HONEST[kind]
    space = FeatureSpace((6,), low=torch.tensor(-4.0), high=torch.tensor(4.0))
    ball = Ball(kind=norm, radius=0.2)
    audited = target(made(linear, batch), test=batch, ball=ball, space=space)
    finding = evasion(audited, Evasion(effort=effort))
    assert finding.details["warnings"] == [], finding.details["signs"]
    assert finding.verdict == "measured"


def test_probabilities_said_to_be_such_are_read_as_such(target, rows, linear):
    batch, ball = rows(200, 6), Ball(radius=0.3)
    plain = evasion(target(linear(WEIGHTS, 0.1), test=batch, ball=ball), QUICK)
    said = target(
        softmax_output(linear(WEIGHTS, 0.1)), test=batch, ball=ball, outputs="probabilities"
    )
    found = evasion(said, QUICK)
    assert found.value == plain.value and found.verdict == "measured"


@pytest.mark.parametrize(
    ("made", "ways"),
    [(Crowd, {"alone"}), (Watchful, {"with_gradients"}), (Placed, {"order", "alone"})],
)
def test_in_which_way_a_model_answers_otherwise_is_said(target, rows, linear, made, ways):
    model = made(linear(WEIGHTS, 0.1))
    finding = evasion(target(model, test=rows(60, 6), ball=Ball(radius=0.3)), QUICK)
    sign = finding.details["signs"]["other_answers"]
    assert {way for way in ("alone", "order", "with_gradients") if sign[way]} == ways
    assert sign["tried"] == 60 - round(60 * (1 - finding.details["clean"]["value"]))


@pytest.mark.parametrize("never", [-1e9, torch.finfo(torch.float32).min, -torch.inf])
@pytest.mark.parametrize("made", [Crowd, Watchful, None])
def test_a_class_that_is_never_answered_hides_nothing(rows, linear, made, never):
    """Its score is masked, as of a class that is not allowed; asked beside others nothing stands
    out from a number of that size."""
    body = linear(WEIGHTS, 0.1)
    model = Wrapped(
        body if made is None else made(body),
        after=lambda scores: torch.cat([scores, torch.full_like(scores[:, :1], never)], 1),
    )
    found = asked_otherwise(model, rows(60, 6)["features"])
    assert found["tried"] == 60 and (found["rows"] > 30) == (made is not None)


class Mindful(nn.Module):
    """Notes the first batch that it sees, and answers what lies near one of its rows as that row:
    it withstands whoever asks about clean rows first, and nobody else."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, None

    def forward(self, x):
        if self.seen is None and len(x) > 20:
            self.seen = x.detach().clone()
        if self.seen is None:
            return self.model(x)
        nearest = torch.cdist(x.detach(), self.seen).argmin(1)
        return self.model(self.seen[nearest]) + 0.01 * self.model(x)


def test_a_model_that_remembers_what_it_was_asked_is_no_evidence(target, rows, linear):
    batch, ball = rows(60, 6), Ball(radius=0.3)
    plain = evasion(target(linear(WEIGHTS, 0.1), test=batch, ball=ball), QUICK)
    assert plain.details["signs"]["other_answers"]["fresh"] == 0
    found = evasion(target(Mindful(linear(WEIGHTS, 0.1)), test=batch, ball=ball), QUICK)
    assert found.value > plain.value and found.verdict == "not evidence"
    assert any("was not asked before" in said for said in found.details["warnings"])


class Holding(nn.Module):
    """What cannot be copied is attacked as any other model."""

    def __init__(self, model):
        super().__init__()
        self.model, self.lock = model, threading.Lock()

    def forward(self, x):
        with self.lock:
            return self.model(x)


def test_a_model_that_cannot_be_copied_is_attacked(target, rows, linear):
    found = evasion(
        target(Holding(linear(WEIGHTS, 0.1)), test=rows(60, 6), ball=Ball(radius=0.3)), QUICK
    )
    assert found.verdict == "measured"


def test_one_score_a_row_may_lack_its_column(target, rows, linear):
    batch, ball = rows(60, 6), Ball(radius=0.3)
    column = Wrapped(linear(WEIGHTS, 0.1), after=lambda scores: scores[:, 1:] - scores[:, :1])
    bare = Wrapped(column, after=lambda scores: scores[:, 0])
    found = [evasion(target(model, test=batch, ball=ball), QUICK) for model in (column, bare)]
    assert (
        found[0].value == found[1].value and found[0].details["signs"] == found[1].details["signs"]
    )


@pytest.mark.parametrize("made", [Crowd, Watchful])
def test_a_model_of_numbers_that_answers_rows_by_others_is_no_evidence(target, rows, made):
    body = nn.Linear(6, 1)
    batch = rows(60, 6)
    with torch.no_grad():
        batch["label"] = body(batch["features"]).squeeze(1) + 0.05
    task = Regression(tolerance=0.2)
    honest = target(body, task=task, test=batch, ball=Ball(radius=0.1))
    found = evasion(honest, QUICK)
    assert found.verdict == "measured" and found.details["signs"]["other_answers"]["tried"] == 60
    found = evasion(target(made(body), task=task, test=batch, ball=Ball(radius=0.1)), QUICK)
    assert found.verdict == "not evidence"
    assert any("has to depend on that row alone" in said for said in found.details["warnings"])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_in_another_order_is_no_sign(target, rows, kind):
    """Batches of other shapes are added up in another order, and halves round coarsely."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        body = nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Linear(512, 2)).to(kind)
    model = Wrapped(body, before=lambda x: x.to(kind))
    finding = evasion(target(model, test=rows(60, 6), ball=Ball(radius=0.05)), QUICK)
    assert finding.details["signs"]["other_answers"]["rows"] == 0


def test_a_point_at_the_edge_that_is_lost_is_said_and_says_nothing():
    sign = unconfirmed(1, 40)
    assert sign == {"warning": None, "rows": 1, "tried": 40}
    assert len(unconfirmed_notes(sign)) == 1 and "once a point" in unconfirmed_notes(sign)[0]
    assert unconfirmed_notes(unconfirmed(0, 40)) == []
    many = unconfirmed(4, 40)
    assert "4 times an attack" in many["warning"] and unconfirmed_notes(many) == []


def test_probes_do_not_enter_the_figure(target, rows, linear):
    """What a probe breaks is said; the share is that of the cascade, over all rows alike."""
    finding = evasion(
        target(rounded(linear(WEIGHTS, 0.1)), test=rows(200, 6), ball=Ball(radius=0.3)), QUICK
    )
    broke = sum(stage["broke"] for stage in finding.details["stages"])
    clean = finding.details["clean"]["value"]
    assert round(200 * (clean - finding.value)) == broke
    assert finding.details["signs"]["square_beats_gradient"]["rows"] > 0


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_an_unbounded_region_holds_every_legal_input(kind):
    low, high = torch.tensor([0.0, -1.0, 2.0]), torch.tensor([1.0, 5.0, 2.5])
    region = unbounded(Ball(kind=kind, radius=0.01).region(FeatureSpace((3,), low=low, high=high)))
    uniform = Source(bytes(32)).stream().uniform(50, 3).float()
    one, other = (low + (high - low) * part for part in (uniform, 1 - uniform))
    assert region.contains(one, other).all()


def test_a_sparse_step_that_meets_the_end_of_the_range_is_no_sign():
    """Most entries of a picture lie at 0 or 1; in L1 the steepest one often cannot move."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
    x = (torch.rand(120, 1, 8, 8) * 4 - 1.5).clamp(0, 1)
    rows = LabelledRows(x, model(x).argmax(1))
    option = Evasion(ball=Ball(kind="l1", radius=1.0), effort="quick")
    found = audit_model(model, rows, option)
    assert found.details["signs"]["loss_not_rising"] == {"warning": None, "rows": 0, "tried": 120}
    assert found.verdict == "measured"


@pytest.mark.parametrize(
    ("bias", "said"), [(0.6, "answered otherwise:"), (9.0, "one answer to all")]
)
def test_rows_that_stand_anywhere_are_told_from_a_model_of_one_answer(bias, said):
    """The first model's gradient is reversed; the second answers all legal inputs alike."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        linear.bias.copy_(torch.tensor([bias, 0.0]))
    model = linear if bias > 1 else reversed_gradient(linear)
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    space = FeatureSpace((2,), low=torch.tensor(0.0), high=torch.tensor(1.0))
    rows = LabelledRows(x, model(x).argmax(1), (), space)
    found = audit_model(model, rows, Evasion(ball=Ball(radius=0.01), effort="quick"))
    assert said in found.details["signs"]["unbounded_radius"]["warning"]

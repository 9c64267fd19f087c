import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nacre.adversarial_training.threats.ball import Ball
from nacre.audit.bounds import at_any_time, clopper_pearson
from nacre.audit.model_security.classes import PORTION, attack_classes
from nacre.audit.model_security.evasion import SHARES, evasion
from nacre.audit.model_security.masking import suspicions
from nacre.audit.model_security.search import AttackSearch, scaled
from nacre.audit.target import no_progress
from nacre.core.errors import DataError, Incompatible
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Regression
from nacre.recipe.audits import Evasion, WhenNarrow

WEIGHTS = [1.5, -0.5, 0.25, 0.0, 2.0, -1.0]
LENGTH = {  # the dual norms
    "linf": sum(abs(w) for w in WEIGHTS),
    "l2": math.hypot(*WEIGHTS),
    "l1": max(abs(w) for w in WEIGHTS),
}
QUICK = Evasion(effort="quick")


def network(seed, width=6, classes=2):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, classes))


def margins(batch, weights=WEIGHTS, bias=0.1):
    """How far each row lies on its label's side of w·x + b = 0, in units of the dual norm."""
    score = batch["features"] @ torch.tensor(weights) + bias
    return torch.where(batch["label"] == 1, score, -score)


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_a_linear_model_falls_exactly_where_geometry_says(target, rows, linear, kind):
    ball, batch = Ball(kind=kind, radius=0.4), rows(200, 1)
    finding = evasion(target(linear(WEIGHTS, 0.1), test=batch, ball=ball), QUICK)
    for point in finding.details["curve"]:
        standing = (margins(batch) > point["share"] * ball.radius * LENGTH[kind]).sum()
        assert point["value"] == int(standing) / 200
        assert point["radius"] == pytest.approx(point["share"] * 0.4)
    assert finding.value == finding.details["attacked"]["value"]
    assert finding.details["warnings"] == []


def test_each_figure_has_its_exact_interval(target, rows, linear):
    finding = evasion(
        target(linear(WEIGHTS), test=rows(80, 1), ball=Ball(radius=0.2)),
        replace(QUICK, confidence=0.9),
    )
    for point in finding.details["curve"]:
        expected = clopper_pearson(round(point["value"] * 80), 80, 0.9)
        assert (point["low"], point["high"]) == expected
    assert (finding.low, finding.high) == clopper_pearson(round(finding.value * 80), 80, 0.9)
    assert finding.verdict == "measured" and "none" in finding.claim


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_accuracy_never_rises_with_the_radius(target, rows, seed, kind):
    model, batch = network(seed, classes=3), rows(60, seed, classes=3)
    finding = evasion(target(model, test=batch, ball=Ball(kind=kind, radius=0.5)), QUICK)
    values = [point["value"] for point in finding.details["curve"]]
    assert values == sorted(values, reverse=True)
    assert finding.value <= finding.details["clean"]["value"]
    answered = (model(batch["features"]).argmax(1) == batch["label"]).double().mean()
    assert finding.details["clean"]["value"] == pytest.approx(float(answered))


def test_a_radius_of_zero_changes_nothing(target, rows):
    finding = evasion(target(network(1), test=rows(40, 1), ball=Ball(radius=0.0)), QUICK)
    assert finding.value == finding.details["clean"]["value"]


def attack(audited, ball, option=QUICK):
    return attack_classes(audited, audited.test, ball, option, SHARES, no_progress)


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_a_broken_point_lies_in_its_ball_and_is_wrong(target, rows, kind):
    audited = target(network(2), test=rows(60, 2))
    ball = Ball(kind=kind, radius=0.6)
    found = attack(audited, ball).search
    batch = found.batch
    broken = found.broken_at.isfinite() & (found.broken_at > 0)
    assert broken.any()
    wrong = audited.model(found.features).argmax(1) != batch["label"]
    assert wrong[broken].all()
    for share in SHARES:
        at = found.broken_at == share
        region = scaled(ball, share).region(audited.space)
        assert region.contains(found.features[at], batch["features"][at]).all()
    assert torch.equal(found.features[~broken], batch["features"][~broken])
    assert sorted(batch["unit"].tolist()) == list(range(60))


def test_a_point_that_no_longer_errs_is_not_counted(target, rows):
    audited = target(network(2), test=rows(30, 2))
    begun = AttackSearch.begin(audited, audited.test)
    claimed = replace(begun, broken_at=begun.broken_at.clamp(max=0.5))  # with the clean features
    assert torch.equal(claimed.confirmed(audited).broken_at, begun.broken_at)


def test_more_effort_never_leaves_more_standing(target, rows):
    audited = target(network(3, classes=3), test=rows(80, 3, classes=3), ball=Ball(radius=0.4))
    quick, full = (evasion(audited, Evasion(effort=effort)).value for effort in ("quick", "full"))
    assert full <= quick


class Steep(nn.Module):
    """A linear model whose softmax has no gradient left in float32."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return 1e6 * self.model(x)


def test_a_saturated_softmax_hides_nothing(target, rows, linear):
    batch = rows(100, 5)
    audited = target(Steep(linear(WEIGHTS, 0.1)), test=batch, ball=Ball(radius=0.4))
    finding = evasion(audited, Evasion())
    standing = int((margins(batch) > 0.4 * LENGTH["linf"]).sum())
    assert finding.value == standing / 100 and finding.verdict == "measured"


def test_each_sign_by_itself():
    quiet_signs = {
        "rows": 50,
        "broken_by_pgd": 20,
        "broken_by_fgsm": 20,
        "broken_by_noise": 3,
        "broken_far_away": 50,
        "far": 8.0,
        "zero_gradients": 5,
        "other_answers": {"rows": 0, "alone": 0, "order": 0, "with_gradients": 0, "tried": 50},
    }
    beside = {"rows": 3, "alone": 3, "order": 0, "with_gradients": 1, "tried": 50}
    assert suspicions(quiet_signs) == []
    for change, word in [
        ({"broken_by_fgsm": 21}, "one step"),
        ({"broken_by_noise": 21}, "random"),
        ({"broken_far_away": 19}, "8 times"),
        ({"zero_gradients": 6}, "zero at 6 of 50"),
        ({"other_answers": beside}, "3 of 50 points are answered otherwise"),
    ]:
        (sign,) = suspicions({**quiet_signs, **change})
        assert word in sign


def test_tables_show_the_features_that_moved_in_their_own_units(target, rows, linear):
    names = ("age", "weight", "height", "colour=red", "pressure", "sugar")
    space = FeatureSpace(
        (6,),
        names,
        scale=torch.tensor([10.0, 1, 1, 1, 2, 1]),
        offset=torch.tensor([50.0, 0, 0, 0, 120, 0]),
        categorical=("colour",),
    )
    batch = rows(50, 7)
    ball = Ball(radius=0.4, frozen=("height",))
    audited = target(
        linear(WEIGHTS, 0.1),
        test=batch,
        ball=ball,
        space=space,
        test_public=True,
        classes=("benign", "malignant"),
    )
    finding = evasion(audited, QUICK)
    shown = finding.details["rows"]
    assert 1 <= len(shown) <= 4 and finding.details["pictures"] == []
    for row in shown:
        assert row["label"] == row["before"] != row["after"]
        assert {row["before"], row["after"]} == {"benign", "malignant"}
        moved = {change["feature"]: change for change in row["changes"]}
        assert moved and not moved.keys() & {"height", "colour=red"}
        scales = dict(zip(names, space.scale.tolist(), strict=True))
        moves = [abs(c["after"] - c["before"]) / scales[f] for f, c in moved.items()]
        assert max(moves) <= row["share"] * 0.4 + 1e-5
        assert moves == pytest.approx(sorted(moves, reverse=True), abs=1e-5)
    json.dumps(finding.to_json(), allow_nan=False)
    assert finding.public


def test_pictures_show_pixels_before_and_after(target, rows, linear):
    batch = rows(30, 8, width=16)
    batch["features"] = batch["features"].reshape(30, 1, 4, 4)
    model = nn.Sequential(nn.Flatten(), linear([0.5] * 16))
    space = FeatureSpace((1, 4, 4), low=torch.tensor(-4.0))
    audited = target(model, test=batch, ball=Ball(radius=1.0), space=space, test_public=True)
    finding = evasion(audited, QUICK)
    assert finding.details["rows"] == []
    assert len(finding.details["pictures"]) == 4
    for picture in finding.details["pictures"]:
        assert picture["shape"] == [1, 4, 4]
        assert picture["before"] == picture["label"] != picture["after"]
        assert picture["label"] in ("0", "1")
        pixels = picture["clean"] + picture["attacked"]
        assert len(pixels) == 32 and min(pixels) >= 0 and max(pixels) <= 1
        assert picture["clean"] != picture["attacked"]


def test_rows_that_are_not_public_are_not_shown(target, rows, linear):
    space = FeatureSpace((6,), tuple("abcdef"))
    audited = target(linear(WEIGHTS), test=rows(50, 7), ball=Ball(radius=0.4), space=space)
    finding = evasion(audited, QUICK)
    assert not finding.public
    assert finding.details["rows"] == finding.details["pictures"] == []


def test_nothing_is_shown_of_inputs_without_names_or_without_a_break(target, rows, linear):
    public = {"test": rows(20, 1), "test_public": True}
    for radius in (0.0, 0.5):
        details = evasion(
            target(linear(WEIGHTS), ball=Ball(radius=radius), **public), QUICK
        ).details
        assert details["rows"] == details["pictures"] == []


def test_regression_is_right_within_its_tolerance(target, rows):
    batch = rows(60, 9)
    batch["label"] = batch["features"] @ torch.tensor(WEIGHTS)
    model = nn.Linear(6, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([WEIGHTS]))
        model.bias.fill_(0.1)
    space = FeatureSpace((6,), tuple("abcdef"))
    finding = evasion(
        target(
            model,
            task=Regression(tolerance=0.5),
            test=batch,
            ball=Ball(radius=0.1),
            space=space,
            test_public=True,
        ),
        QUICK,
    )
    # an error of 0.1 grows by up to radius x 5.25: all rows fall where that passes 0.4
    values = [point["value"] for point in finding.details["curve"]]
    assert values == [1, 1, 1, 1, 0]
    row = finding.details["rows"][0]
    assert float(row["after"]) - float(row["label"]) == pytest.approx(0.625, abs=2e-3)


def test_a_model_that_answers_no_numbers_is_right_about_nothing(target, rows):
    model = network(1)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    finding = evasion(target(model, test=rows(20, 1), ball=Ball(radius=0.1)), QUICK)
    assert finding.value == finding.details["clean"]["value"] == 0
    assert finding.verdict == "measured" and finding.details["each"] == []


def test_padding_is_no_row(target, rows):
    batch = rows(20, 1)
    padded = {k: torch.cat([v, v[:5]]) for k, v in batch.items()}
    padded["present"][20:] = False
    plain, more = (
        evasion(target(network(1), test=b, ball=Ball(radius=0.3)), QUICK) for b in (batch, padded)
    )
    assert plain == more


def test_the_audits_own_ball_comes_first(target, rows):
    audited = target(network(1), test=rows(20, 1), ball=Ball(radius=0.1))
    finding = evasion(audited, replace(QUICK, ball=Ball(kind="l2", radius=2.0, radii={})))
    assert finding.details["ball"] == {"kind": "l2", "radius": 2.0, "unit": "scaled"}


def test_radii_of_single_features_are_named_and_scaled(target, rows, linear):
    space = FeatureSpace((6,), tuple("abcdef"))
    ball = Ball(radius=0.0, radii={"e": 0.4})
    batch = rows(100, 3)
    finding = evasion(target(linear(WEIGHTS, 0.1), test=batch, ball=ball, space=space), QUICK)
    for point in finding.details["curve"]:
        standing = (margins(batch) > point["share"] * 0.4 * 2.0).sum()
        assert point["value"] == int(standing) / 100
    assert "1 features with radii" in finding.claim


@pytest.mark.parametrize(
    ("parts", "words"), [({"test": None}, "test rows"), ({"ball": None}, "needs a ball")]
)
def test_rows_and_a_ball_are_needed(target, rows, parts, words):
    with pytest.raises(Incompatible, match=words):
        evasion(
            target(network(1), **{"test": rows(5, 1), "ball": Ball(radius=0.1), **parts}), QUICK
        )


def test_an_empty_test_set_is_refused(target, rows):
    with pytest.raises(DataError, match="empty"):
        evasion(target(network(1), test=rows(0, 1), ball=Ball(radius=0.1)), QUICK)


def test_progress_counts_the_rows_that_stand_and_the_model_is_left_as_it_was(target, rows):
    seen = []
    model = network(1).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    audited = target(model, test=rows(20, 1), ball=Ball(radius=0.3))
    evasion(audited, QUICK, lambda *told: seen.append(told))
    done, totals, words = zip(*seen, strict=True)
    assert list(done) == sorted(done) and done[-1] == totals[0] and len(set(totals)) == 1
    assert all("rows stand" in said for said in words)
    assert model.training
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None and p.requires_grad


def test_the_same_source_gives_the_same_finding(target, rows):
    audited = target(network(1), test=rows(40, 1), ball=Ball(radius=0.3))
    assert evasion(audited, QUICK) == evasion(audited, QUICK)


def test_a_class_that_the_attacker_wants(target, rows):
    """Of three classes; only what is answered as that one is broken."""
    batch = rows(120, 3, classes=3)
    names = ("benign", "malignant", "unsure")
    audited = target(network(3, classes=3), test=batch, ball=Ball(radius=0.6), classes=names)
    finding = evasion(audited, replace(QUICK, towards="malignant"))
    others = int((batch["label"] != 1).sum())
    assert finding.details["rows_tested"] == others < 120
    assert "'malignant'" in finding.measure and finding.details["towards"] == "malignant"
    found = attack(audited, Ball(radius=0.6), replace(QUICK, towards="malignant")).search
    answered = audited.model(found.features).argmax(1)
    broken = found.broken_at.isfinite()
    assert broken.any() and not broken.all()
    assert torch.equal(answered == 1, broken)
    with pytest.raises(Incompatible, match="'worse' is no class of the model: they are benign"):
        evasion(audited, replace(QUICK, towards="worse"))
    with pytest.raises(DataError, match="nothing is left"):
        one = {name: value[batch["label"] == 1] for name, value in batch.items()}
        evasion(replace(audited, test=one), replace(QUICK, towards="malignant"))


def test_it_stops_once_the_interval_is_narrow(target, rows, linear):
    batch = rows(6 * PORTION, 1)
    audited = target(linear(WEIGHTS, 0.1), test=batch, ball=Ball(radius=0.2))
    finding = evasion(audited, replace(QUICK, stop=WhenNarrow(interval=0.25)))
    tested = finding.details["rows_tested"]
    assert tested < len(batch["label"]) and tested % PORTION == 0
    assert finding.details["rows_there"] == len(batch["label"])
    assert finding.details["stop"] == {"interval": 0.25, "early": True}
    assert finding.high - finding.low <= 0.25
    standing = round(finding.value * tested)
    assert (finding.low, finding.high) == at_any_time(standing, tested, 0.95)
    fewer = round(finding.value * (tested - PORTION))
    low, high = at_any_time(fewer, tested - PORTION, 0.95)
    assert high - low > 0.25
    # The rows it took are the first of a random order, and of each what all of them would give.
    whole = attack(audited, Ball(radius=0.2)).search
    some = attack(audited, Ball(radius=0.2), replace(QUICK, stop=WhenNarrow(interval=0.25))).search
    assert torch.equal(some.batch["unit"], whole.batch["unit"][:tested])
    assert torch.equal(some.broken_at, whole.broken_at[:tested])
    assert torch.equal(some.features, whole.features[:tested])
    assert some.batch["unit"].tolist() != list(range(tested))


def test_portions_are_added_up_by_stage(target, rows, linear):
    audited = target(linear(WEIGHTS, 0.1), test=rows(2 * PORTION + 9, 1), ball=Ball(radius=0.4))
    whole = evasion(audited, QUICK).details
    parts = evasion(audited, replace(QUICK, stop=WhenNarrow(interval=0.001))).details
    assert parts["rows_tested"] == 2 * PORTION + 9 and not parts["stop"]["early"]
    for name in ("stages", "smaller_radii", "each", "margins"):
        if name != "stages":
            assert parts[name] == whole[name]
    for one, other in zip(parts["stages"], whole["stages"], strict=True):
        assert {**one, "forwards": 0} == {**other, "forwards": 0}


def test_the_stage_table_counts_what_each_broke(target, rows):
    batch = rows(100, 3, classes=3)
    finding = evasion(target(network(3, classes=3), test=batch, ball=Ball(radius=0.4)), Evasion())
    stages, clean = finding.details["stages"], round(finding.details["clean"]["value"] * 100)
    assert stages[0]["tried"] == clean
    for before, after in itertools.pairwise(stages):
        assert after["tried"] == before["tried"] - before["broke"]
    assert clean - sum(stage["broke"] for stage in stages) == round(finding.value * 100)
    assert len(finding.details["each"]) == sum(stage["broke"] for stage in stages)
    for row in finding.details["each"]:
        assert 0 <= row["row"] < 100 and row["share"] in SHARES and row["steps"] >= 1
        assert row["stage"] < len(stages)


def test_labels_that_the_model_does_not_score_are_refused(target, rows):
    with pytest.raises(Incompatible, match="the labels go from 0 to 4 and the model scores 3"):
        evasion(
            target(network(1, classes=3), test=rows(50, 1, classes=5), ball=Ball(radius=0.1)), QUICK
        )


@pytest.mark.diagonal
@pytest.mark.parametrize("classes", [2, 3, 4, 12])
@pytest.mark.parametrize("effort", ["standard", "full"])
def test_any_number_of_classes(target, rows, classes, effort):
    batch = rows(30, 1, classes=classes)
    finding = evasion(
        target(network(1, classes=classes), test=batch, ball=Ball(radius=0.3)),
        Evasion(effort=effort),
    )
    assert finding.value <= finding.details["clean"]["value"]


def test_inputs_outside_the_legal_range_are_said(target, rows):
    space = FeatureSpace((6,), low=torch.tensor(-1.0), high=torch.tensor(1.0))
    audited = target(network(1), test=rows(50, 1), ball=Ball(radius=0.1), space=space)
    (note,) = (note for note in evasion(audited, QUICK).details["notes"] if "legal" in note)
    assert "of 50 rows lie outside the legal range" in note


def test_stop_and_towards_are_for_classes(target, rows):
    batch = rows(20, 9)
    batch["label"] = batch["features"].sum(1)
    audited = target(nn.Linear(6, 1), task=Regression(), test=batch, ball=Ball(radius=0.1))
    for option in (replace(QUICK, towards="1"), replace(QUICK, stop=WhenNarrow())):
        with pytest.raises(Incompatible, match="for models that answer classes"):
            evasion(audited, option)

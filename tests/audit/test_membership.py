import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from nacre.audit.data_privacy.membership import membership
from nacre.audit.data_privacy.thresholds import Scores
from nacre.core.errors import DataError, Incompatible
from nacre.core.random import Source
from nacre.recipe.audits import Membership


def network(seed, width=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 2))


@pytest.fixture(scope="module")
def fitted():
    """A network driven to remember the labels of a batch, once for each batch: it is only read."""
    known = {}

    def make(batch, seed=0):
        key = (batch["features"].numpy().tobytes(), batch["label"].numpy().tobytes(), seed)
        if key not in known:
            known[key] = driven(batch, seed)
        return known[key]

    def driven(batch, seed):
        model = network(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(400):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch["features"]), batch["label"]).backward()
            optimizer.step()
        return model.eval()

    return make


@pytest.fixture
def remembered(target, rows, fitted):
    """A target whose model remembers meaningless labels; two references that saw other rows."""

    def make(**rest):
        members, outsiders = rows(60, 1), rows(60, 2)
        settings = {
            "members": members,
            "outsiders": outsiders,
            "references": (network(3), network(4)),
        }
        return target(fitted(members), **{**settings, **rest})

    return make


def test_a_model_that_knows_nothing_raises_no_alarm(target, rows):
    # At 95 % a conservative interval misses 0 in at most 5 % of repetitions: more than 16 of 160
    # has probability below 0.5 %. A random model stands for one that never saw a row.
    missed = 0
    for seed in range(160):
        blank = target(
            network(seed),
            seed=seed,
            members=rows(40, 1000 + seed),
            outsiders=rows(30, 5000 + seed),
            references=(network(900 + seed),),
        )
        finding = membership(blank, Membership())
        missed += not finding.low <= 0 <= finding.high
    assert missed <= 16


def test_a_model_that_remembers_is_found(remembered):
    finding = membership(remembered(), Membership())
    assert finding.verdict == "measured"
    assert finding.low > 0 and finding.value > 0.3
    assert finding.details["epsilon"] is None
    assert not finding.details["shift"]["detected"]
    assert finding.claim.startswith("none")


def test_a_false_claim_is_broken(remembered):
    finding = membership(remembered(claimed_epsilon=0.1, claimed_delta=1e-5), Membership())
    assert finding.verdict == "broken"
    assert finding.details["epsilon"]["one_run"] > 0.1
    assert "epsilon=0.1" in finding.claim


def test_a_claim_that_leaves_room_is_not_contradicted(remembered):
    finding = membership(remembered(claimed_epsilon=50.0, claimed_delta=1e-5), Membership())
    assert finding.verdict == "holds"
    assert "not contradicted" in finding.meaning
    assert finding.low > 0


def test_nothing_seen_is_called_nothing_seen_even_with_a_claim(target, rows):
    blank = target(
        network(1),
        members=rows(40, 1),
        outsiders=rows(40, 2),
        claimed_epsilon=1.0,
        claimed_delta=1e-5,
    )
    finding = membership(blank, Membership())
    assert finding.verdict == "not distinguishable from none"
    assert finding.details["epsilon"]["one_run"] == 0
    assert finding.details["notes"]  # no reference: the population was not checked


def test_cohorts_of_two_populations_are_no_evidence(target, rows, linear):
    # every model finds the members easy, though none was trained: their labels are the sign
    def easy(count, seed):
        batch = rows(count, seed)
        return {**batch, "label": (batch["features"][:, 0] > 0).long()}

    sign = [3.0, 0, 0, 0, 0, 0]
    finding = membership(
        target(
            linear(sign),
            members=easy(80, 1),
            outsiders=rows(80, 2),
            references=(linear([1.0, 0, 0, 0, 0, 0]),),
            claimed_epsilon=0.01,
            claimed_delta=1e-5,
        ),
        Membership(),
    )
    assert finding.details["shift"]["detected"]
    assert finding.details["shift"]["members_look"] == "easier"
    assert finding.low > 0  # and yet
    assert finding.verdict == "measured"
    assert "one population" in finding.details["notes"][0]


def test_the_threshold_never_sees_the_measuring_half(remembered):
    """Exchanging members and outsiders among the measured rows moves the figure, not the rule."""
    honest = remembered()
    places = torch.arange(60, dtype=torch.float64)
    source = honest.source.child("membership", "halves")
    measured = Scores(places, places).halves(source)[1]
    inside, outside = measured.members.long(), measured.outsiders.long()
    members, outsiders = (
        {k: v.clone() for k, v in b.items()} for b in (honest.members, honest.outsiders)
    )
    for name in ("features", "label"):
        members[name][inside], outsiders[name][outside] = (
            outsiders[name][outside].clone(),
            members[name][inside].clone(),
        )
    swapped = replace(honest, members=members, outsiders=outsiders)
    before, after = (membership(t, Membership()) for t in (honest, swapped))
    assert after.details["attack"] == before.details["attack"]
    assert after.details["threshold"] == before.details["threshold"]
    assert after.value == pytest.approx(-before.value)


def test_the_calibrated_attack_sees_what_the_loss_alone_hides(target, rows):
    """Row difficulty drowns a small trace of memory; a reference takes the difficulty away."""
    members, outsiders = rows(150, 1), rows(150, 2)
    reference = nn.Linear(6, 2)
    with torch.no_grad():
        reference.weight.mul_(20)  # losses that differ widely from row to row

    class Trace(nn.Module):
        def forward(self, x):
            known = torch.isin(x[:, 0], members["features"][:, 0])
            right = torch.nn.functional.one_hot(labels(x), 2)
            return reference(x) + 0.5 * known[:, None] * right

    def labels(x):
        everything = {float(f[0]): int(y) for b in (members, outsiders) for f, y in pairs(b)}
        return torch.tensor([everything[float(row[0])] for row in x])

    finding = membership(
        target(Trace(), members=members, outsiders=outsiders, references=(reference,)),
        Membership(),
    )
    assert finding.details["attack"] == "calibrated"
    assert finding.low > 0.5
    each = finding.details["attacks"]
    assert each["loss"]["low"] < 0 < each["calibrated"]["low"]


def pairs(batch):
    return zip(batch["features"], batch["label"], strict=True)


def test_rates_at_few_false_positives(target, rows):
    large = target(network(1), members=rows(220, 1), outsiders=rows(220, 2))
    details = membership(large, Membership()).details
    point = details["tpr_at_1_percent_fpr"]
    assert point["low"] <= point["tpr"] <= point["high"]
    assert len(details["roc"]) == 5
    small = target(network(1), members=rows(30, 1), outsiders=rows(30, 2))
    details = membership(small, Membership()).details
    assert details["tpr_at_1_percent_fpr"] is None
    assert len(details["roc"]) == 3  # 15 outsiders cannot show 1 % nor 5 %


def test_the_same_source_gives_the_same_finding_and_json(remembered):
    first, second = (membership(remembered(), Membership()) for _ in range(2))
    assert first == second
    json.dumps(first.to_json(), allow_nan=False)


def test_a_model_that_answers_no_numbers_is_audited_all_the_same(target, rows):
    model = network(1)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    finding = membership(target(model, members=rows(20, 1), outsiders=rows(20, 2)), Membership())
    assert finding.value == 0
    json.dumps(finding.to_json(), allow_nan=False)


def test_padding_is_no_row(target, rows):
    members, outsiders = rows(20, 1), rows(20, 2)
    padded = {k: torch.cat([v, v[:5]]) for k, v in members.items()}
    padded["present"][20:] = False
    plain = membership(target(network(1), members=members, outsiders=outsiders), Membership())
    more = membership(target(network(1), members=padded, outsiders=outsiders), Membership())
    assert plain == more


@pytest.mark.parametrize("missing", ["members", "outsiders"])
def test_both_cohorts_are_needed(target, rows, missing):
    cohorts = {"members": rows(9, 1), "outsiders": rows(9, 2)}
    del cohorts[missing]
    with pytest.raises(Incompatible, match="holdout"):
        membership(target(network(1), **cohorts), Membership())


@pytest.mark.parametrize("few", ["members", "outsiders"])
def test_each_cohort_needs_two_rows_a_half(target, rows, few):
    cohorts = {"members": rows(9, 1), "outsiders": rows(9, 2), few: rows(3, 3)}
    with pytest.raises(DataError, match=f"at least 4 {few}"):
        membership(target(network(1), **cohorts), Membership())


@pytest.mark.parametrize(("members", "test"), [(True, True), (True, False), (False, True)])
def test_public_only_where_every_row_is(target, rows, members, test):
    finding = membership(
        target(
            network(1),
            members=rows(9, 1),
            outsiders=rows(9, 2),
            members_public=members,
            test_public=test,
        ),
        Membership(),
    )
    assert finding.public == (members and test)


def test_progress_and_the_models_own_mode(remembered):
    seen = []
    audited = remembered()
    audited.model.train()
    membership(audited, Membership(), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert audited.model.training


def test_a_wider_confidence_gives_a_wider_interval(remembered):
    narrow, wide = (membership(remembered(), Membership(confidence=c)) for c in (0.8, 0.99))
    assert wide.low < narrow.low <= narrow.value == wide.value <= narrow.high < wide.high
    assert wide.confidence == 0.99


def test_the_split_is_keyed_by_the_source(remembered):
    first = membership(remembered(), Membership())
    second = membership(remembered(source=Source(bytes(32))), Membership())
    assert first.details["threshold"] != second.details["threshold"]

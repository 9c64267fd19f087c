"""The canary audit on models that remember everything, and on one that remembers nothing."""

import math

import pytest
import torch
from torch import nn

from nacre.audit.data_privacy.canaries import canaries
from nacre.audit.target import HeldCanaries, Target
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.data.text import canaries as secrets
from nacre.data.text.canaries import Canaries
from nacre.data.text.encode import Encoder
from nacre.data.text.tokens import BYTES
from nacre.models import CausalLM
from nacre.recipe.audits import CanaryAudit

pytestmark = pytest.mark.slow

LENGTH = 40
OPTION = CanaryAudit(candidates=63)


class Parrot(nn.Module):
    """Finds what it was told likely, and everything else equally unlikely, a little by chance."""

    def __init__(self, told=()):
        super().__init__()
        self.told = {tuple(row) for row in told}

    def forward(self, features):
        logits = torch.zeros(*features.shape, BYTES.vocabulary)
        for place, row in enumerate(features.tolist()):
            known = 9.0 if tuple(row) in self.told else hash(tuple(row)) % 997 / 997
            for i, token in enumerate(row[1:]):
                if token >= 0:
                    logits[place, i, token] = known
        return logits


def target(option, remembers, claimed=(1.0, 1e-5), seed=0, asked=OPTION):
    encoder = Encoder(BYTES, LENGTH)
    found = secrets.made(option, seed)
    rows = [
        encoder.documents([c.text(option), *secrets.others(option, seed, c, asked.candidates)])
        for c in found
    ]
    told = [
        r.features[0][: int((r.features[0] >= 0).sum())].tolist()
        for c, r in zip(found, rows, strict=True)
        if c.inserted
    ]
    batches = tuple(
        {
            "features": r.features,
            "label": r.label,
            "present": torch.ones(len(r.label), dtype=torch.bool),
            "unit": torch.arange(len(r.label)),
        }
        for r in rows
    )
    held = HeldCanaries(
        inserted=tuple(c.inserted for c in found), batches=batches,
        candidates=asked.candidates, claimed=claimed,
    )  # fmt: skip
    return Target(
        model=Parrot(told if remembers else ()), task=CausalLM(BYTES.vocabulary),
        space=FeatureSpace((LENGTH,), ()), source=Source(bytes(32)), canaries=held,
    )  # fmt: skip


def test_a_model_that_remembers_breaks_its_claim():
    finding = canaries(target(Canaries(count=64), remembers=True), OPTION)
    assert finding.value > 3
    assert finding.verdict == "broken"
    assert finding.details["epsilon"]["one_run"] > 1
    assert finding.details["exposure_inserted"][0] == pytest.approx(math.log2(64), abs=1e-3)
    assert finding.public


def test_a_model_that_remembers_nothing_shows_nothing():
    finding = canaries(target(Canaries(count=64), remembers=False), OPTION)
    assert finding.low <= 0 <= finding.high
    assert finding.verdict == "not distinguishable from none"
    assert finding.details["epsilon"]["one_run"] < 1
    # Exposure of what was never seen: log2(e) on average.
    everything = finding.details["exposure_inserted"] + finding.details["exposure_left_out"]
    assert sum(everything) / len(everything) == pytest.approx(math.log2(math.e), abs=0.5)


def test_false_bounds_are_as_rare_as_the_confidence_says():
    """32 seeds of a model without memory: about one in twenty may show an epsilon above zero; more
    than 5 of them has probability below 0.7 %. The scores decide, so few candidates are enough."""
    few = CanaryAudit(candidates=15)
    shown = [
        canaries(target(Canaries(count=16), False, seed=seed, asked=few), few).details["epsilon"]
        for seed in range(32)
    ]
    assert sum(found["one_run"] > 0 for found in shown) <= 5


def test_without_a_promise_no_claim_is_judged():
    finding = canaries(target(Canaries(count=16), remembers=True, claimed=None), OPTION)
    assert finding.verdict == "measured"
    assert finding.details["epsilon"] is None
    assert finding.claim.startswith("none")


def test_a_claim_that_so_few_canaries_cannot_contradict_is_not_judged():
    finding = canaries(target(Canaries(count=32), remembers=True, claimed=(8.0, 1e-5)), OPTION)
    assert finding.verdict == "measured"
    assert finding.details["epsilon"]["provable"] == pytest.approx(1.58, abs=0.01)
    assert any("1.58 at most" in note for note in finding.details["notes"])


def test_without_canaries_it_is_refused():
    empty = Target(model=Parrot(), task=CausalLM(9), space=FeatureSpace((4,), ()),
                   source=Source(bytes(32)))  # fmt: skip
    with pytest.raises(Incompatible, match="needs canaries among the documents"):
        canaries(empty, OPTION)


def test_a_finding_on_one_side_alone_has_no_narrow_interval():
    from nacre.audit.data_privacy.canaries import _difference

    none, one, two = torch.zeros(0), torch.ones(1), torch.ones(2)
    assert _difference(none, two, 6.0, 0.95) == (-6.0, 6.0, 0.0)
    assert _difference(one, two, 6.0, 0.95)[0] == -6.0
    low, high, value = _difference(two, two, 6.0, 0.95)
    assert low < -3 and high > 3 and value == 0

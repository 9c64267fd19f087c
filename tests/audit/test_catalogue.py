import inspect
import json
from typing import get_args

import pytest
from torch import nn

from nacre.adversarial_training.threats.ball import Ball
from nacre.audit.catalogue import AUDITS
from nacre.audit.federation.twins import Twin, Twins
from nacre.audit.finding import Finding
from nacre.audit.target import HeldCanaries
from nacre.data.dataset import Schema
from nacre.federated_learning import Median
from nacre.recipe.audits import AuditOption


def test_every_audit_that_a_recipe_can_name_is_built():
    assert set(AUDITS) == set(get_args(AuditOption))


@pytest.mark.parametrize("option", AUDITS)
def test_law_every_audit_gives_a_finding_that_can_be_written(option, target, rows):
    def train(attacker, after):
        """Two rounds that leave the model as it was made."""
        after()
        after()
        return Twin(nn.Linear(6, 2), 2, None, 0)

    twins = Twins(
        schema=Schema((6,), (), "classification", ("no", "yes")), parties=5, expected=5.0,
        bad=("a",), rounds=2, rule=Median(bad=1), secure=False, test=rows(12, 4), public=False,
        on="no rows", train=train,
    )  # fmt: skip
    audited = target(
        nn.Linear(6, 2),
        federation=lambda option: twins,
        members=rows(12, 1),
        outsiders=rows(12, 2),
        test=rows(12, 3),
        ball=Ball(radius=0.1),
        canaries=HeldCanaries(
            inserted=(True, False) * 4,
            batches=tuple(rows(16, seed) for seed in range(8)),
            candidates=15,
            claimed=(1.0, 1e-5),
        ),
    )
    steps = []
    chosen = option()
    finding = AUDITS[option](
        audited, chosen, lambda done, total, words="": steps.append(done / total)
    )
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding
    assert finding.audit == chosen.kind
    assert finding.confidence == chosen.confidence
    assert finding.public == (chosen.kind == "canaries")  # those are nobody's rows
    assert steps == sorted(steps) and steps[-1] == 1


@pytest.mark.parametrize("audit", AUDITS.values())
def test_law_progress_is_optional(audit):
    assert inspect.signature(audit).parameters["advance"].default is not inspect.Parameter.empty

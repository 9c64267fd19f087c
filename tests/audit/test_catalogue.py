import inspect
import json
from typing import get_args

import pytest
from torch import nn

from nacre.adversarial_training.threats.ball import Ball
from nacre.audit.catalogue import AUDITS
from nacre.audit.finding import Finding
from nacre.audit.target import HeldCanaries
from nacre.recipe.audits import AuditOption


def test_every_audit_that_a_recipe_can_name_is_built():
    assert set(AUDITS) == set(get_args(AuditOption))


@pytest.mark.parametrize("option", AUDITS)
def test_law_every_audit_gives_a_finding_that_can_be_written(option, target, rows):
    audited = target(
        nn.Linear(6, 2),
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
    finding = AUDITS[option](audited, chosen, lambda done, total: steps.append(done / total))
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding
    assert finding.audit == chosen.kind
    assert finding.confidence == chosen.confidence
    assert finding.public == (chosen.kind == "canaries")  # those are nobody's rows
    assert steps == sorted(steps) and steps[-1] == 1


@pytest.mark.parametrize("audit", AUDITS.values())
def test_law_progress_is_optional(audit):
    assert inspect.signature(audit).parameters["advance"].default is not inspect.Parameter.empty

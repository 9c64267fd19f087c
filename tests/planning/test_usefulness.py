"""Noise beside the gradients: warnings where it is longer, and remedies that hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.planning.plan import plan
from nacre.planning.usefulness import Usefulness, usefulness
from tests.planning.unequal import of_sizes
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, changed, recipe, text

LARGE = changed(TABLE, {"data.size": 100_000, "training": {"steps": 2, "batch": 10}})
LARGE["model"] = {"kind": "mlp", "hidden": [64, 64]}
LARGE["differential_privacy"] |= {"epsilon": 1, "delta": 1e-6, "accountant": "rdp"}
LARGE["ledger"]["grant"] = {"epsilon": 8, "delta": 1e-6, "rule": "rdp"}
PERSONAL = "federated_learning.local.personal"


def _use(folder: Path, base: dict[str, Any], **changes: Any) -> Usefulness:
    found = usefulness(plan(recipe(folder, base, **changes)))
    assert found is not None
    return found


def test_a_usual_run_draws_no_warning_and_states_its_noise(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, CENTRAL))
    found = usefulness(planned)
    assert found is not None and found.warnings == ()
    level = planned.priced[0]
    assert found.each_step == pytest.approx(level.multiplier / 60)
    assert found.whole_run == pytest.approx(level.multiplier / 60 * (35 / 6) ** 0.5)
    halved = _use(tmp_path, FEDERATED).each_step
    over_one = plan(recipe(tmp_path, FEDERATED)).priced[0].multiplier / 40
    assert halved == pytest.approx(over_one / 2**0.5)  # of two parties
    assert usefulness(plan(recipe(tmp_path, CENTRAL, differential_privacy=None))) is None


def test_noise_of_parties_that_differ_is_that_of_their_mean(tmp_path: Path) -> None:
    """Each adds its own: the variance of the mean of K is the sum of theirs by K squared."""
    planned = of_sizes(tmp_path, [60, 30, 120])
    found = usefulness(planned)
    assert found is not None and found.each_step is not None
    noise = [level.multiplier / 20 for level in planned.priced]
    assert found.each_step == pytest.approx(sum(z * z for z in noise) ** 0.5 / 3)
    assert [(each.account, each.units) for each in found.parties] == [
        ("patients/p1", 30),
        ("patients/p2", 120),
    ]
    assert [each.each_step for each in found.parties] == pytest.approx([noise[1], noise[2]])
    said = str(found.lines().renderables[1])
    assert said.startswith(f"of one party alone from {noise[1]:.2g} ") and "120 units)" in said
    alike = usefulness(of_sizes(tmp_path, [60, 60]))
    assert alike is not None and alike.parties == ()


def test_a_hopeless_run_is_told_with_an_epsilon_that_mends_it(tmp_path: Path) -> None:
    changes = {"differential_privacy__epsilon": 0.01, "training__steps": 5}
    found = _use(tmp_path, CENTRAL, **changes)
    (warning,) = found.warnings
    assert found.whole_run is not None and found.whole_run > 1
    enough = re.search(r"with epsilon ([\d.]+); no larger batch and no more steps", warning)
    assert enough is not None
    mended = _use(
        tmp_path, CENTRAL, **changes | {"differential_privacy__epsilon": float(enough[1])}
    )
    assert mended.warnings == () and mended.whole_run == pytest.approx(1, rel=0.1)
    told = tmp_path / "hopeless.yaml"
    told.write_text(text(CENTRAL, **changes))
    shown = CliRunner().invoke(cli, ["plan", str(told)])
    assert shown.exit_code == 0 and "warning: over the whole run the noise" in shown.stdout
    facts = json.loads(CliRunner().invoke(cli, ["plan", str(told), "--json"]).stdout)
    assert facts["usefulness"] == json.loads(json.dumps(found.to_json()))


def test_batches_and_steps_that_are_named_mend_it_too(tmp_path: Path) -> None:
    (warning,) = _use(tmp_path, LARGE).warnings
    batch, steps = re.search(r"with a batch of (\d+), or with (\d+) steps;", warning).groups()  # type: ignore[union-attr]
    assert _use(tmp_path, LARGE, training__batch=int(batch)).warnings == ()
    assert _use(tmp_path, LARGE, training__steps=int(steps)).warnings == ()


def test_a_large_epsilon_promises_next_to_nothing(tmp_path: Path) -> None:
    grant = {"epsilon": 80, "delta": 1.0e-3, "rule": "pld"}
    for epsilon, warned in ((19, False), (25, True)):
        changes = {"differential_privacy__epsilon": epsilon, "ledger__grant": grant}
        found = _use(tmp_path, CENTRAL, **changes).warnings
        assert any("promises next to nothing" in each for each in found) is warned


def test_correlated_noise_has_no_such_figure(tmp_path: Path) -> None:
    sampling, noise = {"kind": "cyclic_poisson"}, {"kind": "tree"}
    found = _use(
        tmp_path, CENTRAL, training__sampling=sampling, training__batch=30,
        differential_privacy__noise=noise,
    )  # fmt: skip
    assert found == Usefulness(each_step=None, whole_run=None, warnings=())


def test_noise_over_parties_is_beside_what_they_share_whoever_adds_it(tmp_path: Path) -> None:
    """Central noise and shares, of all layers and of those that travel. All parties add their
    share, of which those of the threshold without colluders count."""
    base = changed(
        FEDERATED,
        {
            "federated_learning.parties": {"kind": "uniform", "names": list("abcdefg")},
            "federated_learning.gather": {"kind": "secure", "threshold": 5},
            "federated_learning.few_clients": True,
            "training.batch": 10,
            "differential_privacy": {"unit": "client", "epsilon": 20, "delta": 0.01},
            "ledger.grant": {"epsilon": 20, "delta": 0.01, "rule": "rdp"},
            "model": {"kind": "mlp", "hidden": [4]},
        },
    )
    for noise, surplus in (("gaussian", 1.0), ("distributed_gaussian", (7 / 4) ** 0.5)):
        private = changed(base, {"differential_privacy.noise": {"kind": noise}})
        for own in ([], ["head"]):
            planned = plan(recipe(tmp_path, changed(private, {PERSONAL: own})))
            (level,), found = planned.priced, usefulness(planned)
            assert found is not None and found.whole_run is not None
            each = level.multiplier * surplus / 7
            assert found.each_step == pytest.approx(each)
            sent = planned.estimate.shared if own else planned.estimate.trained
            assert sent is not None and (sent < planned.estimate.trained) is bool(own)
            assert found.whole_run == pytest.approx(each * (sent / level.mechanism.steps) ** 0.5)


def test_a_warning_about_whole_parties_speaks_of_changes_cohorts_and_rounds(tmp_path: Path) -> None:
    base = changed(
        FEDERATED,
        {
            "federated_learning.parties.names": [f"p{n}" for n in range(60)],
            "federated_learning.cohort": {"kind": "poisson", "expected": 6},
            "federated_learning.few_clients": True,
            "training.batch": 1,
            "model": {"kind": "mlp", "hidden": [8]},
            "differential_privacy": {"unit": "client", "epsilon": 0.3, "delta": 0.01},
            "ledger.grant": {"epsilon": 2, "delta": 0.01},
        },
    )
    (warning,) = _use(tmp_path, base).warnings
    assert "as all changes together" in warning and "more parties" in warning
    cohort, rounds = re.search(r"a cohort of (\d+), or with (\d+) rounds;", warning).groups()  # type: ignore[union-attr]
    assert _use(tmp_path, base, federated_learning__rounds=int(rounds)).warnings == ()
    larger = changed(base, {"federated_learning.cohort.expected": int(cohort)})
    assert _use(tmp_path, larger).warnings == ()

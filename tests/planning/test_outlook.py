from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from nacre.differential_privacy.upward import rounded_up_to
from nacre.planning.outlook import outlook
from nacre.planning.plan import Plan, plan
from nacre.planning.show import plan_tables
from tests.planning.unequal import of_sizes
from tests.training.tiny import CENTRAL, recipe


def planned(folder: Path, kind: str, **changes: object) -> Plan:
    sampling = {"kind": kind}
    return plan(recipe(folder, CENTRAL, training__sampling=sampling, training__batch=30, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poisson", "cyclic_poisson", "full"])
def test_prices_move_as_they_should(tmp_path: Path, kind: str) -> None:
    run = planned(tmp_path, kind)
    found = outlook(run)
    assert found is not None
    by_name = {choice.changed: choice for choice in found.choices}
    now = by_name[""]
    price = run.levels[0].price
    assert price is not None and now.epsilon == price.epsilon
    rising = [by_name[n].epsilon for n in ("a quarter more noise", "", "a fifth less noise")]
    steps = [by_name[n].epsilon for n in ("half the steps", "", "twice the steps")]
    assert rising == sorted(set(rising)) and steps == sorted(set(steps))
    assert by_name["twice the steps"].steps == 2 * now.steps
    if kind == "full":
        assert "half the batch" not in by_name and found.epoch == 1
    else:
        batches = [by_name[n] for n in ("half the batch", "", "twice the batch")]
        assert all(a.epsilon < b.epsilon for a, b in itertools.pairwise(batches))
        assert [choice.batch for choice in batches] == [15, 30, 60]
        assert found.epoch == 4
    assert found.one_more_epoch is not None and found.one_more_epoch > now.epsilon
    later = run.levels[0].mechanism.event(now.steps + found.epoch)
    assert found.one_more_epoch == pytest.approx(_priced(run, later))
    assert json.loads(json.dumps(found.to_json()))["choices"][0]["changed"] == ""


def _priced(run: Plan, event: object) -> float:
    from nacre.differential_privacy.accounting.price import epsilon

    level = run.priced[0]
    return epsilon(event, level.delta, level.accountant).epsilon


def test_a_tree_has_no_price_beyond_its_steps(tmp_path: Path) -> None:
    found = outlook(
        planned(tmp_path, "cyclic_poisson", differential_privacy__noise={"kind": "tree"})
    )
    assert found is not None and found.one_more_epoch is None
    assert {"twice the steps", "half the steps"}.isdisjoint(c.changed for c in found.choices)
    assert "built for these steps" in _text(found.table())


def test_it_is_written_for_people(tmp_path: Path) -> None:
    found = outlook(planned(tmp_path, "poisson"))
    assert found is not None
    text = _text(found.table())
    assert "one more epoch (4 steps) would bring epsilon from" in text
    assert "twice the batch" in text and "as planned" in text


def _text(shown: object) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_one_epsilon_is_rounded_in_one_way(tmp_path: Path) -> None:
    """The table of what is charged, the course of the run and the outlook show the same digits."""
    planned = plan(recipe(tmp_path, CENTRAL))
    ahead = outlook(planned)
    assert ahead is not None
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_tables(planned))
    console.print(ahead.table())
    shown = rounded_up_to(planned.priced[0].price.epsilon, 3)
    found = re.findall(r"\b7\.9\d+", console.export_text())
    assert len(found) >= 3 and set(found) == {shown}


def test_of_parties_that_differ_the_smallest_and_the_largest_are_priced(tmp_path: Path) -> None:
    planned = of_sizes(tmp_path, [60, 30, 120])
    found = outlook(planned)
    assert found is not None and found.largest is not None
    assert (found.account, found.largest.account) == ("patients/p1", "patients/p2")
    assert (found.epoch, found.largest.epoch) == (2, 6)
    _, small, large = planned.priced
    for each, level in ((found, small), (found.largest, large)):
        assert each.choices[0].noise == level.multiplier
        assert each.choices[0].epsilon == level.price.epsilon
    doubled = [{c.changed for c in each.choices} for each in (found, found.largest)]
    assert ["twice the batch" in names for names in doubled] == [False, True]
    text = _text(found.table())
    assert f"{small.multiplier:.4g}, {large.multiplier:.4g}" in text
    assert "twice the batch" in text and "none, 40" in text
    assert "one of patients/p2, the largest, (6 steps)" in " ".join(text.split())
    facts = found.to_json()
    assert facts["largest"]["account"] == "patients/p2" and "largest" not in facts["largest"]
    alike = outlook(of_sizes(tmp_path, [60, 60]))
    assert alike is not None and alike.largest is None


def test_runs_without_privacy_have_none(tmp_path: Path) -> None:
    bare = recipe(tmp_path, CENTRAL, differential_privacy=None, ledger=None)
    assert outlook(plan(bare)) is None

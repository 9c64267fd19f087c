"""Levels are declared, priced and charged, and what is private is never less than priced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nacre.core.errors import Incompatible
from nacre.ledger import PLANNED, Request
from nacre.planning.levels import ChargedLevel, Level, PricedLevel
from nacre.planning.plan import plan
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, changed, recipe


def test_a_run_without_privacy_has_declared_levels_alone(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, FEDERATED, differential_privacy=None, ledger=None))
    assert [type(level) for level in planned.levels] == [Level, Level]
    assert planned.priced == ()
    (party, _) = planned.to_json()["parties"]
    assert (party["account"], party["epsilon"], party["takes"]) == (None, None, None)


def test_a_private_run_is_charged_and_without_a_look_at_its_ledger_priced(tmp_path: Path) -> None:
    asked = recipe(tmp_path, CENTRAL)
    (level,) = plan(asked).levels
    (other,) = plan(asked, ledger=False).levels
    assert type(level) is ChargedLevel and level.quote.fits
    assert type(other) is PricedLevel and other.covered(level.quote) == level
    assert other.promise() == level.promise() | {"takes": None}


def test_a_private_plan_without_a_price_is_none(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, CENTRAL))
    (level,) = planned.priced
    bare = Level(name="", account=None, size=level.size, mechanism=level.mechanism)
    with pytest.raises(ValueError, match="must be priced"):
        replace(planned, levels=(bare,))


def test_what_a_level_asks_is_what_its_mechanism_asks_under_the_runs_name(tmp_path: Path) -> None:
    (level,) = plan(recipe(tmp_path, CENTRAL)).priced
    mechanism = level.mechanism
    asked = level.request("one")
    assert asked == mechanism.request("one") == replace(level.asks, run="one")
    assert level.asks.run == PLANNED
    assert asked == Request.of(
        "one", mechanism.event(1), steps=mechanism.steps, unit="example",
        adjacency=mechanism.adjacency,
    )  # fmt: skip


def test_noise_that_is_not_calibrated_has_no_multiplier(tmp_path: Path) -> None:
    mechanism = plan(recipe(tmp_path, CENTRAL)).priced[0].mechanism
    assert mechanism.with_multiplier(3.0).multiplier == 3.0
    bare = plan(recipe(tmp_path, CENTRAL, differential_privacy=None, ledger=None))
    with pytest.raises(ValueError, match="not calibrated"):
        bare.levels[0].mechanism.multiplier  # noqa: B018
    with pytest.raises(ValueError, match="nothing to calibrate"):
        bare.levels[0].mechanism.with_multiplier(3.0)


def test_the_party_that_decides_is_named(tmp_path: Path) -> None:
    """The smallest bounds the batch, the largest delta: the remedy fits all of them."""
    parties = {"kind": "column", "column": "ward", "sizes": {"a": 90, "b": 20, "c": 40}}
    wards = changed(TABLE, {"data.party": "ward", "data.size": 150, "data.unit": None}) | {
        "federated_learning": {"parties": parties, "rounds": 2},
        "differential_privacy": {"epsilon": 8, "delta": 0.02},
    }
    with pytest.raises(Incompatible, match="party b has 20; use 20 or fewer"):
        plan(recipe(tmp_path, wards, training__batch=30))
    with pytest.raises(Incompatible, match=r"for the 90 units of a, .* at most 1e-03"):
        plan(recipe(tmp_path, wards, training__batch=20))

"""A recipe with two promises: what is refused, what each is priced by, and what a plan says."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nacre.core.errors import BudgetExceeded, Incompatible, RecipeError, UnsupportedEvent
from nacre.planning.outlook import outlook
from nacre.planning.plan import plan
from nacre.planning.show import plan_tables
from nacre.planning.usefulness import usefulness
from nacre.recipe.load import dumps, loads
from tests.training.tiny import FEDERATED, changed, recipe

NAMES = [f"ward {number}" for number in range(6)]
INNER: dict[str, Any] = {
    "differential_privacy": {"unit": "example", "epsilon": 4, "delta": 1.0e-3},
    "gradient_clipping": {"kind": "automatic", "norm": 2.0},
}
BOTH: dict[str, Any] = changed(
    FEDERATED,
    {
        "federated_learning.parties.names": NAMES,
        "federated_learning.few_clients": True,
        "federated_learning.rounds": 3,
        "training.batch": 10,
        "differential_privacy": {"unit": "client", "epsilon": 20, "delta": 0.05},
        "within_parties": INNER,
        "ledger.grant": {"epsilon": 30, "delta": 0.05},
        "ledger.grant_within_parties": {"epsilon": 5, "delta": 1.0e-3, "rule": "pld"},
    },
)


def test_each_level_has_a_mechanism_and_a_price_of_its_own(tmp_path: Path) -> None:
    """Those of two recipes that promise one of them."""
    whole, *within = plan(recipe(tmp_path, BOTH)).priced
    parties = changed(BOTH, {"within_parties": None, "ledger.grant_within_parties": None})
    rows = changed(parties, INNER | {"ledger.grant": BOTH["ledger"]["grant_within_parties"]})
    (alone,), apart = plan(recipe(tmp_path, parties)).priced, plan(recipe(tmp_path, rows)).priced
    assert (whole.mechanism, whole.price, whole.asks) == (alone.mechanism, alone.price, alone.asks)
    assert [(each.account, each.mechanism, each.price, each.asks) for each in within] == [
        (each.account, each.mechanism, each.price, each.asks) for each in apart
    ]
    assert (whole.accountant, within[0].accountant) == ("rdp", "pld")
    assert [level.mechanism.unit for level in (whole, *within)] == ["client"] + ["example"] * 6
    assert (whole.mechanism.steps, within[0].mechanism.steps) == (3, 6)


def test_a_plan_says_whom_each_holds_against(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, BOTH))
    whole, first, *_ = planned.to_json()["parties"]
    assert "not against the server, which sees each party's change" in whole["against"]
    assert "the server, the other parties" in first["against"]
    summed = changed(BOTH, {"federated_learning.gather": {"kind": "secure", "threshold": 5}})
    whole, *_ = plan(recipe(tmp_path, summed)).to_json()["parties"]
    assert "sees the sum of the changes, and no single one, before" in whole["against"]
    shares = {"kind": "distributed_gaussian"}
    noised = changed(summed, {"differential_privacy.noise": shares, "ledger.grant.rule": "rdp"})
    whole, *_ = plan(recipe(tmp_path, noised)).to_json()["parties"]
    assert "and against the server with as many colluders as are assumed (1)" in whole["against"]
    assert "before it adds" not in whole["against"]
    assumed = " ".join(planned.to_json()["assumptions"])
    assert "trusted for the promise to whole parties: it sees each party's change" in assumed
    assert "Each party trusts itself only" in assumed
    alone = changed(BOTH, {"within_parties": None, "ledger.grant_within_parties": None})
    assert "against" not in plan(recipe(tmp_path, alone)).to_json()["parties"][0]


def test_people_see_both_tables(tmp_path: Path) -> None:
    planned, out = plan(recipe(tmp_path, BOTH)), StringIO()
    Console(file=out, width=200).print(plan_tables(planned))
    text = out.getvalue()
    for part in (
        "unit client", "unit example", "iris/ward 0 and 5 others", "holds against everyone who",
        "Within a party: Each unit's gradient is scaled", "Within a party: Gaussian noise hides",
    ):  # fmt: skip
        assert part in text
    use, ahead = usefulness(planned), outlook(planned)
    assert use is not None and use.within is not None
    assert ahead is not None and ahead.within is not None
    assert (ahead.account, ahead.within.account) == ("iris", "iris/ward 0")
    assert ahead.to_json()["within"]["account"] == "iris/ward 0"
    assert use.to_json()["within"]["each_step"] == use.within.each_step
    console = Console(file=(said := StringIO()), width=200)
    console.print(use.lines(), ahead.table())
    for part in ("noise of a mean change:", "a mean gradient within parties:", "iris could pay"):
        assert part in said.getvalue()
    alone = changed(BOTH, {"within_parties": None, "ledger.grant_within_parties": None})
    one = plan(recipe(tmp_path, alone))
    for facts in (usefulness(one), outlook(one)):
        assert facts is not None and "within" not in facts.to_json()
    json.dumps(planned.to_json(), allow_nan=False)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = recipe(tmp_path, BOTH)
    assert loads(dumps(made), folder=tmp_path) == made


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no promise beside it": (
        {"differential_privacy.unit": "example", "differential_privacy.delta": 1e-3},
        "`within_parties`.*protects no whole party; write its two sections at the top",
    ),
    "no promise at all": ({"differential_privacy": None}, "`within_parties`.*no whole party"),
    "a grant of nothing": (
        {"within_parties": None}, "`ledger.grant_within_parties`.*the recipe has no such section",
    ),
    "a whole party": (
        {"within_parties.differential_privacy.unit": "client"},
        "unit=client is no unit within a party",
    ),
    "a rule of the mean": (
        {"within_parties.gradient_clipping": {"kind": "by_norm", "norm": 1.0}},
        "within_parties.gradient_clipping",
    ),
    "a rule that moves": (
        {"within_parties.gradient_clipping": {"kind": "adaptive"}},
        "`within_parties.*adaptive would begin again",
    ),
    "a norm out of range": (
        {"within_parties.gradient_clipping": {"kind": "flat", "norm": 1e30}},
        "`within_parties.gradient_clipping.norm`: 1e.30 is so far from 1",
    ),
    "noise that remembers": (
        {"within_parties.differential_privacy.noise": {"kind": "tree"}},
        "`within_parties.differential_privacy.noise`.*keeps none of its noise",
    ),
    "a large delta": (
        {"within_parties.differential_privacy.delta": 0.06},
        "`within_parties.differential_privacy.delta`: 0.06 is not below",
    ),
    "groups without a column": (
        {"within_parties.differential_privacy.unit": "group"},
        "`within_parties.differential_privacy.unit`: group needs to know",
    ),
    "a draw without a price": (
        {"training.sampling": {"kind": "fixed_size"}}, "`training.sampling`.*have no price",
    ),
    "a search": (
        {"tune": {"trials": 2, "over": {"training.optimizer.lr": [0.1, 0.2]}}},
        "`tune`.*makes two promises",
    ),
    "no federation": (
        {"federated_learning": None, "training.steps": 4}, "there is no `federated_learning`",
    ),
    "parties of unknown names": (
        {"data": {"kind": "table", "path": "x.csv", "target": "ill", "classes": ["no", "yes"],
                  "columns": {"age": {"low": 0, "high": 9}}, "party": "ward", "size": 600},
         "federated_learning.parties": {"kind": "column", "column": "ward", "count": 6,
                                        "size": 100}},
        "each party is charged for its own units of kind example",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_unsound_is_refused(tmp_path: Path, case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises((Incompatible, RecipeError, UnsupportedEvent), match=words):
        plan(recipe(tmp_path, changed(BOTH, changes)))


def test_an_account_without_a_grant_is_named_with_the_key_that_gives_it(tmp_path: Path) -> None:
    for key, wanted in (
        ("grant", "{grant: {"),
        ("grant_within_parties", "{grant_within_parties: {"),
    ):
        for path in ("{run}/privacy.db", "none.db"):
            left = changed(BOTH, {f"ledger.{key}": None, "ledger.path": path})
            with pytest.raises(BudgetExceeded) as found:
                plan(recipe(tmp_path, left))
            assert wanted in str(found.value) and "None" not in str(found.value)
            assert ("`nacre ledger grant`" in str(found.value)) is (path == "none.db")

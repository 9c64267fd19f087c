"""What `nacre plan` says of rules against parties at fault, and what it refuses."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nacre.core.errors import Incompatible
from nacre.planning.plan import plan
from nacre.planning.robustness import robustness
from tests.planning.test_clipping import CLIENT
from tests.training.tiny import FEDERATED, changed, recipe

KRUM: dict[str, Any] = {"kind": "krum", "bad": 2}
RFA: dict[str, Any] = {"kind": "geometric_median", "bad": 2}


def _parties(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def _federation(rule: dict[str, Any], parties: int = 12, **more: Any) -> dict[str, Any]:
    """A public recipe of so many parties under this rule."""
    return changed(
        FEDERATED,
        {
            "federated_learning.parties.names": _parties(parties),
            "federated_learning.gather": {"kind": "plain", "aggregate": rule},
            "training.batch": 5,
            "differential_privacy": None, "gradient_clipping": None, "ledger": None,
            **{key.replace("__", "."): value for key, value in more.items()},
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "parties", "says"),
    [
        (KRUM, 6, r"krum with 2 parties at fault needs at least 7 .* are 6; declare `bad: 1`"),
        (
            KRUM | {"bad": 1}, 4,
            r"with 1 party at fault needs at least 5 parties, and there are 4; find more parties, "
            r"or use `aggregate: \{kind: trimmed_mean, bad: 1\}`, for which 3 are enough",
        ),
        ({"kind": "median", "bad": 3}, 6, "median .* needs at least 7 .* declare `bad: 2`"),
        ({"kind": "trimmed_mean", "bad": 3}, 6, "trimmed_mean .* needs at least 7"),
        ({"kind": "multi_krum", "bad": 1, "keep": 8}, 8, "multi_krum .* needs at least 9"),
        ({"kind": "bucketing", "before": RFA}, 8, "bucketing before geometric_median .* least 9"),
        ({"kind": "nearest_neighbour_mixing", "before": KRUM}, 6, "mixing before krum .* least 7"),
    ],
)  # fmt: skip
def test_too_few_parties_are_refused_with_what_they_do_withstand(
    tmp_path: Path, rule: dict[str, Any], parties: int, says: str
) -> None:
    with pytest.raises(Incompatible, match=says):
        plan(recipe(tmp_path, _federation(rule, parties)))


@pytest.mark.parametrize(
    ("rule", "parties"),
    [
        (KRUM, 7),
        ({"kind": "median", "bad": 3}, 7),
        ({"kind": "bucketing", "before": RFA}, 9),
        ({"kind": "nearest_neighbour_mixing", "before": KRUM}, 7),
    ],
)
def test_just_enough_parties_are_planned(
    tmp_path: Path, rule: dict[str, Any], parties: int
) -> None:
    assert plan(recipe(tmp_path, _federation(rule, parties))).federated


def test_a_cohort_that_may_be_too_small_is_refused(tmp_path: Path) -> None:
    cohort = {"kind": "poisson", "expected": 8.0}
    asked = _federation(KRUM, 12, federated_learning__cohort=cohort)
    with pytest.raises(Incompatible, match=r"cohort.* some round has fewer with probability 0\.\d"):
        plan(recipe(tmp_path, asked))
    small = _federation({"kind": "norm_bound", "norm": 1.0}, 12, federated_learning__cohort=cohort)
    assert plan(recipe(tmp_path, small)).federated


def test_a_rule_that_compares_with_public_rows_needs_some(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"gather.* this looks at rows, so they must be public"):
        plan(recipe(tmp_path, _federation({"kind": "fltrust"})))


def test_differences_without_a_length_are_refused_unless_a_rule_gives_them_one(
    tmp_path: Path,
) -> None:
    centred = {"kind": "plain", "aggregate": {"kind": "centred_clipping"}}
    with pytest.raises(Incompatible, match="give it a `radius`"):
        plan(recipe(tmp_path, _federation({"kind": "centred_clipping"})))
    clients = changed(CLIENT, {"federated_learning.gather": centred})
    assert plan(recipe(tmp_path, clients)).private


@pytest.mark.parametrize("rule", [KRUM, RFA, {"kind": "bucketing", "before": RFA}], ids=str)
def test_noise_over_parties_is_refused_on_what_is_no_bounded_sum(
    tmp_path: Path, rule: dict[str, Any]
) -> None:
    gather = {"kind": "plain", "aggregate": rule}
    with pytest.raises(Incompatible, match=r"no bounded sum.*centred_clipping"):
        plan(recipe(tmp_path, changed(CLIENT, {"federated_learning.gather": gather})))


def _warned(folder: Path, rule: dict[str, Any], **more: Any) -> str:
    found = robustness(recipe(folder, _federation(rule, **more)))
    assert found is not None
    return " ".join(found.warnings)


DIRICHLET = {"kind": "dirichlet", "names": _parties(12)}


def test_parties_that_are_not_alike_are_warned_of(tmp_path: Path) -> None:
    skewed = _warned(tmp_path, RFA, federated_learning__parties=DIRICHLET | {"alpha": 0.3})
    assert "alpha 0.3: no listed rule is proven here" in skewed
    assert "nearest_neighbour_mixing" in skewed
    assert _warned(tmp_path, RFA, federated_learning__parties=DIRICHLET | {"alpha": 5.0}) == ""
    assert _warned(tmp_path, RFA) == ""
    sizes = dict.fromkeys(_parties(12), 10)
    column = {"kind": "column", "column": "hospital", "sizes": sizes}
    by_column = _warned(tmp_path, RFA, federated_learning__parties=column)
    assert "how alike the parties' rows are is not declared" in by_column


@dataclass(frozen=True)
class _Sorted:
    """Parties of few labels each, by their kind alone."""

    names: tuple[str, ...]
    kind: str = "label_sorted"


def test_label_sorted_parties_are_warned_of(tmp_path: Path) -> None:
    asked = recipe(tmp_path, _federation(RFA))
    option = asked.federated_learning
    assert option is not None
    parties: Any = _Sorted(tuple(_parties(12)))
    found = robustness(replace(asked, federated_learning=replace(option, parties=parties)))
    assert found is not None
    assert "label-sorted data: no listed rule is proven here" in " ".join(found.warnings)


def test_what_is_not_declared_or_not_proven_is_warned_of(tmp_path: Path) -> None:
    assert "declare `bad: N`" in _warned(tmp_path, {"kind": "median"})
    assert _warned(tmp_path, {"kind": "norm_bound", "norm": 1.0}) == ""
    centred: dict[str, Any] = {"kind": "centred_clipping", "radius": 1.0, "bad": 2}
    assert "up to a tenth at fault, and here it is 17%" in _warned(tmp_path, centred)
    assert _warned(tmp_path, centred | {"bad": 1}) == ""
    assert "17%" in _warned(tmp_path, {"kind": "bucketing", "before": centred | {"bad": 1}})


def test_the_plan_says_what_the_rule_promises_and_what_it_does_not(tmp_path: Path) -> None:
    asked = recipe(tmp_path, _federation(KRUM))
    rule, planned = robustness(asked), plan(asked).to_json()
    assert rule is not None
    kappa = rule.to_json()["rule"]["kappa"]
    assert kappa == pytest.approx((1 + 2**0.5) ** 2 * 10 / 6)
    assert rule.limits in planned["assumptions"]
    assert any("more than 2 at fault" in line for line in planned["not_covered"])
    out = io.StringIO()
    Console(width=300, file=out).print(rule.lines())
    assert "changes by at most 3.1 times their own distance from it" in out.getvalue()
    assert json.loads(json.dumps(rule.to_json()))["parties"] == 12.0


def test_a_mean_promises_nothing(tmp_path: Path) -> None:
    asked = recipe(tmp_path, _federation({"kind": "mean"}))
    assert robustness(asked) is None
    assert any("can spoil the mean" in line for line in plan(asked).to_json()["not_covered"])

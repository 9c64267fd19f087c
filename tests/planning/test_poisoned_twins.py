"""What `nacre plan` refuses about audits that train a federation again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import BadArgument, Incompatible, RecipeError
from nacre.planning.plan import plan
from nacre.recipe.audits import Poisoning
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, changed, recipe

OPEN: dict[str, Any] = changed(
    FEDERATED,
    {
        "differential_privacy": None, "gradient_clipping": None, "ledger": None,
        "federated_learning.parties.names": ["a", "b", "c", "d"], "training.batch": 12,
    },
)  # fmt: skip
REGRESSION = OPEN | {
    "data": {
        "kind": "table", "path": "patients.csv", "target": "dose", "task": "regression",
        "drop": ["patient", "hospital", "ill", "sex"], "size": 80, "public_demonstration": True,
        "columns": {"age": {"low": 0, "high": 120}}, "holdout": {"share": 0.2},
    },
}  # fmt: skip
BACKDOOR = {"kind": "model_replacement", "backdoor": {"kind": "pixel_backdoor", "size": 9}}
DIGITS = {
    "data": {
        "kind": "builtin", "name": "digits", "size": 1438, "public_demonstration": True,
        "test": {"share": 0.2},
    },
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no federation": (CENTRAL, {}, "the recipe has none"),
    "no right answers": (REGRESSION, {}, "the task regression has none"),
    "nobody honest": (OPEN, {"bad": 4}, "say `bad: 3` or fewer"),
    "too many rounds": (OPEN, {"rounds": 5}, "say `rounds: 4` or fewer"),
    "no images": (OPEN, {"attackers": ["pixel_backdoor"]}, "square of 3 pixels on images"),
    "a large square": (changed(OPEN, DIGITS), {"attackers": [BACKDOOR]}, "square of 9 pixels"),
    "an unknown label": (
        changed(OPEN, DIGITS),
        {"attackers": [{"kind": "pixel_backdoor", "target": 10}]},
        "say `target: 9` or less",
    ),
    "other classes": (
        OPEN, {"attackers": [{"kind": "label_flip", "classes": 5}]}, "there are 3; leave `classes`",
    ),
    "nothing to measure on": (changed(OPEN, {"data.test": None, "data.size": 150}), {}, "holdout"),
    "private rows": (
        changed(
            TABLE,
            {
                "data.party": "hospital", "data.drop": None, "training.steps": None,
                "federated_learning.parties": {
                    "kind": "column", "column": "hospital", "sizes": {"north": 24, "south": 24},
                },
            },
        ),
        {},
        "would be a second release; declare public rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_before_a_row_is_read(tmp_path: Path, case: str) -> None:
    base, option, said = CASES[case]
    audit = [{"kind": "poisoning"} | option]
    with pytest.raises(Incompatible, match=said):
        plan(recipe(tmp_path, changed(base, {"audit": audit})))


def test_the_plan_says_what_will_be_trained(tmp_path: Path) -> None:
    audit = [{"kind": "poisoning", "bad": 2, "rounds": 3, "attackers": ["alie", "min_max"]}]
    (option,) = plan(recipe(tmp_path, changed(OPEN, {"audit": audit}))).recipe.audit
    for words in ("of 3 rounds", "public rows", "2 parties at fault", "alie, min_max"):
        assert words in option.sentence()


def test_an_attacker_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'alike' is unknown"):
        recipe(tmp_path, changed(OPEN, {"audit": [{"kind": "poisoning", "attackers": ["alike"]}]}))


@pytest.mark.parametrize("wrong", [{"bad": 0}, {"rounds": 0}, {"confidence": float("nan")}])
def test_numbers_without_a_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        Poisoning(**wrong)

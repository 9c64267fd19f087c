"""`nacre plan` refuses a secure sum that would open a single party's change, with the formula."""

from pathlib import Path

import pytest

from nacre.core.errors import Incompatible, RecipeError
from nacre.planning.plan import plan
from tests.training.tiny import CENTRAL, changed, recipe

BASE = changed(
    CENTRAL,
    {
        "differential_privacy.unit": "client",
        "training": {"batch": 10, "optimizer": {"kind": "sgd", "lr": 0.2}},
        "federated_learning": {
            "parties": {"kind": "uniform", "names": list("abcdefg")},
            "rounds": 3,
            "few_clients": True,
            "gather": {"kind": "secure", "threshold": 5},
        },
    },
)


def _planned(folder: Path, **changes):
    dotted = {f"federated_learning.{key.replace('__', '.')}": v for key, v in changes.items()}
    return plan(recipe(folder, changed(BASE, dotted)))


def test_a_sound_threshold_is_planned_with_its_trust_in_words(tmp_path):
    facts = _planned(tmp_path).to_json()
    sentence = facts["techniques"]["federated_learning"]
    assert "secure sum" in sentence
    assert "as long as 5 of them answer and at most 1 are on its side" in sentence
    assumptions = " ".join(facts["assumptions"])
    assert "each party clips its own change" in assumptions
    assert "At most one party is on the server's side" in assumptions
    assert "it sees each party's change before" not in assumptions
    assert "a plain gather" not in " ".join(facts["not_covered"])


@pytest.mark.parametrize(
    ("threshold", "colluders", "tolerated", "least"),
    [(4, 1, 0, 5), (3, 0, -2, 4), (5, 3, 2, 6), (7, 6, 5, None), (2, 0, -4, 4)],
)
def test_a_threshold_that_tolerates_too_few_colluders(
    tmp_path, threshold, colluders, tolerated, least
):
    gather = {"kind": "secure", "threshold": threshold, "colluders": colluders}
    with pytest.raises(Incompatible) as found:
        _planned(tmp_path, gather=gather)
    said = str(found.value)
    assert f"tolerates {tolerated} colluders" in said
    assert f"2 * threshold - parties - 1 = {2 * threshold - 8}" in said
    remedy = f"say `threshold: {least}` or more" if least else "let more take part"
    assert remedy in said
    assert said.startswith("tiny.yaml:")
    if least:
        _planned(tmp_path, gather={**gather, "threshold": least})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"gather__threshold": 8},
            "threshold=8 of 7 parties can never answer; say `threshold: 7`, or fewer",
        ),
        ({"cohort": {"kind": "poisson", "expected": 5}}, "use `cohort: {kind: all}`"),
        (
            {"parties": {"kind": "column", "column": "hospital", "count": 7, "size": 20}},
            "name them by `sizes",
        ),
        (
            {"parties": {"kind": "uniform", "names": [*"abcdef", "server"]}},
            "a party cannot be called 'server'",
        ),
        (
            {"parties": {"kind": "uniform", "names": [*"abcdef", "all"]}},
            "'all' addresses every party",
        ),
    ],
)
def test_what_else_is_refused(tmp_path, changes, words):
    with pytest.raises(Incompatible, match=words.replace("{", r"\{")):
        _planned(tmp_path, **changes)


def test_a_norm_that_moves_is_refused(tmp_path):
    base = changed(BASE, {"gradient_clipping": {"kind": "adaptive", "norm": 1.0}})
    with pytest.raises(Incompatible, match="each party clips its own change, by a norm that no"):
        plan(recipe(tmp_path, base))


def test_a_grid_too_coarse_for_the_model_is_refused(tmp_path):
    many = {"kind": "uniform", "names": [f"p{i}" for i in range(40)]}
    gather = {"kind": "secure", "threshold": 30, "bits": 16}
    base = changed(BASE, {"model.hidden": [3000, 300], "training.batch": 2,
                          "federated_learning.gather": gather,
                          "federated_learning.parties": many})  # fmt: skip
    with pytest.raises(Incompatible, match="bits=16 leave a grid of"):
        plan(recipe(tmp_path, base))
    plan(recipe(tmp_path, changed(base, {"federated_learning.gather.bits": 32})))


@pytest.mark.parametrize(
    "gather",
    [
        {"threshold": 1},
        {"colluders": -1},
        {"bits": 8},
        {"bits": 33},
        {"reach": 0.0},
        {"reach": float("nan")},
        {"reach": float("inf")},
        {"threshold": None},
        {"aggregate": {"kind": "mean"}},
    ],
)
def test_values_that_no_secure_sum_has(tmp_path, gather):
    given = {"kind": "secure", "threshold": 5, **gather}
    with pytest.raises(RecipeError):
        _planned(tmp_path, gather={k: v for k, v in given.items() if v is not None})

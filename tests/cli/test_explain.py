"""What `nacre explain` says of names that no recipe has."""

from __future__ import annotations

import importlib
import re
from typing import get_args

import pytest

from nacre.adversarial_training.evaluation.efforts import Effort, cascade
from nacre.adversarial_training.evaluation.known import KNOWN
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.square import Square
from nacre.adversarial_training.objectives.refused import REFUSED
from nacre.core.errors import RecipeError
from nacre.recipe.load import loads
from tests.cli.conftest import TINY, Nacre, document


@pytest.mark.parametrize("name", [*REFUSED, "FGSM-PCO"])
def test_what_plan_refuses_by_name_is_explained_in_the_same_words(nacre: Nacre, name: str) -> None:
    told = document(nacre("explain", name, "--json"))
    text = REFUSED[name.lower().replace("-", "_")]
    assert list(told["refusals"].values()) == [text] and not told["keys"]
    with pytest.raises(RecipeError) as caught:
        loads(TINY + f"adversarial_training: {{kind: {name}}}\n")
    assert caught.value.message == text


@pytest.mark.parametrize("name", KNOWN)
def test_attacks_by_other_names_lead_to_where_they_are(nacre: Nacre, name: str) -> None:
    told = document(nacre("explain", name, "--json"))
    assert told["attacks"] == {name: KNOWN[name]} and not told["refusals"]
    assert bool(told["keys"]) == (name == "pgd")
    for key in re.findall(r"`([a-z_.]+)`", KNOWN[name]):
        if key.startswith("nacre."):
            module, _, function = key.rpartition(".")
            assert callable(getattr(importlib.import_module(module), function))
        else:  # what a text sends people to is there
            assert key in get_args(Effort) or nacre("explain", key).exit_code == 0
    assert "{kind: evasion}" in KNOWN[name]
    page = " ".join(nacre("explain", name).stdout.split())
    assert "`{kind: evasion}`" in page


def test_numbers_of_efforts_are_those_of_the_cascades() -> None:
    for effort, steps, queries, name in (
        ("full", 100, 5000, "autoattack"), ("standard", 50, 1000, "square"),
    ):  # fmt: skip
        first, *_, last = cascade(effort).stages
        assert isinstance(first, AutoPGD) and first.steps == steps
        assert isinstance(last, Square) and last.queries == queries
        assert f"{queries:,} queries" in KNOWN[name]
        assert effort == "standard" or f"{steps} steps of APGD" in KNOWN[name]


def test_a_misspelt_name_of_an_attack_is_met_too(nacre: Nacre) -> None:
    assert "did you mean `autoattack`?" in nacre("explain", "autoatack").stderr
    assert "did you mean `universal`?" in nacre("explain", "univrsal").stderr

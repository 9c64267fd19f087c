"""Recipes that load, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nacre.adversarial_training import PGD, Ball, Trades
from nacre.core.errors import RecipeError
from nacre.data import Builtin
from nacre.differential_privacy.options import Privacy
from nacre.models import MLP
from nacre.recipe.audits import Evasion, Membership
from nacre.recipe.load import dumps, load_recipe, loads, recipe_digest
from nacre.recipe.schema import Recipe
from nacre.recipe.sections import Execution, Training
from tests.recipe.texts import SMALL, WHOLE

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "nacre" / "recipe" / "presets"
RECIPES = sorted(
    path
    for path in [*ROOT.glob("recipes/*.yaml"), *PRESETS.glob("*.yaml")]
    if path.name != "queries.yaml"  # no recipe, but a file of queries; tests/cli asks it
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_we_ship_loads_and_comes_back(path: Path) -> None:
    recipe = load_recipe(path)
    again = loads(dumps(recipe))
    assert again == recipe
    assert recipe_digest(again) == recipe_digest(recipe)
    assert recipe.source == path.read_bytes()
    assert recipe.folder == path.parent


def test_what_is_absent_is_off() -> None:
    recipe = loads(SMALL)
    assert recipe.model == MLP(hidden=(8,))
    assert recipe.differential_privacy is recipe.ledger is recipe.fine_tuning is None
    assert recipe.training == Training() and recipe.execution == Execution()
    assert recipe.audit == recipe.compare == ()


def test_a_whole_recipe_is_the_options_it_names() -> None:
    recipe = loads(WHOLE)
    assert recipe.audit == (Membership(), Evasion(effort="full"))
    assert recipe.differential_privacy == Privacy(
        unit="group", epsilon=4.0, delta=1e-4, rows_per_unit=3
    )
    ball = Ball(kind="l2", radius=0.3, frozen=("sex",))
    assert recipe.adversarial_training == Trades(beta=4.0, attack=PGD(ball=ball))
    assert loads(dumps(recipe)) == recipe


def test_a_recipe_made_in_python_is_the_same_as_its_yaml() -> None:
    made = Recipe(name="small", data=Builtin(name="iris", size=150), model=MLP(hidden=(8,)))
    read = loads(SMALL)
    assert made == read and recipe_digest(made) == recipe_digest(read)
    assert loads(dumps(made)) == made
    assert made.source is None and made.where("model") == (None, None)


def test_whole_floats_and_written_defaults_do_not_change_the_digest() -> None:
    loud = SMALL + "seed: 0\ntraining: {optimizer: {kind: sgd, lr: 0.10}}\nledger:\n# a word\n"
    assert recipe_digest(loads(loud)) == recipe_digest(loads(SMALL))
    one = Recipe(
        name="small",
        data=Builtin(name="iris", size=150),
        model=MLP(hidden=(8,)),
        gradient_clipping=loads(
            SMALL + "gradient_clipping: {norm: 1, kind: flat}"
        ).gradient_clipping,
    )
    assert recipe_digest(one) == recipe_digest(
        loads(SMALL + "gradient_clipping: {kind: flat, norm: 1.0}")
    )
    assert recipe_digest(replace(one, seed=1)) != recipe_digest(one)


def test_a_changed_recipe_has_no_source() -> None:
    recipe = loads(SMALL)
    assert recipe.source == SMALL.encode()
    assert replace(recipe, seed=4).source is None
    assert replace(recipe, folder=Path("elsewhere")).source == SMALL.encode()


def test_lines_lead_to_the_nearest_thing_that_is_written() -> None:
    recipe = loads(WHOLE, "whole.yaml")
    assert recipe.where("name") == ("whole.yaml", 2)
    assert recipe.where("data.columns.sex.categories") == ("whole.yaml", 11)
    assert recipe.where("differential_privacy.epsilon") == ("whole.yaml", 27)
    assert recipe.where("training.optimizer.momentum") == ("whole.yaml", 37)
    assert recipe.where("audit[1].ball") == ("whole.yaml", 43)
    assert recipe.where("nothing.at.all") == (None, None)
    assert recipe.lines["model"] == ("whole.yaml", 17)


def test_paths_are_relative_to_the_file_or_to_the_folder_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(SMALL)
    assert load_recipe(str(path)).folder == tmp_path
    assert load_recipe(path, folder=Path("data")).folder == Path("data")
    assert load_recipe(path) == loads(SMALL, folder=Path("x"))


@pytest.mark.slow
def test_words_that_yaml_1_1_takes_for_something_else_are_text() -> None:
    text = SMALL.replace("name: small", "name: 1:30").replace("iris", "iris") + "compare: []\n"
    assert loads(text).name == "1:30"
    assert loads(SMALL.replace("name: small", "name: yes")).name == "yes"
    assert loads(SMALL.replace("name: small", "name: 2024-01-01")).name == "2024-01-01"
    assert loads(SMALL.replace("name: small", 'name: "1e-5"')).name == "1e-5"
    for name in ("1e-5", "yes", "null", "~", "1_000", ".inf", "0x10", "a: b", "- c", "é\u2028x"):
        try:
            recipe = replace(loads(SMALL), name=name)
        except ValueError:
            assert not name.isprintable()
        else:
            assert loads(dumps(recipe)) == recipe


def test_aliases_stand_for_what_they_name() -> None:
    text = SMALL + "x: &o {kind: sgd, lr: 0.3}\n"
    with pytest.raises(RecipeError):
        loads(text)
    text = SMALL + (
        "fine_tuning: {kind: full, pretrain: {optimizer: &o {kind: sgd, lr: 0.3}}}\n"
        "training: {optimizer: *o}\n"
    )
    recipe = loads(text)
    assert recipe.training.optimizer.lr == 0.3
    assert loads(dumps(recipe)) == recipe
    assert "*" not in dumps(recipe)

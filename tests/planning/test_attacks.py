"""Training against attacks that a plan refuses, with the reason and the remedy."""

from pathlib import Path

import pytest

from nacre.adversarial_training.objectives.refused import REFUSED
from nacre.core.errors import Incompatible, RecipeError, UnsupportedLayer
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from tests.planning.test_clipping import DIGITS
from tests.recipe.texts import SMALL
from tests.training.tiny import CENTRAL, FEDERATED, changed, recipe

ROOT = Path(__file__).parents[2]
FAST = {"kind": "fast", "ball": {"radius": 0.2}}
PRIVATE = """
differential_privacy: {unit: example, epsilon: 4, delta: 1e-4}
"""


@pytest.mark.parametrize("name", [*REFUSED, "FGSM-PCO"])
@pytest.mark.parametrize("private", ["", PRIVATE])
def test_perturbations_that_rows_share_are_refused_by_name(name, private):
    spelt = (
        f"adversarial_training: {{kind: {name}}}\n",
        f"adversarial_training: {{kind: madry, attack: {{kind: {name}}}}}\n",
        f"adversarial_training: {{kind: trades, {name}: 0.005}}\n",
    )
    for section in spelt:
        with pytest.raises(RecipeError) as caught:
            loads(SMALL + private + section)
        assert str(caught.value).count("; use `kind: ") == 1
        assert str(caught.value.key).startswith("adversarial_training.")
        assert not caught.value.others


def test_other_kinds_are_unknown_as_ever():
    with pytest.raises(RecipeError, match="'fest' is unknown; did you mean `fast`"):
        loads(SMALL + "adversarial_training: {kind: fest}\n")


@pytest.mark.slow
def test_a_federation_may_have_a_ramp_at_no_other_price(tmp_path):
    ramped = FAST | {"ramp": {"share": 0.5}}
    found = [plan(recipe(tmp_path, FEDERATED, adversarial_training=o)) for o in (FAST, ramped)]
    assert found[0].levels == found[1].levels


@pytest.mark.slow
def test_a_guard_without_public_rows_is_refused(tmp_path):
    option = FAST | {"guard": {}}
    bare = changed(
        CENTRAL, {"data.public_demonstration": None, "data.test": None, "data.size": 150}
    )
    with pytest.raises(Incompatible, match="they must be public, and the recipe declares none"):
        plan(recipe(tmp_path, bare, adversarial_training=option))
    plan(recipe(tmp_path, DIGITS, adversarial_training=option))


@pytest.mark.slow
def test_batch_statistics_are_refused_with_an_attack_as_without(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))\n"
    )
    model = {"kind": "python", "call": "mine:net"}
    with pytest.raises(UnsupportedLayer, match=r"BatchNorm.*GroupNorm"):
        plan(recipe(tmp_path, CENTRAL, model=model, adversarial_training=FAST))


@pytest.mark.slow
def test_the_recipe_for_robustness_has_privacy_by_the_lines_of_its_comment(tmp_path):
    """They are read from the file, so that what it promises is what runs."""
    written = (ROOT / "recipes" / "robust.yaml").read_text(encoding="utf-8")
    comment = [line[6:] for line in written.splitlines() if line.startswith("#     ")]
    private = "\n".join(line for line in comment if not line.startswith("nacre run"))
    whole = f"{written}\n{private}\n".replace("{run}", str(tmp_path))
    open_plan = plan(loads(written, "robust.yaml", folder=tmp_path))
    private_plan = plan(loads(whole, "robust.yaml", folder=tmp_path))
    assert (open_plan.private, private_plan.private) == (False, True)
    assert private_plan.recipe.adversarial_training == open_plan.recipe.adversarial_training

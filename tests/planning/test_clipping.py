"""Clip rules and augmented copies in whole runs: planned, refused, resumed to the same bits."""

import io
import json
import shutil
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from nacre.core.errors import Incompatible, RecipeError
from nacre.core.files import load_tensors
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.gradient_clipping import Adaptive, Unclipped
from nacre.models import build
from nacre.planning.plan import plan
from nacre.planning.show import plan_tables
from nacre.report.sections.mechanism import _clip
from nacre.runs import checkpoint, loop
from nacre.runs.run import train
from nacre.training import pieces
from nacre.training.augmented import Augmented
from tests.training.tiny import (
    CENTRAL,
    FEDERATED,
    TABLE,
    StopAfter,
    Stopped,
    changed,
    patients,
    recipe,
)

pytestmark = pytest.mark.slow

RULES = {
    "automatic": {"kind": "automatic", "norm": 0.5},
    "per_layer": {"kind": "per_layer", "norm": 0.5},
    "adaptive": {"kind": "adaptive", "norm": 0.5},
}
DIGITS = changed(
    CENTRAL,
    {
        "data": {
            "kind": "builtin",
            "name": "digits",
            "size": 359,
            "public_demonstration": True,
            "test": {"share": 0.8},
        },
        "model": {"kind": "cnn", "channels": [4], "hidden": 8},
        "training.steps": 3,
        "training.augment": {"kind": "copies", "count": 3, "flip": True, "shift": 1},
    },
)
CLIENT = changed(
    FEDERATED,
    {
        "differential_privacy": {"unit": "client", "epsilon": 50, "delta": 0.05},
        "ledger.grant": {"epsilon": 50, "delta": 0.05, "rule": "pld"},
        "federated_learning.few_clients": True,
    },
)


def _released(path):
    return [json.loads(line) for line in (path / "released.jsonl").read_text().splitlines()]


def _table(planned):
    out = io.StringIO()
    Console(width=200, file=out).print(plan_tables(planned))
    return " ".join(out.getvalue().split())


@pytest.mark.parametrize("kind", RULES)
def test_each_rule_trains_and_has_the_price_of_flat(tmp_path, kind):
    flat = plan(recipe(tmp_path, CENTRAL)).levels[0]
    planned = plan(recipe(tmp_path, CENTRAL, gradient_clipping=RULES[kind]))
    holder = planned.levels[0]
    assert holder.mechanism.event() == flat.mechanism.event()
    assert holder.price == flat.price
    train(planned, tmp_path / "run")
    released = _released(tmp_path / "run")
    assert [entry["how"] for entry in released] == ["noised"] * 6
    first = holder.mechanism.noise.multiplier * holder.mechanism.clip.bound(1)
    assert released[0]["deviation"] == pytest.approx(first)
    moved = len({entry["deviation"] for entry in released}) > 1
    assert moved == (kind == "adaptive")


@pytest.mark.parametrize("kind", RULES)
def test_the_plan_says_which_rule_and_its_bound(tmp_path, kind):
    planned = plan(recipe(tmp_path, CENTRAL, gradient_clipping=RULES[kind]))
    facts = planned.to_json()
    (party,) = facts["parties"]
    assert party["clip"]["kind"] == kind
    assert party["clip"]["norm"] == planned.levels[0].mechanism.clip.bound(1)
    said, table = facts["techniques"]["gradient_clipping"], _table(planned)
    assert said in table
    assert "0.5" in said
    assert ("at first" in table) == (kind == "adaptive")
    bound = "0.5025 at first" if kind == "adaptive" else "0.5"
    assert f"x {bound}" in table
    assert _clip(party).startswith(kind.replace("_", " "))


def test_without_privacy_the_rules_clip_too(tmp_path):
    for kind, rule in RULES.items():
        asked = recipe(
            tmp_path, CENTRAL, gradient_clipping=rule, differential_privacy=None, ledger=None
        )
        train(plan(asked), tmp_path / kind)
        assert _released(tmp_path / kind)[0]["how"] == "unprotected"


@pytest.mark.parametrize("steps", [1, 3, 4])
@pytest.mark.parametrize("base", [CENTRAL, CLIENT], ids=["central", "client"])
def test_a_resumed_adaptive_run_ends_in_the_same_bits(tmp_path, monkeypatch, base, steps):
    planned = plan(
        recipe(tmp_path, base, ledger__path="{run}/privacy.db", gradient_clipping=RULES["adaptive"])
    )

    def copying(*args, **more):
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    real = loop.fit
    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    kept = checkpoint.checkpoints(tmp_path / "run" / "state")
    if kept:
        assert checkpoint.read(kept[-1])[2]["clip"].keys() == {"norm"}
    for name in ("run", "copy"):
        train(plan(planned.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    assert _released(tmp_path / "run") == _released(tmp_path / "copy")
    weights = [load_tensors(tmp_path / n / "model.safetensors")[0] for n in ("run", "copy")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    norms = {entry["deviation"] for entry in _released(tmp_path / "run")}
    assert len(norms) > 1, "the norm moves"


@pytest.mark.parametrize("kind", RULES)
def test_the_changes_of_whole_parties_are_clipped_by_each_rule(tmp_path, kind):
    planned = plan(recipe(tmp_path, CLIENT, gradient_clipping=RULES[kind]))
    assert planned.outer.clip.kind == kind
    assert isinstance(planned.inner("a").clip, Unclipped)
    said = planned.to_json()["techniques"]["gradient_clipping"]
    assert said.startswith("Each party's change is scaled")
    train(planned, tmp_path / "run")
    assert len(_released(tmp_path / "run")) == 4


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            CENTRAL,
            {"gradient_clipping": RULES["per_layer"], "execution": {"gradients": "ghost"}},
            "`execution.gradients`: ghost scales each unit's loss by one factor",
        ),
        (
            CENTRAL,
            {"gradient_clipping": RULES["automatic"], "execution": {"gradients": "whole"}},
            "whole adds gradients up before anyone could clip",
        ),
        (
            CENTRAL,
            {"gradient_clipping": {"kind": "per_layer", "norms": {"head": 1.0}}},
            "`gradient_clipping.norms`: no entry of `norms` covers",
        ),
        (FEDERATED, {"gradient_clipping": RULES["adaptive"]}, "adaptive would begin again"),
        (CENTRAL, {"gradient_clipping": {"kind": "by_norm", "norm": 1.0}}, "bounds nobody's share"),
        (
            CENTRAL,
            {"training__augment": {"kind": "copies", "count": 2, "flip": True}},
            "`training.augment`: copies are flipped and shifted as images",
        ),
        (
            DIGITS,
            {"training__augment": {"kind": "copies", "count": 2, "shift": 8}},
            "use at most 7",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_with_the_remedy(tmp_path, base, changes, message):
    with pytest.raises(Incompatible, match=message):
        plan(recipe(tmp_path, base, **changes))


def test_a_rule_without_its_norm_is_refused_where_it_is_written(tmp_path):
    with pytest.raises(RecipeError, match="say one of them"):
        recipe(tmp_path, CENTRAL, gradient_clipping={"kind": "per_layer"})


def test_copies_of_images_train_and_cost_no_epsilon(tmp_path):
    planned = plan(recipe(tmp_path, DIGITS))
    plain = plan(recipe(tmp_path, DIGITS, training__augment=None))
    assert planned.levels[0].price == plain.levels[0].price
    assert "3 random versions" in _table(planned)
    assert "3 random versions" in planned.to_json()["techniques"]["gradient_clipping"]
    train(planned, tmp_path / "run")
    assert len(_released(tmp_path / "run")) == 3


@pytest.mark.parametrize("sums", ["bookkeeping", "ghost", "vmapped", "looped"])
def test_a_recipes_copies_reach_every_gradient_sum(tmp_path, sums):
    asked = recipe(tmp_path, DIGITS, execution={"gradients": sums})
    schema = asked.data.schema()
    model = build(asked.model, schema.shape, schema.outputs(), asked.seed, asked.folder)
    space = FeatureSpace(schema.shape)
    chosen, _ = pieces.sums(asked, model, schema, space)
    assert isinstance(chosen.objective, Augmented)
    batch = pieces.random_batch(asked, schema, 4)
    total = chosen(model, batch, pieces.clip(asked), Source(bytes(32)))
    assert total.local.norms.shape == (4, 1), "one norm a unit, however many copies it has"
    none = replace(asked, training=replace(asked.training, augment=None))
    other, _ = pieces.sums(none, model, schema, space)
    without = other(model, batch, pieces.clip(asked), Source(bytes(32)))
    assert not torch.equal(total.local.norms, without.local.norms)


def test_groups_of_rows_clip_adaptively(tmp_path):
    patients(tmp_path / "patients.csv")
    planned = plan(recipe(tmp_path, TABLE, gradient_clipping=RULES["adaptive"]))
    assert isinstance(planned.levels[0].mechanism.clip, Adaptive)
    train(planned, tmp_path / "run")
    assert len({entry["deviation"] for entry in _released(tmp_path / "run")}) > 1

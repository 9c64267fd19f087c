"""What a model's fixed beginning makes of the rows is computed once: the steps are the same."""

from dataclasses import replace

import pytest
import torch

from nacre.core.errors import Incompatible
from nacre.core.files import load_tensors
from nacre.core.random import Source
from nacre.data import Rows
from nacre.models import build
from nacre.planning.plan import plan
from nacre.runs import features
from nacre.runs.progress import Silent
from nacre.runs.rows import read
from nacre.runs.run import train
from tests.training.tiny import CENTRAL, recipe

DIGITS = CENTRAL | {
    "data": {
        "kind": "builtin",
        "name": "digits",
        "size": 1438,
        "public_demonstration": True,
        "test": {"share": 0.2},
    },
    "model": {"kind": "scattering", "scales": 1, "angles": 4, "groups": 5},
    "training": {"steps": 4, "batch": 60, "checkpoint": 2, "optimizer": {"kind": "sgd"}},
}


def made(option):
    schema = option.schema
    return build(option.model, schema.shape, schema.outputs(), 0, option.folder), schema


def test_steps_pass_through_the_trained_part_alone(tmp_path):
    option = recipe(tmp_path, DIGITS)
    model, schema = made(option)
    part, inner = features.trained_part(option, model, schema)
    assert list(part.state_dict()) == ["head.weight", "head.bias"]
    assert inner.shape == (5, 4, 4)
    assert inner.outputs() == schema.outputs()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"kind": "mlp"}},
        {"training.augment": {"count": 2, "shift": 1}},
        {
            "adversarial_training": {
                "kind": "madry",
                "attack": {"kind": "fgsm", "ball": {"kind": "linf", "radius": 0.1}},
            }
        },
        {
            "federated_learning": {
                "parties": {"kind": "uniform", "names": ["a", "b"]},
                "rounds": 2,
                "local": {"steps": 1},
            }
        },
    ],
)
def test_where_inputs_move_or_parties_train_the_model_is_whole(tmp_path, changes):
    option = recipe(tmp_path, DIGITS, **changes)
    model, schema = made(option)
    assert features.trained_part(option, model, schema) == (model, schema)


def test_features_that_take_too_much_memory_are_computed_in_each_step(tmp_path):
    option = recipe(tmp_path, DIGITS)
    model, schema = made(option)
    needed = 4 * 1438 * 5 * 4 * 4 * 4
    assert features.trained_part(option, model, schema, needed)[0] is not model
    assert features.trained_part(option, model, schema, needed - 1)[0] is model


@pytest.mark.parametrize("epsilon", [8, None])
def test_a_run_over_features_is_the_run_over_rows(tmp_path, monkeypatch, epsilon):
    """Draws and noise are keyed by what enters a step, which the features are: so they are replaced
    by fixed ones, and the weights agree but for rounding."""
    changes = {"differential_privacy": None, "ledger": None} if epsilon is None else {}
    planned = plan(recipe(tmp_path, DIGITS, **changes))
    monkeypatch.setattr(Source, "child", _unkeyed(Source.child))
    monkeypatch.setattr(Source, "digest", lambda self, *parts: bytes(32))
    train(planned, tmp_path / "features")
    monkeypatch.setattr(features, "trained_part", lambda recipe, model, schema, *_: (model, schema))
    again = plan(recipe(tmp_path, DIGITS, **changes, **_other_ledger(epsilon)))
    train(again, tmp_path / "rows")
    ours, plain = (
        load_tensors(tmp_path / name / "model.safetensors")[0] for name in ("features", "rows")
    )
    assert list(ours) == list(plain)
    for name, value in plain.items():
        assert torch.allclose(ours[name], value, atol=1e-5)


def _unkeyed(child):
    def same(self, *parts):
        kept = [part for part in parts if isinstance(part, int | str) and len(str(part)) < 20]
        return Source(bytes(32)) if not kept or kept[0] == "run" else child(self, *kept)

    return same


def _other_ledger(epsilon):
    return {} if epsilon is None else {"ledger__path": "other.db"}


def test_private_and_public_rows_pass_and_keep_their_order(tmp_path):
    option = recipe(tmp_path, DIGITS)
    held = read(option, bytes(32))
    held = replace(held, public=held.private[""].take(range(70)))
    model, schema = made(option)
    setting = features.Setting(option, schema, held.space)
    inner, passed, part = features.passed(setting, held, model, Silent())
    rows = held.private[""]
    with torch.no_grad():
        expected = model.beginning(rows.features)
        assert torch.allclose(passed.private[""].features, expected, atol=1e-5)
        assert torch.allclose(part(passed.public.features), model(held.public.features), atol=1e-5)
    assert torch.equal(passed.private[""].label, rows.label)
    assert inner.schema.shape == inner.space.shape == (5, 4, 4)
    assert part.training == model.training


def test_no_rows_pass_as_no_rows():
    empty = Rows(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert features._through(torch.nn.Flatten(), empty, lambda *_: None) is empty


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kind": "scattering", "groups": 7}, r"tiny.yaml:\d+ `model`: groups=7 does not divide"),
        (
            {"kind": "scattering", "scales": 4},
            r"tiny.yaml:\d+ `model`: model `scattering` averages",
        ),
        ({"kind": "cnn", "channels": [4] * 4}, r"tiny.yaml:\d+ `model`: model `cnn` halves"),
    ],
)
def test_a_model_that_does_not_fit_the_images_is_told_by_its_line(tmp_path, model, said):
    with pytest.raises(Incompatible, match=said):
        plan(recipe(tmp_path, DIGITS | {"model": model}))

import json
import sys
from dataclasses import replace

import pytest
import torch

from nacre.core.errors import FileDamaged, Incompatible, NacreError, Refusal, RunError
from nacre.models import (
    CNN,
    MLP,
    Code,
    FormerRun,
    PythonModel,
    build,
    describe_model,
    load,
    save,
    saved,
)
from nacre.models.load import architecture

SHAPE, OUTPUTS = (4,), 3
OPTION = MLP(hidden=(5,), dropout=0.1)
LINEAR = PythonModel(call="torch.nn:Linear", arguments={"in_features": 4, "out_features": 3})

TORCH = Code(packages=("torch",), runs=True)


def made(option=OPTION, seed=0, folder=None):
    return build(option, SHAPE, OUTPUTS, seed, folder, TORCH)


def put(folder, option=OPTION, seed=0, **fields):
    model = made(option, seed, folder)
    facts = {"shape": SHAPE, "outputs": OUTPUTS, "task": "classification", "scaler": None}
    save(model, option, folder, **{**facts, **fields}, folder=folder)
    return model


def same(a, b):
    return all(torch.equal(a.state_dict()[name], b.state_dict()[name]) for name in a.state_dict())


def test_the_seed_fixes_the_weights_and_nothing_else(tmp_path):
    before = torch.random.get_rng_state()
    assert same(made(seed=1), made(seed=1))
    assert not same(made(seed=1), made(seed=2))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("option", [OPTION, LINEAR])
def test_a_model_comes_back_in_evaluation_mode(tmp_path, option):
    model = put(tmp_path, option, seed=5, scaler={"offset": 1})
    loaded = load(tmp_path, code=TORCH)
    assert same(model, loaded) and not loaded.training
    known = saved(tmp_path)
    assert (known.option, known.shape, known.outputs) == (option, SHAPE, OUTPUTS)
    assert (known.task, known.scaler) == ("classification", {"offset": 1})


def test_images_come_back_too(tmp_path):
    option = CNN(channels=(4,), hidden=3)
    model = build(option, (1, 4, 4), 2, 0, tmp_path)
    save(model, option, tmp_path, shape=(1, 4, 4), outputs=2, task="classification", scaler=None,
         folder=tmp_path)  # fmt: skip
    assert same(model, load(tmp_path))


def test_a_former_run_is_continued_and_saved_by_its_architecture(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    model = put(first, seed=5)
    base = build(FormerRun(path="first"), SHAPE, OUTPUTS, seed=9, folder=tmp_path)
    assert same(model, base) and base.training
    facts = {"shape": SHAPE, "outputs": OUTPUTS, "task": "classification", "scaler": None}
    save(base, FormerRun(path="first"), second, **facts, folder=tmp_path)
    assert saved(second).option == OPTION
    assert architecture(OPTION, tmp_path) is OPTION


def test_a_former_run_that_does_not_fit_is_refused(tmp_path):
    put(tmp_path)
    for shape, outputs in (((5,), OUTPUTS), (SHAPE, 2)):
        with pytest.raises(Incompatible, match=r"maps \(4,\) to 3 outputs and the data need"):
            build(FormerRun(path="."), shape, outputs, 0, tmp_path)


def test_an_unknown_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no finished model"):
        build(FormerRun(path="absent"), SHAPE, OUTPUTS, 0, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"task": "guessing"},
        {"option": {"kind": "gan"}},
        {"option": {"kind": "mlp", "width": 3}},
        {"option": {"kind": "mlp", "hidden": "wide"}},
        {"option": None},
        {"shape": None},
        {"outputs": "many"},
    ],
)
def test_a_foreign_description_is_refused(tmp_path, change):
    put(tmp_path)
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(FileDamaged, match="is not what nacre writes"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "7", "{"])
def test_a_damaged_description_is_refused(tmp_path, content):
    put(tmp_path)
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(FileDamaged):
        load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    put(tmp_path), put(other, replace(OPTION, hidden=(6,)))
    (tmp_path / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(FileDamaged, match=r"does not fit model\.json") as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_every_flipped_byte_of_a_header_is_harmless_or_refused(tmp_path):
    put(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for place in range(0, 200, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        file.write_bytes(bytes(damaged))
        try:
            load(tmp_path)
        except NacreError:
            continue


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 9, "out_features": 3}, r"does not take inputs of shape \(4,\)"),
        ({"in_features": 4, "out_features": 2}, r"gives \(2, 2\) for 2 rows where \(2, 3\)"),
    ],
)
def test_a_python_model_of_another_shape_is_refused(tmp_path, arguments, message):
    with pytest.raises(Refusal, match=message):
        made(PythonModel(call="torch.nn:Linear", arguments=arguments), folder=tmp_path)


def test_a_python_model_that_gives_no_tensor_is_refused(tmp_path):
    with pytest.raises(Refusal, match="gives tuple for 2 rows"):
        made(
            PythonModel(call="torch.nn:LSTM", arguments={"input_size": 4, "hidden_size": 3}),
            folder=tmp_path,
        )


def test_a_description_counts_what_training_moves(tmp_path):
    model = made()
    model.get_parameter("hidden0.bias").requires_grad_(False)
    facts = describe_model(model)
    assert (facts["parameters"], facts["trainable"]) == (43, 38)
    assert facts["layers"][1] == "hidden0: Linear(in_features=4, out_features=5, bias=True)"
    assert describe_model(made(LINEAR, folder=tmp_path))["layers"] == [
        "Linear(in_features=4, out_features=3, bias=True)"
    ]


def test_no_code_is_run_for_a_folder_that_is_not_trusted(tmp_path):
    """model.json, and the run that a recipe continues, name functions that nobody has read."""
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n"
        "Path(__file__).with_suffix('.ran').touch()\n"
        "def net():\n    return nn.Linear(4, 3)\n"
    )
    own = PythonModel(call="mine:net")
    put(tmp_path, own)
    (tmp_path / "mine.ran").unlink()
    sys.modules.pop("mine")
    for act in (
        lambda: load(tmp_path),
        lambda: load(tmp_path, own=MLP(hidden=(3,))),
        lambda: load(tmp_path, own=PythonModel(call="mine:net", arguments={"a": 1})),
        lambda: build(FormerRun(path="."), SHAPE, OUTPUTS, 0, tmp_path),
        lambda: load(tmp_path, code=Code(packages=("mine",))),
    ):
        with pytest.raises(Refusal, match="--trust-code"):
            act()
        assert not (tmp_path / "mine.ran").exists()
    assert load(tmp_path, own=own) is not None
    assert load(tmp_path, code=Code(runs=True)) is not None
    assert build(FormerRun(path="."), SHAPE, OUTPUTS, 0, tmp_path, Code(runs=True)) is not None

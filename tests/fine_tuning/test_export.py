"""What is written is the function that was trained, under names that others can read."""

import json
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from nacre.core.errors import Incompatible, NacreError
from nacre.core.files import load_tensors
from nacre.core.tensors import detached, trainable
from nacre.fine_tuning import Full, LoRA, prepare
from nacre.fine_tuning.export import export, merged
from nacre.models import load, save
from tests.fine_tuning.models import FITTING, OPTION, SHAPE, inputs, mlp, nested

choices = pytest.mark.parametrize("kind", FITTING)


def _trained(choice, model):
    """The model with every trainable weight moved by a fixed random amount, in evaluation mode."""
    model = prepare(choice, model, 0).eval()
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += torch.randn(parameter.shape, generator=stream)
    return model


@choices
def test_the_merged_state_is_the_same_function_under_the_plain_names(kind):
    for plain in (mlp, nested):
        model = _trained(kind(), plain())
        base = plain()
        assert not torch.allclose(base(inputs()), model(inputs()))
        base.load_state_dict(merged(model))
        assert torch.allclose(base(inputs()), model(inputs()), atol=1e-5)


@choices
def test_merging_leaves_the_model_as_it_was(kind):
    model = _trained(kind(), mlp())
    before, outputs = detached(model.state_dict()), model(inputs())
    for value in merged(model).values():
        value.fill_(7.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(inputs()), outputs)


@choices
def test_a_merged_export_loads_beside_model_json(kind, tmp_path):
    model = _trained(kind(), mlp())
    facts = {"shape": SHAPE, "outputs": 2, "task": "classification", "scaler": None}
    save(mlp(), OPTION, tmp_path, folder=tmp_path, **facts)
    export(model, tmp_path)
    assert torch.allclose(load(tmp_path)(inputs()), model(inputs()), atol=1e-5)


def test_adapters_inside_a_layer_with_a_like_name_are_not_mixed_up():
    """`a.base_layer` of the user's own and `ab` beside `a`."""
    plain = nn.Sequential()
    for name in ("a", "ab"):
        plain.add_module(name, nn.Linear(3, 3))
    plain.add_module("base_layer", nn.Linear(3, 3))
    plain.add_module("last", nn.Linear(3, 2))
    names = set(plain.state_dict())
    model = _trained(LoRA(targets=("a",)), plain)
    assert set(merged(model)) == names
    assert torch.equal(merged(model)["ab.weight"], model.state_dict()["ab.weight"])


@pytest.mark.parametrize("plain", [mlp, nested])
def test_an_exported_adapter_loads_in_peft(plain, tmp_path):
    model = _trained(LoRA(rank=2, alpha=3.0), plain())
    export(model, tmp_path, "adapter")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    from peft import PeftModel

    again = PeftModel.from_pretrained(plain(), str(tmp_path)).eval()
    assert torch.allclose(again(inputs()), model(inputs()), atol=1e-6)


def test_an_exported_adapter_can_be_injected_again(tmp_path):
    model = _trained(LoRA(rank=2), mlp())
    export(model, tmp_path, "adapter")
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    weights, _ = load_tensors(tmp_path / "adapter_model.safetensors")
    plain = {name.removeprefix("base_model.model."): value for name, value in weights.items()}
    again = inject_adapter_in_model(LoraConfig.from_pretrained(str(tmp_path)), mlp())
    result = set_peft_model_state_dict(again, plain)
    assert not result.unexpected_keys
    assert torch.allclose(again.eval()(inputs()), model(inputs()), atol=1e-6)


def test_the_adapters_description_holds_the_choice(tmp_path):
    export(_trained(LoRA(rank=2, alpha=3.0), mlp()), tmp_path, "adapter")
    described = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (described["peft_type"], described["r"], described["lora_alpha"]) == ("LORA", 2, 3.0)


def test_without_adapters_there_is_none_to_export(tmp_path):
    with pytest.raises(Incompatible, match="no adapters to export"):
        export(prepare(Full(), mlp(), 0), tmp_path, "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(NacreError, match="could not be written"):
        export(mlp(), tmp_path / "absent")


def test_per_unit_gradients_pass_through_the_adapters():
    """What a vmapped gradient sum does, against one backward a row."""
    model = _trained(LoRA(rank=2), mlp())
    weights = detached(trainable(model))

    def loss(weights, row):
        return functional_call(model, weights, (row[None],)).square().sum()

    together = vmap(grad(loss), in_dims=(None, 0))(weights, inputs())
    for index, row in enumerate(inputs()):
        alone = grad(loss)(weights, row)
        for name, value in alone.items():
            assert torch.allclose(together[name][index], value, atol=1e-5)


def test_importing_peft_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(LoRA(), mlp(), 0)

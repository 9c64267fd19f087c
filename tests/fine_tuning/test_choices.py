"""Which weights move, and that nothing else changes."""

import math
import sys

import pytest
import torch
from torch import nn

from nacre.core.errors import Incompatible, Refusal
from nacre.core.tensors import trainable
from nacre.fine_tuning import Bias, Full, Head, LoRA, Norms, Pretrain, prepare
from nacre.models import MLP, build
from tests.fine_tuning.models import FITTING, SHAPE, inputs, mlp, nested

choices = pytest.mark.parametrize("kind", FITTING)


def _moves(model):
    return set(trainable(model))


@pytest.mark.slow
@choices
def test_the_function_is_unchanged_at_first(kind):
    for model in (mlp(), nested()):
        before = model(inputs())
        prepared = prepare(kind(), model, 0)
        assert torch.equal(prepared(inputs()), before)


@choices
def test_only_the_chosen_weights_move(kind):
    model = prepare(kind(), mlp(), 0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the first step of LoRA moves B alone, since B is zero
        model(inputs()).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == _moves(model)
    assert moved


def test_full_moves_every_weight_even_one_that_was_frozen():
    model = mlp()
    model.head.bias.requires_grad_(False)
    assert _moves(prepare(Full(), model, 0)) == {name for name, _ in model.named_parameters()}


def test_head_moves_the_last_linear_layer():
    assert _moves(prepare(Head(), mlp(), 0)) == {"head.weight", "head.bias"}
    assert _moves(prepare(Head(), nested(), 0)) == {"blocks.1.0.weight", "blocks.1.0.bias"}


def test_head_moves_the_module_that_is_named():
    model = prepare(Head(module="blocks.0"), nested(), 0)
    assert _moves(model) == {"blocks.0.0.weight", "blocks.0.0.bias"}


def test_head_of_a_model_that_is_one_layer_is_all_of_it():
    assert _moves(prepare(Head(), nn.Linear(3, 2), 0)) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("choice", "model", "sentence"),
    [
        (Head(module="haed"), mlp, "no module 'haed'; did you mean 'head'"),
        (Head(module="activation0"), mlp, "'activation0' holds no weights"),
        (Head(), lambda: nn.Conv2d(1, 1, 3), "needs a linear layer and the model has none"),
        (LoRA(), lambda: nn.Conv2d(1, 1, 3), "needs a linear layer and the model has none"),
        (Norms(), mlp, "this model has none; use `kind: lora`"),
        (Bias(), lambda: nn.Linear(3, 2, bias=False), "this one has none; use `kind: norms`"),
        (LoRA(), lambda: nn.Linear(3, 2), "the model has no other"),
        (LoRA(targets=("hiden0",)), mlp, "no module 'hiden0'; did you mean 'hidden0'"),
        (LoRA(targets=("activation0",)), mlp, "'activation0' is a ReLU"),
    ],
)
def test_a_choice_that_does_not_fit_the_model_is_refused(choice, model, sentence):
    with pytest.raises(Incompatible, match=sentence):
        prepare(choice, model(), 0)


def test_lora_adapts_all_linear_layers_but_the_last():
    assert _moves(prepare(LoRA(), mlp(), 0)) == {
        "hidden0.lora_A.default.weight",
        "hidden0.lora_B.default.weight",
        "hidden1.lora_A.default.weight",
        "hidden1.lora_B.default.weight",
    }


def test_lora_adapts_the_named_layers_and_no_other_of_a_like_name():
    """`0` ends the name `1.0` too, and only a whole name counts."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 2))
    prepared = prepare(LoRA(targets=("0",)), model, 0)
    assert _moves(prepared) == {"0.lora_A.default.weight", "0.lora_B.default.weight"}


def test_lora_leaves_the_projection_inside_attention_alone():
    """Attention reads that layer's weight without calling it: an adapter would do nothing."""
    attention = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(4, 2), "a": nn.Linear(4, 4), "b": nn.Linear(4, 2)}
    )
    assert {name.split(".")[0] for name in _moves(prepare(LoRA(), attention, 0))} == {"a"}


def test_the_seed_fixes_the_adapters_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    one, same, other = (trainable(prepare(LoRA(), mlp(), seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    name = "hidden0.lora_A.default.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])
    assert one[name].shape == (8, SHAPE[0])


def test_lora_keeps_the_mode_of_the_model():
    evaluating = prepare(LoRA(dropout=0.5), mlp().eval(), 0)
    assert not any(module.training for module in evaluating.modules())
    assert prepare(LoRA(dropout=0.5), mlp().train(), 0).training


def test_lora_scales_by_alpha_over_rank():
    model = prepare(LoRA(rank=2, alpha=6.0, targets=("hidden0",)), mlp(), 0)
    weights = trainable(model)
    a, b = weights["hidden0.lora_A.default.weight"], weights["hidden0.lora_B.default.weight"]
    nn.init.normal_(b)
    layer = model.get_submodule("hidden0")
    x = torch.randn(5, *SHAPE)
    assert torch.allclose(layer(x), layer.base_layer(x) + 3.0 * x @ a.T @ b.T, atol=1e-5)


def test_without_peft_lora_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(Refusal, match=r"pip install 'nacre\[text\]'"):
        prepare(LoRA(), mlp(), 0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LoRA(rank=0), "rank=0 must be at least 1"),
        (lambda: LoRA(alpha=0.0), "alpha=0.0 must be > 0"),
        (lambda: LoRA(alpha=math.inf), "alpha=inf must be > 0 and finite"),
        (lambda: LoRA(dropout=1.0), "dropout=1.0 must be at least 0 and below 1"),
        (lambda: Pretrain(steps=0), "steps=0 must be at least 1"),
        (lambda: Pretrain(batch=0), "batch=0 must be at least 1"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_base_is_trained_on_public_rows_only_where_it_is_asked_for(tmp_path):
    assert Full().pretrain is None
    assert Full(pretrain=Pretrain(steps=3)).pretrain == Pretrain(steps=3, batch=64)
    model = build(MLP(hidden=(4,)), (3,), 2, 0, tmp_path)
    assert prepare(Head(), model, 0) is model

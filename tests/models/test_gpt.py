"""The small decoder: causal, blind to padding, followed by every sum, back from its files."""

import pytest
import torch

from nacre.core import rows
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.tensors import norm, trainable
from nacre.fine_tuning import Head, LoRA
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped
from nacre.models import GPT, CausalLM, build, load, random_inputs, repair, save
from tests.laws.networks import Objective
from tests.laws.zoo import distance

T, TOKENS, ROWS = 9, 31, 5
SOURCE = Source(bytes(range(32)))
OBJECTIVE = Objective(CausalLM(TOKENS).losses)
tieds = pytest.mark.parametrize("tied", [True, False])


def made(seed=0, **fields):
    option = GPT(**({"layers": 2, "width": 16, "heads": 4} | fields))
    return build(option, (T,), TOKENS, seed, None)


def batch():
    """The last unit has a single token, so nothing of it counts."""
    features = random_inputs((T,), TOKENS, ROWS)
    features[-1, 1:] = -1
    label = torch.where(features >= 0, features, -100)
    return {
        "features": features,
        "label": label,
        "present": torch.ones(ROWS, dtype=torch.bool),
        "unit": 7 * torch.arange(ROWS) + 3,
    }


@tieds
def test_an_answer_depends_on_the_tokens_before_it_alone(tied):
    model = made(tied=tied).double().eval()
    whole = random_inputs((T,), TOKENS, 3)[:1]
    answers = model(whole)
    assert answers.shape == (1, T, TOKENS)
    for length in range(1, T):
        changed = whole.clone()
        changed[:, length:] = (changed[:, length:] + 1) % TOKENS
        padded = whole.clone()
        padded[:, length:] = -1
        for other in (changed, padded, whole[:, :length]):
            assert torch.allclose(model(other)[:, :length], answers[:, :length], atol=1e-12)


@tieds
def test_rows_do_not_mix(tied):
    repair.check(made(tied=tied), (T,), TOKENS)


@tieds
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", [BookKeeping, Ghost, Grouped])
def test_the_sums_are_those_of_single_units(kind, dropout, tied):
    model, given = made(tied=tied, dropout=dropout).double().train(), batch()
    clip = Flat(norm=0.3)
    expected = Looped(OBJECTIVE)(model, given, clip, SOURCE).total
    total = kind(OBJECTIVE, verify="always")(model, given, clip, SOURCE).total
    assert norm(expected) > 0
    assert distance(total, expected) <= 1e-12 * norm(expected)


def test_looped_is_plain_autograd_of_each_row():
    model, given = made().double(), batch()
    clip = Flat(norm=1e6)
    total = Looped(OBJECTIVE)(model, given, clip, SOURCE).total
    weights = trainable(model)
    plain = torch.autograd.grad(OBJECTIVE.losses(model, given).sum(), list(weights.values()))
    assert distance(total, dict(zip(weights, plain, strict=True))) <= 1e-12 * norm(total)


def test_a_row_that_counts_nothing_adds_nothing():
    model, given = made().double(), batch()
    clip = Flat(norm=0.3)
    whole = BookKeeping(OBJECTIVE)(model, given, clip, SOURCE).total
    without = BookKeeping(OBJECTIVE)(model, rows.select(given, slice(0, ROWS - 1)), clip, SOURCE)
    assert distance(whole, without.total) <= 1e-12 * norm(whole)


@tieds
def test_it_comes_back_from_its_files(tied, tmp_path):
    option = GPT(layers=1, width=8, heads=2, tied=tied)
    model = build(option, (T,), TOKENS, 4, tmp_path)
    save(model, option, tmp_path, shape=(T,), outputs=TOKENS, task="causal_lm", scaler=None,
         folder=tmp_path)  # fmt: skip
    given = random_inputs((T,), TOKENS, 3)
    assert torch.equal(load(tmp_path)(given), model.eval()(given))


def test_the_seed_fixes_the_weights():
    one, same, other = (made(seed=s).state_dict()["embed.weight"] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 0}, "layers=0 must be at least 1"),
        ({"width": 10, "heads": 4}, "width=10 must be a multiple of heads=4"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_impossible_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GPT(**fields)


def test_a_tied_model_answers_with_the_weights_that_read():
    tied, untied = (made(tied=tied).state_dict() for tied in (True, False))
    assert untied.keys() - tied.keys() == {"head.weight"}


@pytest.mark.parametrize("fields", [{"layers": 0}, {"width": 10, "heads": 3}, {"dropout": 1.0}])
def test_sizes_that_fit_nothing_are_refused(fields):
    with pytest.raises(ValueError, match="must"):
        GPT(**fields)


def test_a_tied_model_has_no_head_to_tune():
    with pytest.raises(Incompatible, match="no head of its own"):
        Head().prepare(made(tied=True), 0)
    moved = Head().prepare(made(tied=False), 0)
    assert [name for name, p in moved.named_parameters() if p.requires_grad] == ["head.weight"]


@tieds
def test_adapters_stand_beside_every_linear_layer_of_the_blocks(tied):
    moved = LoRA(rank=2).prepare(made(tied=tied), 0)
    names = {name for name, p in moved.named_parameters() if p.requires_grad}
    for layer in ("mix", "out", "wide", "narrow"):
        assert any(f"blocks.1.{layer}." in name for name in names)
    assert not any(name.startswith("head") for name in names)

"""Law of every model and task: what a unit is answered depends on that unit alone."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from nacre.core.rows import assert_rowwise
from nacre.models import CNN, MLP, Classification, Code, PythonModel, Regression, Scattering, build
from nacre.models.repair import check

HERE = Path(__file__).parent
SHAPE = (1, 8, 8)
MODELS = {
    "linear": MLP(hidden=()),
    "mlp": MLP(hidden=(8, 6)),
    "mlp, tanh": MLP(hidden=(8,), activation="tanh"),
    "mlp, dropout": MLP(hidden=(8,), dropout=0.4),
    "cnn": CNN(channels=(4, 8), groups=2, hidden=6),
    "cnn, tanh, one block": CNN(channels=(4,), groups=4, hidden=6, activation="tanh"),
    "scattering": Scattering(scales=1, groups=3),
    "scattering, random features": Scattering(scales=1, groups=3, random=20),
    "scattering, whitened": Scattering(scales=1, groups=3, whiten=1.0),
    "scattering, convolutions": Scattering(scales=1, groups=3, head="convolution", channels=4),
    # Flattening alone gives 64 outputs, one an input entry.
    "python": PythonModel(call="torch.nn:Flatten", arguments={"start_dim": 1}),
}
EVERY = pytest.mark.parametrize("name", MODELS)

TORCH = Code(packages=("torch",))


def made(name, shape=SHAPE):
    return build(
        MODELS[name], shape, 64 if name == "python" else 3, seed=1, folder=HERE, code=TORCH
    )


def inputs(count=5, shape=SHAPE):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(2))


def seeded(model):
    """The model with the same dropout in every call."""

    def run(x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return model(x)

    return run


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_changing_a_row_moves_no_other(name, training):
    assert_rowwise(seeded(made(name).train(training)), inputs(), name)


@pytest.mark.slow
@EVERY
def test_the_check_of_a_plan_lets_it_pass(name):
    check(made(name), SHAPE)


@EVERY
def test_the_gradient_of_one_output_reaches_its_own_row_only(name):
    x = inputs().requires_grad_()
    seeded(made(name))(x)[2].sum().backward()
    reached = x.grad.flatten(1).abs().sum(1) > 0
    assert reached.tolist() == [False, False, True, False, False]


@EVERY
def test_a_row_alone_is_answered_as_in_a_batch(name):
    model, x = made(name).eval(), inputs()
    alone = torch.cat([model(row[None]) for row in x])
    torch.testing.assert_close(alone, model(x), rtol=1e-5, atol=1e-5)


@EVERY
def test_vmap_over_rows_gives_the_same(name):
    model, x = made(name).eval(), inputs()
    parameters = dict(model.named_parameters())

    def one(row):
        return functional_call(model, parameters, (row[None],))[0]

    torch.testing.assert_close(vmap(one)(x), model(x), rtol=1e-5, atol=1e-5)


TASKS = {"classification": Classification(3), "regression": Regression()}


def group_batch(task, count=4, width=3):
    """`count` units of 1 to `width` rows."""
    rows = torch.arange(width)[None] < (torch.arange(count) % width + 1)[:, None]
    label = torch.arange(count * width).reshape(count, width) % 3
    return {
        "features": inputs(count * width, (6,)).reshape(count, width, 6),
        "label": label if task.kind == "classification" else label.float(),
        "rows": rows,
        "present": torch.ones(count, dtype=torch.bool),
        "unit": torch.arange(count),
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_loss_of_a_group_depends_on_its_own_rows_only(task):
    model = build(MLP(hidden=(5,)), (6,), task.outputs, seed=1, folder=HERE, code=TORCH)
    batch = group_batch(task)
    before = task.losses(model, batch)
    assert before.shape == (4,)
    features = batch["features"].clone()
    features[0] += 5  # another unit
    features[~batch["rows"]] = 77.0  # padding
    after = task.losses(model, {**batch, "features": features})
    assert torch.equal(after[1:], before[1:])
    assert after[0] != before[0]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_loss_of_a_group_is_the_mean_of_its_rows(task):
    model = build(MLP(hidden=(5,)), (6,), task.outputs, seed=1, folder=HERE, code=TORCH)
    batch = group_batch(task)
    losses = task.losses(model, batch)
    for i in range(4):
        held = batch["rows"][i]
        rows = task.row_losses(model(batch["features"][i][held]), batch["label"][i][held])
        torch.testing.assert_close(losses[i], rows.mean())


def test_a_model_that_mixes_rows_would_be_found():
    mixing = nn.BatchNorm1d(6)
    with pytest.raises(Exception, match="mixes rows"):
        assert_rowwise(mixing, inputs(5, (6,)), "BatchNorm")

import pytest
import torch
from torch import nn

from nacre.adversarial_training.certificates.network import network_of
from nacre.adversarial_training.certificates.steps import Affine
from nacre.core.errors import Incompatible
from tests.laws.zoo import snapshot

IMAGE = (2, 6, 6)


class Residual(nn.Module):
    """Normalised inputs, a block with a shortcut, functions instead of layers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.6]).view(1, 2, 1, 1))
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding="same", bias=False)
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        x = self.first((x - self.mean) / 0.25)
        x = x + torch.relu(self.second(nn.functional.relu(x)))
        return self.head(x.view(x.size(0), -1)) * 2 + 1


def made(*layers):
    torch.manual_seed(1)
    return nn.Sequential(*layers)


def normalised():
    model = made(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model(torch.randn(50, *IMAGE))  # running statistics that are not those of the start
    return model


MODELS = {
    "residual": (lambda: made(Residual()), IMAGE),
    "batch norm": (normalised, IMAGE),
    "pooled": (
        lambda: made(
            nn.Conv2d(2, 4, 3, groups=2, dilation=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.5), nn.Identity(), nn.Linear(4, 3),
        ),
        IMAGE,
    ),
    "a mean with another sign": (
        lambda: made(nn.AvgPool2d(2, divisor_override=-3), nn.Flatten(), nn.Linear(18, 3)),
        IMAGE,
    ),
    "nested": (
        lambda: made(nn.Flatten(), made(nn.Linear(72, 5), nn.ReLU()), nn.Linear(5, 2)),
        IMAGE,
    ),
    "one output": (lambda: made(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), (4,)),
    "a single layer": (lambda: made(nn.Linear(4, 3))[0], (4,)),
    "squeezed": (lambda: made(nn.Linear(4, 1), nn.Flatten(0), nn.ReLU()), (4,)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_computes_what_the_model_does(name):
    build, shape = MODELS[name]
    model = build().train()
    before = snapshot(model)
    network = network_of(model, shape)
    assert snapshot(model) == before
    x = torch.rand(7, *shape)
    expected = model.eval()(x).detach().reshape(7, -1)
    if expected.shape[1] == 1:
        expected = torch.cat([-expected / 2, expected / 2], 1)
    assert torch.allclose(network(x.double()).float(), expected, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_transpose_and_magnitude_belong_to_the_linear_step(name):
    build, shape = MODELS[name]
    network = network_of(build(), shape)
    for place, step in enumerate(network.steps, start=1):
        if not isinstance(step, Affine):
            continue
        x = torch.randn(5, *network.shapes[step.source], dtype=torch.float64)
        a = torch.randn(5, *network.shapes[place], dtype=torch.float64)
        there = (a * step.linear(x)).reshape(5, -1).sum(1)
        back = (step.transpose(a) * x).reshape(5, -1).sum(1)
        assert torch.allclose(there, back, atol=1e-10)
        width = x[0].numel()
        columns = step.linear(torch.eye(width).double().reshape(width, *x.shape[1:]))
        expected = x.abs().reshape(5, -1) @ columns.reshape(width, -1).abs()
        assert torch.allclose(step.magnitude(x.abs()).reshape(5, -1), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (made(nn.Flatten(), nn.Linear(72, 4), nn.Tanh(), nn.Linear(4, 2)), "'2' (Tanh)"),
        (made(nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(72, 2)), "'0' (GroupNorm)"),
        (made(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)), "'0' (MaxPool2d)"),
        (made(nn.Conv2d(2, 1, 3, padding=1, padding_mode="circular"), nn.Flatten()), "(Conv2d)"),
        (made(nn.Linear(6, 2)), "'0' (Linear)"),  # along the last of several dimensions
        (made(nn.Conv2d(2, 1, 3)), "one score a class"),
    ],
)
def test_what_has_no_bound_is_refused_by_name(model, named):
    with pytest.raises(Incompatible) as refused:
        network_of(model, IMAGE)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


class Odd(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.head, self.own = nn.Linear(72, 2), forward

    def forward(self, x):
        return self.own(self, x.flatten(1))


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        (lambda m, x: m.head(x.sigmoid()), "'sigmoid'"),
        (lambda m, x: m.head(x * x), "'mul'"),
        (lambda m, x: m.head(1 / x), "'truediv'"),
        (lambda m, x: m.head(x if x.sum() > 0 else -x), "torch.fx"),
        (lambda m, x: m.head(x.reshape(72, -1).T), "function"),
        (lambda m, x: (m.head(x), x), "one tensor"),
    ],
)
def test_functions_without_a_bound_are_refused(forward, named):
    with pytest.raises(Incompatible) as refused:
        network_of(Odd(forward), IMAGE)
    assert named in str(refused.value)
    assert "smoothing" in str(refused.value)


def test_a_hook_that_changes_the_answer_is_noticed():
    model = made(nn.Flatten(), nn.Linear(72, 3))
    model[1].register_forward_hook(lambda module, inputs, output: output.flip(1))
    with pytest.raises(Incompatible, match="something else than the graph"):
        network_of(model, IMAGE)


class WritesIntoItsInput(nn.Module):
    """Its second layer reads what the rectifier has left of the input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
        self.rectifier = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.first(self.rectifier(x)) + self.second(x)


def test_a_layer_that_writes_into_the_input_is_noticed_where_the_input_is_read_again():
    with pytest.raises(Incompatible, match="something else than the graph"):
        network_of(made(WritesIntoItsInput()), (4,))
    alone = made(nn.ReLU(inplace=True), nn.Linear(4, 3))
    x = torch.randn(5, 4)
    expected = alone(x.clone())
    assert torch.allclose(network_of(alone, (4,))(x.double()).float(), expected, atol=1e-6)


def test_a_hook_that_acts_on_large_numbers_alone_is_noticed():
    model = made(nn.Linear(4, 3))
    model[0].register_forward_hook(lambda module, inputs, output: output.clamp(-50, 50))
    with pytest.raises(Incompatible, match="something else than the graph"):
        network_of(model, (4,))

"""Federated averaging against what it has to equal: central steps, and torch's own optimizers."""

import copy

import pytest
import torch
from torch import nn

from nacre.core.optimizers import SGD, Adam
from nacre.core.random import Source
from nacre.core.tensors import detached, subtract, trainable
from nacre.core.types import Release, Unprotected
from nacre.federated_learning import Federation, InProcess, MeanAggregate, Party, Plain
from nacre.gradient_clipping import Unclipped

ROWS, LR = 8, 0.3
NAMES = ("east", "north", "south")


def _model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def _data():
    stream = torch.Generator().manual_seed(1)
    features = torch.randn(len(NAMES), ROWS, 4, generator=stream)
    return features, torch.randint(3, (len(NAMES), ROWS), generator=stream)


def _loss(model, features, label):
    return nn.functional.cross_entropy(model(features), label)


def _trained(model, features, label, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(steps):
        optimizer.zero_grad()
        _loss(model, features, label).backward()
        optimizer.step()
    return model


def _federation(steps=1):
    features, label = _data()

    def party(index, name):
        def train(weights, number):
            model = _model()
            model.load_state_dict(weights)
            _trained(model, features[index], label[index], steps)
            return Release(subtract(detached(trainable(model)), weights), Unprotected("a test"))

        return Party(name, train, recipe="", rounds=20, like=trainable(_model()))

    handlers = {name: party(index, name).handle for index, name in enumerate(NAMES)}
    return Federation(InProcess(handlers), Plain(MeanAggregate(), float(len(NAMES))), "")


def _mean(federation, model):
    total = federation(model, NAMES, Unclipped(), Source(bytes(32))).total
    return {name: value / federation.gather.expected for name, value in total.items()}


def _rounds(option, rounds, steps=1):
    """The server's side of `training.step`: mean contribution in, one optimizer step."""
    model, federation = _model(), _federation(steps)
    optimizer = option.build(model.parameters())
    for number in range(rounds):
        mean = _mean(federation.at(number), model)
        for name, parameter in trainable(model).items():
            parameter.grad = mean[name]
        optimizer.step()
    return model


def _close(model, other, tolerance):
    weights = trainable(other)
    return all(torch.allclose(p, weights[n], atol=tolerance) for n, p in trainable(model).items())


def test_one_local_step_of_fedavg_is_central_sgd_on_the_union():
    """McMahan et al. 2017, section 2: FedSGD with equal sizes is gradient descent."""
    features, label = (part.flatten(0, 1) for part in _data())
    central = _trained(_model(), features, label, 5)
    assert _close(_rounds(SGD(lr=1.0), 5), central, 1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_fedavg_is_the_mean_of_the_parties_models(steps):
    features, label = _data()
    trained = [
        trainable(_trained(_model(), features[i], label[i], steps)) for i in range(len(NAMES))
    ]
    found = trainable(_rounds(SGD(lr=1.0), 1, steps))
    for name, value in found.items():
        mean = torch.stack([weights[name] for weights in trained]).mean(0)
        assert torch.allclose(value, mean, atol=1e-6)


def test_fedadam_is_torch_adam_on_the_pseudo_gradient():
    """Reddi et al. 2021, algorithm 2, with Delta_t = mean change and -Delta_t as gradient."""
    reference, features, label = _model(), *_data()
    adam = torch.optim.Adam(reference.parameters(), lr=0.05, betas=(0.9, 0.99), eps=1e-3)
    for _ in range(5):
        changes = [
            subtract(
                trainable(_trained(copy.deepcopy(reference), features[i], label[i], 3)),
                trainable(reference),
            )
            for i in range(len(NAMES))
        ]
        for name, parameter in trainable(reference).items():
            parameter.grad = -torch.stack([change[name].detach() for change in changes]).mean(0)
        adam.step()
    option = Adam(lr=0.05, beta1=0.9, beta2=0.99, epsilon=1e-3)
    assert _close(_rounds(option, 5, 3), reference, 1e-5)

import sys
from collections import OrderedDict

import pytest
import torch

from nacre.core.errors import Incompatible, Refusal
from nacre.models.scattering import Scattered, Scattering, Transform, scattered


def images(count, shape):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("head", ["linear", "convolution"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 12)])
def test_features_are_averages_over_patches(shape, head):
    option = Scattering(angles=4, groups=1, head=head, channels=5)
    model = scattered(option, shape, 7)
    inputs = images(2, shape)
    assert model(inputs).shape == (2, 7)
    found = model.beginning(inputs)
    assert found.shape == (2, option.features(shape[0]), shape[1] // 4, shape[2] // 4)


@pytest.mark.parametrize(
    "fields", [{}, {"head": "convolution", "channels": 4}, {"random": 50}, {"whiten": 1.0}], ids=str
)
def test_the_beginning_and_the_rest_are_the_model(fields):
    model = scattered(Scattering(scales=1, groups=3, **fields), (1, 8, 8), 3)
    inputs = images(5, (1, 8, 8))
    assert torch.equal(model.rest(model.beginning(inputs)), model(inputs))
    assert not list(model.beginning.parameters())
    assert dict(model.rest.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert model.rest.get_parameter("head.weight") is model.get_parameter("head.weight")


def test_the_first_feature_is_a_blurred_picture():
    """Order zero of Mallat's transform: a flat picture gives its own grey."""
    transform = scattered(Scattering(groups=1), (1, 16, 16), 2).get_submodule("scattering")
    found = transform(torch.full((1, 1, 16, 16), 0.5))
    assert torch.allclose(found[:, 0], torch.tensor(0.5), atol=1e-5)
    assert float(found[:, 1:].abs().max()) < 1e-5


def test_each_group_of_features_is_normalised_within_its_image():
    model = scattered(Scattering(groups=27), (1, 16, 16), 2)
    found = model.beginning(images(3, (1, 16, 16))).unflatten(1, (27, 3)).flatten(2)
    assert torch.allclose(found.mean(2), torch.zeros(3, 27), atol=1e-5)
    assert torch.allclose(found[:, 0].var(1, correction=0), torch.ones(3), atol=0.02)


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 24, 11), (1, 28, 28)])
def test_the_transform_is_that_of_kymatio(shape, scales):
    from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D

    channels, *sides = shape
    option = Scattering(scales=scales, angles=4, groups=1)
    ours = Transform(option, *sides)(images(2, shape)).unflatten(1, (channels, -1))
    theirs = ScatteringTorch2D(J=scales, shape=sides, L=4)
    found = theirs(images(2, shape))
    # Theirs go over the first wavelet, then the second; ours over both scales, then both angles.
    wavelets = [(j, angle) for j in range(scales) for angle in range(4)]
    pairs = [(a, b) for a in wavelets for b in wavelets if b[0] > a[0]]
    moved = sorted(range(len(pairs)), key=lambda n: (pairs[n][0][0], pairs[n][1][0], n))
    order = [*range(1 + len(wavelets)), *(1 + len(wavelets) + n for n in moved)]
    assert torch.allclose(ours, found[:, :, order], atol=1e-5)


def test_random_features_join_the_others_and_are_saved_with_them():
    torch.manual_seed(1)
    option = Scattering(scales=1, groups=3, random=2000)
    model = scattered(option, (1, 8, 8), 3)
    inputs = images(4, (1, 8, 8))
    plain = Scattered(OrderedDict(list(model.named_children())[:2]), 2)(inputs).flatten(1)
    found = model.beginning(inputs)
    assert found.shape == (4, 9 * 16 + 2000)
    assert torch.equal(found[:, : 9 * 16], plain)
    sums = torch.atanh(found[:, 9 * 16 :].double().clamp(-1 + 1e-9, 1 - 1e-9))
    deviations = sums.std(1) / (2 * plain.square().mean(1).sqrt())
    assert torch.allclose(deviations, torch.ones(4).double(), atol=0.1)
    torch.manual_seed(2)
    other = scattered(option, (1, 8, 8), 3)
    assert not torch.equal(other(inputs), model(inputs))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))


def test_sizes_alone_can_be_asked_for_first():
    """Moments are kept between models, so a model without memory must not spoil them."""
    option = Scattering(scales=1, angles=3, groups=1, whiten=0.5)
    with torch.device("meta"):
        sizes = {k: v.shape for k, v in scattered(option, (1, 10, 10), 2).state_dict().items()}
    model = scattered(option, (1, 10, 10), 2)
    assert {k: v.shape for k, v in model.state_dict().items()} == sizes
    assert bool(model(images(2, (1, 10, 10))).isfinite().all())


@pytest.mark.parametrize(
    ("option", "shape", "message"),
    [
        (Scattering(), (30,), "needs inputs of shape"),
        (Scattering(scales=3), (1, 8, 4), "averages over 8 by 8 pixels and the images have 8 by 4"),
        (Scattering(groups=10), (1, 8, 8), "does not divide the 81 features .* use 27"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(option, shape, message):
    with pytest.raises(Incompatible, match=message):
        scattered(option, shape, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scales": 0}, "scales=0 must be at least 1"),
        ({"angles": 0}, "angles=0"),
        ({"groups": 0}, "groups=0"),
        ({"channels": 0}, "channels=0"),
        ({"activation": "x"}, "activation='x'"),
        ({"random": -1}, "random=-1"),
        ({"random": 1, "head": "convolution"}, "head: linear"),
        ({"whiten": 0.0}, "whiten=0.0 must be at least 1e-6"),
        ({"whiten": float("nan")}, "whiten=nan"),
        ({"whiten": float("inf")}, "whiten=inf"),
        ({"whiten": 1.0, "head": "convolution"}, "head: linear"),
    ],
)
def test_impossible_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Scattering(**fields)


def test_without_its_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "kymatio.scattering2d.filter_bank", None)
    with pytest.raises(Refusal, match=r"pip install 'nacre\[images\]'"):
        scattered(Scattering(), (1, 8, 8), 2)

import pytest
import torch

from nacre.models.dead_leaves import Moments, Whitened, dead_leaves, moments
from nacre.models.scattering import Scattering, scattered


def test_pictures_depend_on_their_seed_alone():
    state = torch.get_rng_state()
    assert torch.equal(dead_leaves(150, (3, 9, 12)), dead_leaves(150, (3, 9, 12)))
    assert not torch.equal(dead_leaves(3, (1, 8, 8)), dead_leaves(3, (1, 8, 8), seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_pictures_are_pictures():
    found = dead_leaves(200, (3, 16, 20))
    assert found.shape == (200, 3, 16, 20)
    assert found.dtype == torch.float32
    assert float(found.min()) == -1
    assert 0.9 < float(found.max()) <= 1
    assert -0.9 < float(found.mean()) < 0.5
    # Shapes: neighbours are alike, and colours of one place differ.
    steps = (found[:, :, :, 1:] - found[:, :, :, :-1]).abs().mean()
    assert float(steps) < 0.5 * float(found.std())
    assert float((found[:, 0] - found[:, 1]).abs().mean()) > 0.01


def test_moments_are_those_of_the_features():
    seen = lambda images: torch.cat([images, images.flip(3) * 2 + 1], 1)  # noqa: E731
    found = moments(seen, (1, 6, 5))
    rows = torch.cat([seen(dead_leaves(1000, (1, 6, 5)))]).flatten(2).double()
    centred = rows - rows.mean(0)
    assert torch.allclose(found.mean, rows.mean(0))
    whole = torch.cov(rows.flatten(1).T, correction=0).view(2, 30, 2, 30)
    assert torch.allclose(found.over_features, torch.einsum("kili->kl", whole) / 30)
    assert torch.allclose(found.over_pixels, torch.einsum("kikj->ij", whole) / 2)
    assert float(centred.abs().max()) > 0


def _separable(count, features, pixels):
    """Features whose covariance is a Kronecker product, and what they have in common."""
    generator = torch.Generator().manual_seed(2)
    one = torch.randn(features, features, generator=generator).double()
    other = torch.randn(pixels, pixels, generator=generator).double()
    mean = torch.randn(features, pixels, generator=generator).double()
    rows = one @ torch.randn(count, features, pixels, generator=generator).double() @ other.T + mean
    a, b = one @ one.T, other @ other.T
    known = Moments(mean, a * b.trace() / pixels, b * a.trace() / features)
    return rows, known


@pytest.mark.parametrize("ridge", [1e-6, 0.3, 100.0])
def test_whitening_is_the_inverse_root_of_covariance_and_ridge(ridge):
    rows, known = _separable(4, 3, 4)
    layer = Whitened(known, ridge)
    mean_variance = known.over_features.diagonal().mean()
    a, b = known.over_features / mean_variance, known.over_pixels / mean_variance
    values, turn = torch.linalg.eigh(torch.kron(a, b) + ridge * torch.eye(12))
    root = (turn * values.rsqrt()) @ turn.T
    expected = (rows - known.mean).flatten(1) @ root
    found = layer(rows.float().unflatten(2, (2, 2))).flatten(1).double()
    share = (found * expected).sum() / expected.square().sum()  # up to one factor for all
    assert float(share) > 0
    assert torch.allclose(found, share * expected, atol=1e-4 * float(found.abs().max()))


def test_whitened_features_are_decorrelated():
    rows, known = _separable(20_000, 3, 4)
    found = Whitened(known, 1e-9)(rows.float().unflatten(2, (2, 2))).flatten(1)
    variance = float(known.over_features.diagonal().mean())  # as much in all as before
    assert torch.allclose(torch.cov(found.T) / variance, torch.eye(12), atol=0.05)


def test_images_of_other_forms_are_spread_more_evenly():
    """Of pictures that the layer has not seen, fewer directions hold most of the variance without
    it than with it; each picture is mapped by itself."""

    def directions(model):
        found = model.beginning(dead_leaves(300, (2, 16, 12), seed=5)).flatten(1)
        values = torch.linalg.svdvals(found - found.mean(0)).square()
        return float(values.sum() ** 2 / values.square().sum())

    plain = scattered(Scattering(angles=4, groups=2), (2, 16, 12), 3)
    model = scattered(Scattering(angles=4, groups=2, whiten=1.0), (2, 16, 12), 3)
    assert directions(model) > 2 * directions(plain)
    images = dead_leaves(4, (2, 16, 12), seed=6)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(model(images), alone, atol=1e-5)


def test_a_layer_is_kept_with_its_model():
    first = scattered(Scattering(angles=4, groups=1, whiten=1.0), (1, 8, 8), 2)
    other = scattered(Scattering(angles=4, groups=1, whiten=9.0), (1, 8, 8), 2)
    other.load_state_dict(first.state_dict())
    images = dead_leaves(2, (1, 8, 8))
    assert torch.equal(first(images), other(images))
    assert "features=25" in repr(first)

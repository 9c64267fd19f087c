import math

import pytest
import torch

from nacre.adversarial_training import Ball
from nacre.core.errors import Incompatible
from nacre.core.types import FeatureSpace

SPACE = FeatureSpace(
    (5,),
    names=("age", "height", "colour=red", "colour=blue", "a=b"),
    scale=torch.tensor([10.0, -0.5, 1.0, 1.0, 2.0]),
    categorical=("colour=red", "colour=blue"),
)


def _radii(**options):
    return Ball(**options).region(SPACE).radii.tolist()


def test_a_radius_counts_in_the_models_units_unless_said_otherwise():
    assert _radii(radius=1.0) == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert _radii(radius=1.0, unit="features") == pytest.approx([0.1, 2.0, 0.0, 0.0, 0.5])


def test_named_radii_are_in_the_features_own_units():
    assert _radii(radius=1.0, radii={"age": 5.0}) == [0.5, 1.0, 0.0, 0.0, 1.0]
    assert _radii(radius=0.0, radii={"height": 0.1}) == pytest.approx([0.0, 0.2, 0.0, 0.0, 0.0])


def test_frozen_features_and_categories_never_move():
    assert _radii(radius=1.0, frozen=("age", "a=b")) == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert _radii(radius=1.0, frozen=("colour",)) == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert _radii(radius=1.0, frozen=("colour=red",)) == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_a_space_may_name_the_column_of_its_categories():
    space = FeatureSpace((2,), names=("c=x", "d"), categorical=("c",))
    assert Ball(radius=1.0, frozen=("c",)).region(space).radii.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["colour", "colour=red"])
def test_a_category_has_no_radius(name):
    with pytest.raises(Incompatible, match=f"radii.{name}`: '{name}' holds categories"):
        _radii(radius=1.0, radii={name: 0.5})


@pytest.mark.parametrize("options", [{"frozen": ("heigth",)}, {"radii": {"heigth": 1.0}}])
def test_an_unknown_name_is_refused_with_the_nearest_one(options):
    with pytest.raises(Incompatible, match=r"no feature is called 'heigth': .* is 'height'"):
        _radii(radius=1.0, **options)


def test_part_of_a_name_is_not_its_column():
    with pytest.raises(Incompatible, match="no feature is called 'a'"):
        _radii(radius=1.0, frozen=("a",))


def test_names_are_refused_where_inputs_have_none():
    with pytest.raises(Incompatible, match="these inputs have no names"):
        Ball(radius=1.0, frozen=("age",)).region(FeatureSpace((5,)))


def test_images_have_one_radius_and_their_range():
    space = FeatureSpace((1, 2, 2), low=torch.tensor(0.0), high=torch.tensor(1.0))
    region = Ball(radius=0.25).region(space)
    assert region.radii.shape == region.low.shape == region.high.shape == (1, 2, 2)
    assert region.high.unique().tolist() == [1.0]


def test_a_constant_feature_has_no_radius_of_its_own():
    space = FeatureSpace((2,), scale=torch.tensor([1.0, 0.0]))
    assert Ball(radius=1.0).region(space).radii.tolist() == [1.0, 1.0]
    with pytest.raises(Incompatible, match="scale 0"):
        Ball(radius=1.0, unit="features").region(space)


def test_names_that_do_not_fit_the_shape_are_a_mistake_in_code():
    with pytest.raises(ValueError, match="1 names for inputs of shape"):
        Ball(radius=1.0).region(FeatureSpace((2,), names=("a",)))


@pytest.mark.parametrize("radius", [-1.0, math.inf, math.nan])
def test_a_radius_that_is_no_length_is_refused(radius):
    with pytest.raises(ValueError, match=f"radius={radius} must be at least 0 and finite"):
        Ball(radius=radius)
    with pytest.raises(ValueError, match="radii"):
        Ball(radius=1.0, radii={"age": radius})


def test_a_feature_is_either_frozen_or_has_a_radius():
    with pytest.raises(ValueError, match=r"frozen=\['age'\] have a radius"):
        Ball(radius=1.0, radii={"age": 1.0}, frozen=("age",))

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import DataError, FileDamaged, Incompatible
from nacre.data.columns.column import Column
from nacre.data.dataset import Rows, Schema
from nacre.data.scaling import (
    DeclaredScaling,
    NoScaling,
    PublicScaling,
    Scaler,
    fit_scaling,
)

AGE = Column("age", "number", 0, 100)
FREE = Column("dose", "number")
SEX = Column("sex", "category", categories=("f", "m"))
MIXED = Schema((3,), (AGE, SEX), "classification", ("a", "b"))
IMAGE = Schema((2, 2, 2), (), "classification", ("a", "b"), 0, 16)


def rows(values):
    features = torch.tensor(values, dtype=torch.float32)
    return Rows(features, torch.zeros(len(features), dtype=torch.int64))


PEOPLE = rows([[20, 1, 0], [40, 0, 1], [60, 0, 1], [80, 1, 0]])


def test_declared_ranges_become_minus_one_to_one_and_categories_stay():
    scaler = fit_scaling(DeclaredScaling(), MIXED, None)
    scaled = scaler.apply(rows([[0, 1, 0], [75, 0, 1], [100, 1, 0]])).features
    assert scaled.tolist() == [[-1, 1, 0], [0.5, 0, 1], [1, 1, 0]]
    assert scaler.low.tolist() == [-1, 0, 0] and scaler.high.tolist() == [1, 1, 1]


def test_public_rows_get_mean_zero_and_deviation_one():
    scaled = fit_scaling(PublicScaling(), MIXED, PEOPLE).apply(PEOPLE).features
    assert abs(scaled[:, 0].mean()) < 1e-6
    assert abs(scaled[:, 0].std(correction=0) - 1) < 1e-6
    assert torch.equal(scaled[:, 1:], PEOPLE.features[:, 1:])


def test_inputs_far_from_the_public_rows_are_clamped():
    scaler = fit_scaling(PublicScaling(clamp=1.5), MIXED, PEOPLE)
    assert scaler.apply(rows([[100, 0, 1], [0, 0, 1]])).features[:, 0].tolist() == [1.5, -1.5]


def test_a_declared_range_narrower_than_the_clamp_bounds_the_inputs():
    scaler = fit_scaling(PublicScaling(clamp=1000), MIXED, PEOPLE)
    raw = scaler.low * scaler.scale + scaler.offset
    torch.testing.assert_close(raw, torch.tensor([0.0, 0.0, 0.0]))


def test_a_constant_public_column_keeps_its_unit():
    scaler = fit_scaling(PublicScaling(), MIXED, rows([[50, 1, 0], [50, 0, 1]]))
    assert scaler.scale.tolist() == [1, 1, 1] and scaler.offset[0] == 50


def test_images_are_scaled_by_channel():
    images = torch.stack([torch.zeros(4, 2, 2), torch.full((4, 2, 2), 8.0)], dim=1)
    images[0] += 4
    scaler = fit_scaling(PublicScaling(), IMAGE, rows(images.tolist()))
    assert scaler.offset.flatten().tolist() == [1, 9]
    assert scaler.apply(rows(images.tolist())).features.shape == (4, 2, 2, 2)
    declared = fit_scaling(DeclaredScaling(), IMAGE, None)
    assert (declared.offset.item(), declared.scale.item()) == (8, 8)


def test_no_scaling_changes_nothing_and_keeps_the_bounds():
    scaler = fit_scaling(NoScaling(), MIXED, None)
    assert torch.equal(scaler.apply(PEOPLE).features, PEOPLE.features)
    assert scaler.high.tolist() == [100, 1, 1]
    assert math.isinf(fit_scaling(NoScaling(), Schema((3,), (), "regression", ()), None).high)


def test_the_space_takes_inputs_back_to_their_units():
    space = fit_scaling(PublicScaling(), MIXED, PEOPLE).space(MIXED)
    scaled = fit_scaling(PublicScaling(), MIXED, PEOPLE).apply(PEOPLE).features
    torch.testing.assert_close(scaled * space.scale + space.offset, PEOPLE.features)
    assert space.names == ("age", "sex=f", "sex=m")
    assert space.categorical == ("sex=f", "sex=m")


def test_missing_public_rows_or_ranges_are_refused():
    with pytest.raises(Incompatible, match="needs public rows"):
        fit_scaling(PublicScaling(), MIXED, None)
    with pytest.raises(Incompatible, match="column 'dose' has none"):
        fit_scaling(DeclaredScaling(), Schema((1,), (FREE,), "regression", ()), None)
    with pytest.raises(DataError, match="at least 2 public rows and has 1"):
        fit_scaling(PublicScaling(), MIXED, rows([[1, 0, 1]]))


@pytest.mark.parametrize("clamp", [0, -1, math.inf, math.nan])
def test_a_clamp_must_be_a_number_above_zero(clamp):
    with pytest.raises(ValueError, match="clamp="):
        PublicScaling(clamp=clamp)


finite = st.floats(-1e6, 1e6, width=32)
bound = st.one_of(finite, st.just(math.inf))


@pytest.mark.slow
@given(st.lists(st.tuples(finite, st.floats(0.125, 1e6, width=32), bound), min_size=1, max_size=4))
def test_a_scaler_comes_back_from_json(entries):
    offset, scale, high = (torch.tensor(list(x)) for x in zip(*entries, strict=True))
    scaler = Scaler(offset, scale, -high.abs(), high)
    found = Scaler.from_json(scaler.to_json())
    for name in ("offset", "scale", "high"):
        assert torch.equal(getattr(found, name), getattr(scaler, name))


@pytest.mark.parametrize(
    "damage",
    [
        {"offset": None},
        {"scale": {"shape": [1], "values": [0.0]}},
        {"scale": {"shape": [2], "values": [1.0]}},
        {"offset": {"shape": [1], "values": [None]}},
        {"low": {"shape": [1], "values": ["x"]}},
    ],
)
def test_a_damaged_scaler_is_refused(damage):
    good = Scaler(torch.zeros(1), torch.ones(1), -torch.ones(1), torch.ones(1)).to_json()
    with pytest.raises(FileDamaged, match="a saved scaler"):
        Scaler.from_json({**good, **damage})

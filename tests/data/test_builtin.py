from pathlib import Path

import numpy as np
import pytest
import torch

from nacre.core.errors import DataError
from nacre.data import Builtin, PublicCohort, PublicScaling, Test
from nacre.data.builtin import _COUNTS, _arrays

HERE = Path(".")
DEMO = {
    "name": "breast_cancer",
    "size": 313,
    "public_demonstration": True,
    "test": Test(share=0.2),
    "public": PublicCohort(share=0.25, column="mean radius", smallest=0.6),
    "scaling": PublicScaling(),
}


def read(seed=0, **fields):
    return Builtin(**{**DEMO, **fields}).read(HERE, seed, b"")


@pytest.mark.slow
def test_the_demonstration_has_313_private_rows():
    cohorts = read()
    assert [len(c) for c in (cohorts.private, cohorts.public, cohorts.test)] == [313, 142, 114]
    assert cohorts.test_is_public and cohorts.private_is_public


def test_the_split_is_fixed_by_the_seed_and_loses_no_row():
    first, again, other = read(), read(), read(seed=1)
    assert torch.equal(first.private.features, again.private.features)
    assert not torch.equal(first.test.features, other.test.features)
    parts = [first.private, first.public, first.test]
    every = torch.cat([part.features for part in parts]).sort(0).values
    known = torch.from_numpy(_arrays("breast_cancer")[0].astype(np.float32)).sort(0).values
    assert torch.equal(every, known)


def test_the_test_set_is_stratified():
    counts = torch.bincount(read().test.label).tolist()
    assert counts == [42, 72]  # 212 and 357 of 569, times a fifth


def test_public_rows_are_the_smaller_ones_of_each_class():
    cohorts = read()
    radius = {
        name: rows.features[rows.label == 0, 0].mean()
        for name, rows in (("public", cohorts.public), ("private", cohorts.private))
    }
    assert radius["public"] < radius["private"] - 1


@pytest.mark.parametrize("name", _COUNTS)
def test_schemas_are_true_of_the_data(name):
    option = Builtin(name=name, size=_COUNTS[name])
    private, schema = option.read(HERE, 0, b"").private, option.schema()
    assert private.features.shape == (_COUNTS[name], *schema.shape)
    assert private.features.dtype == torch.float32 and private.label.dtype == torch.int64
    assert set(private.label.tolist()) == set(range(schema.outputs()))
    lows = torch.tensor([c.low for c in schema.columns] or [schema.low])
    highs = torch.tensor([c.high for c in schema.columns] or [schema.high])
    flat = private.features.flatten(1)
    assert bool((flat >= lows).all()) and bool((flat <= highs).all())


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris"])
def test_names_are_those_of_scikit_learn(name):
    from sklearn import datasets

    known = getattr(datasets, f"load_{name}")()
    schema = Builtin(name=name, size=_COUNTS[name]).schema()
    assert schema.feature_names() == tuple(known.feature_names)
    assert schema.classes == tuple(known.target_names)


def test_groups_and_parties_are_unknown():
    option = Builtin(name="iris", size=150)
    assert (option.unit, option.party, option.has_public, option.has_test) == (None,) * 2 + (
        False,
        False,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 300}, "size=300 must be 313: breast_cancer has 569 rows, of which 114"),
        ({"public_demonstration": False}, "test splits the private rows by the seed"),
        ({"public_demonstration": False, "test": None}, "public splits the private rows"),
        ({"public": PublicCohort(share=0.25, column="radius")}, "column='radius' is no feature"),
        ({"public": None, "size": 455}, "scaling `public` needs public rows"),
        ({"test": Test(share=0.9), "public": PublicCohort(share=0.9)}, "take every row"),
    ],
)
def test_what_cannot_be_is_refused_before_a_row_is_read(fields, message):
    with pytest.raises(ValueError, match=message):
        Builtin(**{**DEMO, **fields})


def test_a_public_cohort_that_its_pool_cannot_fill_is_refused():
    with pytest.raises(DataError, match="lower `share` or raise `smallest`"):
        read(public=PublicCohort(share=0.25, column="mean radius", smallest=0.1))

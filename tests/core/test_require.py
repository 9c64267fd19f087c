import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from nacre.core import require
from nacre.core.errors import BadArgument

RANGES = {
    "at_least": (lambda **n: require.at_least(1, **n), "must be at least 1", [1, 7], [0, 1.5]),
    "positive": (require.positive, "must be > 0 and finite", [1e-300, 9], [0, -1, math.inf]),
    "not_negative": (
        require.not_negative,
        "must be at least 0 and finite",
        [0, 9],
        [-1e-9, math.inf],
    ),
    "not_infinite": (require.not_infinite, "must be finite", [-9, 1e300], [math.inf]),
    "below_one": (require.below_one, "must be at least 0 and below 1", [0, 0.99], [-1e-9, 1]),
    "up_to": (
        lambda **n: require.up_to(2, **n),
        "must be above 0 and at most 2",
        [1e-300, 2],
        [0, 2.01],
    ),
    "within": (
        lambda **n: require.within(-1, 1, **n),
        "must lie from -1 to 1",
        [-1, 1],
        [-1.01, 1.01],
    ),
    "between": (
        lambda **n: require.between(0.5, 1, **n),
        "must lie between 0.5 and 1",
        [0.51, 0.99],
        [0.5, 1],
    ),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_inside_or_not_given_passes_and_one_outside_is_named(name):
    check, words, inside, outside = RANGES[name]
    check()
    check(absent=None)
    for value in inside:
        check(share=value)
    for value in [*outside, math.nan, -math.inf]:
        with pytest.raises(ValueError, match=rf"^share={value} .*{words}$"):
            check(first=inside[0], share=value)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", ["1", b"1", True, np.True_, [1], 1j, torch.tensor(1)], ids=repr)
def test_what_is_no_number_is_named_with_what_is_needed(name, value):
    check, words, inside, _ = RANGES[name]
    form = "whole number" if name == "at_least" else "number"
    with pytest.raises(BadArgument) as caught:
        check(first=inside[0], share=value)
    assert str(caught.value) == f"share={value!r} is no {form}: it {words}"


@pytest.mark.parametrize("name", RANGES)
def test_numbers_of_other_libraries_are_numbers(name):
    check, _, inside, _ = RANGES[name]
    for form in (np.int64,) if name == "at_least" else (np.float64, Fraction):
        check(**{f"share{number}": form(number) for number in inside})


def test_a_reason_ends_the_sentence():
    for steps, said in ((1, ""), (0.5, "is no whole number: it ")):
        with pytest.raises(BadArgument, match=rf"^steps={steps} {said}must be at least 2: FGSM h"):
            require.at_least(2, ": FGSM has one", steps=steps)

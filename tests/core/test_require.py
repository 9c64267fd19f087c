import math

import pytest

from nacre.core import require

RANGES = {
    "at_least": (lambda **n: require.at_least(1, **n), "must be at least 1", [1, 7.5], [0, 0.99]),
    "positive": (require.positive, "must be > 0 and finite", [1e-300, 9], [0, -1, math.inf]),
    "not_negative": (require.not_negative, "at least 0 and finite", [0, 9], [-1e-9, math.inf]),
    "below_one": (require.below_one, "at least 0 and below 1", [0, 0.99], [-1e-9, 1]),
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

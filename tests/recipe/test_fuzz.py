"""Whatever stands in a file, reading it gives a recipe or a `RecipeError`; nothing else."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nacre.core.errors import RecipeError
from nacre.recipe.document import dump, parse
from nacre.recipe.load import dumps, loads, recipe_digest
from tests.recipe.texts import SMALL, WHOLE

pytestmark = pytest.mark.slow

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES
    | st.sampled_from(["yes", "1e-5", "0x1", ".inf", "<<", "=", "!", "- a", "#", "a: b", "flat"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


def readable(text: str) -> None:
    """Asserts that a text loads and comes back, or is refused in one line with its file."""
    try:
        recipe = loads(text, "fuzz.yaml")
    except RecipeError as error:
        assert str(error).startswith("fuzz.yaml")
        assert "\n" not in str(error)
    else:
        again = loads(dumps(recipe))
        assert again == recipe
        assert recipe_digest(again) == recipe_digest(recipe)


@QUICK
@given(st.dictionaries(NAMES.filter(bool), VALUES, max_size=4))
def test_plain_values_survive_being_written(values: dict[str, Any]) -> None:
    if values:
        assert parse(dump(values).encode(), "f").values == values


@QUICK
@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-?&*!|>%@`#'\"\n\t ab1~<=", max_size=60))
@example("nacre: 1\n" + "{" * 100)
@example("? " * 100)
@example("- " * 1000)
@example('a: "\\x00\\UFFFFFFFF"')
@example("%YAML 9.9\n---\na: 1")
def test_any_text(text: str) -> None:
    readable(text)


@QUICK
@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    try:
        parse(data, "f")
    except RecipeError as error:
        assert str(error).startswith("f")


@QUICK
@given(st.data())
def test_a_recipe_with_values_put_in_other_places(data: st.DataObject) -> None:
    values = copy.deepcopy(parse(data.draw(st.sampled_from([SMALL, WHOLE])).encode(), "f").values)
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(_places(values))
        owner, key = data.draw(st.sampled_from(places))
        other, theirs = data.draw(st.sampled_from(places))
        owner[key] = data.draw(st.just(copy.deepcopy(other[theirs])) | VALUES)
    readable(dump(values))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a value."""
    found: list[tuple[Any, Any]] = []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


@pytest.mark.parametrize("seed", range(150))
def test_a_recipe_with_lines_and_signs_changed(seed: int) -> None:
    draw = random.Random(seed)
    text = WHOLE
    for _ in range(draw.randint(1, 6)):
        i, j = sorted(draw.randrange(len(text)) for _ in range(2))
        j = min(j, i + 12)
        sign = draw.choice([*"{}[]:,-?&*!|>%'\"\n\t #~0a", "\u2028", "\x85", "", text[i:j] * 2])
        text = text[:i] + sign + text[j:]
    readable(text)

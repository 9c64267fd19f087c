"""What the presets say in comments is true: each alternative loads once it is uncommented."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from nacre.recipe.load import load_recipe, loads

SECTION = r"(?ms)^{}:.*?(?=^\S|\Z)"
COMMENTED = re.compile(r"(?m)^# (\w+):\n(?:# .*\n)+")


def preset(name: str) -> str:
    return resources.files("nacre.recipe").joinpath("presets", f"{name}.yaml").read_text()


CASES = [
    (name, found.group(1), found.group().replace("# ", "", 1).replace("\n# ", "\n"))
    for name in ("table", "image", "text")
    for found in COMMENTED.finditer(preset(name))
]


@pytest.mark.parametrize(("name", "key", "block"), CASES)
def test_an_alternative_loads_in_place_of_what_stands(name: str, key: str, block: str) -> None:
    text = re.sub(SECTION.format(key), "", preset(name)) + "\n" + block
    recipe = loads(text)
    assert recipe != loads(preset(name))
    assert getattr(recipe, key) is not None


def test_every_alternative_was_found() -> None:
    assert [key for _, key, _ in CASES] == [
        "data",
        "fine_tuning",
        "federated_learning",
        "data",
        "data",
    ]


TEXT = Path(__file__).parents[2] / "recipes" / "text.yaml"


def test_the_recipe_for_text_is_the_preset() -> None:
    """One text to keep true: they differ in their name and in the paths of the commands."""
    assert replace(load_recipe(TEXT), name="first-text") == loads(preset("text"))

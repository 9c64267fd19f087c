"""Hostile values, files and names: one sentence each, and nothing outside the folder is touched."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nacre
from nacre.core.errors import FileDamaged, NacreError, RecipeError
from nacre.core.files import read_json
from nacre.models.load import saved
from nacre.recipe.load import loads
from tests.training.tiny import CENTRAL, recipe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", math.inf), ("lr", True),
        pytest.param("lr", 10**400, id="lr-large"), pytest.param("lr", 10**5000, id="lr-huge"),
        ("betas", (math.nan, 0.9)), ("epsilon", math.nan), ("epsilon", -math.inf),
    ],
)  # fmt: skip
def test_a_recipe_made_in_python_keeps_the_rules_of_a_file(
    tmp_path: Path, key: str, value: Any
) -> None:
    """Every comparison with NaN is false, so `if lr <= 0: raise` lets it pass."""
    made = recipe(tmp_path, CENTRAL)
    try:
        hostile = replace(made.training, optimizer=nacre.Adam(**{key: value}))
    except (ValueError, OverflowError, TypeError):
        return
    with pytest.raises(RecipeError) as refused:
        nacre.plan(replace(made, training=hostile))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "option"),
    [
        ("training", {"steps": True}),
        ("training", {"batch": math.nan}),
        ("execution", {"microbatch": math.inf}),
        ("gradient_clipping", {"norm": 10**400}),
        ("gradient_clipping", {"norm": True}),
        ("differential_privacy", {"epsilon": True}),
    ],
)
def test_no_option_of_another_type_is_planned(
    tmp_path: Path, section: str, option: dict[str, Any]
) -> None:
    made = recipe(tmp_path, CENTRAL)
    with pytest.raises((RecipeError, ValueError, OverflowError)):
        nacre.plan(replace(made, **{section: replace(getattr(made, section), **option)}))


def test_negative_zero_is_zero(tmp_path: Path) -> None:
    for text in ("-0.0", "-0"):
        with pytest.raises(RecipeError, match="norm"):
            loads(f"nacre: 1\nname: x\ngradient_clipping: {{kind: flat, norm: {text}}}\n")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),  # a billion laughs
        "a: &a [*a]\n",  # itself
        "a: &a {b: *a}\n",
        "base: &b {kind: flat}\ngradient_clipping: {<<: *b, norm: 1}\n",  # a merge key
        "<<: {seed: 1}\n",
        "data: !!python/object/apply:os.system [id]\n",
        "seed: " + "9" * 5000 + "\n",
        "seed: .nan\n",
        "seed: 1e999\n",
        "seed: 0x10\n",
        "seed: yes\n",
        "x: " + "[" * 500 + "]" * 500 + "\n",
        "seed: 1\nseed: 2\n",
        "? [a, b]\n: 1\n",
        "name: \"\\ud800\"\n",
        "name: \"a\\0b\"\n",
        "--- {}\n--- {}\n",
    ],
)  # fmt: skip
def test_hostile_yaml_is_one_sentence(text: str) -> None:
    with pytest.raises(RecipeError) as refused:
        loads("nacre: 1\n" + text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "{" * 5, "1" * 5000, "NaN", '{"a": Infinity}', '{"a": 1e999}',
        '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', "\ufeff{}", '"\\ud8',
    ],
)  # fmt: skip
def test_hostile_json_is_a_damaged_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileDamaged):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "config.json", "x.py", "", ".."])
def test_a_model_from_elsewhere_names_no_file_to_write(tmp_path: Path, name: str) -> None:
    """`nacre export` wrote the tokenizer's files under the names in model.json."""
    facts = {
        "format": 1,
        "option": {
            "kind": "stock", "config": {"model_type": "bert"}, "task": "classification",
            "files": {name: "text"},
        },
        "shape": [4], "outputs": 2, "task": "classification", "scaler": None, "tokenizer": None,
    }  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(facts))
    with pytest.raises(FileDamaged, match="no file of a tokenizer"):
        saved(tmp_path)


@pytest.mark.parametrize("name", ["..", "../a", "a/b", "", ".", "a\0b", "a\x1b[2J", "a\n"])
def test_a_party_is_no_path(tmp_path: Path, name: str) -> None:
    """Its replies lie in a folder of its name."""
    with pytest.raises((NacreError, ValueError)):
        nacre.Uniform(names=("a", name))

"""What is said of keys comes from the options' source, and nothing is left unsaid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from nacre.core.errors import RecipeError
from nacre.recipe.explain import class_doc, explain, field_docs, reference
from nacre.recipe.options import content, keys, validator
from nacre.recipe.schema import Recipe


def test_every_key_has_words() -> None:
    for entry in explain():
        assert entry.doc.strip(), entry.key
        assert entry.type, entry.key


def test_one_key() -> None:
    (entry,) = explain("differential_privacy.epsilon")
    assert entry.type == "a number" and entry.default is None
    assert "odds" in entry.doc


def test_a_section_comes_with_what_is_under_it() -> None:
    found = [entry.key for entry in explain("gradient_clipping")]
    assert found[0] == "gradient_clipping"
    assert "gradient_clipping.norm" in found
    assert all(key.startswith("gradient_clipping") for key in found)


def test_a_key_that_kinds_share_has_an_entry_for_each() -> None:
    kinds = [entry.kind for entry in explain("training.optimizer.lr")]
    assert kinds == ["sgd", "adam", "adamw", "adagrad", "yogi"]
    assert len(explain("data.holdout.share")) == 1  # the same section in three kinds of data


def test_names_and_lists_are_part_of_a_key() -> None:
    assert explain("data.columns.NAME.low")[0].type == "a number"
    assert {entry.kind for entry in explain("audit[].kind")} == {
        "canaries", "certificate", "evasion", "membership", "poisoning",
    }  # fmt: skip
    assert explain("audit")[1].key == "audit[].kind"


def test_defaults_are_written_as_in_yaml() -> None:
    defaults = {(e.key, e.kind): e.default for e in explain()}
    assert defaults["training.sampling", ""] == "{kind: poisson}"
    assert defaults["federated_learning.optimizer", ""] == "{kind: sgd, lr: 1.0}"
    assert defaults["model.hidden", "mlp"] == "[64]"
    assert defaults["data.public_demonstration", "table"] == "false"
    assert defaults["fine_tuning.module", "head"] == '""'
    assert defaults["ledger", ""] == "absent"


def test_the_end_of_a_key_finds_every_key_that_ends_so() -> None:
    assert "data.length" in {entry.key for entry in explain("length")}
    assert {entry.key for entry in explain("optimizer.lr")} >= {"training.optimizer.lr"}
    assert all(entry.key.endswith(".norm") for entry in explain("norm"))
    assert explain("seed")[0].key == "seed"  # a key in full comes before ends
    with pytest.raises(RecipeError, match="ength"):
        explain("ength")  # whole parts alone count


def test_a_kind_is_explained_by_its_own_keys() -> None:
    found = explain("scattering")
    assert {entry.kind for entry in found} == {"scattering"}
    assert "wavelets" in next(e.doc for e in found if e.key == "model.kind").lower()
    assert "model.whiten" in {entry.key for entry in found}
    assert {entry.key for entry in explain("histogram")} >= {"queries[].edges", "queries[].kind"}
    assert "columns.NAME.kind" in {entry.key for entry in explain("randomised_response")}
    assert explain("column")[0].key == "data.public.column"  # a key comes before a kind
    with pytest.raises(RecipeError, match="did you mean `scattering`"):
        explain("scatering")


def test_an_unknown_key_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean `differential_privacy\.epsilon`"):
        explain("differential_privacy.epsilom")


def test_the_reference_has_a_table_for_every_option() -> None:
    page = reference()
    assert page.startswith("# Recipe reference\n")
    assert page.count("## `training`\n") == 1
    assert page.count("kind `adamw`") == 1  # three places, one table
    for key in keys(Recipe):
        assert f"| `{key}` |" in page
    for line in page.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 5, line
    assert ">>>" not in page


@dataclass(frozen=True, kw_only=True)
class Outer:
    """An option

    >>> 1
    1
    """

    key: int = 1
    """One
    line."""
    bare: int = 2


@dataclass(frozen=True, kw_only=True)
class Inner(Outer):
    own: str = "x"
    """Mine."""


def test_docs_of_fields_are_inherited_and_joined() -> None:
    assert field_docs(Inner) == {"key": "One line.", "own": "Mine."}
    assert class_doc(Outer) == "An option"


@dataclass(frozen=True)
class Odd:
    key: set[int]


@dataclass(frozen=True)
class Loose:
    any: Any = None
    cap: int | None = 5


def test_a_type_that_no_recipe_can_hold_is_found_when_the_option_is_written() -> None:
    with pytest.raises(TypeError, match="no recipe can hold"):
        validator(Odd)


def test_content_leaves_out_what_is_absent_by_default_only() -> None:
    assert content(Loose()) == {"cap": 5}
    assert content(Loose(any={"a": None}, cap=None)) == {"any": {"a": None}, "cap": None}

"""The card of a model that is handed on says what evidence says, and leaves the rest to people."""

from pathlib import Path
from typing import Any

import yaml

from nacre.report.card import model_card
from nacre.report.evidence import gather
from tests.report import sample

SIGNATURE: dict[str, Any] = {
    "columns": [
        {"name": "age", "kind": "number", "low": 0.0, "high": 120.0, "categories": []},
        {"name": "ward", "kind": "category", "low": None, "high": None, "categories": ["a|b", "c"]},
        {"name": "pulse", "kind": "number", "low": None, "high": 1234567.5, "categories": []},
    ],
    "text": None, "array": None, "shape": [4], "low": None, "high": None,
    "classes": ["no", "yes"], "target": "ill", "unit": None,
}  # fmt: skip


def card(run: Path, **other: Any) -> str:
    return model_card(gather(sample.write(run, **other)), "merged")


def model(**changed: Any) -> dict[str, Any]:
    return {**sample.MODEL, "signature": {**SIGNATURE, **changed}}


def test_a_card_states_what_is_promised_for_whom(tmp_path: Path) -> None:
    told = card(tmp_path / "run", model=model())
    head = yaml.safe_load(told.split("---")[1])
    assert head == {"library_name": "nacre", "tags": ["nacre", "differential-privacy"]}
    assert "| east | 3.98 | 10⁻⁴ | one row | add-or-remove | pld |" in told
    assert "| age | number | 0 to 120 |" in told and "no declared end to 1234567.5" in told
    assert r"| ward | category | a\|b, c |" in told
    assert "the column `ill` has them: no, yes" in told
    assert told.count("To be filled in by") == 5
    for limit in gather(tmp_path / "run")["plan"]["not_covered"]:
        assert limit[:40] in told


def test_a_card_of_two_promises_says_whom_each_holds_against(tmp_path: Path) -> None:
    plan = sample.plan()
    whole = sample.party("all rows", 3, 2.0) | {"unit": "client", "against": "those who see models"}
    plan["parties"] = [whole, *(p | {"against": "the server too"} for p in plan["parties"])]
    told = card(tmp_path / "run", model=model(), plan=plan)
    assert "| all rows | 2.00 | 10⁻⁴ | everything of one party |" in told
    assert "| east | 3.98 | 10⁻⁴ | one row |" in told
    assert "- *everything of one party*: holds against those who see models.\n" in told
    assert told.count("- *one row*: holds against the server too.\n\n") == 1


def test_a_card_of_a_run_that_protects_nothing_promises_nothing(tmp_path: Path) -> None:
    told = card(tmp_path / "run", plan=sample.unprotected_plan(), findings=None, model=model())
    assert "> **Nothing is protected." in told and "None is promised" in told
    assert "differential-privacy]" not in told and "| epsilon |" not in told


def test_a_record_unlike_its_plan_is_said_before_any_epsilon(tmp_path: Path) -> None:
    told = card(tmp_path / "run", released=sample.released()[:-1], model=model())
    assert told.index("The epsilon does not hold") < told.index("3.98")


def test_names_are_no_markup(tmp_path: Path) -> None:
    plan = sample.plan()
    plan["name"] = "# <script> [x](http://y) | *z*"
    column = {**SIGNATURE["columns"][0], "name": "a`b\n# c"}
    told = card(tmp_path / "run", plan=plan, model=model(columns=[column], target="t`u"))
    assert r"# \# \<script\> \[x\](http://y) \| \*z\*" in told.splitlines()
    assert r"| a\`b \# c | number | 0 to 120 |" in told and "`t'u`" in told


def test_other_rows_have_other_words(tmp_path: Path) -> None:
    array = model(columns=[], array="x", shape=[3, 32, 32], low=0.0, high=255.0)
    assert "shape 3 × 32 × 32, with entries from 0 to 255" in card(tmp_path / "a", model=array)
    text = model(columns=[], text={"length": 64}, array=None)
    assert "of 64 tokens at most" in card(tmp_path / "b", model=text)
    old = {**sample.MODEL, "signature": None}
    assert "of an older format" in card(tmp_path / "c", model=old)
    stock = {**model(), "option": {"kind": "stock"}}
    evidence = gather(sample.write(tmp_path / "d", model=stock))
    assert "library_name: transformers" in model_card(evidence, "merged")
    assert "library_name: peft" in model_card(evidence, "adapter")

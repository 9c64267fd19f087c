"""Threats that a plan refuses: the line that says it, and what is wrong there."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.adversarial_training.certificates import Smoothing
from nacre.adversarial_training.certificates.smoothing import largest_radius
from nacre.core.errors import Refusal
from nacre.planning.plan import plan
from nacre.recipe.load import load_recipe

RECIPE = """\
nacre: 1
name: heart
data:
  kind: table
  path: rows.csv
  target: heart
  classes: ["no", "yes"]
  columns:
    age: {low: 0, high: 120}
    systolic: {low: 80, high: 220}
    diastolic: {low: 0, high: 130}
    pain: {categories: [none, some]}
  drop: [pid]
  unit: patient
  size: 300
  holdout: {share: 0.2}
model: {kind: mlp, hidden: [4]}
training: {steps: 2, batch: 8}
audit:
  - membership
  - kind: evasion
    ball:
      kind: table
      columns:
        systolic: {reach: 10}
        diastolic: {reach: 5}
      relations:
        - kind: linear
          terms:
            systolic: 1
            diastolic: -1
          at_least: 5
        - {kind: ratio, of: systolic, over: diastolic, at_least: 1}
"""


def planned(folder: Path, recipe: str = RECIPE) -> None:
    file = folder / "r.yaml"
    file.write_text(recipe)
    plan(load_recipe(file))


def test_a_threat_that_rows_can_meet_is_planned(tmp_path: Path) -> None:
    planned(tmp_path)
    planned(tmp_path, RECIPE.replace("at_least: 5\n", "at_least: 220\n"))  # 220 and 0


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("        systolic: {r", "        systolc: {r", "25 `{}columns.systolc`", "'systolic'"),
        ("            diastolic: -1", "            diastolc: -1",
         "31 `{}relations[0].terms.diastolc`", "nearest name is 'diastolic'"),
        ("of: systolic", "of: systole", "33 `{}relations[1].of`", "nearest name is 'systolic'"),
        ("over: diastolic", "over: pain", "33 `{}relations[1].over`", "no single number"),
        ("        diastolic: {reach: 5}", "        pain: {reach: 5}", "26 `{}columns.pain`",
         "holds categories"),
        ("        diastolic: {reach: 5}", "        pid: {reach: 5}", "26 `{}columns.pid`",
         "'pid' is dropped"),
        ("            diastolic: -1", "            heart: -1", "31 `{}relations[0].terms.heart`",
         "'heart' is the target"),
        ("        diastolic: {reach: 5}", "        patient: {}", "26 `{}columns.patient`",
         "is the unit of a row"),
        ("        diastolic: {reach: 5}", "        zzz: {}", "26 `{}columns.zzz`",
         "use one of 'age', 'systolic'"),
        ("at_least: 5\n", "at_least: 1000\n", "32 `{}relations[0].at_least`",
         "make the sum at most 220, so no row keeps at_least=1000"),
        ("at_least: 5\n", "at_most: -51\n", "32 `{}relations[0].at_most`",
         "make the sum at least -50, so no row keeps at_most=-51"),
        ("at_least: 1}", "at_most: 0.5}", "33 `{}relations[1].at_most`",
         "have 'systolic' between 80 and 220 and 'diastolic' between 0 and 130"),
        ("at_least: 5\n", "at_most: -5\n", "33 `{}relations[1]`",
         "no row within the declared ranges keeps relations[0] (systolic - diastolic at most -5) "
         "and relations[1] (systolic / diastolic at least 1) together: mend or leave out one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_at_its_line(
    tmp_path: Path, old: str, new: str, place: str, says: str
) -> None:
    assert RECIPE.count(old) == 1
    with pytest.raises(Refusal) as caught:
        planned(tmp_path, RECIPE.replace(old, new))
    told = str(caught.value)
    assert f"r.yaml:{place.format('audit[1].ball.')}: " in told and says in told


def test_a_table_threat_is_not_certified(tmp_path: Path) -> None:
    head, threat = RECIPE.split("audit:\n  - membership\n  - kind: evasion\n")
    recipe = (
        f"{head}adversarial_training:\n  kind: madry\n  attack:\n    kind: pgd\n{threat}audit:\n"
    )
    planned(tmp_path, recipe + "  - {kind: evasion}\n")
    planned(tmp_path, recipe + "  - {kind: certificate, ball: {kind: l2, radius: 0.1}}\n")
    with pytest.raises(Refusal) as caught:
        planned(tmp_path, recipe + "  - membership\n  - {kind: certificate}\n")
    line = len(recipe.splitlines()) + 2
    assert f"r.yaml:{line} `audit[1]`: certificate proves what holds inside a ball, and " in str(
        caught.value
    )
    assert "threat of kind 'table', within which none of its methods proves anything" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("kind", "moved"), [("linf", 3**0.5), ("l2", 1.0), ("l1", 1.0)]
)  # of three numbers; the entries of `pain` do not move
def test_smoothing_is_refused_where_no_vote_could_reach(
    tmp_path: Path, kind: str, moved: float
) -> None:
    head = RECIPE.split("  - kind: evasion\n")[0]
    text = head + "  - kind: certificate\n    method: {kind: smoothing, deviation: 0.2}\n"
    text += f"    ball: {{kind: {kind}, radius: RADIUS}}\n"
    most = largest_radius(Smoothing(deviation=0.2).count)
    planned(tmp_path, text.replace("RADIUS", str(most / moved * 0.999)))
    with pytest.raises(Refusal) as caught:
        planned(tmp_path, text.replace("RADIUS", str(most / moved * 1.001)))
    told = str(caught.value)
    assert "`audit[1].ball`: its longest move is " in told and "no row could be certified" in told
    assert f"below {most / moved:.3g}" in told
    assert ("smoothing is for `kind: l2`" in told) == (kind == "linf")


def test_a_ball_is_told_at_its_line_too(tmp_path: Path) -> None:
    head, _ = RECIPE.split("      kind: table\n      columns")
    named = head + "      radius: 0.1\n      frozen:\n        - age\n        - "
    with pytest.raises(Refusal, match=r"r.yaml:26 `audit\[1\].ball.frozen\[1\]`: no feature"):
        planned(tmp_path, named + "systolc\n")
    with pytest.raises(Refusal, match=r"r.yaml:26 `audit\[1\].ball.frozen\[1\]`: 'pid' is dropped"):
        planned(tmp_path, named + "pid\n")

"""Recipes and tables with something wrong in them: a sentence, or a run; never anything else.

Ninety of them; `make test ALL=1` looks at three hundred, `NACRE_CASES=1000` at so many, and
`benchmarks/faults.py` at thousands.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ALL
from tests.stories.mutations import Outcome, case, outcome, through_the_command, told_badly
from tests.training.tiny import CENTRAL, TABLE, patients, text

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("NACRE_CASES", "300" if ALL else "90"))
PORTIONS = [range(start, min(start + 30, CASES)) for start in range(0, CASES, 30)]
ATTACK = {"kind": "pgd", "ball": {"kind": "linf", "radius": 0.1}}


@pytest.fixture
def empty(tmp_path: Path) -> Callable[[object], Path]:
    """Makes an empty folder of that name, with nothing beside it."""

    def made(name: object) -> Path:
        folder = tmp_path / str(name) / "case"
        folder.mkdir(parents=True)
        return folder

    return made


@pytest.mark.parametrize("numbers", PORTIONS, ids=lambda numbers: str(numbers.start))
def test_whatever_is_wrong_is_told_in_one_sentence(
    numbers: range, empty: Callable[[object], Path]
) -> None:
    found = [outcome(case(n), empty(n), train=n % 5 == 0) for n in numbers]
    assert [made for made in found if made.faults] == []
    assert len({made.reached for made in found}) > 1


def test_the_command_says_the_same(empty: Callable[[object], Path]) -> None:
    """One that is refused, in a process of its own: a sentence on stderr, and nothing else. What is
    planned there, `tests/cli/test_verbs.py` sees."""
    found = [through_the_command(case(n), empty(n)) for n in range(2 if ALL else 1)]
    assert found[0].reached == "refused"
    assert [made for made in found if made.faults] == []


@pytest.mark.parametrize(
    ("base", "key", "value", "says"),
    [
        (CENTRAL, "model__hidden", [10**9], "`model`: training"),
        (CENTRAL, "model__hidden", [2**62], "use a smaller model"),
        (CENTRAL, "training__steps", 10**9, "pld cannot price 1000000000 steps"),
        (CENTRAL, "training__optimizer", {"kind": "sgd", "lr": 1e300}, "beyond any number"),
        (CENTRAL, "execution", {"threads": 10**9}, "must be at most 1024"),
        (CENTRAL, "fine_tuning", {"kind": "lora", "rank": 10**9}, "use a smaller rank"),
        (CENTRAL, "fine_tuning", {"kind": "head", "module": "none"}, "`fine_tuning`"),
        (CENTRAL, "ledger__path", "a" * 300, "longer than 255 bytes"),
        (CENTRAL, "federated_learning", {
            "parties": {"kind": "uniform", "names": [f"p{i}" for i in range(200)]}, "rounds": 1,
        }, "name fewer parties"),
        (TABLE, "differential_privacy__rows_per_unit", 2**62, "rows take"),
        (TABLE, "data__path", "b" * 250 + ".csv", "cannot be read"),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_before_anything_grows(
    base: dict[str, object], key: str, value: object, says: str, tmp_path: Path
) -> None:
    made = _followed(text(base, **{key: value}), tmp_path)
    assert made.faults == ()
    assert says in made.sentence


@pytest.mark.parametrize("key", ["steps", "restarts"])
def test_the_plan_of_a_long_attack_is_short(key: str, tmp_path: Path) -> None:
    attack = {**ATTACK, key: 10**9}
    made = _followed(
        text(CENTRAL, adversarial_training={"kind": "madry", "attack": attack}), tmp_path
    )
    assert (made.faults, made.reached) == ((), "read")


def _followed(recipe: str, folder: Path) -> Outcome:
    place = folder / "case"
    place.mkdir()
    table = patients(folder / "patients.csv").read_bytes()
    return outcome(replace(case(0), recipe=recipe.encode(), table=table), place, train=True)


def test_what_is_told_badly_is_found() -> None:
    assert told_badly("recipe.yaml:3 `seed`: must be a whole number") == []
    assert told_badly("two\nlines") and told_badly("\x1b[31m") and told_badly(" ")
    assert told_badly("x" * 2000)

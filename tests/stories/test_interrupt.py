"""Ctrl-C half-way: a sentence that says how to go on, and going on works."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.stories.faults import RECIPES, Moment, nacre

pytestmark = pytest.mark.slow

MOMENTS = [
    Moment(file="step-", count=12, signal=signal.SIGINT),
    Moment(seconds=0.7, signal=signal.SIGINT),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_an_interrupted_run_says_how_it_is_continued(
    moment: Moment, begun_in: Any, tmp_path: Path
) -> None:
    told = begun_in("central", tmp_path / "story")
    said = tmp_path / "said.txt"
    code = told.train(told.run, moment, says=said)
    if code or not moment.seconds:  # a quick machine may have finished
        assert code == 130
        *_, sentence = said.read_text().splitlines()
        recipe = told.folder / "recipe.yaml"
        command = f"nacre train {recipe} --into {told.run} --resume"
        assert sentence == f"nacre: interrupted; continue with `{command}`"
    told.look()
    told.end()
    assert told.broken == []


def test_a_run_that_is_told_to_end_says_so_and_exits_with_143(
    begun_in: Any, tmp_path: Path
) -> None:
    told, said = begun_in("central", tmp_path / "story"), tmp_path / "said.txt"
    moment = Moment(file="step-", count=12, signal=signal.SIGTERM)
    assert told.train(told.run, moment, says=said) == 143
    assert said.read_text().splitlines()[-1].startswith("nacre: interrupted; continue with `nacre")
    told.end()
    assert told.broken == []


def test_an_interrupt_before_the_run_exists_leaves_nothing(tmp_path: Path) -> None:
    recipe, said = tmp_path / "recipe.yaml", tmp_path / "said.txt"
    recipe.write_text(RECIPES["central"])
    words = ["train", str(recipe), "--into", str(tmp_path / "run")]
    moment = Moment(file="holder.key", signal=signal.SIGINT)
    assert nacre(words, moment, says=said) == 130
    assert "before anything was released or charged" in said.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "said.txt"]

"""kill -9 at random moments: while a run opens, on its way and as it ends.

`make test ALL=1` kills twice more on the way; `benchmarks/faults.py` does the same sixty times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.conftest import ALL
from tests.stories.faults import RECIPES, story

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", RECIPES)
def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(
    kind: str, tmp_path: Path
) -> None:
    told = story(kind, tmp_path / kind, kills=5 if ALL else 3, draw=random.Random(4))
    assert told.broken == []
    assert told.equal
    assert told.kills

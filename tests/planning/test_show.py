"""A plan for people: accounts that are alike fit on a line."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from nacre.planning.plan import plan
from nacre.planning.show import plan_tables
from tests.training.tiny import FEDERATED, recipe


def test_many_accounts_that_are_alike_are_one_line(tmp_path: Path) -> None:
    for count in (2, 5):
        parties = {"kind": "uniform", "names": [f"p{place}" for place in range(count)]}
        planned = plan(
            recipe(tmp_path, FEDERATED, training__batch=10, federated_learning__parties=parties)
        )
        console = Console(file=io.StringIO(), width=200)
        console.print(plan_tables(planned))
        assert isinstance(console.file, io.StringIO)
        lines = [line for line in console.file.getvalue().splitlines() if "/p0" in line]
        listed = [line for line in lines if " x " in line]
        assert len(listed) == 1
        assert ("and 4 others" in listed[0]) == (count == 5)
        assert ("/p1" in console.file.getvalue()) == (count == 2)

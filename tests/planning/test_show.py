"""A plan for people: accounts that are alike fit on a line."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from nacre.planning.plan import Plan, plan
from nacre.planning.show import plan_tables
from tests.planning.unequal import of_sizes
from tests.training.tiny import CENTRAL, FEDERATED, recipe


def shown(planned: Plan) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_tables(planned))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_many_accounts_that_are_alike_are_one_line(tmp_path: Path) -> None:
    for count in (2, 5):
        parties = {"kind": "uniform", "names": [f"p{place}" for place in range(count)]}
        planned = plan(
            recipe(tmp_path, FEDERATED, training__batch=10, federated_learning__parties=parties)
        )
        text = shown(planned)
        lines = [line for line in text.splitlines() if "/p0" in line]
        listed = [line for line in lines if " x " in line]
        assert len(listed) == 1
        assert ("and 4 others" in listed[0]) == (count == 5)
        assert ("/p1" in text) == (count == 2)


def test_an_average_of_the_weights_is_said_beside_the_optimizer(tmp_path: Path) -> None:
    said = "Adam, step size 0.001, betas 0.9 and 0.999"
    for average, more in (
        (None, ""),
        ({"decay": 0.98}, "; the finished model is a moving average of the weights, decay 0.98"),
    ):
        text = shown(plan(recipe(tmp_path, CENTRAL, training__average=average)))
        assert [line for line in text.splitlines() if line.rstrip().endswith(f"{said}{more}")]


def test_many_accounts_that_differ_are_ranges_between_the_smallest_and_the_largest(
    tmp_path: Path,
) -> None:
    sizes = [40 + 10 * place for place in range(9)]
    planned = of_sizes(tmp_path, sizes)
    text = shown(planned)
    (line,) = (line for line in text.splitlines() if " x 1 " in line)
    assert "p0 and 8 others" in line and " 40 to 120 " in line
    noise = sorted(level.multiplier for level in planned.priced)
    assert f"{noise[0]:.4g} to {noise[-1]:.4g} x 1" in line
    assert "`--json` has each account by itself" in text
    assert "/p0 and patients/p8 as the run goes on" in text
    (epochs,) = (line for line in text.splitlines() if "epochs" in line)
    assert f"{20 / 120:.1f} to {20 / 40:.1f}" in epochs
    few = shown(of_sizes(tmp_path, sizes[:3]))
    assert len([line for line in few.splitlines() if " x 1 " in line]) == 3

"""Whatever one value of a file turns into, it is refused in a sentence or drawn; never a crash."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import FileDamaged
from nacre.report import gather
from nacre.report.page import render
from tests.report import sample

FILES = {
    "plan": sample.plan(),
    "outcome": sample.outcome(),
    "comparison": sample.comparison(),
    "ledger": sample.ledger(),
    "findings": {"findings": [sample.membership(), sample.evasion(pictures=[])]},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value; of a list only to its first entry, the others are alike."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    result = copy.copy(value)
    result[path[0]] = replaced(value[path[0]], path[1:], other)
    return result


@pytest.mark.diagonal
@pytest.mark.parametrize("other", [None, [], {}, "x", -1, 1e300], ids=repr)
@pytest.mark.parametrize("name", FILES)
def test_one_value_at_a_time(tmp_path: Path, name: str, other: Any) -> None:
    run = sample.write(tmp_path / "run", findings={"findings": [sample.evasion(pictures=[])]})
    drawn = refused = 0
    for path in places(FILES[name]):
        (run / f"{name}.json").write_text(json.dumps(replaced(FILES[name], path, other)))
        try:
            render(gather(run))
            drawn += 1
        except FileDamaged as error:
            assert str(run / f"{name}.json") in str(error)
            refused += 1
    assert refused
    assert refused + drawn == len(list(places(FILES[name])))

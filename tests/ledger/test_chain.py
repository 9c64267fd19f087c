"""The hash of an entry covers all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nacre.core.strict import canonical
from nacre.ledger.chain import START, Entry, break_at, linked

FIRST = linked(START, "2026-01-01T00:00:00+00:00", "clinic", "note", {"text": "é", "b": 0.1})


def test_canonical_json_is_sorted_compact_ascii_and_keeps_floats() -> None:
    assert canonical({"b": 0.1, "a": "é"}) == '{"a":"\\u00e9","b":0.1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical(float("nan"))


def test_an_entry_follows_the_head_it_was_linked_to() -> None:
    assert FIRST.number == 1
    assert break_at(FIRST, START) is None


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2027"},
        {"account": "other"},
        {"kind": "grant"},
        {"content": FIRST.content + " "},
        {"hash": "0" * 64},
    ],
)
def test_every_column_is_covered(change: dict[str, str]) -> None:
    broken = break_at(replace(FIRST, **change), START)
    assert broken == "row 1 is not what was written: its hash does not fit"


def test_gaps_and_columns_of_another_type_are_named() -> None:
    assert break_at(replace(FIRST, number=3), START) == "row 1 is missing"
    columns: list[object] = [1, "t", b"\xff", "note", "{}", "h"]
    assert "not text" in str(break_at(Entry(*columns), START))  # type: ignore[arg-type]

"""The records of decisions are numbered without gaps, complete, and listed in their index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "decisions"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
PARTS = ["Context", "Decision", "Reason", "Consequences"]


def test_numbers_have_no_gap_and_the_index_lists_each_record_with_its_title() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(\d{4})\]\((\d{4}-[a-z-]+\.md)\) (.+)$", index, re.MULTILINE)
    titles = [path.read_text(encoding="utf-8").split("\n", 1)[0] for path in RECORDS]
    expected = [
        (path.name[:4], path.name, title.split(". ", 1)[1])
        for path, title in zip(RECORDS, titles, strict=True)
    ]
    assert listed == expected
    assert [int(number) for number, _, _ in listed] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_its_number_its_parts_and_stays_short(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(record.name[:4])}. ")
    assert re.findall(r"^\*\*(\w+)\.\*\* \S", text, re.MULTILINE) == PARTS
    assert len(text.splitlines()) <= 30

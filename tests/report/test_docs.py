"""docs/evidence.md names every object and every key of evidence.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, is_typeddict

import pytest

from nacre.audit.federation import facts as federation_facts
from nacre.audit.model_security import facts as attack_facts
from nacre.figures import intervals, measured
from nacre.report import facts, ledger_facts
from nacre.report.conform import fields

DOCS = Path(__file__).parents[2] / "docs" / "evidence.md"
MODULES = (facts, ledger_facts, federation_facts, attack_facts, intervals, measured)
RECORDS = {v.__name__: v for each in MODULES for v in vars(each).values() if is_typeddict(v)}


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.__name__)
def test_the_object_is_documented(record: Any) -> None:
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(rf"^### {record.__name__}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, record.__name__
    assert set(re.findall(r"^\| `(\w+)`", found[1], re.MULTILINE)) == set(fields(record))

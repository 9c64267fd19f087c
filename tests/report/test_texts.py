"""Attacked texts on the page: the changed words marked, everything escaped, the axis in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nacre.report import gather
from nacre.report.page import render
from tests.report import sample
from tests.report.test_page import Walk

BALL = {"kind": "words", "radius": 0.2, "unit": "share of words", "similarity": 0.5,
        "candidates": 8}  # fmt: skip


def changed(*parts: tuple[str, str | None]) -> dict[str, Any]:
    words = [{"text": text, "now": now} for text, now in parts]
    return {"label": "good", "before": "good", "after": "bad", "share": 0.5, "words": words}


def page(tmp_path: Path, *texts: dict[str, Any]) -> str:
    found = sample.evasion(ball=BALL, pictures=[], rows=[], texts=list(texts))
    return render(gather(sample.write(tmp_path / "run", findings={"findings": [found]})))


def test_changed_words_are_marked_in_their_places(tmp_path: Path) -> None:
    whole = page(
        tmp_path,
        changed(("a", None), ("fine", "dull"), ("film , truly", None), ("great", "big")),
        changed(("so", "as")),
    )
    Walk(whole)
    assert (
        "<blockquote>a <del>fine</del> <ins>dull</ins> film , truly <del>great</del> "
        "<ins>big</ins></blockquote>" in whole
    )
    assert "answered good, then bad; two words replaced." in whole
    assert "answered good, then bad; one word replaced." in whole


def test_a_text_is_escaped(tmp_path: Path) -> None:
    whole = page(tmp_path, changed(("<script>alert(1)</script>", None), ("<b>", "&amp;")))
    Walk(whole)
    assert "<script>alert" not in whole
    assert "<del>&lt;b&gt;</del> <ins>&amp;amp;</ins>" in whole


def test_radii_are_told_as_shares_of_words(tmp_path: Path) -> None:
    text = Walk(page(tmp_path, changed(("so", "as")))).text
    assert "Accuracy by words replaced" in text
    assert "share of the words that may change" in text
    assert "up to 20% of each text's words replaced by near ones" in text.replace("\u202f", "")
    assert "Accuracy by radius" not in text
    assert "smallest of the tried radii" not in text


def test_without_texts_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert "struck out" not in page(tmp_path)

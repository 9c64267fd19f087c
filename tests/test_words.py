"""Docstrings, messages and comments use the field's words, and say what a thing does or returns."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"go(?:es|ne)? on with": "resumed, continued",
    r"told": "called with, printed, distinguished",
    r"so many": "a number with a name",
    r"rid(?:es?|ing) along": "added, carried",
    # To answer a query is what the field says.
    r"answers to(?! (?:a |the |all |each )?(?:quer|question))": "depends on",
    r"whoever": "a noun: the reader, the holder of the key",
    r"made[- ]up": "random, invented",
}
"""Words that a newcomer cannot look up, and what to write instead."""
PLAIN = [
    "adversarial_training",
    "audit",
    "cli",
    "core",
    "data",
    "federated_learning",
    "fine_tuning",
    "recipe",
]
"""The folders of the package that keep to it; the others follow, and none leaves the list."""
REWRITTEN_ELSEWHERE = {ROOT / "nacre/data/sampling.py"}
"""Files whose sentences are being written anew at this moment; to be empty."""
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"]
DEEP_PAGES = ("docs/decisions/*.md", "docs/formats/*.md")
WORDS = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b", re.IGNORECASE)


def prose(code: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each string and comment of a Python file, a docstring's lines joined."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, re.sub(r"\s+", " ", node.value)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def found(text: str) -> list[str]:
    """The listed words of a text."""
    return [match[0] for match in WORDS.finditer(text)]


def complaints(path: Path) -> list[str]:
    """`line: word (instead)` of each listed word in a file."""
    text = path.read_text(encoding="utf-8")
    parts = prose(text) if path.suffix == ".py" else [(1, re.sub(r"\s+", " ", text))]
    return [f"{line}: {word!r}" for line, part in parts for word in found(part)]


@pytest.mark.slow
@pytest.mark.parametrize("folder", PLAIN)
def test_a_folder_says_what_it_does_in_plain_words(folder: str) -> None:
    """Write instead what the table `INSTEAD` proposes, or the noun that is meant."""
    files = sorted({*(ROOT / "nacre" / folder).rglob("*.py")} - REWRITTEN_ELSEWHERE)
    assert files
    faults = {str(path.relative_to(ROOT)): complaints(path) for path in files}
    assert {path: words for path, words in faults.items() if words} == {}


def test_pages_use_plain_words() -> None:
    """The pages for those who join, the decisions and the formats."""
    pages = [ROOT / page for page in PAGES]
    pages += [page for pattern in DEEP_PAGES for page in ROOT.glob(pattern)]
    faults = {str(page.relative_to(ROOT)): complaints(page) for page in pages}
    assert {path: words for path, words in faults.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A run is gone on with.", ["gone on with"]),
        ("Told (done, total), and made-up rows.", ["Told", "made-up"]),
        ("Entries that ride along with so many others.", ["ride along", "so many"]),
        ("An entry that answers to one loss; whoever asks.", ["answers to", "whoever"]),
        ("The answers to queries, and the answers to each question.", []),
        ("It is untold how soon many are made upwards.", []),
    ],
)
def test_the_search_finds_the_words_alone(text: str, words: list[str]) -> None:
    assert found(text) == words


def test_the_search_reads_strings_and_comments_and_no_names() -> None:
    code = 'told = f"{told} was told"  # whoever\n"""Is gone\n    on with."""\n'
    words = [word for _, text in prose(code) for word in found(text)]
    assert sorted(words) == ["gone on with", "told", "whoever"]

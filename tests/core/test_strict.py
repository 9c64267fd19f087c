"""A key given twice is refused wherever a file from elsewhere decides something."""

import json
from pathlib import Path

import pytest

from nacre.core.errors import FileDamaged, LedgerError
from nacre.core.files import read_json
from nacre.core.strict import parsed
from nacre.ledger import Ledger, kept_head
from nacre.ledger.chain import START, linked
from nacre.ledger.replay import Book


def test_a_key_given_twice_is_refused_at_any_depth() -> None:
    assert parsed('{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}
    with pytest.raises(ValueError, match="key 'b' stands there twice"):
        parsed('{"a": [{"b": 1, "b": 1}]}')


def test_files_of_a_run_and_heads_with_a_key_twice_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"epsilon": 1, "epsilon": 100}')
    with pytest.raises(FileDamaged, match="key 'epsilon' stands there twice"):
        read_json(file)
    with pytest.raises(LedgerError):
        kept_head(str(file))


def test_an_entry_of_a_ledger_with_a_key_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash fits: who wrote the file wrote the chain too."""
    text = json.dumps({"text": "a"})[:-1] + ', "text": "b"}'
    monkeypatch.setattr("nacre.ledger.chain.canonical", lambda v: text if v == 1 else json.dumps(v))
    entry = linked(START, "2026-01-01", "clinic", "note", 1)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="key 'text' stands there twice"):
        Book().follow(entry)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x9b2Jb", "a\nb", "a\u202eb"])
def test_an_account_that_would_act_on_a_terminal_is_refused(name: str, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l.db", create=True) as ledger:
        with pytest.raises(LedgerError, match="give it a plain name") as refusal:
            ledger.grant(name, "example", 1.0, 1e-5)
        assert str(refusal.value).isprintable()
        assert not ledger.accounts()

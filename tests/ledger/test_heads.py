"""Signed heads: who said that the ledger had come this far, and what shows it was cut since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from nacre.core.errors import LedgerError
from nacre.ledger import Ledger, SignedHead, kept_head
from nacre.ledger.keys import configuration_folder, fingerprint_key, signing_key

from .test_verify import forged, tampered, verified


@pytest.fixture
def kept(ledger: Ledger) -> SignedHead:
    ledger.grant("clinic", "example", 8.0, 1e-5)
    ledger.note("clinic", "before the head")
    return ledger.sign_head()


def test_a_signer_is_entered_once_and_belongs_to_no_account(
    ledger: Ledger, kept: SignedHead
) -> None:
    assert (kept.number, kept.head) == (3, ledger.head())
    again = ledger.sign_head()
    assert (again.number, again.signer) == (3, kept.signer)
    assert ledger.accounts() == ("clinic",)
    assert ledger.verify(kept, kept.signer) == []


def test_a_head_stays_good_while_the_ledger_grows_and_names_other_signers(
    ledger: Ledger, kept: SignedHead, tmp_path: Path
) -> None:
    ledger.note("clinic", "more")
    other = ledger.sign_head(tmp_path / "other.pem")
    assert other.signer != kept.signer and other.number == 5
    assert ledger.verify(kept) == ledger.verify(other) == []
    assert "and not by" in ledger.verify(other, kept.signer)[0]


@pytest.mark.slow
def test_truncation_and_rollback_are_found_by_a_signed_head(
    ledger: Ledger, kept: SignedHead
) -> None:
    ledger.note("clinic", "to be cut")
    later = ledger.sign_head()
    ledger.close()
    tampered(ledger.place, "DELETE FROM entries WHERE number=4")
    assert verified(ledger.place) == []
    assert verified(ledger.place, kept) == []
    assert "row 4 is gone" in verified(ledger.place, later)[0]
    forged(ledger.place, "note", {"text": "in its place"})
    assert "row 4 is gone" in verified(ledger.place, later)[0]


def test_a_head_of_another_ledger_is_named_as_such(kept: SignedHead, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "other.db", create=True) as other:
        other.note("clinic", "another beginning")
        assert "another ledger's" in other.verify(kept)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"number": 2}, {"hash": "0" * 64}, {"first": "0" * 64}, {"time": "2020"}, {"signer": "0" * 64},
     {"signer": "xy"}, {"signature": "0" * 128}, {"signature": ""}],
)  # fmt: skip
def test_a_head_that_was_changed_is_found(
    ledger: Ledger, kept: SignedHead, change: dict[str, object]
) -> None:
    changed = replace(kept, **change)  # type: ignore[arg-type]
    assert not changed.genuine
    assert ledger.verify(changed) == ["the kept head was changed: its signature does not fit"]


def test_a_signer_whom_the_ledger_does_not_name_is_found(
    ledger: Ledger, kept: SignedHead, tmp_path: Path
) -> None:
    """A thief of the ledger may sign a head of it, but not without leaving an entry."""
    from nacre.ledger.heads import sign_head

    false = sign_head(kept.head, kept.first, "t", signing_key(tmp_path / "thief.pem"))
    assert false.genuine
    assert f"names the kept head's signer {false.signer}" in ledger.verify(false)[0]


def test_a_named_signer_needs_a_signed_head(ledger: Ledger, kept: SignedHead) -> None:
    assert "no signed head" in ledger.verify(None, kept.signer)[0]
    assert "no signed head" in ledger.verify(kept.hash, kept.signer)[0]


def test_heads_are_read_from_files_and_hashes(kept: SignedHead, tmp_path: Path) -> None:
    file = tmp_path / "HEAD.json"
    file.write_text(json.dumps(kept.to_json()))
    assert kept_head(str(file)) == kept
    assert kept_head(kept.hash) == kept.hash
    for text in ("[]", json.dumps({**kept.to_json(), "number": "3"}), "{}"):
        file.write_text(text)
        with pytest.raises(LedgerError, match="holds no head as"):
            kept_head(str(file))
    for text in ("no JSON", "[" * 200_000):
        file.write_text(text)
        with pytest.raises(LedgerError, match="is not JSON"):
            kept_head(str(file))
    with pytest.raises(LedgerError, match="neither a hash of 64 hex digits nor a file"):
        kept_head("0123")


@pytest.mark.parametrize(
    ("content", "finding"),
    [({"key": "00"}, "no public key"), ({"key": 1}, "no public key"), ({"key": "zz"}, "hex"),
     ({}, "it has no 'key'")],
)  # fmt: skip
def test_a_signer_that_is_none_is_found(
    ledger: Ledger, content: dict[str, object], finding: str
) -> None:
    ledger.note("clinic", "first")
    forged(ledger.place, "signer", content)
    assert finding in ledger.verify()[0]


def test_a_signer_of_an_account_or_twice_is_found(ledger: Ledger, kept: SignedHead) -> None:
    forged(ledger.place, "signer", {"key": kept.signer})
    assert "repeats a signer" in ledger.verify()[0]


def test_keys_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    first = signing_key(file)
    assert signing_key(file).private_bytes_raw() == first.private_bytes_raw()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key.pem"]
    file.chmod(0o644)
    with pytest.raises(LedgerError, match="others may read"):
        signing_key(file)


def test_a_file_that_holds_no_signing_key_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("something else")
    file.chmod(0o600)
    with pytest.raises(LedgerError, match="is no signing key"):
        signing_key(file)
    assert file.read_text() == "something else"
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = Ed448PrivateKey.generate().private_bytes(*pem, serialization.NoEncryption())
    file.write_bytes(other)
    with pytest.raises(LedgerError, match="not Ed25519"):
        signing_key(file)


def test_a_key_that_cannot_be_kept_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LedgerError, match="could not be kept"):
        signing_key(tmp_path / "no" / "folder" / "key.pem")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(LedgerError, match="set XDG_CONFIG_HOME"):
        configuration_folder()


def test_rows_are_fingerprinted_under_a_key_beside_the_file_or_in_the_configuration(
    tmp_path: Path,
) -> None:
    beside = fingerprint_key(tmp_path / "l.db", "")
    assert beside == (tmp_path / "l.db.key").read_bytes() and len(beside) == 32
    away = fingerprint_key("postgresql://h/d", "postgresql://h:5432/d")
    assert away == fingerprint_key("postgresql://u:secret@h/d", "postgresql://h:5432/d") != beside
    assert [file.stat().st_mode & 0o777 for file in configuration_folder().iterdir()] == [0o600]

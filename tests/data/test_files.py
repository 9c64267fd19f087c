import hashlib
import hmac
import os

import pytest

from nacre.core.errors import DataError
from nacre.data.files import keyed_digest, located


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv cannot be read \(no such file"):
        located(tmp_path, "absent.csv")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="is a folder where a file of rows is needed"):
        located(tmp_path, ".")


def test_the_digest_is_keyed_and_tells_files_apart(tmp_path):
    (tmp_path / "a").write_bytes(b"xy")
    (tmp_path / "b").write_bytes(b"z")
    (tmp_path / "c").write_bytes(b"x")
    (tmp_path / "d").write_bytes(b"yz")
    found = [keyed_digest([tmp_path / n for n in names], b"key") for names in ("ab", "cd", "ba")]
    assert len(set(found)) == 3
    assert keyed_digest([tmp_path / "a"], b"other") != keyed_digest([tmp_path / "a"], b"key")
    length = (2).to_bytes(8, "big")
    expected = hmac.new(b"key", b"nacre data" + length + b"xy", hashlib.sha256).hexdigest()
    assert keyed_digest([tmp_path / "a"], b"key") == expected


def test_a_file_that_vanishes_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        keyed_digest([tmp_path / "gone"], b"key")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_refused(tmp_path):
    (tmp_path / "x").touch(mode=0)
    with pytest.raises(DataError, match="permission denied"):
        located(tmp_path, "x")

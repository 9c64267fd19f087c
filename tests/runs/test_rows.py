"""The digest of the rows that a run states is a keyed one."""

import dataclasses

from nacre.runs.rows import read
from tests.training.tiny import TABLE, patients, recipe


def test_the_digest_of_the_rows_confirms_no_guess_without_the_holders_key(tmp_path):
    patients(tmp_path / "patients.csv")
    option = recipe(tmp_path, TABLE)
    option = dataclasses.replace(option, data=dataclasses.replace(option.data, holdout=None))
    ours, theirs = (read(option, key).hmac for key in (b"1" * 32, b"2" * 32))
    assert read(option, b"1" * 32).hmac == ours != theirs
    assert len(bytes.fromhex(ours)) == 32

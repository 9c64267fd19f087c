import os

import pytest

from nacre.core.errors import DataError
from nacre.data.files import located


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv cannot be read \(no such file"):
        located(tmp_path, "absent.csv")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="is a folder where a file of rows is needed"):
        located(tmp_path, ".")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_refused(tmp_path):
    (tmp_path / "x").touch(mode=0)
    with pytest.raises(DataError, match="permission denied"):
        located(tmp_path, "x")

"""The public names: complete, sorted, and free until they are used."""

import subprocess
import sys

import pytest

import nacre


def test_every_public_name_loads():
    for name in nacre.__all__:
        assert getattr(nacre, name).__doc__, name
    assert set(nacre.__all__) <= set(dir(nacre))
    assert sorted(nacre.__all__) == sorted(set(nacre.__all__)) == sorted(nacre._HOME)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nacre.nothing


@pytest.mark.slow
@pytest.mark.parametrize("code", ["import nacre", "import nacre.cli.main"])
def test_importing_loads_no_torch(code):
    heavy = "torch pandas sklearn pydantic dp_accounting opendp psycopg"
    check = f"{code}; import sys; assert not set({heavy.split()!r}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)

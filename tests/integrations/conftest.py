"""Runs with a known key, and prices that are not computed twice."""

import os

import pytest

from nacre.integrations import account
from tests.integrations.declared import KEY


@pytest.fixture
def known_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run has the same key: two runs of the same things are the same, bit for bit."""

    class Known:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def urandom(self, count: int) -> bytes:
            return KEY[:count]

    monkeypatch.setattr(account, "os", Known())

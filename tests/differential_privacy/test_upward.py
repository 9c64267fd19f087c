"""Printed privacy numbers are never below the proven ones; secrets are never printed."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from nacre.core.random import Source
from nacre.data.sketches.cells import Hashing
from nacre.differential_privacy.upward import rounded_up, rounded_up_to
from nacre.federated_learning.answers import Stored
from nacre.report.sections.numbers import epsilon_text


def test_shown_numbers_are_no_smaller() -> None:
    draws = random.Random(0)
    for _ in range(2000):
        value = 10 ** draws.uniform(-9, 4)
        for text in (
            rounded_up(value, 3),
            rounded_up(value),
            rounded_up_to(value, 3),
            epsilon_text(value),
        ):
            assert float(text) >= value * (1 - 1e-12)
        assert float(rounded_up(value)) <= value * 1.0011
        assert float(rounded_up_to(value, 4)) <= value + 1.1e-4


def test_sums_of_doubles_have_no_further_digit() -> None:
    assert (rounded_up(0.1 + 0.2), rounded_up_to(0.1 + 0.2, 2)) == ("0.3", "0.30")
    assert (rounded_up(math.inf), rounded_up_to(math.inf, 2), rounded_up(0.0)) == (
        "inf",
        "inf",
        "0",
    )


@pytest.mark.parametrize("value", [math.nan])
def test_what_is_no_epsilon_is_refused(value: float) -> None:
    for show in (rounded_up, lambda found: rounded_up_to(found, 2)):
        with pytest.raises(ValueError, match="not a number"):
            show(value)


def test_secrets_show_nothing(tmp_path: Path) -> None:
    """`repr`, `str` and the texts of exceptions that hold them."""
    key = b"0123456789abcdef0123456789abcdef"
    source = Source(key)
    held = [source, source.child("x"), source.stream(), Hashing(key), Stored(tmp_path / "a", key)]
    for secret in held:
        for text in (
            repr(secret),
            str(secret),
            f"{secret}",
            repr([secret]),
            repr(ValueError(secret)),
        ):
            assert not any(part in text for part in ("0123456789", "abcdef", key.hex(), repr(key)))

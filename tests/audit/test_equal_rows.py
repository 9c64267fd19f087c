"""An honest claim is called broken in at most 5 % of runs, also where rows repeat.

Run as a program, this file prints the figure: `python -m tests.audit.test_equal_rows 1000`.
"""

from __future__ import annotations

import hmac
import math
import sys
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nacre.audit.data_privacy import membership as audited
from nacre.audit.data_privacy.cohorts import one_of_each_group, single
from nacre.audit.data_privacy.membership import membership
from nacre.audit.finding import Finding
from nacre.audit.target import Target
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace
from nacre.data import split
from nacre.data.dataset import Rows
from nacre.data.split import Holdout, held_out
from nacre.models.tasks import Classification
from nacre.recipe.audits import Membership

pytestmark = pytest.mark.slow

CONTENTS = 500  # different rows
DELTA = 1e-5


class Counted(nn.Module):
    """A model under exact epsilon for one row: it knows of each content how many members have it,
    plus two-sided geometric noise, and finds a row the easier the more there seem to be."""

    def __init__(self, counts: Tensor, expected: Tensor, epsilon: float, seed: int) -> None:
        super().__init__()
        noise = np.random.default_rng(seed).geometric(1 - math.exp(-epsilon), (2, len(counts)))
        seen = counts + torch.from_numpy(noise[0] - noise[1])
        self.register_buffer("known", seen - expected)

    def forward(self, features: Tensor) -> Tensor:
        assert isinstance(self.known, Tensor)
        margin = self.known[features[:, 0].long()] / 8
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def repeated(seed: int) -> Rows:
    """A table of which every third content stands there up to 15 times."""
    numbers = np.random.default_rng(seed)
    often = np.where(np.arange(CONTENTS) % 3 == 0, numbers.integers(2, 16, CONTENTS), 1)
    contents = torch.from_numpy(np.repeat(np.arange(CONTENTS), often)).float()[:, None]
    return Rows(contents, torch.zeros(len(contents), dtype=torch.int64))


def batch(rows: Rows) -> Batch:
    count = len(rows)
    return {
        "features": rows.features, "label": rows.label,
        "present": torch.ones(count, dtype=torch.bool), "unit": torch.arange(count),
    }  # fmt: skip


def honest(seed: int, epsilon: float, share: float = 0.2) -> Finding:
    """What the audit says of a run whose claim is true, and reached exactly."""
    table = repeated(seed)
    kept, out = held_out(table, Holdout(share=share), seed.to_bytes(8))
    counts, all_of = (
        torch.bincount(rows.features[:, 0].long(), minlength=CONTENTS).double()
        for rows in (kept, table)
    )
    target = Target(
        model=Counted(counts, (1 - share) * all_of, epsilon, seed),
        task=Classification(2),
        space=FeatureSpace((1,)),
        source=Source(seed.to_bytes(32)),
        members=batch(kept),
        outsiders=batch(out),
        claimed_epsilon=epsilon,
        claimed_delta=DELTA,
    )
    return membership(target, Membership(confidence=0.6))


def broken(runs: int, epsilon: float) -> int:
    return sum(honest(seed, epsilon).verdict == "broken" for seed in range(runs))


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_an_honest_claim_is_seldom_called_broken(epsilon: float) -> None:
    """More than 11 of 80 at 5 % has probability below 0.1 %."""
    assert broken(80, epsilon) <= 11


def test_equal_rows_would_break_an_honest_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the audit did before: each of k equal rows counted as a trial of its own, and all of
    them on one side."""
    monkeypatch.setattr(audited, "single", lambda *cohorts: (*cohorts, 0))
    monkeypatch.setattr(split, "_by_content", _all_equal_rows_together)
    assert broken(16, 0.5) > 8


def _all_equal_rows_together(rows: Rows, share: float, key: bytes) -> list[bool]:
    contents = [row.numpy().tobytes() for row in rows.features]
    return [hmac.digest(key, content, "sha256")[0] < 256 * share for content in contents]


def test_a_row_that_has_an_equal_anywhere_is_left_out() -> None:
    label = torch.zeros(4, dtype=torch.int64)
    members = batch(Rows(torch.tensor([[1.0], [2.0], [2.0], [0.0]]), label))
    outsiders = batch(Rows(torch.tensor([[1.0], [5.0], [-0.0], [6.0]]), label))
    inside, outside, left_out = single(members, outsiders)
    assert len(inside["label"]) == 0 and outside["features"][:, 0].tolist() == [5.0, 6.0]
    assert left_out == 6


def test_rows_of_one_unit_are_one_trial() -> None:
    rows = Rows(torch.arange(9.0)[:, None], torch.zeros(9, dtype=torch.int64), tuple("aaabbbccc"))
    some = one_of_each_group(rows, Source(bytes(32)))
    assert some.group == ("a", "b", "c")


@pytest.mark.parametrize(
    ("drawn", "says"), [("group", "in or stayed out together"), ("apart", "another file")]
)
def test_no_claim_is_judged_without_a_coin_for_each_row(
    drawn: Literal["group", "apart"], says: str
) -> None:
    numbers = torch.arange(400.0)[:, None]
    rows = [
        Rows(numbers[s], torch.zeros(200, dtype=torch.int64))
        for s in (slice(200), slice(200, None))
    ]
    target = Target(
        model=Counted((torch.arange(400) < 200).double(), torch.zeros(400), 50.0, 0),
        task=Classification(2),
        space=FeatureSpace((1,)),
        source=Source(bytes(32)),
        members=batch(rows[0]),
        outsiders=batch(rows[1]),
        claimed_epsilon=0.1,
        claimed_delta=DELTA,
    )
    assert membership(target, Membership()).verdict == "broken"
    finding = membership(replace(target, drawn=drawn), Membership())
    assert finding.verdict == "measured" and finding.details["epsilon"] is None
    assert any(says in note for note in finding.details["notes"])


if __name__ == "__main__":
    runs = int(sys.argv[1])
    for value in (0.5, 1.0, 2.0, 4.0):
        print(f"epsilon {value}: {broken(runs, value)} of {runs} honest runs called broken")

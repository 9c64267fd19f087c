"""What a rule promises of a round is measured as the paper defines it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from nacre.audit.federation.promise import Clamped, Witness
from nacre.core.types import Tensors, Unprotected
from nacre.federated_learning import (
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NearestNeighbourMixing,
    Reply,
    RoundRequest,
    TrimmedMean,
)
from nacre.federated_learning.aggregates import NOTHING_KNOWN, RoundFacts
from nacre.federated_learning.aggregates.aggregate import Aggregate
from nacre.federated_learning.aggregates.mean import MeanAggregate

LIKE = {"w": torch.zeros(3)}
ASKED = RoundRequest("train", 4, "ab", LIKE).to_bytes()


class Said:
    """Parties that send what they were given."""

    def __init__(self, changes: Mapping[str, Tensor]) -> None:
        self.parties: Sequence[str] = tuple(changes)
        self._changes = changes

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return {
            name: Reply(
                "train", 4, name, {"w": self._changes[name]}, Unprotected("a test")
            ).to_bytes()
            for name in requests
        }


def _witnessed(changes: Sequence[Tensor], bad: int, rule: Aggregate) -> Witness:
    named = {f"p{place:02}": change for place, change in enumerate(changes)}
    witness = Witness(Said(named), list(named)[:bad], rule, float(len(named)))  # pyright: ignore[reportArgumentType]
    given = witness.ask(dict.fromkeys(named, ASKED))
    assert {n: Reply.from_bytes(d).tensors["w"].tolist() for n, d in given.items()} == {
        name: change.tolist() for name, change in named.items()
    }
    return witness


def test_the_distance_is_that_of_the_definition() -> None:
    """Honest 0 and 2 and 4 on a line, a liar at 100: the median of four is 3, the honest mean 2,
    and the honest are √(8/3) from it."""
    line = [torch.tensor([x, 0.0, 0.0]) for x in (100.0, 0.0, 2.0, 4.0)]
    witness = _witnessed(line, 1, Median(bad=1))
    promised = math.sqrt(Median(bad=1).kappa(4)) * math.sqrt(8 / 3)
    assert witness.judged == 1
    assert witness.reached == pytest.approx(1 / promised, rel=1e-3)


@dataclass(frozen=True, kw_only=True)
class Boastful(MeanAggregate):
    """A mean that claims to be robust."""

    kind: Literal["boastful"] = "boastful"  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def faults(self) -> int:
        return 1

    def kappa(self, parties: int) -> float:
        return 1.0

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        return super().total(contributions, expected, known)


def test_a_promise_that_is_false_is_found() -> None:
    stream = torch.Generator().manual_seed(0)
    honest = [torch.randn(3, generator=stream) for _ in range(6)]
    witness = _witnessed([torch.full((3,), 50.0), *honest], 1, Boastful())
    assert witness.reached is not None and witness.reached > 5


RULES = [
    Median(bad=3),
    TrimmedMean(bad=3),
    GeometricMedian(bad=3),
    Krum(bad=3),
    MultiKrum(bad=3),
    NearestNeighbourMixing(before=TrimmedMean(bad=3)),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("bad", [1, 2, 3])
def test_rules_keep_their_promise_with_as_many_at_fault_or_fewer(rule: Aggregate, bad: int) -> None:
    stream = torch.Generator().manual_seed(bad)
    for size in (0.01, 1.0, 3.0, 1000.0):
        honest = [torch.randn(3, generator=stream) for _ in range(12 - bad)]
        lies = [size * torch.randn(3, generator=stream) for _ in range(bad)]
        found = _witnessed([*lies, *honest], bad, rule)
        assert found.judged == 1 and found.reached is not None and found.reached <= 1


def test_nothing_is_judged_where_nothing_is_promised() -> None:
    changes = [torch.randn(3) for _ in range(7)]
    for rule, bad in ((MeanAggregate(), 1), (Median(bad=1), 2), (Median(bad=1), 0)):
        witness = _witnessed(changes, bad, rule)
        assert (witness.judged, witness.reached) == (0, None)


def test_honest_changes_that_are_equal_break_no_promise() -> None:
    same = torch.tensor([0.1, 0.7, -0.3])
    witness = _witnessed([-same, *[same] * 6], 1, TrimmedMean(bad=1))
    assert witness.reached is not None and witness.reached <= 1


def test_entries_beyond_the_reach_of_a_secure_sum_are_cut() -> None:
    wire = Clamped(Said({"a": torch.tensor([-7.0, 0.25, 9.0])}), 2.0)
    (data,) = wire.ask({"a": ASKED}).values()
    assert Reply.from_bytes(data).tensors["w"].tolist() == [-2.0, 0.25, 2.0]

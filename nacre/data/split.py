"""Which rows are private, public or for testing; fixed by a seed or by a key, never by order."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from nacre.core.errors import BadArgument, DataError
from nacre.core.random import Source, keyed_hash
from nacre.data.dataset import Rows, Schema


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test set fixed by the run's seed; for public demonstrations only."""

    __test__ = False  # pytest collects classes by this name

    share: float = 0.2
    """Share of all rows, between 0 and 1."""
    stratified: bool = True
    """Whether every class gives the same share."""

    def __post_init__(self) -> None:
        _between("share", self.share)


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Private rows kept out of training, chosen by a keyed hash; scores on them stay local, but for
    a protected figure."""

    share: float = 0.2
    """Share of the units (or rows), between 0 and 1."""
    by: Literal["unit", "row"] = "unit"
    """What is kept together: all rows of a unit, or each row for itself."""
    protected: bool = False
    """Release an accuracy and a confusion matrix of these rows with noise that the run's epsilon
    pays for, so that they may be shown to others. For classes, and runs without parties."""

    def __post_init__(self) -> None:
        _between("share", self.share)


@dataclass(frozen=True, kw_only=True)
class PublicCohort:
    """Rows of a public demonstration that play the part of public data, drawn by class."""

    share: float
    """Share of all rows, between 0 and 1."""
    column: str | None = None
    """Draw from the rows with the smallest values in this column, so that the public rows differ
    from the private ones; None draws from all."""
    smallest: float = 1.0
    """The fraction of each class, smallest by `column` first, that may be drawn."""

    def __post_init__(self) -> None:
        _between("share", self.share)
        if not 0 < self.smallest <= 1:
            raise BadArgument(f"smallest={self.smallest} must be above 0 and at most 1")
        if self.column is None and self.smallest < 1:
            raise BadArgument(
                f"smallest={self.smallest} needs `column`, by which to order the rows"
            )


@dataclass(frozen=True, kw_only=True)
class PublicFile:
    """Another file with the same columns, whose rows are declared public."""

    path: str
    """The file, relative to the recipe."""


def _between(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise BadArgument(f"{name}={value} must lie between 0 and 1")


def sizes(
    count: int,  # rows in all
    test: Test | None,
    public: PublicCohort | None,
) -> tuple[int, int, int]:
    """(private, public, test) rows that `demonstration` will give.

    >>> sizes(569, Test(share=0.2), PublicCohort(share=0.25))
    (313, 142, 114)
    """
    for_test = round(test.share * count) if test else 0
    for_public = round(public.share * count) if public else 0
    return count - for_test - for_public, for_public, for_test


def demonstration(
    rows: Rows,
    schema: Schema,
    test: Test | None,
    public: PublicCohort | None,
    seed: int,
) -> tuple[Rows, Rows | None, Rows | None]:
    """(private, public, test): test first, then public from what is left, the rest private.

    The same seed and rows give the same split. Raises `DataError` where a class has too few rows.
    """
    _, for_public, for_test = sizes(len(rows), test, public)
    source = Source(hashlib.sha256(f"nacre split {seed}".encode()).digest())
    rest = np.arange(len(rows))
    chosen_test = chosen_public = rest[:0]
    if test:
        pools = _by_class(rows, rest) if test.stratified else [rest]
        chosen_test = _drawn(pools, pools, for_test, source.child("test"))
        rest = np.setdiff1d(rest, chosen_test)
    if public:
        strata = _by_class(rows, rest)
        pools = [_smallest(rows, schema, pool, public) for pool in strata]
        chosen_public = _drawn(strata, pools, for_public, source.child("public"))
        rest = np.setdiff1d(rest, chosen_public)
    return (
        rows.take(torch.from_numpy(rest)),
        rows.take(torch.from_numpy(chosen_public)) if public else None,
        rows.take(torch.from_numpy(chosen_test)) if test else None,
    )


def like_private(
    test: Rows,
    private: Rows,
    public: Rows,
    schema: Schema,
    option: PublicCohort,
    seed: int,
) -> Rows:
    """Test rows thinned as the private rows were when the public cohort was taken from them.

    Within each class the rows up to a cut (the largest value in the public cohort's column) gave
    a share of themselves to the public cohort; a test row up to the cut is left out with the same
    probability. What is left follows the distribution of the private rows, up to the sampling of
    cut and share, so that a membership attack sees memory and not the difference of cohorts.
    """
    if option.column is None:
        return test  # the cohort was drawn from all rows alike
    place = schema.feature_names().index(option.column)
    source = Source(hashlib.sha256(f"nacre outsiders {seed}".encode()).digest())
    coins = source.stream().uniform(len(test))
    out = torch.zeros(len(test), dtype=torch.bool)
    for value in range(schema.outputs()):
        taken = public.features[public.label == value, place]
        left = private.features[private.label == value, place]
        if not len(taken):
            continue
        cut = taken.max()
        share = len(taken) / (len(taken) + int((left <= cut).sum()))
        below = torch.logical_and(test.label == value, test.features[:, place] <= cut)
        out.logical_or_(torch.logical_and(below, coins < share))
    return test.take(torch.nonzero(~out)[:, 0])


def _by_class(rows: Rows, places: np.ndarray) -> list[np.ndarray]:
    """The places of each class, in the order of the classes."""
    labels = rows.label.numpy()[places]
    return [places[labels == value] for value in np.unique(labels)]


def _smallest(rows: Rows, schema: Schema, places: np.ndarray, public: PublicCohort) -> np.ndarray:
    """The places that a public cohort may be drawn from, within one class."""
    if public.column is None:
        return places
    values = rows.features.numpy()[places, schema.feature_names().index(public.column)]
    order = np.argsort(values, kind="stable")
    return places[order[: math.floor(public.smallest * len(places))]]


def _drawn(
    strata: list[np.ndarray],  # the rows that decide how many each class gives
    pools: list[np.ndarray],  # the rows of each class that may be drawn
    total: int,
    source: Source,
) -> np.ndarray:
    """`total` places, each class in proportion to its stratum, sorted."""
    parts: list[np.ndarray] = []
    for i, count in enumerate(apportioned([len(stratum) for stratum in strata], total)):
        if count > len(pools[i]):
            raise DataError(
                f"the split asks for {count} rows of a class in which only {len(pools[i])} can be "
                "drawn; lower `share` or raise `smallest`"
            )
        order = source.child(i).stream().permutation(len(pools[i])).numpy()
        parts.append(pools[i][order[:count]])
    return np.sort(np.concatenate(parts))


def apportioned(counts: list[int], total: int) -> list[int]:
    """`total` shared out in proportion to `counts`, by the largest remainders (Hamilton).

    >>> apportioned([170, 285], 142)
    [53, 89]
    """
    quotas = [total * count / sum(counts) for count in counts]
    shares = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda i: (shares[i] - quotas[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def held_out(rows: Rows, holdout: Holdout, key: bytes) -> tuple[Rows, Rows]:
    """(kept, held out). Each unit's side depends on the key and on that unit alone.

    A row without a group is known by its content and by how many equal rows stand before it. Of
    m equal rows the share is held out to within one row, and one more equal row, wherever it
    stands, adds one row to one side and moves no other: as multisets, both sides of neighbouring
    tables differ by that row.
    """
    if holdout.by == "unit" and rows.group is not None:
        code = keyed_hash(key, b"nacre holdoutgroup")
        side = {name: _uniform(code(name.encode())) < holdout.share for name in set(rows.group)}
        sides = [side[name] for name in rows.group]
    else:
        sides = _by_content(rows, holdout.share, key)
    out = torch.tensor(sides, dtype=torch.bool)
    return rows.take(torch.nonzero(~out)[:, 0]), rows.take(torch.nonzero(out)[:, 0])


def _by_content(rows: Rows, share: float, key: bytes) -> list[bool]:
    """Whether each row is held out: every 1 / share-th of equal rows, from a start drawn by their
    content. A single row is held out with chance `share`."""
    seen: Counter[bytes] = Counter()
    sides: list[bool] = []
    code = keyed_hash(key, b"nacre holdoutrow")
    for i, name in enumerate(rows.in_bytes()):
        if rows.group is not None:  # rows of two units are equal in all but their unit
            name += b"of" + rows.group[i].encode()
        known = code(name)  # of 32 bytes: no two rows have one
        before = seen[known]
        seen[known] += 1
        start = _uniform(known)
        sides.append(math.floor(start + share * (before + 1)) > math.floor(start + share * before))
    return sides


def _uniform(code: bytes) -> float:
    """A number in [0, 1) that is fixed by key and name, and random to who lacks the key."""
    return int.from_bytes(code[:8], "big") / 2**64

"""A person with several rows as the unit of a loop of one's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from nacre.core.errors import Incompatible, LedgerError
from nacre.core.random import Source
from nacre.core.rows import select
from nacre.core.tensors import detached, trainable
from nacre.data.dataset import Rows
from nacre.data.units import Units
from nacre.differential_privacy.options import Privacy
from nacre.gradient_clipping import Flat, Looped
from nacre.integrations.examples import Owned, OwnedRows
from nacre.integrations.fetching import Fetcher
from nacre.integrations.torch import Private, _Paired, _pairs
from nacre.integrations.trial import OwnLoss, tried
from nacre.ledger import Ledger
from nacre.report.evidence import check_releases
from tests.integrations.declared import cross_entropy, linear, same, sgd, stepped, table

CPU = torch.device("cpu")
PEOPLE = tuple(f"p{place * 7 % 30:02}" for place in range(120))  # 30 people of four rows each
GROUPED = Privacy(unit="group", rows_per_unit=3, epsilon=8, delta=1e-4)


def owned(place: Path, model=None, dataset=None, owners=PEOPLE, **changed) -> Private:
    declared = stepped(place, **{"privacy": GROUPED, "size": 30, "batch": 10, **changed})
    model = model or linear()
    rows = table() if dataset is None else dataset
    optimizer = sgd(model)
    given = {"groups": owners, "column": "patient"} | declared
    return Private(model, optimizer, rows, cross_entropy, **given)


class Shaken(Dataset):
    """Rows that draw numbers while they are fetched."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        features, label = self.rows[index]
        return features + 0.1 * torch.randn(4), label


def units(rows, owners, key=0):
    source = Source(bytes([key] * 32))
    found = Owned.of(owners, 3, source.child("run", "rows"))
    return OwnedRows(Fetcher(rows), _pairs, CPU, source.child("rows", 1), found), found.names


def without(person):
    """Rows and owners as they are once one person has never been there."""
    left = [place for place, name in enumerate(PEOPLE) if name != person]
    rows = TensorDataset(*(values[left] for values in table().tensors))
    return Shaken(rows), tuple(PEOPLE[place] for place in left)


# -- neighbours --------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["p00", "p13", "p29"])
def test_taking_one_person_away_moves_a_sum_by_their_clipped_share_alone(person):
    """The noiseless sums of neighbours, under the same draw, with dropout and random rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    sums, clip = Looped(OwnLoss(_Paired(cross_entropy))), Flat(norm=0.05)

    def total(batch):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return sums(model.train(), batch, clip, Source(bytes(32))).total

    everybody, names = units(Shaken(table()), PEOPLE)
    others, fewer = units(*without(person))
    assert set(names) - set(fewer) == {person}
    whole = next(everybody.micro(torch.arange(len(names)), None))
    rest = next(others.micro(torch.arange(len(fewer)), None))
    alone = next(everybody.micro(torch.tensor([names.index(person)]), None))
    place = torch.tensor([name != person for name in names])
    for key, value in whole.items():  # what is computed from others is the same, bit for bit
        assert torch.equal(value[place], rest[key]), key
    share = total(alone)
    assert sum(float(value.square().sum()) for value in share.values()) ** 0.5 <= 0.05 + 1e-6
    for name, value in total(whole).items():
        torch.testing.assert_close(value - share[name], total(rest)[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("gradients", ["bookkeeping", "ghost"])
def test_a_model_in_halves_keeps_the_bound_of_one_person(gradients):
    """bfloat16 rounds what a model computes, not the bound: norms are of what enters the sum."""
    torch.manual_seed(0)
    model, clip = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), Flat(norm=0.05)
    everybody, names = units(table(), PEOPLE)
    batch = next(everybody.micro(torch.arange(len(names)), None))
    loss = _Paired(cross_entropy)
    half, full = (tried(model, loss, clip, batch, gradients, p) for p in ("bfloat16", "float32"))

    def total(sums, units_taken):
        return sums(model.train(), units_taken, clip, Source(bytes(32))).total

    whole = total(half, batch)
    exact = total(full, batch)
    assert any(not torch.equal(value, exact[name]) for name, value in whole.items())
    for person in range(0, len(names), 10):
        left = torch.arange(len(names)) != person
        rest, share = total(half, select(batch, left)), total(half, select(batch, ~left))
        moved = sum(float((whole[n] - rest[n]).square().sum()) for n in whole) ** 0.5
        assert moved <= 0.05 * (1 + 1e-4)
        assert sum(float(value.square().sum()) for value in share.values()) ** 0.5 <= 0.05
        for name, value in whole.items():
            torch.testing.assert_close(value - share[name], rest[name], atol=1e-6, rtol=1e-5)


def test_a_person_of_many_rows_counts_no_more_than_the_cap():
    owners = tuple("many" if place < 100 else f"p{place}" for place in range(120))
    found, names = units(table(), owners)
    batch = next(found.micro(torch.arange(len(names)), None))
    assert batch["rows"].shape == (21, 3)
    assert batch["rows"].sum(1).tolist() == [3] + [1] * 20
    kept = units(table(), owners, key=0)[0]._owned.places[0]
    other = units(table(), owners, key=1)[0]._owned.places[0]
    assert not torch.equal(kept, other)  # which rows count is a keyed draw


def test_places_without_a_row_repeat_one_of_the_persons_own_and_do_not_count():
    owners = ("a", "b", "a", *["c"] * 117)
    found, _ = units(table(), owners)
    batch = next(found.micro(torch.tensor([0, 1]), None))
    rows = table().tensors[0]
    assert torch.equal(batch["features"][0], rows[[0, 2, 0]])
    assert torch.equal(batch["features"][1], rows[[1, 1, 1]])
    loss = _Paired(cross_entropy)(linear(), batch)
    single = cross_entropy(linear(), *table().tensors)
    torch.testing.assert_close(loss, torch.stack([(single[0] + single[2]) / 2, single[1]]))


def test_a_persons_rows_are_those_that_a_recipe_would_take():
    """Units of a recipe, under the same key: the same people, the same rows of each."""
    features, label = table().tensors
    source = Source(bytes(32)).child("run", "rows")
    theirs = Units(Rows(features, label, PEOPLE), "group", 3, source)
    ours, names = units(table(), PEOPLE)
    batch = next(ours.micro(torch.arange(30), None))
    recipe = theirs.batch(torch.arange(30))
    assert len(theirs) == len(names) and torch.equal(batch["rows"], recipe["rows"])
    held = batch["rows"]
    assert torch.equal(batch["features"][held], recipe["features"][held])


# -- a run -------------------------------------------------------------------------------------


def test_a_run_is_charged_by_person_and_its_releases_are_as_planned(tmp_path):
    model = linear()
    before = detached(trainable(model))
    with owned(tmp_path, model, folder=tmp_path / "run", microbatch=4) as run:
        assert list(run) == [1, 2, 3, 4, 5, 6]
        assert 0 < run.finish() <= 8
    assert not same(before, trainable(model))
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        account = ledger.summary("rows")
    assert [run.end for run in account.runs] == ["settled"]
    assert [grant.unit for grant in account.grants] == ["group"]
    assert [part["as_planned"] for part in check_releases(tmp_path / "run")] == [True]


def test_a_run_in_halves_takes_its_steps(tmp_path):
    model = linear()
    with owned(tmp_path, model, precision="bfloat16", steps=2) as run:
        assert list(run) == [1, 2]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for changed, told in (
        ({"gradients": "looped", "precision": "bfloat16"}, "for the sums of the tape"),
        ({"precision": "float16"}, "one of 'float32', 'bfloat16'"),
    ):
        with pytest.raises((ValueError, Incompatible), match=told):
            owned(tmp_path, **changed)


def test_a_run_by_person_goes_on_to_the_same_weights(tmp_path, known_key):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    undisturbed = linear()
    with owned(tmp_path / "one", undisturbed, folder=tmp_path / "one/run", steps=3) as run:
        list(run)
    with owned(tmp_path / "two", folder=tmp_path / "two/run", steps=3) as run:
        run.step()
        run.save()
        run.step()
    again = linear()
    with owned(tmp_path / "two", again, folder=tmp_path / "two/run", steps=3, resume=True) as run:
        assert run.done == 1 and list(run) == [2, 3]
    assert same(trainable(undisturbed), trainable(again))


@pytest.mark.parametrize(
    "owners",
    [list(PEOPLE), np.array(PEOPLE), pd.Series(PEOPLE), torch.tensor([int(p[1:]) for p in PEOPLE])],
)
def test_owners_are_named_in_many_forms(tmp_path, owners):
    with owned(tmp_path, owners=owners, steps=1) as run:
        assert len(run._steps._owned.names) == 30


@pytest.mark.filterwarnings("ignore:READ 120 values")
def test_the_account_is_bound_to_what_owners_are_told_apart_by(tmp_path):
    """A thousand visits of one patient under the same account would be another promise."""
    owned(tmp_path, steps=1).close()
    with pytest.raises(LedgerError, match=r"unit=group in column 'patient'.* and not .*'visit'"):
        owned(tmp_path, steps=1, column="visit", owners=list(range(120)))


def test_losses_that_look_at_another_row_of_the_same_person_are_told_apart(tmp_path):
    """A loss has one number a row, of as many rows as it was given."""

    def one_a_person(model, features, label):
        return functional.cross_entropy(model(features), label)[None]

    with pytest.raises(Incompatible, match="each row needs one of its own"):
        Private(
            *(lambda m: (m, sgd(m)))(linear()), table(), one_a_person, groups=PEOPLE,
            column="patient", **stepped(tmp_path, privacy=GROUPED, size=30, batch=10),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"owners": PEOPLE[:-1]}, "owner of 119 rows and there are 120"),
        ({"owners": (None, *PEOPLE[1:])}, r"names no owner in row 1"),
        ({"owners": "p" * 120}, "a list of whose each row is"),
        ({"owners": [[1]] * 120}, "a list of whose each row is"),
        ({"column": None}, "the account is bound to it"),
        ({"owners": None}, "`groups` with it"),
        ({"privacy": Privacy(unit="group", epsilon=8, delta=1e-4)}, "rows_per_unit"),
        ({"privacy": Privacy(epsilon=8, delta=1e-4)}, "protects single rows"),
        ({"owners": None, "column": None}, "`groups` and `column`"),
        ({"size": 5000, "batch": 10, "privacy": Privacy(
            unit="group", rows_per_unit=3, epsilon=8, delta=1e-3)}, "not below 1 / size"),
    ],
)  # fmt: skip
def test_what_says_too_little_of_owners_is_refused_before_anything_is_charged(
    tmp_path, changed, told
):
    with pytest.raises((ValueError, Incompatible), match=told):
        owned(tmp_path, **changed)
    assert not (tmp_path / "privacy.db").exists()

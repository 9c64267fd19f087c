"""A data set whose rows hold what other rows hold is refused; an honest one is not."""

import functools
import random

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.integrations.fetching import Fetcher
from nacre.integrations.mixing import alone
from tests.integrations.declared import SIZE, private, table

X, Y = table().tensors
ROWS = [(x, int(y)) for x, y in zip(X, Y, strict=True)]


class Rows(Dataset):
    """Rows by a function of the data set and a place."""

    def __init__(self, get, count=SIZE, **held):
        self.get, self.count = get, count
        for name, value in held.items():
            setattr(self, name, value)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.get(self, index)


class Around(Dataset):
    """What a person wraps around a data set."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.change(self.inner, index)


def _mixed(inner, index, other, share=0.7):
    x, y = inner[index]
    return share * x + (1 - share) * inner[other][0], y


# -- mixing ------------------------------------------------------------------------------------


def _mixup(self, i):
    j = int(torch.randint(len(self), ()))
    return 0.7 * self.x[i] + 0.3 * self.x[j], self.y[i]


def _cutmix(self, i):
    j, x = random.randrange(len(self)), self.x[i].clone()
    x[:2] = self.x[j][:2]
    return x, self.y[i]


def _numpy_mixup(self, i):
    j, share = np.random.randint(len(self)), np.random.beta(1.0, 1.0)
    return torch.from_numpy((share * self.x[i] + (1 - share) * self.x[j]).astype("f4")), self.y[i]


def _next(self, i):
    return self.x[i] + 0.1 * self.x[(i + 1) % len(self)], self.y[i]


def _centred(self, i):
    return self.x[i] - self.x.mean(0), self.y[i]


def _last_fetched(self, i):
    before, self.before = self.before, self.x[i]
    return self.x[i] + 0.1 * before, self.y[i]


def _running_mean(self, i):
    self.mean = 0.9 * self.mean + 0.1 * self.x[i]
    return self.x[i] - self.mean, self.y[i]


def _own_generator(self, i):
    j = int(self.draw.integers(len(self)))
    return 0.7 * self.x[i] + 0.3 * self.x[j], self.y[i]


def _from_nowhere(self, i):
    j = int(np.random.default_rng().integers(len(self)))
    return 0.7 * self.x[i] + 0.3 * self.x[j], self.y[i]


def _of_dicts(self, i):
    j = (i + 7) % len(self)
    return self.rows[i]["x"] + 0.1 * self.rows[j]["x"], self.rows[i]["y"]


def _of_columns(self, i):
    j = (i * 13 + 5) % len(self)
    return torch.tensor(self.columns["x"][i]) + torch.tensor(self.columns["x"][j]), self.y[i]


def _of_a_frame(self, i):
    j = random.randrange(len(self))
    return torch.tensor(self.frame.iloc[i].to_numpy() + self.frame.iloc[j].to_numpy()), self.y[i]


def _global(self, i):
    return 0.7 * X[i] + 0.3 * X[i - 1], Y[i]


def _permuted(self, i):
    j, k = int(self.order[i]), int(self.order[i - 1])
    return 0.7 * self.x[j] + 0.3 * self.x[k], self.y[j]


def _windows(self, i):
    return self.series[i : i + 3].mean(0), self.y[i]


def _in_a_subset():
    half = list(range(0, SIZE, 2))
    inner = TensorDataset(X, Y)

    def mixed(self, i):
        j = random.randrange(len(self))
        return _mixed(inner, self.places[i], self.places[j])

    return Rows(mixed, len(half), places=half)


def _files(tmp_path, mixes):
    names = [str(tmp_path / f"{i}.npy") for i in range(SIZE)]
    for i, name in enumerate(names):
        np.save(name, X[i].numpy())

    def read(self, i):
        x = torch.from_numpy(np.load(self.names[i]))
        if mixes:
            x = x + torch.from_numpy(np.load(self.names[random.randrange(SIZE)]))
        return x, Y[i]

    return Rows(read, names=names)


def _transform_that_mixes():
    bank = [x for x, _ in ROWS]
    return Rows(
        lambda self, i: (self.transform(self.x[i]), self.y[i]),
        x=X, y=Y, transform=lambda x: x + bank[random.randrange(len(bank))],
    )  # fmt: skip


class Slotted:
    __slots__ = ("_x",)

    def __init__(self):
        self._x = X.numpy()

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        return torch.from_numpy(self._x[i] + self._x[i - 1]), Y[i]


class Listed(list):
    def __getitem__(self, i):
        (x, y), (other, _) = super().__getitem__(i), super().__getitem__(i - 1)
        return x + other, y


class Tensors(TensorDataset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + self.tensors[0][random.randrange(len(self))], y


_FRAME = pd.DataFrame(X.numpy())
_DICTS = [{"x": x, "y": y} for x, y in ROWS]

MIXING = {
    "mixup": lambda tmp: Rows(_mixup, x=X, y=Y),
    "cutmix": lambda tmp: Rows(_cutmix, x=X, y=Y),
    "mixup of arrays": lambda tmp: Rows(_numpy_mixup, x=X.numpy(), y=Y),
    "the next row": lambda tmp: Rows(_next, x=X, y=Y),
    "the mean of all": lambda tmp: Rows(_centred, x=X, y=Y),
    "the row fetched before": lambda tmp: Rows(_last_fetched, x=X, y=Y, before=X[0]),
    "a running mean": lambda tmp: Rows(_running_mean, x=X, y=Y, mean=torch.zeros(4)),
    "own generator": lambda tmp: Rows(_own_generator, x=X, y=Y, draw=np.random.default_rng(0)),
    "a generator of the call's": lambda tmp: Rows(_from_nowhere, x=X, y=Y),
    "a list of dicts": lambda tmp: Rows(_of_dicts, rows=_DICTS),
    "a dict of columns": lambda tmp: Rows(_of_columns, columns={"x": X.tolist()}, y=Y),
    "a frame": lambda tmp: Rows(_of_a_frame, frame=_FRAME, y=Y),
    "a global": lambda tmp: Rows(_global),
    "rows in another order": lambda tmp: Rows(
        _permuted, x=X, y=Y, order=torch.randperm(SIZE, generator=torch.Generator().manual_seed(1))
    ),
    "windows that overlap": lambda tmp: Rows(_windows, series=torch.randn(SIZE + 2, 4), y=Y),
    "a part of the rows": lambda tmp: _in_a_subset(),
    "files": lambda tmp: _files(tmp, True),
    "a transform": lambda tmp: _transform_that_mixes(),
    "a wrapper": lambda tmp: Around(table(), lambda d, i: _mixed(d, i, random.randrange(SIZE))),
    "inside a Subset": lambda tmp: Subset(Rows(_mixup, x=X, y=Y), list(range(5, 95))),
    "inside a ConcatDataset": lambda tmp: ConcatDataset([table(), Rows(_mixup, x=X, y=Y)]),
    "slots": lambda tmp: Slotted(),
    "a list of one's own": lambda tmp: Listed(ROWS),
    "a TensorDataset of one's own": lambda tmp: Tensors(X, Y),
    "a partial function": lambda tmp: Around(
        table(), functools.partial(_mixed, other=3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_a_data_set_that_mixes_rows_is_refused(tmp_path, name):
    with pytest.raises(Incompatible, match=r"^row \d+ of the data set"):
        private(tmp_path, dataset=MIXING[name](tmp_path))
    assert not (tmp_path / "privacy.db").exists()


# -- honest ------------------------------------------------------------------------------------


def _augmented(self, i):
    x = self.x[i] + 0.1 * torch.randn(4)
    if random.random() < 0.5:
        x = x.flip(0)
    return x * float(np.random.uniform(0.9, 1.1)), self.y[i]


def _own_augmentation(self, i):
    noise = [self.draw.normal(), self.other.gauss(0, 1), self.third.normal()]
    noise.append(float(torch.randn((), generator=self.fourth)))
    return self.x[i] + 0.1 * torch.tensor(noise, dtype=torch.float32), self.y[i]


def _cached(self, i):
    if i not in self.cache:
        self.cache[i] = self.x[i] * 2
    return self.cache[i], self.y[i]


def _cached_in_a_tensor(self, i):
    if not self.filled[i]:
        self.kept[i], self.filled[i] = self.x[self.order[i]], True
    return self.kept[i].clone(), self.y[i]


def _ragged(self, i):
    begin, end = self.ends[i - 1] if i else 0, self.ends[i]
    return self.values[begin:end].mean(0), self.y[i]


def _pairs_of_rows(self, i):
    return self.x[2 * i] - self.x[2 * i + 1], self.y[i]


def _mixed_with_public(self, i):
    return self.x[i] + 0.1 * self.public[int(torch.randint(len(self.public), ()))], self.y[i]


def _one_hot(self, i):
    return self.x[i] + self.table[int(self.y[i])], self.y[i]


class Cycled(Dataset):
    def __init__(self):
        self.me, self.x, self.y = self, X, Y

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        return self.me.x[i], self.me.y[i]


HONEST = {
    "a list": lambda tmp: ROWS,
    "tensors": lambda tmp: table(),
    "augmentation": lambda tmp: Rows(_augmented, x=X, y=Y),
    "augmentation by own generators": lambda tmp: Rows(
        _own_augmentation, x=X, y=Y, draw=np.random.default_rng(), other=random.Random(),
        third=np.random.RandomState(), fourth=torch.Generator(),
    ),
    "a cache": lambda tmp: Rows(_cached, x=X, y=Y, cache={}),
    "files": lambda tmp: _files(tmp, False),
    "a Subset": lambda tmp: Subset(table(), random.Random(0).sample(range(SIZE), 90)),
    "a ConcatDataset": lambda tmp: ConcatDataset([table(50), Rows(_augmented, 70, x=X, y=Y)]),
    "a wrapper": lambda tmp: Around(table(), lambda d, i: (d[i][0] * 2, d[i][1])),
    "a transform": lambda tmp: Rows(
        lambda self, i: (self.transform(self.x[i]), self.y[i]), x=X, y=Y,
        transform=lambda x: x + 0.1 * torch.randn(4),
    ),
    "a frame": lambda tmp: Rows(
        lambda self, i: (torch.tensor(self.frame.iloc[i].to_numpy()), Y[i]), frame=_FRAME
    ),
    "rows of dicts": lambda tmp: Rows(lambda self, i: tuple(self.rows[i].values()), rows=_DICTS),
    "another order": lambda tmp: Rows(
        lambda self, i: (self.x[self.order[i]], self.y[self.order[i]]), x=X, y=Y,
        order=torch.randperm(SIZE, generator=torch.Generator().manual_seed(1)),
    ),
    "rows of different lengths": lambda tmp: Rows(
        _ragged, values=X.repeat(3, 1), ends=list(range(3, 3 * SIZE + 1, 3)), y=Y
    ),
    "pairs of rows": lambda tmp: Rows(_pairs_of_rows, SIZE // 2, x=X, y=Y[: SIZE // 2]),
    "public rows": lambda tmp: Rows(_mixed_with_public, x=X, y=Y, public=torch.randn(500, 4)),
    "a table of the classes": lambda tmp: Rows(_one_hot, x=X, y=Y, table=torch.randn(2, 4)),
    "equal rows": lambda tmp: Rows(_augmented, x=torch.ones(SIZE, 4), y=Y),
    "itself": lambda tmp: Cycled(),
    "one row": lambda tmp: Rows(_mixup, 1, x=X[:1], y=Y[:1]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:READ [0-9]+ rows")
@pytest.mark.parametrize("name", HONEST)
def test_a_data_set_whose_rows_are_their_own_is_taken(tmp_path, name):
    with private(tmp_path, dataset=HONEST[name](tmp_path), steps=2) as run:
        assert list(run) == [1, 2]


def test_a_trial_leaves_the_data_set_and_all_generators_as_they_were():
    draw, x = np.random.default_rng(3), X.clone()
    held = {"kept": torch.zeros(SIZE, 4), "filled": torch.zeros(SIZE, dtype=torch.bool)}
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(1))
    rows = Rows(_cached_in_a_tensor, x=x, y=Y, draw=draw, order=order, **held)
    states = draw.bit_generator.state, random.getstate(), torch.get_rng_state()
    alone(Fetcher(rows))
    assert torch.equal(x, X) and torch.equal(rows.kept[rows.filled], X[order][rows.filled])
    assert 0 < int(rows.filled.sum()) <= 4
    assert draw.bit_generator.state == states[0] and random.getstate() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_what_a_held_generator_draws_is_keyed_by_the_row():
    rows = Rows(_own_augmentation, x=X, y=Y, draw=np.random.default_rng(), other=random.Random(),
                third=np.random.RandomState(), fourth=torch.Generator())  # fmt: skip
    source = Source(bytes(32))
    few, many = Fetcher(rows).rows([5, 6], source), Fetcher(rows).rows([1, 2, 6], source)
    assert torch.equal(few[1][0], many[2][0])
    assert not torch.equal(few[1][0], Fetcher(rows).rows([6], source.child(1))[0][0])


class Later(Dataset):
    """Mixes once it was fetched from often enough."""

    def __init__(self, kind):
        self.x, self.fetched, self.kind = X, 0, kind

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        self.fetched += 1
        x = self.x[i]
        if self.fetched > 500:
            other = self.x[i - 1] if self.kind == "held" else torch.full((4,), self.fetched)
            x = x + other
        return x, Y[i]


@pytest.mark.parametrize("kind", ["held", "moving"])
def test_mixing_that_begins_later_is_seen_within_the_run(tmp_path, kind, known_key):
    with private(tmp_path, dataset=Later(kind), steps=400, batch=8, folder=tmp_path / "run") as run:
        with pytest.raises(Incompatible, match=r"^row \d+ of the data set"):
            list(run)
        assert 10 < run.done < 400

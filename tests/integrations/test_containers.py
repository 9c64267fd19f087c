"""Rows in containers of every kind: what hangs on others is refused, what is its own is taken."""

from array import array
from collections import deque
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from nacre.core.errors import Incompatible
from tests.integrations.declared import SIZE, private
from tests.integrations.test_mixing import Rows, X, Y


def _largest(self, i):
    return self.x[i] / self.x.abs().max(), self.y[i]


def _how_many_alike(self, i):
    return self.x[i] * (1 + (self.y == self.y[i]).sum() / SIZE), self.y[i]


def _vocabulary(self, i):
    return torch.full((4,), float(sorted(set(self.words)).index(self.words[i]))), self.y[i]


def _of_columns_of(self, i):
    return self.x[:, i] + self.x[:, (i + 1) % SIZE], self.y[i]


def _of_one_array(self, i):
    return _at(self.held, i) + _at(self.held, (i + 1) % SIZE), self.y[i]


def _at(held, i):
    part = np.frombuffer(held, "f4")[4 * i : 4 * i + 4]
    return torch.from_numpy(part.copy())


def _of_an_array(self, i):
    j = (i + 1) % SIZE
    return torch.tensor([self.held[4 * i + k] + self.held[4 * j + k] for k in range(4)]), self.y[i]


def _of_held(self, i):
    return self.held[i] + self.held[(i + 1) % SIZE], self.y[i]


def _of_an_embedding(self, i):
    weight = self.held.weight.detach()
    return weight[i] + weight[(i + 1) % SIZE], self.y[i]


def _by_default(self, i, x=X):
    return x[i] + x[(i + 1) % SIZE], self.y[i]


def _by_keyword(self, i, *, x=X):
    return x[i] + x[(i + 1) % SIZE], self.y[i]


_WORDS = [("a", "b", "c", "d", "e")[i % 5] for i in range(SIZE)]

MIXING = {
    "the largest of all": lambda tmp: Rows(_largest, x=X, y=Y),
    "how many are alike": lambda tmp: Rows(_how_many_alike, x=X, y=Y),
    "a vocabulary": lambda tmp: Rows(_vocabulary, words=_WORDS, y=Y),
    "columns of an array": lambda tmp: Rows(_of_columns_of, x=X.T.clone(), y=Y),
    "one array of numbers": lambda tmp: Rows(_of_an_array, held=X.flatten(), y=Y),
    "bytes": lambda tmp: Rows(_of_one_array, held=X.numpy().tobytes(), y=Y),
    "a bytearray": lambda tmp: Rows(_of_one_array, held=bytearray(X.numpy().tobytes()), y=Y),
    "an array of Python": lambda tmp: Rows(_of_an_array, held=array("f", X.flatten()), y=Y),
    "a memoryview": lambda tmp: Rows(_of_an_array, held=X.flatten().numpy().data, y=Y),
    "a deque": lambda tmp: Rows(_of_held, held=deque(X), y=Y),
    "a mapping": lambda tmp: Rows(_of_held, held=MappingProxyType(dict(enumerate(X))), y=Y),
    "a module": lambda tmp: Rows(_of_an_embedding, held=nn.Embedding(SIZE, 4), y=Y),
    "a default": lambda tmp: Rows(_by_default, y=Y),
    "a default of a keyword": lambda tmp: Rows(_by_keyword, y=Y),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_hang_on_others_are_refused(tmp_path, name):
    with pytest.raises(Incompatible, match=r"^row \d+ of the data set"):
        private(tmp_path, dataset=MIXING[name](tmp_path))


HONEST = {
    "one array of numbers": lambda tmp: Rows(
        lambda self, i: (self.held[4 * i : 4 * i + 4], self.y[i]), held=X.flatten(), y=Y
    ),
    "columns of an array": lambda tmp: Rows(
        lambda self, i: (self.x[:, i], self.y[i]), x=X.T.clone(), y=Y
    ),
    "bytes": lambda tmp: Rows(
        lambda self, i: (_at(self.held, i), self.y[i]), held=X.numpy().tobytes(), y=Y
    ),
    "a deque": lambda tmp: Rows(lambda self, i: (self.held[i], self.y[i]), held=deque(X), y=Y),
    "an encoder": lambda tmp: Rows(
        lambda self, i: (self.held(self.x[i]).detach(), self.y[i]), x=X, y=Y,
        held=nn.Sequential(nn.Linear(4, 500), nn.Tanh(), nn.Linear(500, 4)),
    ),
    "words": lambda tmp: Rows(
        lambda self, i: (self.x[i] * len(self.words[i]), self.y[i]), x=X, y=Y, words=_WORDS
    ),
    "scaled by public numbers": lambda tmp: Rows(
        lambda self, i: (self.x[i] / self.scale, self.y[i]), x=X, y=Y, scale=torch.ones(4)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_rows_of_their_own_are_taken(tmp_path, name):
    with private(tmp_path, dataset=HONEST[name](tmp_path), steps=2) as run:
        assert list(run) == [1, 2]


class Unreadable(list):
    def __iter__(self):
        raise RuntimeError("iterating")


class Endless:
    def __len__(self):
        raise RuntimeError("counting")

    def __getitem__(self, index):
        raise RuntimeError("reading")


@pytest.mark.parametrize("held", [Unreadable([1, 2, 3]), Endless()])
def test_what_cannot_be_looked_into_is_left_alone(tmp_path, held):
    rows = Rows(lambda self, i: (self.x[i], self.y[i]), x=X, y=Y, held=held)
    with private(tmp_path, dataset=rows, steps=2) as run:
        assert list(run) == [1, 2]


def test_complex_features_are_not_taken_for_tokens(tmp_path):
    rows = Rows(lambda self, i: (self.x[i].to(torch.complex64), self.y[i]), x=X, y=Y)
    with pytest.raises(Incompatible, match=r"made-up rows \(RuntimeError: .*dtype"):
        private(tmp_path, dataset=rows)

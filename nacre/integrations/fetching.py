"""Rows of a data set, each fetched under random numbers of its own."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import TensorDataset

from nacre.core.random import Label, Source
from nacre.core.theirs import theirs
from nacre.integrations.storage import generators


class Dataset(Protocol):
    """A data set that knows how many rows it has: `torch.utils.data.Dataset`, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Fetcher:
    """Fetches rows of a data set.

    *Guarantee:* what a row draws while it is fetched is keyed by its place and the given source
    alone: from the generators of torch, NumPy and `random`, and from generators of these kinds that
    the data set holds. All of them are afterwards as they were.
    """

    def __init__(self, dataset: Dataset, own: list[Any] | None = None) -> None:
        self.dataset = dataset
        self._plain = type(dataset) in (list, tuple, TensorDataset)  # which draw nothing
        self._own = own if own is not None else [] if self._plain else generators(dataset)

    @property
    def plain(self) -> bool:
        """Whether a row is what is held at its place, and nothing is computed."""
        return self._plain

    def of(self, dataset: Dataset) -> Fetcher:
        """The same for a copy of the data set, which holds the same generators."""
        return Fetcher(dataset, self._own)

    def rows(
        self, places: Iterable[int], source: Source, names: Sequence[Label] | None = None
    ) -> list[Any]:
        """The rows at these places, fetched in this order; what each draws is keyed by its name,
        which is its place where none are given."""
        if self._plain:
            return [self.dataset[i] for i in places]
        items: list[Any] = []
        with self._restored():
            for number, i in enumerate(places):
                self._seed(source.number("fetch", i if names is None else names[number]))
                with theirs("the data set", "a row of it is fetched"):
                    items.append(self.dataset[i])
        return items

    def _seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        for number, own in enumerate(self._own):
            _seeded(own, (seed + 0x9E3779B97F4A7C15 * (number + 1)) % 2**63)

    @contextlib.contextmanager
    def _restored(self) -> Generator[None]:
        """Puts the generators back as they were."""
        ours, theirs_ = random.getstate(), np.random.get_state()
        own = [(generator, _state(generator)) for generator in self._own]
        with torch.random.fork_rng(devices=[]):
            try:
                yield
            finally:
                random.setstate(ours)
                np.random.set_state(theirs_)
                for generator, state in own:
                    _set_state(generator, state)


def _seeded(own: Any, seed: int) -> None:
    if isinstance(own, np.random.Generator):
        bits: Any = own.bit_generator
        bits.state = type(bits)(seed).state
    elif isinstance(own, torch.Generator):
        own.manual_seed(seed)
    else:  # of `random`, or NumPy's former one
        own.seed(seed % 2**32)


def _state(own: Any) -> Any:
    if isinstance(own, np.random.Generator):
        return own.bit_generator.state
    if isinstance(own, random.Random):
        return own.getstate()
    return own.get_state()


def _set_state(own: Any, state: Any) -> None:
    if isinstance(own, np.random.Generator):
        own.bit_generator.state = state
    elif isinstance(own, random.Random):
        own.setstate(state)
    else:
        own.set_state(state)

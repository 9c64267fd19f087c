"""A small federation with secure sums, and a wire that drops and changes messages."""

from __future__ import annotations

from collections import defaultdict

import torch

from nacre.core.errors import PartyError
from nacre.core.random import Source
from nacre.core.types import Release, Unprotected
from nacre.federated_learning import Party
from nacre.federated_learning.gather import Round, clipped_change
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.secure import KeysInProcess, SecureGather
from nacre.federated_learning.secure.change import flat
from nacre.federated_learning.signed import addressed
from nacre.gradient_clipping import Flat, Unclipped

LIKE = {"w": torch.zeros(3, 5), "b": torch.zeros(2)}
RECIPE = "ab"
FREE = Unprotected("a test")


class Wire:
    """Hands each message to its party, but those to parties in `gone[kind]`; `late[kind]` are asked
    and their replies kept back. `change(way, kind, name, data)` may return other bytes or None."""

    def __init__(self, handlers):
        self.handlers, self.parties = handlers, tuple(handlers)
        self.gone, self.late, self.change = defaultdict(set), defaultdict(set), None
        self.seen = []  # (way, kind, name, bytes)

    def ask(self, requests):
        found = {}
        for name, data in requests.items():
            kind = addressed(data).kind
            if name in self.gone[kind]:
                continue
            data = self._passed("request", kind, name, data)
            if data is None:
                continue
            try:
                reply = self.handlers[name](data)
            except PartyError:
                if self.change is None:
                    raise
                continue  # a server that lies meets silence
            reply = self._passed("reply", kind, name, reply)
            if reply is not None and name not in self.late[kind]:
                found[name] = reply
        return found

    def asks(self, kind):
        return [entry for entry in self.seen if entry[:2] == ("request", kind)]

    def _passed(self, way, kind, name, data):
        self.seen.append((way, kind, name, data))
        return data if self.change is None else self.change(way, kind, name, data)


class Federation:
    """`count` parties with random changes, of which `change(name, round)` is one."""

    def __init__(
        self,
        count=5,
        threshold=4,
        *,
        rounds=3,
        clip=None,
        seed=0,
        scale=1.0,
        store=None,
        noised=None,
        **options,
    ):
        self.names = tuple(f"p{i:03d}" for i in range(count))
        self.clip = clip or Flat(norm=1.0)
        self.seed, self.scale, self.rounds = seed, scale, rounds
        self.option = SecureGather(threshold=threshold, **options)
        self.source = Source(bytes([seed]) * 32)
        self.keys = KeysInProcess.of(
            self.option, self.source, self.names, RECIPE, rounds, self.clip, LIKE, noised
        )
        self.grid = self.keys.terms.grid
        self.store, self.trained = store, []
        self.wire = Wire({})
        self.restart()

    def restart(self):
        """All processes anew: the server's, and each party's on what it kept."""
        self.gather = self.keys.gather(float(len(self.names)))
        handlers = {name: self.party(name).handle for name in self.names}
        self.wire.handlers, self.wire.parties = handlers, self.names

    def party(self, name):
        def train(weights, number):
            self.trained.append((name, number))
            return Release(self.changed(name, number), FREE)

        kept = {} if self.store is None else {"store": self.store / name, "key": bytes(32)}
        return Party(
            name, train, recipe=RECIPE, rounds=self.rounds, like=LIKE,
            member=self.keys.member(name), **kept,
        )  # fmt: skip

    def changed(self, name, number):
        stream = torch.Generator().manual_seed(self.seed + 1000 * number + self.names.index(name))
        return {n: self.scale * torch.randn(t.shape, generator=stream) for n, t in LIKE.items()}

    def request(self, number=0):
        return RoundRequest("train", number, RECIPE, LIKE)

    def round(self, number=0, private=False):
        asked = Round(self.request(number), self.names, private)
        return self.gather(self.wire, asked, self.clip)

    def encoded(self, name, number=0):
        """A party's share on the grid, as integers."""
        vector = flat(clipped_change(self.changed(name, number), self.clip)[0])
        return self.grid.encoded(vector)

    def expected(self, survivors, number=0):
        """The plain sum on the grid over some parties, by name."""
        total = sum(self.encoded(name, number) for name in survivors)
        values = torch.from_numpy(self.grid.decoded(total)).float()
        sizes = [LIKE[name].numel() for name in sorted(LIKE)]
        parts = dict(zip(sorted(LIKE), values.split(sizes), strict=True))
        return {name: parts[name].view(LIKE[name].shape) for name in LIKE}

    def plain_sum(self, survivors, number=0):
        """The sum of clipped changes over some parties, by name; minus them, as in a round."""
        each = [clipped_change(self.changed(name, number), self.clip)[0] for name in survivors]
        return {name: sum(change[name] for change in each) for name in LIKE}


def unclipped(**options):
    return Federation(clip=Unclipped(), **options)

"""What the parties answered, kept at the server until a checkpoint has it: a server that is killed
sums the same answers again and reaches the same weights, though another party answers by then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nacre.core.parts import Transport
from nacre.core.random import digest
from nacre.federated_learning.answers import Stored
from nacre.federated_learning.secure.wire import exchanges_keys


class KeptReplies:
    """A transport whose replies are on the disk before they are used, encrypted under `key`.

    The same requests get the kept replies, and nobody is asked again. The last `asks` of them are
    kept: as many as can lie behind the newest two checkpoints. Those to the exchange of keys stay
    as long as the run: exchanged with others than before, they would be keys that the parties
    refuse.
    """

    def __init__(self, inner: Transport, folder: Path, key: bytes, *, asks: int) -> None:
        self.parties = inner.parties
        self._inner, self._folder, self._most = inner, folder, asks
        self._answers = Stored(folder, key)
        self._short: Path | None = None  # the last answers, where somebody's are not among them

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Transport.ask`."""
        names = sorted(requests)
        asked = digest(*(part for name in names for part in (name, requests[name])))
        keys = any(map(exchanges_keys, requests.values()))
        step = f"{'keys' if keys else 'asked'}-{asked.hex()[:32]}"
        self._short = None
        known = self._answers.get(step)
        if known is not None and known[0] == asked:
            replies = _unpacked(known[1])
        else:
            replies = dict(self._inner.ask(requests))
            self._answers.put(step, asked, _packed(replies))
            self._prune()
        if replies.keys() != requests.keys():
            self._short = self._folder / f"{step}.answer"
        return replies

    def too_few(self) -> None:
        """Forgets the last answers, if somebody's were missing: the round could not use them, so
        after a resumption all are asked again. Earlier ones stay, since the round rests on them.
        """
        if self._short is not None:
            self._short.unlink(missing_ok=True)
            self._short = None

    def _prune(self) -> None:
        kept = sorted(self._folder.glob("asked-*.answer"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[: -self._most]:
            path.unlink()


def _packed(replies: Mapping[str, bytes]) -> bytes:
    names = sorted(replies)
    head = json.dumps([[name, len(replies[name])] for name in names]).encode()
    return b"".join([len(head).to_bytes(8, "big"), head, *(replies[name] for name in names)])


def _unpacked(data: bytes) -> dict[str, bytes]:
    end = 8 + int.from_bytes(data[:8], "big")
    found: dict[str, bytes] = {}
    for name, size in json.loads(data[8:end]):
        found[name], end = data[end : end + size], end + size
    return found

"""What a secure sum adds to a round: `python benchmarks/secure_sums.py [--quick] [--json]`.

CPU seconds of a whole round in one process, the parties' side included, where parties do not train:
the same changes through the plain gather and through the secure one, interleaved, the least of a
few rounds each. Keys are exchanged once a run, so their price stands apart. Bytes are those of a
party's whole reply. Beyond 50 parties each masks with some of the others only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from rows import Row, show

from nacre.core.random import Source
from nacre.core.types import Release, Tensors, Unprotected
from nacre.federated_learning import InProcess, MeanAggregate, Party, Plain
from nacre.federated_learning.gather import Round
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.secure import KeysInProcess, Secure, SecureGather, wire
from nacre.gradient_clipping import Flat

CLIP = Flat(norm=1.0)
FREE = Unprotected("a benchmark")


class Setting(NamedTuple):
    """A federation: parties, threshold, parameters, bits of an entry, rounds measured."""

    parties: int
    threshold: int
    parameters: int
    bits: Any = 32
    rounds: int = 5

    def __str__(self) -> str:
        return f"{self.parties} parties, {self.parameters:,} parameters, {self.bits} bits"


FULL = [
    Setting(10, 7, 1_000_000),
    Setting(10, 7, 1_000_000, 16),
    Setting(30, 21, 100_000),
    Setting(50, 40, 100_000),
    Setting(100, 80, 100_000, rounds=3),
    Setting(500, 400, 100_000, rounds=2),
]
QUICK = [Setting(10, 7, 100_000, rounds=2), Setting(60, 48, 1_000, rounds=1)]


TARGETS = {
    (FULL[0], "added"): 0.25,
    **{(setting, "bytes a parameter"): 4.01 for setting in FULL if setting.parameters > 1e5},
}
"""Of figures by setting; 4 bytes a parameter and what does not grow with the model."""


class Away(InProcess):
    """Parties of which some do not answer, and the longest masked change that was sent."""

    gone: frozenset[str] = frozenset()
    longest = 0

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        replies = super().ask({n: data for n, data in requests.items() if n not in self.gone})
        for data in replies.values():
            if wire.carries_release(data):
                self.longest = max(self.longest, len(data))
        return replies


def parties(setting: Setting, keys: KeysInProcess | None, like: Tensors) -> Away:
    """The parties of a setting, whose changes are random and ready."""

    def party(name: str, number: int) -> Party:
        stream = torch.Generator().manual_seed(number)
        change = torch.randn(setting.parameters, generator=stream) / setting.parameters**0.5
        released = Release({"weight": change}, FREE)
        member = None if keys is None else keys.member(name)
        rounds = 2 * setting.rounds + 2
        return Party(
            name, lambda *_: released, recipe="ab", rounds=rounds, like=like, member=member
        )

    return Away({name: party(name, i).handle for i, name in enumerate(names(setting))})


def names(setting: Setting) -> tuple[str, ...]:
    return tuple(f"party {i:04d}" for i in range(setting.parties))


def measured(setting: Setting) -> dict[str, float]:
    """CPU seconds and bytes of a setting, by what they are of."""
    like = {"weight": torch.zeros(setting.parameters)}
    option = SecureGather(threshold=setting.threshold, bits=setting.bits)
    keys = KeysInProcess.of(
        option, Source.fresh(), names(setting), "ab", 2 * setting.rounds + 2, CLIP, like
    )
    plain, secure = parties(setting, None, like), parties(setting, keys, like)
    gathers: dict[str, Plain | Secure] = {
        "plain": Plain(MeanAggregate(), float(setting.parties)),
        "secure": keys.gather(float(setting.parties)),
    }
    wires = {"plain": plain, "secure": secure}

    def round_of(way: str, number: int) -> float:
        request = RoundRequest("train", number, "ab", like)
        begun = time.process_time()
        gathers[way](wires[way], Round(request, names(setting), False), CLIP)
        return time.process_time() - begun

    first = round_of("secure", 0)
    found: dict[str, list[float]] = {"plain": [], "secure": [], "dropouts": []}
    gone = 0
    for number in range(1, setting.rounds + 1):
        found["plain"].append(round_of("plain", number))
        found["secure"].append(round_of("secure", 2 * number - 1))
        secure.gone = frozenset(names(setting)[: round(0.3 * setting.parties)])
        if setting.parties - len(secure.gone) < setting.threshold:
            secure.gone = frozenset(names(setting)[: setting.parties - setting.threshold])
        gone = len(secure.gone)
        found["dropouts"].append(round_of("secure", 2 * number))
        secure.gone = frozenset()
    least = {name: min(values) for name, values in found.items()}
    return {
        "plain": least["plain"],
        "added": least["secure"] - least["plain"],
        "added with dropouts": least["dropouts"] - least["plain"],
        "dropouts": gone,
        "keys": first - least["secure"],
        "bytes a parameter": secure.longest / setting.parameters,
    }


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--quick", action="store_true", help="two small settings")
    reader.add_argument("--json", action="store_true", help="one JSON object a figure")
    given = reader.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for setting in QUICK if given.quick else FULL:
        figures = measured(setting)
        gone = int(figures.pop("dropouts"))
        for name, value in figures.items():
            said = name.replace("dropouts", f"{gone} dropouts")
            unit = "" if name.startswith("bytes") else ", CPU seconds"
            target = TARGETS.get((setting, name))
            rows.append(
                Row(
                    f"{setting}: {said}{unit}",
                    value,
                    target=None if target is None else f"at most {target}",
                    holds=None if target is None else value <= target,
                )
            )
    show(rows, as_json=given.json)


if __name__ == "__main__":
    main()

"""released.jsonl: one line for each thing that left the private side, in order."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.core.errors import PartyError
from nacre.core.files import write_bytes
from nacre.core.parts import Transport
from nacre.core.strict import parsed
from nacre.core.types import Inherited, Noised, Release
from nacre.federated_learning.exchange import exchanged
from nacre.federated_learning.messages import How, Reply, RoundRequest, right_of_reply
from nacre.federated_learning.secure.wire import carries_release, is_secure, right_of

ReleaseFacts = Mapping[str, Any]
"""A line of released.jsonl."""


def line(
    number: int,
    release: Release,
    heard: Mapping[str, Inherited] | None = None,
    *,
    evaluation: bool = False,
) -> dict[str, Any]:
    """What left at this step and by what right.

    `heard` has, for each party whose change entered the step, the noised steps that the change was
    computed from. `evaluation`: it is a draw of a protected figure, and no step.
    """
    how = release.how
    facts: dict[str, Any] = {"step": number, "how": type(how).__name__.lower()}
    if isinstance(how, Noised):
        facts |= _noised(how)
        answers = {n: float(v) for n, v in release.total.items() if n.startswith(":")}
        if answers:
            facts["answers"] = answers  # of which the next bound is made
    elif isinstance(how, Inherited):
        facts["sources"] = list(how.sources)
    else:
        facts["reason"] = how.reason
    if evaluation:
        facts["evaluation"] = True
    if heard:
        facts["parties"] = {
            name: [_noised(step) for step in right.steps] for name, right in sorted(heard.items())
        }
    return facts


def _noised(how: Noised) -> dict[str, Any]:
    facts = {"deviation": how.deviation, "bound": how.bound}
    return facts if how.shares is None else facts | {"shares": how.shares}


class Overheard:
    """A transport that remembers by what right each change of the last round left its party.

    For parties whose changes are private by themselves: which of them answered is public there.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.parties = inner.parties
        self.last: dict[str, Inherited] = {}

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Transport.ask`."""
        replies = self._inner.ask(requests)
        if any(map(is_secure, requests.values())) and not any(
            map(carries_release, requests.values())
        ):
            return replies  # a stage of a secure sum in which no change leaves
        self._hear(replies)
        return replies

    def exchange(self, request: RoundRequest, cohort: Sequence[str]) -> Mapping[str, Reply | bytes]:
        """See `Direct.exchange`; by bytes where the inner transport knows nothing else."""
        replies = exchanged(self._inner, request, cohort)
        self._hear(replies)
        return replies

    def _hear(self, replies: Mapping[str, Reply | bytes]) -> None:
        self.last = {}
        for name, data in replies.items():
            with contextlib.suppress(PartyError):  # the gather says what is wrong with it
                how = data.how if isinstance(data, Reply) else _right(data)
                if isinstance(how, Inherited):
                    self.last[name] = how


def _right(data: bytes) -> How:
    return right_of(data) if carries_release(data) else right_of_reply(data)


class Log:
    """Appends to released.jsonl. What left stays on record: a step that is answered again after a
    crash gives the same release, and its line stands there already."""

    def __init__(self, path: Path) -> None:
        kept = _lines(path)
        self._last = int(parsed(kept[-1])["step"]) if kept else 0
        # Whole or not at all: a crash between cutting and writing would lose what had left.
        write_bytes(path, "".join(f"{text}\n" for text in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def add(
        self,
        number: int,
        release: Release,
        heard: Mapping[str, Inherited] | None = None,
        *,
        evaluation: bool = False,
    ) -> None:
        """One more line, on its way to the disk; nothing for a step that is on record."""
        if number <= self._last:
            return
        facts = line(number, release, heard, evaluation=evaluation)
        self._file.write(json.dumps(facts) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Makes the lines durable; called before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the log."""
        self._file.close()


def beyond(
    path: Path,
    done: int,  # the step of the model that the run ends with
    journalled: int,  # steps in all that the ledger says may have been released
) -> dict[str, int]:
    """What outcome.json says where more has left than the model was made of; {} elsewhere.

    `released` are the steps on record. `unrecorded` are steps that were journalled and are on no
    line, as where their process died before it wrote one.
    """
    lines = [parsed(text) for text in _lines(path)]
    taken, missing = len(of_steps(lines)), journalled - noised_steps(lines)
    return ({"released": taken} if taken != done else {}) | (
        {"unrecorded": missing} if missing > 0 else {}
    )


def of_steps(lines: Sequence[ReleaseFacts]) -> list[ReleaseFacts]:
    """The lines of steps, without the draws of a protected figure, which move no model."""
    return [line for line in lines if not line.get("evaluation", False)]


def noised_steps(lines: Sequence[ReleaseFacts]) -> int:
    """How many noised steps these lines hold, those of parties and draws included."""
    return sum(
        (line["how"] == "noised") + sum(map(len, line.get("parties", {}).values()))
        for line in lines
    )


def _lines(path: Path) -> list[str]:
    """The whole lines of the log; a last line that a crash cut short is not one."""
    if not path.exists():
        return []
    found: list[str] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            parsed(text)["step"]
        except (ValueError, KeyError, TypeError):
            break
        found.append(text)
    return found

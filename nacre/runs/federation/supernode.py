"""A party behind a stock SuperNode, which starts Python anew for every message.

The SuperNode's `--node-config` says what `nacre party` is given by its options: `recipe`, `name`,
`into`, `policy`, `keys`, `roster`, and `allow-package` where a model needs one. All that has to be
known from one message to the next lies in the party's folder and in its ledger.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nacre.core.errors import PartyError, Refusal, one_line
from nacre.core.run_folder import RunFolder
from nacre.federated_learning.across.keys import SIGNING_KEY
from nacre.federated_learning.across.voice import Voice
from nacre.federated_learning.flower.client_app import client_app
from nacre.federated_learning.roster import Identity, Roster
from nacre.models import Code
from nacre.recipe.load import load_recipe
from nacre.recipe.schema import Recipe
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.attending import Attending
from nacre.runs.federation.over_flower import read_roster
from nacre.runs.federation.policy import Policy, read_policy
from nacre.runs.progress import Silent

_NEEDED = ("recipe", "name", "into", "policy", "keys", "roster")
_PACKAGES = "allow-package"


@dataclass(frozen=True, kw_only=True)
class OwnConfiguration:
    """What a party's operator gave to the SuperNode."""

    recipe: Path
    name: str
    into: Path
    policy: Path
    keys: Path
    roster: Path
    packages: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Mapping[str, object]) -> OwnConfiguration:
        """Reads `--node-config`. Raises `Refusal` for keys that are missing, unknown, or no
        text."""
        unknown = sorted(set(said) - {*_NEEDED, _PACKAGES})
        missing = [key for key in _NEEDED if key not in said]
        odd = [key for key, value in said.items() if not isinstance(value, str) or not value]
        if unknown or missing or odd:
            words = ", ".join(repr(key) for key in (unknown or missing or odd))
            fault = "does not know" if unknown else "lacks" if missing else "wants text for"
            raise Refusal(
                f"the SuperNode's `--node-config` {fault} {words}; it has "
                f"{', '.join(_NEEDED)} and may have {_PACKAGES}, each as text in quotes"
            )
        text = {key: str(value) for key, value in said.items()}
        return cls(
            recipe=Path(text["recipe"]), name=text["name"], into=Path(text["into"]),
            policy=Path(text["policy"]), keys=Path(text["keys"]), roster=Path(text["roster"]),
            packages=tuple(text.get(_PACKAGES, "").replace(",", " ").split()),
        )  # fmt: skip


class Reopened:
    """A party that is made when the server's word is certain, and for that message alone: an
    `Attendance`. Close it after the answer."""

    def __init__(
        self, recipe: Recipe, name: str, into: Path, policy: Policy, identity: Identity,
        roster: Roster,
    ) -> None:  # fmt: skip
        self.recipe = agreed_digest(recipe)
        self._folder = RunFolder(into)
        self._made = lambda: Attending(recipe, name, into, policy, observe=_Terminal())
        self._known = (identity, roster)
        self._attending: Attending | None = None
        self._name = name

    def join(self, run: str, frozen: str) -> None:
        """See `Attendance.join`."""
        self._opened().join(run, frozen)

    def handle(self, run: str, request: bytes) -> bytes:
        """See `Attendance.handle`."""
        return self._opened().handle(run, request)

    def leave(self, run: str, common: bytes) -> None:
        """See `Attendance.leave`. Nothing where the party has left before."""
        if not self._ended():
            self._opened().leave(run, common)

    def close(self) -> None:
        """Lets go of folder and ledger."""
        if self._attending is not None:
            self._attending.close()

    def _opened(self) -> Attending:
        if self._ended():
            raise PartyError(
                f"party {self._name!r} has ended its run; its SuperNode is started anew, with "
                "another `into`, for this one"
            )
        if self._attending is None:
            self._attending = self._made()
            self._attending.known_as(*self._known)
        return self._attending

    def _ended(self) -> bool:
        return self._folder.recipe.exists() and not self._folder.run_key.exists()


def answered_alone(said: Mapping[str, object], data: bytes) -> bytes | None:
    """The envelope of the reply to an envelope; None for what is not worth one. Raises what the
    party's own files raise, as `nacre party` does at its start."""
    own = OwnConfiguration.of(said)
    identity, roster = Identity.load(own.name, own.keys / SIGNING_KEY), read_roster(own.roster)
    recipe = load_recipe(own.recipe, code=Code(packages=own.packages))
    party = Reopened(recipe, own.name, own.into, read_policy(own.policy), identity, roster)
    try:
        return Voice(identity, roster, party, tell=_tell).answer(data)
    finally:
        party.close()


def _tell(sentence: str) -> None:
    print(f"nacre: {one_line(sentence)}", file=sys.stderr, flush=True)


class _Terminal(Silent):
    """Sentences alone: they come between the lines of Flower's log."""

    def tell(self, sentence: str) -> None:
        """Shows it on the SuperNode's terminal."""
        _tell(sentence)


app = client_app(answered_alone)
"""What the bundle names."""

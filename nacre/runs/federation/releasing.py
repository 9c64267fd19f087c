"""A party in its own house that answers a file of queries with others.

Its folder is made like that of a run: `local/` has its keys and its encrypted replies. It takes
part in one release; what it may be asked is decided by its own file of queries and its policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from nacre.core.errors import PartyError, RunError
from nacre.core.files import read_json
from nacre.core.run_folder import RunFolder, create, reopen
from nacre.data.sketches.files import of_file
from nacre.federated_learning.roster import Identity, Roster
from nacre.ledger import Charge, Ledger
from nacre.ledger.recorded_rows import record_rows
from nacre.ledger.storage.open import is_url
from nacre.runs.federation.policy import Policy
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.answering import Holder, require_readable
from nacre.statistics.frames import opened_table
from nacre.statistics.release import charges_for


def end_release(folder: RunFolder) -> bool:
    """Ends one side of a release without answers; whether the folder is of a release. What was
    journalled stays charged, the rest goes back, and the key is destroyed."""
    if "release" not in cast(dict[str, Any], read_json(folder.plan)):
        return False
    with folder.locked():
        if folder.reserved:
            with Ledger.open(str(folder.fact("ledger"))) as book:
                account, run = str(folder.fact("account")), folder.name()
                for each in book.summary(account).runs:
                    if each.run.startswith(f"{run}: "):
                        book.abandon(account, each.run)
        folder.destroy_key()
    return True


class Releasing:
    """A party that waits for a release and takes part in it. Close it when it has left.

    Making one asks the policy and reads the rows; nothing is charged or written before the server's
    first signed word. Raises what these raise.
    """

    def __init__(
        self,
        asked: AgreedQueries,
        text: bytes,  # of the file of queries
        name: str,
        into: Path,
        policy: Policy,
        *,
        table: Path,
        ledger: str,
        account: str,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.recipe = asked.digest
        self.over = False
        policy.require_recipe(self.recipe)
        if name not in asked.across.parties:
            known = ", ".join(asked.across.parties[:8])
            raise RunError(f"the queries have no party {name!r}; they name {known}")
        policy.require_release(asked)
        self._asked, self._text, self._name, self._policy = asked, text, name, policy
        self._place, self._account, self._tell = ledger, account, tell
        self._folder = RunFolder(into)
        self._raw = opened_table(table)
        require_readable(self._raw, asked, name)
        self._open = ExitStack()
        self._party: Callable[[bytes], bytes] | None = None
        self._charges: list[Charge] = []
        self._known: tuple[Identity, Roster] | None = None
        self._run = ""
        if self._folder.recipe.exists():
            self._unchanged()

    def known_as(self, identity: Identity, roster: Roster) -> None:
        """By what the others know this party: its part of the sum is signed by it."""
        self._known = (identity, roster)

    def join(self, run: str, frozen: str) -> None:
        """See `Attendance.join`. All answers are reserved here, by this process."""
        self._policy.require_now()
        if self._run == run:
            return
        if self._run or (self._folder.recipe.exists() and self._folder.name() != run):
            raise PartyError(
                f"party {self._name!r} takes part in another release; it is started anew, with "
                "another `--into`, for this one"
            )
        if frozen:
            raise PartyError("a release of statistics has no weights; the server trains a model")
        if not self._folder.recipe.exists():
            self._made(run)
        self._enter(run)

    def _enter(self, run: str) -> None:
        try:
            self._party = self._opened(run)
        except BaseException:
            self._open.close()
            raise
        self._run = run
        self._tell(f"party {self._name!r} takes part in {run!r}")

    def handle(self, run: str, request: bytes) -> bytes:
        """See `Attendance.handle`. A party that was started anew goes on as before."""
        self._policy.require_now()
        self._go_on(run)
        if self._party is None or run != self._run:
            raise PartyError(f"party {self._name!r} has not joined this release; resume the server")
        return self._party(request)

    def _go_on(self, run: str) -> None:
        """Takes part again in the folder's release, where an earlier process joined it."""
        if self._party is None and self._folder.recipe.exists() and self._folder.name() == run:
            self._enter(run)

    def leave(self, run: str, common: bytes) -> None:
        """See `Attendance.leave`. What was not journalled goes back, and the key is destroyed; also
        where the process that joined has been killed since."""
        if not self.over:
            self._go_on(run)
        if run == self._run and not self.over:
            for charge in self._charges:
                charge.settle()
            self.close()
            self._folder.destroy_key()
            self._party, self.over = None, True
            self._tell(f"{run!r} is over")

    def close(self) -> None:
        """Lets go of folder and ledger; what was reserved stands."""
        self._open.close()

    def _facts(self) -> Mapping[str, str]:
        return {"recipe": self.recipe, "party": self._name, "account": self._account}

    def _unchanged(self) -> None:
        """Raises `RunError` where the folder is of another release, party or account."""
        reopen(self._folder.path)
        for fact, found in self._facts().items():
            if self._folder.fact(fact) != found:
                raise RunError(
                    f"the {fact} is not that with which {self._folder.path} joined its release; "
                    "put it back, or take another `--into`"
                )
        self._folder.source()  # raises where it has ended

    def _made(self, run: str) -> None:
        plan = {"release": self.recipe, "party": self._name}
        place = self._place if is_url(self._place) else str(Path(self._place).resolve())
        facts = {"run": run, "ledger": place, **self._facts()}
        create(self._folder.path, self._text, plan, facts, os.urandom(32))

    def _opened(self, run: str) -> Callable[[bytes], bytes]:
        """What answers requests. Raises as the ledger does."""
        folder, known = self._folder, self._known
        assert known is not None  # `attend` has said it
        self._open.enter_context(folder.locked())
        book = self._open.enter_context(Ledger.open(self._place))
        # Also where it goes on: rows may have been exchanged since, before the first answer.
        record_rows(book, {self._account: of_file(self._raw)})
        self._charges = []
        try:
            for charge in charges_for(book, self._account, run, self._asked.queries):
                self._charges.append(charge)
        except BaseException:
            for charge in self._charges:
                charge.settle()
            raise
        if not folder.reserved:
            folder.mark_reserved()
        folder.parties.mkdir(exist_ok=True)
        source = folder.source().child("release", self.recipe, self._name)
        holder = Holder(self._name, self._asked, self._raw, source, self._charges)
        terms = self._asked.terms(run, known[1])
        return holder.party(known[0], terms, folder.parties / self._name).handle

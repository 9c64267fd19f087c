"""The budget of private data, on disk: what was granted, what is spent, and by which run.

    with Ledger.open(path, create=True) as ledger:
        ledger.grant_if_new("clinic", "example", epsilon=8, delta=1e-5)
        charge = ledger.reserve("clinic", mechanism.request("run 1"))
        for step in range(1, mechanism.steps + 1):
            charge.journal(step)  # on disk before the step's release exists
            ...
        charge.settle()

*Guarantee:* a run is charged before it releases anything, for all of its steps; only `settle`
gives steps back, and only those that were never journalled. So whatever dies when, what is charged
is never less than what was released; processes that share a ledger cannot spend the same budget
twice, because a reservation checks and appends in one transaction.

Every transaction first replays the entries that are new to this process, and checks their chain.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.core.types import Adjacency, Unit
from nacre.data.sketches.sketch import Sketch
from nacre.differential_privacy.request import Request
from nacre.ledger.accounts import End, Grant, Posting, grant_of
from nacre.ledger.chain import LedgerHead
from nacre.ledger.charge import Charge
from nacre.ledger.heads import SignedHead, sign_head
from nacre.ledger.keys import derived, fingerprint_key, public_hex, signing_key
from nacre.ledger.preview import Quote, tightest, weigh, with_grant
from nacre.ledger.replay import Book, reserve_content
from nacre.ledger.rules import RuleName
from nacre.ledger.same_rows import require_one_budget
from nacre.ledger.storage.group_commit import PendingStep, Together
from nacre.ledger.storage.open import is_there, open_store
from nacre.ledger.storage.seal import sealed
from nacre.ledger.storage.store import Store, Transaction
from nacre.ledger.storage.writer import Page, now
from nacre.ledger.summary import AccountSummary, RunSummary, extract, run_summary, summary
from nacre.ledger.verify import KnownHead, verify_store


class Ledger:
    """An open ledger. Close it, or use it in a `with`. Threads may share one.

    Every method raises `LedgerError` where the file is damaged or cannot be used.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._book = Book()
        self._lock = threading.RLock()
        self._journals = Together(self._journal)
        self._aside: ThreadPoolExecutor | None = None  # made where somebody computes meanwhile

    @classmethod
    def open(cls, place: str | Path, create: bool = False) -> Ledger:
        """The ledger at `place`, a file or a URL of PostgreSQL; with `create` an empty one is made
        where there is none.

        Raises `LedgerError` where there is none, where it cannot be made, or where the file is
        something else; a ledger that could not be made leaves nothing behind. An older format is
        brought up to date.
        """
        return cls(open_store(place, create))

    @staticmethod
    def exists(place: str | Path) -> bool:
        """Whether there is something at `place`, a file or a URL of PostgreSQL.

        Raises `LedgerError` where a server cannot be asked.
        """
        return is_there(place)

    def close(self) -> None:
        """Lets go of the file or the server."""
        if self._aside is not None:
            self._aside.shutdown()
            self._aside = None
        self._store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def place(self) -> Path | str:
        """Where the ledger is, as `open` takes it."""
        return self._store.place

    @property
    def name(self) -> str:
        """Where the ledger is, as people may see it: without a password."""
        return self._store.name

    def sketch_key(self) -> bytes:
        """The 32 secret bytes under which rows are sketched for `record_rows`. See `keys`."""
        return derived(fingerprint_key(self.place, self.name), "sketch")

    # -- the owner of the data -------------------------------------------------------------------

    def grant(
        self,
        account: str,
        unit: Unit,
        epsilon: float,
        delta: float,
        rule: RuleName = "rdp",
        adjacency: Adjacency = "add_or_remove",
        column: str = "",
    ) -> bool:
        """Grants, or raises the epsilon of a grant; whether anything was new. See `rules.py`.

        `column` is the one whose values tell units apart; without one, that of the first run.

        Raises `LedgerError` for numbers that allow nothing, a lower epsilon or another delta, rule
        or adjacency than what stands, and for a new unit once the account has reservations.
        """
        with self._writing() as page:
            granted = grant_of(unit, epsilon, delta, rule, adjacency, column)
            standing = page.book.account(account)
            return page.grant(account, granted, standing.raises(granted) or standing.admit(granted))

    def grant_if_new(
        self,
        account: str,
        unit: Unit,
        epsilon: float,
        delta: float,
        rule: RuleName = "rdp",
        adjacency: Adjacency = "add_or_remove",
        column: str = "",
    ) -> bool:
        """What a recipe may do: grants once. Whether the grant was new.

        Raises `LedgerError` where another grant stands, and says which.
        """
        with self._writing() as page:
            granted = grant_of(unit, epsilon, delta, rule, adjacency, column)
            standing = page.book.account(account)
            new = not standing.covers(granted) and standing.admit(granted)
            return page.grant(account, granted, new)

    def note(self, account: str, text: str) -> None:
        """Adds a remark that no figure depends on, as which data an account was used for."""
        with self._writing() as page:
            page.append(account, "note", {"text": text})

    def record_rows(self, sketches: Mapping[str, Sketch]) -> None:
        """Records which rows these accounts stand for: an entry of one size for each, whatever they
        are.

        The same data under another name would have a second budget, so they are refused; parties
        that are recorded together, dealt by one column, have rows of their own. What counts as the
        same, and what cannot be seen, stands in `nacre.data.sketches.sketch`.
        The sketches are encrypted under the key that lies beside the ledger. Raises `LedgerError`,
        also where that key is not the one that earlier sketches were recorded under. Then nothing
        was written.
        """
        key = derived(fingerprint_key(self.place, self.name), "seal")
        with self._writing() as page:
            known = [
                (other.name, text) for other in page.book.accounts.values() for text in other.rows
            ]
            for account, sketch in sketches.items():
                for name, text in known:
                    require_one_budget(key, account, sketch, name, text, sketches)
            for account, sketch in sketches.items():
                page.append(account, "rows", {"sketch": sealed(key, sketch)})

    # -- runs ------------------------------------------------------------------------------------

    def preview(self, account: str, asked: Request, *, grant: Grant | None = None) -> Quote:
        """What the run would take from the grant that decides. Writes nothing.

        `grant` is what a recipe declares: taken as granted where it would be new, and refused as
        `grant_if_new` refuses it. The name of the run is that of refusals (`PLANNED` where it has
        none yet); a reserved run fits itself.
        """
        with self._reading() as book:
            return tightest(weigh(with_grant(book.account(account), grant), asked))

    def reserve(self, account: str, asked: Request) -> Charge:
        """Charges all steps of a run before its first; the same run again gives the same charge.

        `Mechanism.request` and `Request.of` write what is asked. An account counts units of one
        kind by one column, its grant's or else its first run's.

        Raises `BudgetExceeded` where a grant of the account does not cover the run; `LedgerError`
        where there is no grant, where adjacencies differ, or where the run's name stands for other
        numbers. Then nothing was written.
        """
        # Prices take seconds under pld and are remembered: the lock below is held without them.
        with self._reading() as book:
            weigh(book.account(account), asked)
        with self._writing() as page:
            quotes = weigh(page.book.account(account), asked)
            deciding = tightest(quotes)
            if not deciding.fits:
                raise BudgetExceeded(deciding.refusal)
            if not deciding.known:
                postings: dict[Unit, Posting] = {quote.unit: quote.posting for quote in quotes}
                page.append(account, "reserve", reserve_content(asked, postings))
        return Charge(account, asked, self)

    def journal(self, account: str, run: str, step: int, entered: str = "") -> None:
        """Records, durably before it returns, that `step` steps in all may have been released.

        `entered` is a digest of what the step's release is computed from. A step that was
        journalled before with the same digest costs nothing more: it is answered with the same
        numbers. Raises `LedgerError` for another digest, since a second answer would be a second
        release, beyond the reserved steps, and for a new step once the run has ended.
        """
        self._journals.add(PendingStep(account, run, step, entered))

    def journal_together(self, steps: Sequence[tuple[Charge, int]], entered: str) -> None:
        """`journal` in several accounts, by one entry each, in this order and in one commit: all of
        them are durable when it returns. Raises the first of what `journal` would raise."""
        lines = [PendingStep(held.account, held.run, step, entered) for held, step in steps]
        self._journal(lines)
        for line in lines:
            if line.error is not None:
                raise line.error

    @contextlib.contextmanager
    def journalling(self, account: str, run: str, step: int, entered: str = "") -> Generator[None]:
        """`journal`, while the block computes the step's release: leaving the block waits for the
        disk, and raises what `journal` raises.

        Nothing of the release may leave the block before it ends. What dies inside it with its
        process was seen by nobody.
        """
        if self._aside is None:
            self._aside = ThreadPoolExecutor(1, "nacre-ledger")
        entry = self._aside.submit(self.journal, account, run, step, entered)
        try:
            yield
        finally:
            entry.result()

    def _journal(self, lines: Sequence[PendingStep]) -> None:
        """All lines that the rules allow, in one commit; the others are told why."""
        with self._writing() as page:
            for line in lines:
                try:
                    new = page.wants(line)
                except LedgerError as error:
                    line.error = error
                    continue
                if new:
                    page.journal(line)

    def settle(self, account: str, run: str) -> None:
        """Ends a run; what comes back is decided by the rule alone (`rules.py`). Idempotent."""
        self._end(account, run, "settled")

    def abandon(self, account: str, run: str) -> None:
        """Settles a run that nobody will go on with, also where its charge is not at hand.

        A process that still works on it is refused its next step. Idempotent.
        """
        self._end(account, run, "abandoned")

    def _end(self, account: str, run: str, end: End) -> None:
        with self._writing() as page:
            if page.book.account(account).run(run).end is None:
                page.append(account, "settle", {"run": run, "end": end})

    # -- looking ---------------------------------------------------------------------------------

    def accounts(self) -> tuple[str, ...]:
        """The names of all accounts, sorted."""
        with self._reading() as book:
            return tuple(sorted(book.accounts))

    def summary(self, account: str) -> AccountSummary:
        """What was granted, spent and reserved, and what is left, for every unit."""
        with self._reading() as book:
            return summary(book.known(account))

    def run(self, account: str, run: str) -> RunSummary:
        """How a run stands."""
        with self._reading() as book:
            return run_summary(book.known(account).run(run))

    def asked(self, account: str, run: str) -> Request:
        """What a run reserved, as the ledger holds it."""
        with self._reading() as book:
            return book.known(account).run(run).request

    def extract(self, accounts: Sequence[str]) -> dict[str, Any]:
        """The facts about these accounts that a report prints; all of them are public."""
        verified = not self.verify()
        with self._lock, self._store.transaction(write=False) as transaction:
            book = self._followed(transaction)
            known = [book.known(account) for account in accounts]
            return extract(known, list(transaction.entries(1)), verified=verified)

    def head(self) -> LedgerHead:
        """The last entry's number and hash: keep it elsewhere, and give it to `verify`."""
        with self._reading() as book:
            return book.head

    def sign_head(self, key: Path | None = None) -> SignedHead:
        """The head with the owner's signature: keep it elsewhere, and give it to `verify`.

        `key` is the file of the signing key, made on first use; by default one in the owner's
        configuration folder. A signer who is new to the ledger is entered in it first.
        """
        signer = signing_key(key)
        public = public_hex(signer)
        with self._writing() as page:
            if public not in page.book.signers:
                page.append("", "signer", {"key": public})
        with self._reading() as book:
            return sign_head(book.head, book.first, now(), signer)

    def verify(self, against: KnownHead | None = None, signer: str | None = None) -> list[str]:
        """What is wrong, row by row, in sentences; empty where nothing is.

        Reads the whole file again: its pages, the chain, the rules and every price. Each change of
        an entry is found. Entries that were cut off at the end, or a chain that was written anew
        as a whole, are found only `against` a head (or its hash) that was kept elsewhere: without
        one, the answer says no more than that the file agrees with itself. With `signer` (a public
        key in hex) the kept head has to be signed by that very key.
        """
        return verify_store(self._store, against, signer)

    @contextlib.contextmanager
    def _reading(self) -> Generator[Book]:
        """An up-to-date book that no other thread moves on meanwhile."""
        with self._lock, self._store.transaction(write=False) as transaction:
            yield self._followed(transaction)

    @contextlib.contextmanager
    def _writing(self) -> Generator[Page]:
        """A transaction that no other writer enters, on an up-to-date book."""
        page: Page | None = None
        with self._lock:
            try:
                with self._store.transaction(write=True) as transaction:
                    page = Page(self._followed(transaction), transaction)
                    yield page
            except BaseException:
                if page is not None and page.ahead:
                    self._book = Book()
                raise

    def _followed(self, transaction: Transaction) -> Book:
        """The book, moved on by the entries that others (or this ledger) have committed since."""
        seen = self._book.head
        new = transaction.entries(max(seen.number, 1))
        if seen.number and getattr(next(new, None), "hash", None) != seen.hash:
            raise LedgerError(f"{self.name} was changed: row {seen.number} is not what it was")
        for entry in new:
            try:
                self._book.follow(entry)
            except LedgerError as error:
                raise LedgerError(
                    f"the ledger {self.name} was changed: {error}; restore it from a copy, and "
                    "compare its head with a printed one"
                ) from error
        return self._book

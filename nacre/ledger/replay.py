# pyright: reportMissingTypeStubs=false
"""Entries -> accounts: the only code that says what an entry does.

A book follows the chain one entry at a time and refuses what could not have been written by the
rules, so whoever derives the state has checked it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from nacre.core.errors import LedgerError, NacreError
from nacre.core.strict import canonical, parsed
from nacre.core.types import Unit
from nacre.differential_privacy.request import Request
from nacre.ledger.accounts import Account, Grant, Posting, Reservation, posted_event
from nacre.ledger.chain import START, Entry, LedgerHead, break_at
from nacre.ledger.rules import RuleName, build_rule

Content = dict[str, Any]

_PRICE_SLACK: Mapping[RuleName, float] = {"rdp": 1e-6, "zcdp": 1e-6, "pld": 5e-3}
"""By how much, relative, another version may price an event higher than it was: rounding, and for
`pld` the width of the grid."""

_UNLAWFUL = (NacreError, ValueError, KeyError, TypeError, AttributeError)
"""What an entry that the rules do not allow makes the code below raise."""


@dataclass
class Book:
    """All accounts as of `head`."""

    head: LedgerHead = START
    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    first: str = ""  # hash of the first entry, which tells ledgers apart
    signers: dict[str, int] = field(default_factory=dict[str, int])  # public key -> its row

    def follow(self, entry: Entry) -> None:
        """Moves one entry on. Raises `LedgerError`, naming the row, where it cannot follow."""
        broken = break_at(entry, self.head)
        if broken:
            raise LedgerError(broken)
        try:
            content = parsed(entry.content)
            if not isinstance(content, dict):
                raise ValueError("its content is no object")
            self._apply(entry, cast(Content, content))
        except _UNLAWFUL as error:
            raise LedgerError(
                f"row {entry.number} breaks the rules of the ledger ({_words(error)})"
            ) from error
        self._moved(entry)

    def follow_step(self, entry: Entry, content: Content) -> None:
        """Moves on by a step that was linked to this book's head just now, from `content`.

        What `follow` does, but for the hash and the JSON of an entry that this process has made:
        a training step waits for it.
        """
        _journal(self.accounts[entry.account], entry, content)
        self._moved(entry)

    def _moved(self, entry: Entry) -> None:
        self.first = self.first or entry.hash
        self.head = LedgerHead(entry.number, entry.hash)

    def account(self, name: str) -> Account:
        """The account of this name; an empty one where there is none."""
        return self.accounts.get(name) or Account(name)

    def known(self, name: str) -> Account:
        """The account of this name. Raises `LedgerError` where there is none."""
        if name not in self.accounts:
            names = ", ".join(sorted(self.accounts)) or "none"
            raise LedgerError(f"the ledger has no account {name!r}; it has {names}")
        return self.accounts[name]

    def _apply(self, entry: Entry, content: Content) -> None:
        if entry.kind == "signer":
            self._signer(entry, content)
            return
        account = self.account(entry.account)
        _APPLY[entry.kind](account, entry, content)
        self.accounts[entry.account] = account

    def _signer(self, entry: Entry, content: Content) -> None:
        key = content["key"]
        if type(key) is not str or len(bytes.fromhex(key)) != 32:
            raise LedgerError("its key is no public key")
        if key in self.signers or entry.account:
            raise LedgerError("it repeats a signer, or belongs to an account")
        self.signers[key] = entry.number


def grant_content(grant: Grant) -> Content:
    """What a grant's row says."""
    return {
        "unit": grant.unit,
        "epsilon": float(grant.epsilon),
        "delta": float(grant.delta),
        "rule": grant.rule,
        "adjacency": grant.adjacency,
        **({"column": grant.column} if grant.column else {}),
    }


def reserve_content(asked: Request, postings: Mapping[Unit, Posting]) -> Content:
    """What a reservation's row says."""
    prices = {unit: {"price": p.price, "order": p.order} for unit, p in postings.items()}
    return {**asked.to_content(), "postings": prices}


def _grant(account: Account, entry: Entry, content: Content) -> None:
    grant = Grant(**content)
    if not account.raises(grant) and not account.admit(grant):
        raise LedgerError("it repeats a grant")
    account.grants[grant.unit] = grant


def _reserve(account: Account, entry: Entry, content: Content) -> None:
    postings = {unit: Posting(**posting) for unit, posting in content.pop("postings").items()}
    content["step"] = canonical(content["step"])
    asked = Request(**content)
    if asked.run in account.runs:
        raise LedgerError("it reserves a run twice")
    if postings.keys() != account.grants.keys():
        raise LedgerError("it is not posted to every grant")
    account.require_column(asked)
    for unit, posting in postings.items():
        _covered(account, asked, unit, posting)
    account.runs[asked.run] = Reservation(asked, postings, entry.number, entry.time)


def _covered(account: Account, asked: Request, unit: Unit, posting: Posting) -> None:
    """Raises `LedgerError` where a posting is not covered by its grant."""
    grant = account.grants[unit]
    if grant.adjacency != asked.adjacency:
        raise LedgerError("its adjacency is not the grant's")
    if account.runs and posting.order != account.order(unit):
        raise LedgerError("its order is not the one that was fixed")
    rule = build_rule(grant.rule, grant.epsilon, grant.delta, posting.order)
    amount = rule.take(posting.price, asked.count)
    if not posting.price >= 0 or not rule.fits(account.taken(unit, rule), amount):
        raise LedgerError("it takes more than was left")


def _journal(account: Account, entry: Entry, content: Content) -> None:
    run = _open_run(account, content)
    step = content["step"]
    if type(step) is not int or not run.journalled < step <= run.request.steps:
        raise LedgerError(f"its step {step!r} does not follow {run.journalled}")
    if type(content["entered"]) is not str:
        raise LedgerError("what entered its step is no text")
    run.journalled = step
    run.entered[step] = content["entered"]


def _settle(account: Account, entry: Entry, content: Content) -> None:
    run = _open_run(account, content)
    if content["end"] not in ("settled", "abandoned"):
        raise LedgerError(f"its end {content['end']!r} is not known")
    run.end = content["end"]


def _note(account: Account, entry: Entry, content: Content) -> None:
    if type(content["text"]) is not str:
        raise LedgerError("its text is none")


def _rows(account: Account, entry: Entry, content: Content) -> None:
    if "fingerprint" in content:  # up to format 2: of encoded rows, which nothing computes any more
        if type(content["fingerprint"]) is not str:
            raise LedgerError("its fingerprint is no text")
        return
    if type(content["sketch"]) is not str:
        raise LedgerError("its sketch is no text")
    account.rows.add(content["sketch"])


def _open_run(account: Account, content: Content) -> Reservation:
    run = account.run(content["run"])
    if run.end is not None:
        raise LedgerError(f"its run was {run.end} before")
    return run


_APPLY: Mapping[str, Callable[[Account, Entry, Content], None]] = {
    "grant": _grant,
    "reserve": _reserve,
    "journal": _journal,
    "settle": _settle,
    "note": _note,
    "rows": _rows,
}


def underpriced(account: Account) -> list[str]:
    """The reservations that record less than their event costs today, in words."""
    return [
        f"row {run.number} records price={posting.price:.6g} for run {name!r} "
        f"(unit={unit}), but its event costs {now:.6g}"
        for name, run in account.runs.items()
        for unit, posting in run.postings.items()
        if posting.price
        < (now := _price_now(account.grants[unit], run, posting))
        * (1 - _PRICE_SLACK[account.grants[unit].rule])
    ]


def _price_now(grant: Grant, run: Reservation, posting: Posting) -> float:
    event = posted_event(run.request, grant.unit)
    rule = build_rule(grant.rule, grant.epsilon, grant.delta, posting.order)
    return float("inf") if event is None else rule.price(event, run.request.count)


def _words(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)

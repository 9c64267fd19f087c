"""The documented shape of what evidence.json says of the ledger; the rest is in `facts`."""

from __future__ import annotations

from collections.abc import Collection
from typing import NotRequired, TypedDict


class Granted(TypedDict):
    """What an account's owner allows in all."""

    epsilon: float
    delta: float


class Spent(TypedDict):
    """What has been charged to an account so far, by this run and others."""

    epsilon: float
    share: NotRequired[float]
    """Of the grant, 0 to 1: what its rule adds up."""


class Reserved(TypedDict):
    """What runs that are open hold beside what they have spent."""

    epsilon: float


class Left(TypedDict):
    """What the account's rule still allows."""

    epsilon: float
    """Of one more run like the last but for its noise, as `nacre ledger show` says under `fits`, at
    the grant's delta; 0 once a rule that prices one run has priced it. Under rules that add up
    shares it is more than the difference to the grant."""


class EntryFacts(TypedDict):
    """A line of the ledger; each carries the hash of all lines before it."""

    index: int
    time: str
    kind: str
    run: str | None
    summary: str
    hash: str
    journalled: NotRequired[int]
    """Of a run's journal: steps in all that may have been released."""


class AccountFacts(TypedDict):
    """One grant of an account this run was charged to."""

    account: str
    unit: str
    rule: str
    granted: Granted
    spent: Spent
    reserved: NotRequired[Reserved]
    left: Left
    entries: list[EntryFacts]
    """Of the whole account; of each run's journal the last line only."""


class LedgerFacts(TypedDict):
    """The ledger's extract at the end of the training."""

    accounts: list[AccountFacts]
    head: str
    """Hash of the ledger's last line."""
    verified: bool
    """Whether the chain of hashes was whole."""
    run: NotRequired[str]
    """The name of this run in the ledger."""


def journalled_steps(extract: LedgerFacts, of: Collection[str]) -> int | None:
    """Steps of the run itself that may have been released, of these accounts together; None where
    the extract does not name the run."""
    if "run" not in extract:
        return None
    entries = {
        entry["index"]: entry.get("journalled", 0)  # several grants of one account share entries
        for account in extract["accounts"]
        if account["account"] in of
        for entry in account["entries"]
        if entry["run"] == extract["run"]
    }
    return sum(entries.values())

"""What processes that share a ledger do; started by the tests, killed by some of them."""

from __future__ import annotations

import resource
from multiprocessing.connection import Connection
from pathlib import Path

import dp_accounting as dp

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.ledger import Ledger, Request

EVENT = dp.GaussianDpEvent(4.0)


def spend(place: Path | str, name: str, pipe: Connection) -> None:
    """Reserves one step after another until nothing is left, and says what it got."""
    with Ledger.open(place, create=True) as ledger:
        ledger.grant_if_new("shared", "example", 6.0, 1e-5, "zcdp")
        pipe.send("ready")
        pipe.recv()
        for number in range(20):
            try:
                charge = ledger.reserve(
                    "shared",
                    Request.of(
                        f"{name}-{number}",
                        EVENT,
                        steps=2,
                        unit="example",
                        adjacency="add_or_remove",
                    ),
                )
            except BudgetExceeded:
                break
            charge.journal(1 + number % 2)
            pipe.send(1 + number % 2)
            if number % 3 == 0:
                charge.settle()


def journal(place: Path | str, name: str, pipe: Connection) -> None:
    """Journals step after step of one run, and says each once it is told that it is on disk."""
    with Ledger.open(place) as ledger:
        charge = ledger.reserve(
            "shared",
            Request.of(name, EVENT, steps=100_000, unit="example", adjacency="add_or_remove"),
        )
        for step in range(charge.journalled + 1, 100_000):
            charge.journal(step)
            pipe.send(step)


def cramped(place: Path | str, limit: str, pipe: Connection) -> None:
    """Journals until no file may grow any more, and says why it stopped."""
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), free[1]))
    try:
        journal(place, "run", pipe)
    except LedgerError as error:
        pipe.send(str(error))
    finally:  # who measures coverage writes files of its own
        resource.setrlimit(resource.RLIMIT_FSIZE, free)

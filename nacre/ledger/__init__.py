"""The durable budget of private data: grants, reservations, journals, and their proof."""

from nacre.ledger.accounts import Grant
from nacre.ledger.chain import Head
from nacre.ledger.charge import Charge
from nacre.ledger.ledger import Ledger, grant_of, preview_new
from nacre.ledger.summary import AccountSummary, GrantSummary, RunSummary
from nacre.ledger.weigh import Preview, Take

__all__ = [
    "AccountSummary",
    "Charge",
    "Grant",
    "GrantSummary",
    "Head",
    "Ledger",
    "Preview",
    "RunSummary",
    "Take",
    "grant_of",
    "preview_new",
]

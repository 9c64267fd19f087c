"""The durable budget of private data: grants, reservations, journals, and their proof."""

from nacre.ledger.accounts import Grant, grant_of
from nacre.ledger.chain import Head
from nacre.ledger.charge import Charge
from nacre.ledger.heads import SignedHead, kept_head
from nacre.ledger.ledger import Ledger
from nacre.ledger.preview import Preview, Take, preview_new
from nacre.ledger.storage.store import is_url
from nacre.ledger.summary import AccountSummary, GrantSummary, RunSummary

__all__ = [
    "AccountSummary",
    "Charge",
    "Grant",
    "GrantSummary",
    "Head",
    "Ledger",
    "Preview",
    "RunSummary",
    "SignedHead",
    "Take",
    "grant_of",
    "is_url",
    "kept_head",
    "preview_new",
]

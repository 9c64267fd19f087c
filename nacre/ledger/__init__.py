"""The durable budget of private data: grants, reservations, journals, and their proof."""

from nacre.differential_privacy.request import PLANNED, Request
from nacre.ledger.accounts import Grant, grant_of
from nacre.ledger.chain import LedgerHead
from nacre.ledger.charge import Charge
from nacre.ledger.heads import SignedHead, kept_head
from nacre.ledger.ledger import Ledger
from nacre.ledger.preview import Quote, preview_new
from nacre.ledger.storage.open import is_url
from nacre.ledger.summary import AccountSummary, GrantSummary, RunSummary

__all__ = [
    "PLANNED",
    "AccountSummary",
    "Charge",
    "Grant",
    "GrantSummary",
    "Ledger",
    "LedgerHead",
    "Quote",
    "Request",
    "RunSummary",
    "SignedHead",
    "grant_of",
    "is_url",
    "kept_head",
    "preview_new",
]

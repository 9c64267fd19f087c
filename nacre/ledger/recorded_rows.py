"""Which rows an account stands for, so that no other name gives them a second budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nacre.data.cells import Cells
from nacre.data.sketch import sketched
from nacre.ledger.ledger import Ledger


def record_rows(ledger: Ledger, accounts: Iterable[str], cells: Sequence[Cells]) -> None:
    """Records against these accounts which rows they stand for.

    An entry of one size is added for each account and each run, whatever the rows are. Raises
    `LedgerError` as `Ledger.record_rows` does.
    """
    sketch = sketched(cells, ledger.sketch_key())
    for account in accounts:
        ledger.record_rows(account, sketch)

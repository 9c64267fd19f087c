"""Which rows an account stands for, so that no other name gives them a second budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nacre.core.errors import LedgerError
from nacre.data.sketches.cells import Cells
from nacre.data.sketches.sketch import sketched
from nacre.ledger.ledger import Ledger


def record_rows(ledger: Ledger, accounts: Iterable[str], cells: Sequence[Cells]) -> None:
    """Records against these accounts which rows they stand for.

    An entry of one size is added for each account and each run, whatever the rows are. Raises
    `LedgerError` as `Ledger.record_rows` does, and for rows of which a sketch holds nothing: they
    would be new under every name. No rows at all have nothing to protect.
    """
    sketch = sketched(cells, ledger.sketch_key())
    if cells and sketch.is_empty:
        raise LedgerError(
            "nothing tells these rows from those of other data, so they would have a second "
            "budget under another name: every column is empty, says the same of every row, "
            "holds days alone or counts the rows; give a column that tells rows apart, and check "
            "`dialect`"
        )
    for account in accounts:
        ledger.record_rows(account, sketch)

"""Which rows an account stands for, so that no other name gives them a second budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nacre.core.errors import LedgerError
from nacre.data.sketches.cells import Cells
from nacre.data.sketches.sketch import sketched
from nacre.ledger.ledger import Ledger


def record_rows(
    ledger: Ledger, cells: Mapping[str, Sequence[Cells]], split: str | None = None
) -> None:
    """Records against each account which rows it stands for: all of them, or none.

    `split` is the column that deals the rows to the parties of one data set, whose accounts these
    are. An entry of one size is added for each account and each run, whatever the rows are. Raises
    `LedgerError` as `Ledger.record_rows` does, and for rows of which a sketch holds nothing: they
    would be new under every name. No rows at all have nothing to protect.
    """
    key = ledger.sketch_key()
    sketches = {account: sketched(held, key, split) for account, held in cells.items()}
    if any(cells[account] and sketch.is_empty for account, sketch in sketches.items()):
        # A party whose rows are all alike stands for those of all parties.
        whole = sketched([one for held in cells.values() for one in held], key, split)
        if whole.is_empty:
            raise LedgerError(
                "nothing tells these rows from those of other data, so they would have a second "
                "budget under another name: every column is empty, says the same of every row, "
                "holds days alone or counts the rows; give a column that tells rows apart, and "
                "check `dialect`"
            )
        sketches = {name: whole if one.is_empty else one for name, one in sketches.items()}
    ledger.record_rows(sketches)

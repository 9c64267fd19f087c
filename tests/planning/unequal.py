"""A plan of a federation whose parties hold rows of different numbers; no table is read for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.planning.plan import Plan, plan
from tests.training.tiny import TABLE, recipe


def of_sizes(folder: Path, sizes: Sequence[int], **changes: object) -> Plan:
    """The plan of parties p0, p1, ... of these sizes, each with a batch of 20."""
    parties = {f"p{place}": size for place, size in enumerate(sizes)}
    return plan(
        recipe(
            folder,
            TABLE,
            data__drop=[],
            data__party="hospital",
            data__unit=None,
            data__size=sum(sizes),
            federated_learning={
                "parties": {"kind": "column", "column": "hospital", "sizes": parties},
                "rounds": 3,
                "local": {"steps": 1},
            },
            differential_privacy__unit="example",
            differential_privacy__rows_per_unit=None,
            differential_privacy__accountant="rdp",
            training={"batch": 20},
            **{"data__columns__patient": {"categories": ["p0"]}, **changes},
        )
    )

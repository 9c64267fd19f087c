"""A run whose parties are elsewhere, with all but the carrier as it is deployed."""

from __future__ import annotations

from pathlib import Path

from nacre.ledger import Ledger
from tests.across.houses import NAMES, Houses


def test_a_run_ends_with_a_model_and_each_ledger_charged(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    run = houses.lead(houses.channel())
    assert (run.path / "model.safetensors").exists()
    assert not (tmp_path / "server" / "server.db").exists()
    for name in NAMES:
        with Ledger.open(tmp_path / name / f"{name}.db") as ledger:
            assert ledger.accounts() == (f"wards/{name}",)
            spent = ledger.summary(f"wards/{name}").grants[0].epsilon_spent
            assert 3.5 < spent <= 5
    assert houses.told == []

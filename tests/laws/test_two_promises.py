"""One recipe, two promises: to whole parties by the server's noise, to rows within each by the
party's own. Each holds by itself, and what the run writes outside `local/` tells of neither.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.core.files import load_tensors
from nacre.federated_learning import OnDemand, Reply, RoundRequest
from nacre.ledger import Ledger
from nacre.planning.levels import ChargedLevel
from nacre.planning.plan import Plan, plan
from nacre.report.evidence import gather
from nacre.runs import loop
from nacre.runs.run import train
from nacre.runs.workers import parties
from tests.laws.conftest import Sums, moved, written
from tests.laws.test_neighbours import PARTIES, REMEMBERED, neighbour, ran, table
from tests.training.tiny import StopAfter, Stopped, changed, recipe

pytestmark = pytest.mark.slow

OUTER, INNER = 0.5, 1.0  # clip norms, which tell the sums of the two levels apart
BOTH: dict[str, Any] = changed(
    PARTIES,
    {
        "federated_learning.few_clients": True,
        "federated_learning.local": {"steps": 2},
        "federated_learning.stop": None,
        "gradient_clipping": {"kind": "flat", "norm": OUTER},
        "differential_privacy": {"unit": "client", "epsilon": 30, "delta": 0.1},
        "within_parties": {
            "differential_privacy": {"unit": "example", "epsilon": 8, "delta": 1.0e-3},
            "gradient_clipping": {"kind": "flat", "norm": INNER},
        },
        "ledger.grant": {"epsilon": 40, "delta": 0.1},
        "ledger.grant_within_parties": {"epsilon": 9, "delta": 1.0e-3},
    },
)
GROUP = {"unit": "group", "rows_per_unit": 12, "epsilon": 8, "delta": 1.0e-3}
DRAWN = {"federated_learning.cohort": {"kind": "poisson", "expected": 1.2}}
"""Who takes part in a round is then a secret, which the price of whole parties counts on."""


def _both(folder: Path, changes: dict[str, Any]) -> Plan:
    return plan(recipe(folder, changed(BOTH, changes)))


def _of(sums: Sums, norm: float) -> Sums:
    return [total for total in sums if total.bound == pytest.approx(norm)]


@pytest.mark.parametrize("cohort", [{}, DRAWN], ids=["all", "drawn"])
@pytest.mark.parametrize("remembered", [{}, REMEMBERED], ids=["nothing", "between rounds"])
@pytest.mark.parametrize("unit", ["example", "group"])
def test_one_unit_moves_its_partys_sums_and_nothing_else(
    tmp_path: Path, cut: Sums, unit: str, remembered: dict[str, Any], cohort: dict[str, Any]
) -> None:
    """Of the sums over parties nothing: the changes are made of noised sums."""
    inner = {"within_parties.differential_privacy": GROUP} if unit == "group" else {}
    file = table(tmp_path)
    planned = _both(tmp_path, inner | remembered | cohort)
    first = ran(planned, tmp_path, "one")
    neighbour(file, unit, "add_or_remove")
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(_of(cut, INNER))) <= 1 + 1e-5
    assert len(_of(cut, OUTER)) == 6 and max(moved(_of(cut, OUTER))) == 0
    assert written(first) == written(other)


class _Silent(OnDemand):
    """The parties without the one that is taken away."""

    def exchange(self, request: RoundRequest, cohort: Sequence[str]) -> Mapping[str, Reply | bytes]:
        return super().exchange(request, [name for name in cohort if name != "north"])


@pytest.mark.parametrize("cohort", [{}, DRAWN], ids=["all", "drawn"])
def test_a_whole_party_moves_the_sum_over_parties_and_nothing_else(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch, cohort: dict[str, Any]
) -> None:
    """However much noise its change has: not even its account, or that of another, says whether it
    was there."""
    table(tmp_path)
    planned = _both(tmp_path, cohort)
    first = ran(planned, tmp_path, "one")
    asked = len(_of(cut, INNER))
    monkeypatch.setattr(parties, "OnDemand", _Silent)
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(_of(cut, OUTER))) <= 1 + 1e-5
    assert len(_of(cut, INNER)) < 2 * asked  # it took steps in the first run alone
    assert written(first) == written(other)


def _spent(folder: Path) -> dict[str, float]:
    with Ledger.open(folder / "privacy.db") as ledger:
        return {
            name: grant.epsilon_spent
            for name in ledger.accounts()
            for grant in ledger.summary(name).grants
        }


def test_each_account_is_charged_as_by_a_run_of_its_promise_alone(tmp_path: Path) -> None:
    """Neither price has a share in the other."""
    spent: dict[str, dict[str, float]] = {}
    alone = {
        "parties": {"within_parties": None, "ledger.grant_within_parties": None},
        "rows": {
            "gradient_clipping": BOTH["within_parties"]["gradient_clipping"],
            "differential_privacy": BOTH["within_parties"]["differential_privacy"],
            "within_parties": None,
            "ledger.grant": BOTH["ledger"]["grant_within_parties"],
            "ledger.grant_within_parties": None,
        },
        "both": {},
    }
    for name, changes in alone.items():
        (tmp_path / name).mkdir()
        table(tmp_path / name)
        train(_both(tmp_path / name, changes), tmp_path / name / "run")
        spent[name] = _spent(tmp_path / name)
    assert spent["both"] == spent["parties"] | spent["rows"]
    assert list(spent["both"]) == ["patients", "patients/north", "patients/south"]
    assert 28 < spent["both"]["patients"] <= 30 and 7.5 < spent["both"]["patients/north"] <= 9


def test_what_is_charged_does_not_say_who_was_drawn(tmp_path: Path) -> None:
    """A party pays for each round, whether or not it was asked, by entries in one order."""
    table(tmp_path)
    run = train(_both(tmp_path, DRAWN), tmp_path / "run")
    evidence = gather(run.path)
    assert evidence["ledger"] is not None
    accounts = evidence["ledger"]["accounts"]
    counts = {a["account"]: [e.get("journalled") for e in a["entries"]][-2] for a in accounts}
    assert counts == {"patients": 3, "patients/north": 6, "patients/south": 6}
    assert all("parties" not in line for line in (run.path / "released.jsonl").read_text())
    assert (evidence["released"]["noised"], evidence["released"]["inherited"]) == (3, 0)


def test_rows_of_two_accounts_are_charged_by_runs_of_both_promises_alone(tmp_path: Path) -> None:
    """A run of one promise would tell of the other's units, in whose account nothing stood."""
    table(tmp_path)
    more = {"ledger.grant": {"epsilon": 90, "delta": 0.1},
            "ledger.grant_within_parties": {"epsilon": 30, "delta": 1.0e-3}}  # fmt: skip
    train(_both(tmp_path, more), tmp_path / "one")
    train(_both(tmp_path, more), tmp_path / "two")
    alone = more | {"within_parties": None, "ledger.grant_within_parties": None}
    with pytest.raises(LedgerError, match="charged to account 'patients/north' already"):
        train(_both(tmp_path, alone), tmp_path / "three")
    rows = alone | {
        "gradient_clipping": BOTH["within_parties"]["gradient_clipping"],
        "differential_privacy": BOTH["within_parties"]["differential_privacy"],
        "ledger.grant": more["ledger.grant_within_parties"],
    }
    with pytest.raises(LedgerError, match="charged to account 'patients' already"):
        train(_both(tmp_path, rows), tmp_path / "three")
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("key", ["grant", "grant_within_parties"])
def test_both_grants_have_to_cover_the_run(tmp_path: Path, key: str) -> None:
    """Where one does not, nothing stands in the account of the other."""
    table(tmp_path)
    less = dict(BOTH["ledger"][key], epsilon=5)
    where = {"grant": "differential_privacy", "grant_within_parties": "within_parties"}[key]
    with pytest.raises(BudgetExceeded, match=rf"tiny.yaml:\d+ `{where}.*was granted"):
        _both(tmp_path, {f"ledger.{key}": less})


@pytest.mark.parametrize("steps", [1, 2])
def test_a_resumed_run_ends_in_the_same_bits_and_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    table(tmp_path)
    planned, real = _both(tmp_path, {"federated_learning.rounds": 3} | DRAWN), loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    for name in ("run", "copy"):
        train(plan(planned.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    one, two = (load_tensors(tmp_path / n / "model.safetensors")[0] for n in ("run", "copy"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    quoted = {
        level.account: level.quote.epsilon_after
        for level in planned.priced
        if isinstance(level, ChargedLevel)
    }
    assert _spent(tmp_path) == quoted and len(quoted) == 3
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        assert ledger.verify() == []

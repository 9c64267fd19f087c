"""Figures of an account, for people and for the report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.core.types import Adjacency, Unit
from nacre.differential_privacy.describe import describe_event
from nacre.differential_privacy.events_json import from_json
from nacre.ledger.accounts import Account, End, Grant, Reservation
from nacre.ledger.chain import START, Entry
from nacre.ledger.room import room
from nacre.ledger.rules import RuleName


@dataclass(frozen=True, kw_only=True)
class GrantSummary:
    """One grant. Shares are of its allowance: `spent + reserved + left` is 1.

    `epsilon_spent` and `epsilon_taken` translate shares at the grant's delta. Under rdp and zcdp
    epsilon is not proportional to the share: the first run costs more epsilon than a second, so the
    difference to the grant is less than what still fits. `epsilon_fits` says that.
    """

    unit: Unit
    rule: RuleName
    adjacency: Adjacency
    epsilon: float
    delta: float
    order: float | None  # Rényi order; None until the first reservation, and under other rules
    spent: float  # steps that may have been released
    reserved: float  # the rest of open runs
    left: float
    epsilon_spent: float  # of what is spent
    epsilon_taken: float  # of what is spent and reserved together
    epsilon_fits: float | None  # of one more run like the last; None where that cannot be told


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One reservation."""

    run: str
    time: str
    unit: Unit
    event: str  # of a step, in words
    steps: int
    journalled: int
    end: End | None  # None while the run is open


@dataclass(frozen=True, kw_only=True)
class AccountSummary:
    """Grants and runs of one account, in the order in which they were made."""

    account: str
    grants: tuple[GrantSummary, ...]
    runs: tuple[RunSummary, ...]


def summary(account: Account) -> AccountSummary:
    """The figures of an account."""
    runs = tuple(run_summary(run) for run in account.runs.values())
    grants = tuple(_grant_summary(account, grant) for grant in account.grants.values())
    return AccountSummary(account=account.name, grants=grants, runs=runs)


def run_summary(run: Reservation) -> RunSummary:
    """How a run stands."""
    return RunSummary(
        run=run.request.run,
        time=run.time,
        unit=run.request.unit,
        event=describe_event(run.request.event),
        steps=run.request.steps,
        journalled=run.journalled,
        end=run.end,
    )


def _grant_summary(account: Account, grant: Grant) -> GrantSummary:
    rule = account.rule(grant.unit)
    spent = reserved = epsilon_spent = 0.0
    left, epsilon_taken = 1.0, 0.0
    if rule is not None:
        sure = account.taken(grant.unit, rule, sure=True)
        taken = account.taken(grant.unit, rule)
        spent = math.fsum(sure) / rule.allowance
        reserved = max(0.0, math.fsum(taken) / rule.allowance - spent)
        left = rule.left(taken) / rule.allowance
        epsilon_spent = rule.epsilon(sure)
        epsilon_taken = rule.epsilon(taken)
    return GrantSummary(
        unit=grant.unit,
        rule=grant.rule,
        adjacency=grant.adjacency,
        epsilon=grant.epsilon,
        delta=grant.delta,
        order=account.order(grant.unit),
        spent=spent,
        reserved=reserved,
        left=left,
        epsilon_spent=epsilon_spent,
        epsilon_taken=epsilon_taken,
        epsilon_fits=room(account, grant.unit),
    )


def extract(
    accounts: Sequence[Account],
    entries: Sequence[Entry],  # of the whole ledger
    *,
    verified: bool,
) -> dict[str, Any]:
    """The ledger's part of a report: one item for each grant, with the entries of its account.

    Of a run's journal only the last entry is listed: it says what the ones before it said.
    """
    rows: dict[str, list[dict[str, Any]]] = {account.name: [] for account in accounts}
    for entry in _last_journals(entries):
        if entry.account in rows:
            rows[entry.account].append(_row(entry))
    items = [
        _item(account.name, grant, rows[account.name])
        for account in accounts
        for grant in summary(account).grants
    ]
    head = entries[-1].hash if entries else START.hash
    return {"accounts": items, "head": head, "verified": verified}


def _item(account: str, grant: GrantSummary, rows: list[dict[str, Any]]) -> dict[str, Any]:
    # What fits is never less than the difference, and that is said where it cannot be told.
    rest = max(0.0, grant.epsilon - grant.epsilon_taken) if grant.left else 0.0
    fits = rest if grant.epsilon_fits is None else grant.epsilon_fits
    return {
        "account": account,
        "unit": grant.unit,
        "rule": grant.rule,
        "adjacency": grant.adjacency,
        "order": grant.order,
        "granted": {"epsilon": grant.epsilon, "delta": grant.delta},
        "spent": {"epsilon": grant.epsilon_spent, "share": grant.spent},
        "reserved": {
            "epsilon": max(0.0, grant.epsilon_taken - grant.epsilon_spent),
            "share": grant.reserved,
        },
        "left": {"epsilon": fits, "share": grant.left},
        "entries": rows,
    }


def _last_journals(entries: Iterable[Entry]) -> list[Entry]:
    """The entries, without those of a journal that a later one repeats."""
    kept: dict[object, Entry] = {}
    for entry in entries:
        run = json.loads(entry.content).get("run")
        key = (entry.account, run) if entry.kind == "journal" else entry.number
        kept.pop(key, None)
        kept[key] = entry
    return list(kept.values())


def _row(entry: Entry) -> dict[str, Any]:
    content = json.loads(entry.content)
    return {
        "index": entry.number,
        "time": entry.time[:10],  # the day: hours would tell how long private work took
        "kind": entry.kind,
        "run": content.get("run"),
        "summary": _words(entry.kind, content),
        "hash": entry.hash,
        **({"journalled": content["step"]} if entry.kind == "journal" else {}),
    }


def _words(kind: str, content: dict[str, Any]) -> str:
    match kind:
        case "grant":
            return f"{Grant(**content)} granted"
        case "reserve":
            step = describe_event(from_json(content["step"]))
            span = content.get("span", 1)
            each = "each is" if span == 1 else f"every {span} of them together are"
            return f"{content['steps']} steps reserved, unit={content['unit']}; {each} {step}"
        case "journal":
            return f"{content['step']} steps journalled"
        case "settle":
            return str(content["end"])
        case "rows":
            return "rows recorded by an encrypted sketch"
        case _:
            return str(content["text"])

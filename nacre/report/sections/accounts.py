"""The section on the ledger: what was charged, and the hashes that tie it down."""

from __future__ import annotations

from nacre.report.facts import Evidence
from nacre.report.ledger_facts import AccountFacts
from nacre.report.sections import charts
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    Figure,
    Figures,
    Fold,
    Section,
    TableBlock,
    TextBlock,
)
from nacre.report.sections.drawing import Caption
from nacre.report.sections.numbers import epsilon_text, left, listed, moment, short

_SHOWN = 6  # bars that fit; those of more accounts are folded


def ledger(evidence: Evidence) -> Section:
    """A bar for each account; its lines and their hashes are folded."""
    found = evidence["ledger"]
    if found is None or not found["accounts"]:
        text = "This run was charged to no ledger, so nothing adds it up with other runs."
        return Section("ledger", "Ledger", [TextBlock(text)])
    state = "whole" if found["verified"] else "NOT whole"
    # Several grants of one account share its lines.
    accounts = {account["account"]: account for account in found["accounts"]}
    blocks: list[AnyBlock] = [
        TextBlock(
            "Each line of the ledger carries a hash of all lines before it. When training ended "
            f"the chain was {state}."
        ),
        *_bars(found["accounts"]),
        Fold(
            f"The lines of the ledger and their hashes ({len(accounts)} accounts)"
            if len(accounts) > 1
            else "The lines of the ledger and their hashes",
            [
                TextBlock(
                    f"The last hash was {found['head']}; keep it elsewhere, to find a ledger that "
                    "was cut. Of a run's journal only the last line is shown.",
                    aside=True,
                ),
                *(_entries(account) for account in accounts.values()),
            ],
        ),
    ]
    return Section("ledger", "Ledger", blocks)


def _bars(accounts: list[AccountFacts]) -> list[AnyBlock]:
    """The budgets; those of many accounts in a fold, after the one that stands worst."""
    if len(accounts) <= _SHOWN:
        return [Figures([_budgets("budgets", "Budgets", accounts)])]
    worst = min(accounts, key=lambda each: each["granted"]["epsilon"] - each["spent"]["epsilon"])
    title = f"The one of {len(accounts)} accounts that has least left"
    every = Figures([_budgets("budgets-all", "Budgets", accounts)])
    return [
        Figures([_budgets("budgets", title, [worst])]),
        Fold(f"All {len(accounts)} accounts", [every]),
    ]


def _budgets(name: str, title: str, accounts: list[AccountFacts]) -> Figure:
    names = [account["account"] for account in accounts]  # one may have grants for several units
    entries = [
        charts.BudgetBar(
            label=account["account"]
            + (f", {account['unit']}" if names.count(account["account"]) > 1 else ""),
            figure=_balance(account),
            granted=account["granted"]["epsilon"],
            spent=account["spent"]["epsilon"],
            reserved=_reserved(account),
        )
        for account in accounts
    ]
    said = "; ".join(f"{entry.label}: {entry.figure}" for entry in entries)
    words = Caption(name=name, title=title, description=said)
    rules = listed(sorted({account["rule"].upper() for account in accounts}))
    caption = (
        f"Epsilon spent of what was granted, added up by {rules}. What fits is the epsilon of one "
        "more run like the last but for its noise; what open runs hold is paler."
    )
    return Figure(charts.budget(words, entries), title, caption)


def _reserved(account: AccountFacts) -> float:
    """The epsilon that open runs hold. Under pld the first run leaves nothing to others, which is
    no reservation; an extract of before reservations were stated names none."""
    held = account.get("reserved", {}).get("epsilon", 0.0)
    return 0.0 if account["rule"] == "pld" else held


def _balance(account: AccountFacts) -> str:
    spent, granted = account["spent"]["epsilon"], account["granted"]["epsilon"]
    more = account["left"]["epsilon"]
    fits = f"a run of up to {left(more)} fits" if more >= 0.01 else "no further run fits"
    return f"{epsilon_text(spent)} of {epsilon_text(granted)}, {fits}"


def _entries(account: AccountFacts) -> TableBlock:
    rows = [
        [
            Cell(str(entry["index"])),
            Cell(moment(entry["time"])),
            Cell(entry["kind"]),
            Cell(entry["summary"], detail=f"run {entry['run']}" if entry["run"] else ""),
            Cell(short(entry["hash"]), title=entry["hash"]),
        ]
        for entry in account["entries"]
    ]
    head = ["line", "time", "kind", "what", "hash"]
    return TableBlock(f"Account {account['account']}", head, rows, stacked=True)

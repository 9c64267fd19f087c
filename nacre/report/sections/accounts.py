"""The section on the ledger: what was charged, and the hashes that tie it down."""

from __future__ import annotations

from dataclasses import replace

from nacre.planning.words import first_of
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

_SHOWN = 6  # bars that fit; more of them are folded
_ALIKE = 3  # bars alike that are drawn one by one


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
    """The budgets, those that stand alike in one bar; many bars in a fold, after the account that
    has least left."""
    bars = _budget_bars(accounts)
    rules = listed(sorted({account["rule"].upper() for account in accounts}))
    if len(bars) <= _SHOWN:
        return [Figures([_budgets("budgets", "Budgets", bars, rules)])]
    worst = min(accounts, key=_has_left)
    title = f"The one of {len(accounts)} accounts that has least left"
    every = Figures([_budgets("budgets-all", "Budgets", bars, rules)])
    return [
        Figures([_budgets("budgets", title, _budget_bars([worst]), worst["rule"].upper())]),
        Fold(f"All {len(accounts)} accounts", [every]),
    ]


def _has_left(account: AccountFacts) -> tuple[float, float]:
    """Less of it is less left: what fits counts, and where nothing does, the unspent epsilon."""
    return account["left"]["epsilon"], account["granted"]["epsilon"] - account["spent"]["epsilon"]


def _budget_bars(accounts: list[AccountFacts]) -> list[charts.BudgetBar]:
    """A bar for each account, or one for several of which the same is drawn and said."""
    names = [account["account"] for account in accounts]  # one may have grants for several units
    alike: dict[charts.BudgetBar, list[str]] = {}
    for account in accounts:
        name = account["account"]
        also = f", {account['unit']}" if names.count(name) > 1 else ""
        bar = charts.BudgetBar(
            label="",
            figure=_balance(account),
            granted=account["granted"]["epsilon"],
            spent=round(account["spent"]["epsilon"], 2),
            reserved=round(_reserved(account), 2),
        )
        alike.setdefault(bar, []).append(name + also)
    return [
        replace(bar, label=label)
        for bar, those in alike.items()
        for label in (those if len(those) <= _ALIKE else [first_of(those)])
    ]


def _budgets(name: str, title: str, bars: list[charts.BudgetBar], rules: str) -> Figure:
    said = "; ".join(f"{bar.label}: {bar.figure}" for bar in bars)
    words = Caption(name=name, title=title, description=said)
    caption = (
        f"Epsilon spent of what was granted, added up by {rules}. What fits is the epsilon of one "
        "more run like the last but for its noise; what open runs hold is paler."
    )
    return Figure(charts.budget(words, bars), title, caption)


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

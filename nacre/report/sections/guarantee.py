"""Sections on what was promised: protection, privacy, the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nacre.report.facts import Evidence, PartyFacts
from nacre.report.ledger_facts import AccountFacts
from nacre.report.sections import charts
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    Figure,
    Figures,
    Listing,
    Section,
    TableBlock,
    Terms,
    TextBlock,
)
from nacre.report.sections.headline import UNIT, odds, worst
from nacre.report.sections.numbers import (
    delta,
    epsilon_text,
    left,
    listed,
    moment,
    number_text,
    percent,
    short,
)

Technique = Literal[
    "gradient_clipping",
    "fine_tuning",
    "federated_learning",
    "differential_privacy",
    "adversarial_training",
]
_PAPER = 50  # heights that an eye can tell apart in a chart
_TECHNIQUES: dict[Technique, tuple[str, str]] = {
    "gradient_clipping": ("Gradient clipping", "Gradients were used as they came."),
    "fine_tuning": ("Fine-tuning", "The model started from random weights."),
    "federated_learning": ("Federated learning", "All rows lay in one place."),
    "differential_privacy": (
        "Differential privacy",
        "Nothing bounds what the model gives away.",
    ),
    "adversarial_training": ("Adversarial training", "The model saw clean inputs only."),
}
"""Technique -> (its name, what it means that it is off)."""


def protection(evidence: Evidence) -> Section:
    """The five techniques, on or off, each with its sentence."""
    said = evidence["plan"]["techniques"]
    items: list[tuple[str, bool, str]] = []
    for name, (label, off) in _TECHNIQUES.items():
        sentence = said[name]
        items.append((label, sentence is not None, sentence if sentence is not None else off))
    return Section("protection", "What was protected, and how", [Terms(items)])


def privacy(evidence: Evidence) -> Section:
    """Epsilon by party and by step, and everything it rests on."""
    parties, party = evidence["plan"]["parties"], worst(evidence)
    blocks: list[AnyBlock] = []
    if party is None:
        blocks.append(
            TextBlock("This run has no differential privacy, so there is no epsilon to state.")
        )
    else:
        blocks += [TextBlock(odds(party)), _parties(evidence)]
        blocks += _growth(parties)
    lead = "Assumed:" if party is None else "This holds as long as:"
    blocks += [TextBlock(lead), Listing(evidence["plan"]["assumptions"])]
    return Section("privacy", "Privacy", blocks)


_ROWS: dict[str, Callable[[PartyFacts], str]] = {
    "epsilon": lambda p: epsilon_text(p["epsilon"]),
    "delta": lambda p: delta(p["delta"]),
    "accountant": lambda p: str(p["accountant"]).upper(),
    "protects": lambda p: UNIT[p["unit"]],
    "neighbours by": lambda p: p["adjacency"].replace("_", " "),
    "declared units": lambda p: f"{p['size']:,}",
    "sampling": lambda p: p["sampling"]["kind"].replace("_", " "),
    "takes turns": lambda p: _turns(p),
    "sampling rate": lambda p: number_text(p["sampling"]["rate"]),
    "steps": lambda p: f"{p['steps']:,}",
    "clip": lambda p: _clip(p),
    "noise": lambda p: _noise(p),
    "noise multiplier": lambda p: _multiplier(p),
    "epsilon at other deltas": lambda p: _curve(p),
    "as Gaussian privacy": lambda p: _form("mu", p.get("mu")),
    "as zero-concentrated privacy": lambda p: _form("rho", p.get("rho")),
    "all runs of the account": lambda p: _account(p),
    "takes of its grant": lambda p: percent(p["takes"]["share"]) if p["takes"] else "no grant",
}


def _curve(party: PartyFacts) -> str:
    points = party.get("epsilon_by_delta", [])
    said = [f"{epsilon_text(found)} at {delta(at)}" for at, found in points]
    return ", ".join(said) or "not computed"


def _form(name: str, value: float | None) -> str:
    return "it has none" if value is None else f"{name} {number_text(value)}"


def _account(party: PartyFacts) -> str:
    """Epsilon of this and all earlier runs together, as the ledger's rule adds them up."""
    takes = party["takes"]
    after = takes.get("epsilon_after") if takes is not None else None
    return "not charged" if after is None else f"epsilon {epsilon_text(after)}"


def _clip(party: PartyFacts) -> str:
    clip = party["clip"]
    kind, norm = clip["kind"].replace("_", " "), clip["norm"]
    if norm is None:
        return kind
    return f"{kind}, {number_text(norm)}" + (" at first" if clip.get("moves", False) else "")


def _turns(party: PartyFacts) -> str:
    """How far apart the steps of one unit lie at least."""
    epoch = party["sampling"].get("epoch")
    if epoch is not None:
        return f"once in each {epoch} steps at most"
    cycle = party["sampling"].get("cycle", 1)
    return "no" if cycle == 1 else f"every {cycle} steps at most"


def _noise(party: PartyFacts) -> str:
    """What hides a unit, as `banded, 8 bands`."""
    noise = party["noise"]
    if "bands" in noise:
        return f"{noise['kind']}, {noise['bands']} bands"
    return noise["kind"] + (f", {noise['buffers']} buffers" if "buffers" in noise else "")


def _multiplier(party: PartyFacts) -> str:
    multiplier = party["noise"]["multiplier"]
    return "none" if multiplier is None else number_text(multiplier)


def _settled(evidence: Evidence) -> dict[str, Callable[[PartyFacts], str]]:
    """What the ledger says of a run that ended early, where the plan spoke of the whole one."""
    found, outcome = evidence["ledger"], evidence["outcome"]
    if found is None or outcome.get("released", outcome["done"]) >= outcome["planned"]:
        return {}
    accounts = {(each["account"], each["unit"]): each for each in found["accounts"]}

    def stands(party: PartyFacts) -> str:
        account = accounts.get((party["account"] or "", party["unit"]))
        return "not charged" if account is None else epsilon_text(account["spent"]["epsilon"])

    def takes(party: PartyFacts) -> str:
        account, planned = accounts.get((party["account"] or "", party["unit"])), party["takes"]
        if account is None or planned is None:
            return "no grant"
        share = account["spent"].get("share")
        kept = "" if share is None else f"; {percent(share)} is spent by all runs of the account"
        return f"{percent(planned['share'])} was reserved{kept}"

    return {
        "all runs of the account": lambda p: f"epsilon {stands(p)}",
        "takes of its grant": takes,
    }


def _parties(evidence: Evidence) -> TableBlock:
    """A column for each party; what all have in common is said once."""
    parties = evidence["plan"]["parties"]
    rows: list[list[Cell]] = []
    for name, said in (_ROWS | _settled(evidence)).items():
        values = [said(party) for party in parties]
        alike = len(set(values)) == 1
        cells = [Cell(values[0], span=len(values))] if alike else [Cell(value) for value in values]
        rows.append([Cell(name), *cells])
    return TableBlock("The mechanism and its price", ["", *(p["name"] for p in parties)], rows)


def _growth(parties: list[PartyFacts]) -> list[AnyBlock]:
    """Epsilon by step, curves that coincide on paper drawn once; nothing without points."""
    found = {p["name"]: p["epsilon_by_step"] for p in parties if p["epsilon_by_step"]}
    last = max((points[-1][1] for points in found.values()), default=0.0)
    if last <= 0:
        return []
    curves: dict[tuple[tuple[float, int], ...], list[str]] = {}
    for name, points in found.items():
        seen = tuple((step, round(_PAPER * bound / last)) for step, bound in points)
        curves.setdefault(seen, []).append(name)
    series = [
        charts.LineChart(
            label=listed(names),
            points=[(step, bound) for step, bound in found[names[0]]],
            tone=tone % 4,
        )
        for tone, names in enumerate(curves.values())
    ]
    svg = charts.lines(
        charts.Caption(
            name="growth",
            title="Epsilon by step",
            description=f"Epsilon rises with every step and ends at {epsilon_text(last)}.",
        ),
        series,
        x=("steps over rows", number_text),
        y=("epsilon", number_text),
        floor=0.0,
    )
    caption = "What would have been promised had the run ended earlier."
    return [Figures([Figure(svg, "Epsilon by step", caption)])]


def ledger(evidence: Evidence) -> Section:
    """What was charged, and the hashes that tie it down."""
    found = evidence["ledger"]
    if found is None or not found["accounts"]:
        text = "This run was charged to no ledger, so nothing adds it up with other runs."
        return Section("ledger", "Ledger", [TextBlock(text)])
    head = f"The last hash was {found['head']}; keep it elsewhere, to find a ledger that was cut."
    state = "whole" if found["verified"] else "NOT whole"
    # Several grants of one account share its lines.
    accounts = {account["account"]: account for account in found["accounts"]}
    blocks: list[AnyBlock] = [
        TextBlock(
            "Each line of the ledger carries a hash of all lines before it. When training ended "
            f"the chain was {state}. Of a run's journal only the last line is shown."
        ),
        Figures([_budgets(found["accounts"])]),
        *(_entries(account) for account in accounts.values()),
        TextBlock(head, aside=True),
    ]
    return Section("ledger", "Ledger", blocks)


def _budgets(accounts: list[AccountFacts]) -> Figure:
    entries = [
        charts.BudgetBar(
            label=f"{account['account']}, {account['unit']}",
            figure=_balance(account),
            granted=account["granted"]["epsilon"],
            spent=account["spent"]["epsilon"],
            reserved=_reserved(account),
        )
        for account in accounts
    ]
    said = "; ".join(f"{entry.label}: {entry.figure}" for entry in entries)
    words = charts.Caption(name="budgets", title="Budgets", description=said)
    rules = listed(sorted({account["rule"].upper() for account in accounts}))
    caption = (
        f"Epsilon spent of what each account was granted for a unit, added up by {rules}. What "
        "fits is the epsilon of one more run like the last but for its noise: runs add up by their "
        "share of the grant, and in epsilon the first costs more than those after it. What runs "
        "that are open hold is paler."
    )
    return Figure(charts.budget(words, entries), "Budgets", caption)


def _reserved(account: AccountFacts) -> float:
    """The epsilon that open runs hold. Under pld the first run leaves nothing to others, which is
    no reservation; an extract of before reservations were stated names none."""
    held = account.get("reserved", {}).get("epsilon", 0.0)
    return 0.0 if account["rule"] == "pld" else held


def _balance(account: AccountFacts) -> str:
    spent, granted = account["spent"]["epsilon"], account["granted"]["epsilon"]
    more = account["left"]["epsilon"]
    fits = f"one more run of up to {left(more)} fits" if more >= 0.01 else "no further run fits"
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

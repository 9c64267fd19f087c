"""The mechanism in six rows: what all parties share is said once, what differs as a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nacre.planning.words import spread
from nacre.report.facts import Evidence, PartyFacts
from nacre.report.ledger_facts import AccountFacts
from nacre.report.sections.blocks import AnyBlock, Cell, FactList, Fold, TableBlock
from nacre.report.sections.numbers import (
    delta,
    epsilon_text,
    listed,
    number_text,
    percent,
)
from nacre.report.sections.words import holders, unit_words, units_declared


def _alike(words: Sequence[str]) -> str:
    """What the parties say, each thing once."""
    return "; ".join(dict.fromkeys(words))


def mechanism(evidence: Evidence, parties: list[PartyFacts]) -> list[AnyBlock]:
    """Six rows of facts of these parties, of one unit, and each one's own numbers in a fold; one
    more, whom the promise holds against, where the run makes two."""
    who = _alike([unit_words(evidence, p) for p in parties])
    by = _alike([p["adjacency"].replace("_", " ") for p in parties])
    epsilons = spread([p["epsilon"] or 0.0 for p in parties], epsilon_text)
    deltas = spread([p["delta"] or 0.0 for p in parties], delta)
    accountants = _alike([str(p["accountant"]).upper() for p in parties])
    declared = spread([p["size"] for p in parties], lambda size: f"{size:,.0f}")
    units = _alike([units_declared(evidence, p) for p in parties])
    each = " each" if len(parties) > 1 else ""
    rows = [
        ("promise", f"ε {epsilons} at δ {deltas}, by {accountants}"),
        ("protects", f"{who}, neighbours by {by}; {declared} {units} declared{each}"),
        ("draws", f"{_alike([_draw(p) for p in parties])}{_rates(parties)}, {_steps(parties)}"),
        ("clips", _alike([_clip(p) for p in parties])),
        ("noise", f"{_alike([_noise(p) for p in parties])}; multiplier {_multipliers(parties)}"),
        ("account", _account(evidence, parties)),
    ]
    if against := _alike([said for p in parties if (said := p.get("against"))]):
        rows.insert(1, ("against", against))
    shared = f", {holders(parties)}" if len(parties) > 1 else ""
    return [FactList(f"The mechanism and its price{shared}", rows), _by_party(parties)]


def _rates(parties: Sequence[PartyFacts]) -> str:
    """The probability of a unit to enter a step, where it is no certainty."""
    rates = [p["sampling"]["rate"] for p in parties]
    return "" if min(rates) == 1 else f" with probability {spread(rates, number_text)}"


def _steps(parties: Sequence[PartyFacts]) -> str:
    return spread([p["steps"] for p in parties], lambda steps: f"{steps:,.0f}") + " steps"


def _draw(party: PartyFacts) -> str:
    """How units enter a step; turns are said where they are taken."""
    sampling = party["sampling"]
    kind = sampling["kind"].replace("_", " ")
    if "epoch" in sampling:
        return f"{kind}: a unit enters once in each {sampling['epoch']} steps at most"
    if (cycle := sampling.get("cycle", 1)) > 1:
        return f"{kind}: a unit enters once in every {cycle} steps at most"
    return f"{kind}: each unit" if sampling["rate"] < 1 else kind


def _clip(party: PartyFacts) -> str:
    clip = party["clip"]
    kind, norm = clip["kind"].replace("_", " "), clip["norm"]
    if norm is None:
        return kind
    first = " at first" if clip.get("moves", False) else ""
    return f"{kind}, {number_text(norm)}{first}: no unit moves a sum by more"


def _noise(party: PartyFacts) -> str:
    """What hides a unit, as `banded, 8 bands`."""
    noise = party["noise"]
    if "bands" in noise:
        return f"{noise['kind']}, {noise['bands']} bands"
    return noise["kind"] + (f", {noise['buffers']} buffers" if "buffers" in noise else "")


def _multipliers(parties: Sequence[PartyFacts]) -> str:
    found = [m for p in parties if (m := p["noise"]["multiplier"]) is not None]
    return spread(found, number_text) if found else "none"


def _account(evidence: Evidence, parties: Sequence[PartyFacts]) -> str:
    """What the parties took of their grants: as planned, or, where the run ended early, as the
    ledger says."""
    charged = [(p, takes) for p in parties if (takes := p["takes"]) is not None]
    if not charged:
        return "no grant: no ledger adds this run up with others"
    shares = spread([takes["share"] for _, takes in charged], percent)
    stopped = _stopped_early(evidence, [p for p, _ in charged])
    if stopped:
        spent = [account["spent"] for account in stopped]
        kept = [share for each in spent if (share := each.get("share")) is not None]
        of_it = f", {spread(kept, percent)} of the grant" if kept else ""
        stands = spread([each["epsilon"] for each in spent], epsilon_text)
        return f"{shares} of its grant was reserved; all runs so far stand at ε {stands}{of_it}"
    after = [e for _, takes in charged if (e := takes.get("epsilon_after")) is not None]
    others = f"; all runs so far stand at ε {spread(after, epsilon_text)}" if after else ""
    return f"takes {shares} of its grant{others}"


def _stopped_early(evidence: Evidence, parties: Sequence[PartyFacts]) -> list[AccountFacts]:
    """The accounts of a run that ended before its plan; none of a whole one, whose plan holds."""
    found, outcome = evidence["ledger"], evidence["outcome"]
    if found is None or outcome.get("released", outcome["done"]) >= outcome["planned"]:
        return []
    asked = {(party["account"], party["unit"]) for party in parties}
    return [each for each in found["accounts"] if (each["account"], each["unit"]) in asked]


_Column = tuple[str, Callable[[PartyFacts], str]]
_COLUMNS: tuple[_Column, ...] = (
    ("ε", lambda p: epsilon_text(p["epsilon"])),
    ("units", lambda p: f"{p['size']:,}"),
    ("rate", lambda p: number_text(p["sampling"]["rate"])),
    ("multiplier", lambda p: _multipliers([p])),
    ("of its grant", lambda p: percent(p["takes"]["share"]) if p["takes"] else "none"),
)
_FORMS: tuple[_Column, ...] = (
    ("μ (Gaussian privacy)", lambda p: _form(p.get("mu"))),
    ("ρ (zero-concentrated)", lambda p: _form(p.get("rho"))),
)


def _form(value: float | None) -> str:
    return "" if value is None else number_text(value)


def _by_party(parties: Sequence[PartyFacts]) -> Fold:
    """Every party's numbers, those of parties alike in one row; a form that no party's mechanism
    has gets no column."""
    forms = [form for form in _FORMS if any(form[1](party) for party in parties)]
    others = sorted({at for p in parties for at, _ in p.get("epsilon_by_delta", [])}, reverse=True)
    deltas = [(f"ε at {delta(at)}", _at(at)) for at in others if at != parties[0]["delta"]]
    columns = [*_COLUMNS, *forms, *deltas]
    alike: dict[tuple[str, ...], list[str]] = {}
    for party in parties:
        alike.setdefault(tuple(said(party) for _, said in columns), []).append(party["name"])
    rows = [
        [
            Cell(listed(names) if len(alike) > 1 else holders([*parties]) or names[0]),
            *(Cell(word, number=True) for word in words),
        ]
        for words, names in alike.items()
    ]
    head = ["", *(name for name, _ in columns)]
    one = "Other forms of the same promise" if len(parties) == 1 else "Each party's numbers"
    return Fold(one, [TableBlock("Price and noise", head, rows, stacked=True)])


def _at(at: float) -> Callable[[PartyFacts], str]:
    """Epsilon of a party at one delta."""

    def said(party: PartyFacts) -> str:
        found = dict((point[0], point[1]) for point in party.get("epsilon_by_delta", []))
        return epsilon_text(found[at]) if at in found else ""

    return said

"""The first screen: warnings, the run in plain words, and its key figures."""

from __future__ import annotations

from typing import get_args

from nacre.figures.intervals import MeasuredFigure
from nacre.figures.names import KINDS, FigureKind
from nacre.figures.protected import counted_words
from nacre.planning.words import spread
from nacre.recipe.audits import AuditOption
from nacre.recipe.options import kinds
from nacre.report.facts import Evidence, FindingFacts, IntervalFacts, PartyFacts, Variant
from nacre.report.sections.blocks import Stat
from nacre.report.sections.numbers import (
    MISSING,
    count_in_words,
    delta,
    epsilon_text,
    listed,
    number_text,
    percent,
    signed_text,
    whole,
)
from nacre.report.sections.words import (
    holders,
    largest,
    moved_by,
    party_count,
    party_names,
    price_words,
    promised,
    recipe_audits,
    unit_words,
    units_declared,
)

_SHOWN = 5  # parties whose names fit into a sentence
HOLDERS_PAGE = "local/report.html"
"""Where the holder of the rows finds the figures on them, inside the run folder."""
STAYS_LOCAL = f"on private rows: in {HOLDERS_PAGE}, for their holder alone"
"""Why a figure is not shown, and where it is."""


FIGURES = "figures"
"""How the private ones of all figures are named under `on_private_rows`."""


def finding(evidence: Evidence, audit: str) -> FindingFacts | None:
    """The finding of an audit; the first where there are several."""
    return next((found for found in evidence["findings"] if found["audit"] == audit), None)


def accuracy(evidence: Evidence) -> IntervalFacts | None:
    """Accuracy of the protected model on public test rows."""
    model, evasion = variant(evidence, "protected"), finding(evidence, "evasion")
    if model is not None and model["accuracy"] is not None:
        return model["accuracy"]
    return evasion["details"].get("clean") if evasion is not None else None


def speaking(evidence: Evidence) -> tuple[FigureKind, MeasuredFigure | None] | None:
    """The figure that the plan puts first, and what it is on public test rows (None where it was
    not measured); None where that is accuracy or loss, which are told anyway."""
    name = evidence["plan"].get("figure")
    kind = next((kind for known, kind in KINDS.items() if known == name), None)
    if kind is None or name in ("accuracy", "loss"):
        return None
    model = variant(evidence, "protected")
    figures = model.get("figures") if model is not None else None
    return kind, figures["figures"].get(str(name)) if figures is not None else None


def loss(evidence: Evidence) -> IntervalFacts | None:
    """Mean loss of the protected model on public test rows, where no answer is right or wrong."""
    model = variant(evidence, "protected")
    return model.get("loss") if model is not None else None


def variant(evidence: Evidence, name: str) -> Variant | None:
    """One of the models compared; None where it was not."""
    found = evidence["comparison"]
    models = found["variants"] if found is not None else []
    return next((model for model in models if model["name"] == name), None)


def worst(evidence: Evidence) -> PartyFacts | None:
    """The party of the largest epsilon; None where nothing is promised. Of two promises, that to
    whole parties."""
    return next((largest(parties) for parties in promised(evidence)), None)


def interval(figure: IntervalFacts | FindingFacts) -> str:
    """The two ends as percentages."""
    return f"{percent(figure['low'])} to {percent(figure['high'])}"


def signed_interval(figure: IntervalFacts | FindingFacts) -> str:
    """The two ends as signed numbers."""
    return f"{signed_text(figure['low'])} to {signed_text(figure['high'])}"


def figure_words(entry: FindingFacts) -> tuple[str, str]:
    """A finding's figure and its interval, each as its unit is read."""
    if entry["unit"] == "share":
        return percent(entry["value"]), interval(entry)
    return signed_text(entry["value"]), signed_interval(entry)


def by_loss(evidence: Evidence) -> bool:
    """Whether models are measured by their loss, since no answer is simply right."""
    return evidence["plan"]["task"] in ("causal_lm", "regression")


def steps(evidence: Evidence) -> str:
    """What the outermost loop counts."""
    return "rounds" if evidence["plan"]["techniques"]["federated_learning"] else "steps"


def _unlike_the_plan(evidence: Evidence) -> str | None:
    """How the record of releases contradicts plan.json; None where it does not."""
    released, outcome = evidence["released"], evidence["outcome"]
    done = outcome.get("released", outcome["done"])
    if released["count"] != done:
        return f"The record holds {released['count']} releases of {done} {steps(evidence)}"
    first = next((part["first"] for part in released["ranges"] if not part["as_planned"]), None)
    return None if first is None else f"Release {first} is not what the plan promises"


def warnings(evidence: Evidence) -> list[str]:
    """What a reader must see before any figure."""
    found: list[str] = []
    if not evidence["plan"]["private"]:
        found.append(
            "Nothing is protected. This run has no differential privacy: the model may give away "
            "any row it was trained on, and no figure below bounds that."
        )
    elif evidence["released"]["unprotected"]:
        count = count_in_words(evidence["released"]["unprotected"], "of its releases")
        found.append(
            f"The epsilon does not hold. The plan promises it, but {count} left without protection."
        )
    elif (broken := _unlike_the_plan(evidence)) is not None:
        found.append(
            f"The epsilon does not hold. {broken}: `nacre report RUN --check` says what differs."
        )
    ledger = evidence["ledger"]
    if ledger is not None and not ledger["verified"]:
        found.append(
            "The ledger is damaged. Its chain of hashes did not verify, so what was spent may be "
            "more than it says."
        )
    found += [
        f"The claim of the {entry['audit']} audit is broken: {entry['claim']}."
        for entry in evidence["findings"]
        if entry["verdict"] == "broken"
    ]
    return found


def abstract(evidence: Evidence) -> str:
    """The run in plain words."""
    sentences = [_who(evidence), _promise(evidence), _skill(evidence), _attacked(evidence)]
    return " ".join(sentence for sentence in sentences if sentence)


def _who(evidence: Evidence) -> str:
    parties = evidence["plan"]["parties"]
    if not evidence["plan"]["techniques"]["federated_learning"]:
        units = units_declared(evidence, parties[0])
        rows = "the rows of " if parties[0]["unit"] == "group" else ""
        return f"One model was trained on {rows}{parties[0]['size']:,} declared {units}."
    count = count_in_words(party_count(parties), "parties").capitalize()
    each = party_names(parties)
    names = f" ({listed(each)})" if each and len(each) <= _SHOWN else ""
    return f"{count}{names} trained one model, each on its own rows."


def _promise(evidence: Evidence) -> str:
    sentences: list[str] = []
    for parties in promised(evidence):
        party, most = largest(parties), " at most" if len(parties) > 1 else ""
        sentences.append(
            f"What the model can give away about {unit_words(evidence, party)} is bounded: epsilon "
            f"is{most} {epsilon_text(party['epsilon'])} at delta {delta(party['delta'])}."
        )
    return " ".join(sentences) or "Nothing bounds what the model gives away about a row."


def _skill(evidence: Evidence) -> str:
    figure, comparison = accuracy(evidence), evidence["comparison"]
    if figure is None:
        return ""
    rows = f"{comparison['rows']:,} test rows" if comparison is not None else "test rows"
    twin = variant(evidence, "unprotected")
    beside = _beside(twin["accuracy"]) if twin is not None else ""
    answers = f"answers {percent(figure['value'])} of {rows} correctly{beside}"
    first = speaking(evidence)
    if first is None or first[1] is None or first[1]["value"] is None:
        return f"It {answers}."
    return f"Its {first[0].words} is {_in_words(first[0], first[1]['value'])}; it {answers}."


def _in_words(kind: FigureKind, value: float) -> str:
    return percent(value) if kind.share else number_text(value)


def _beside(figure: IntervalFacts | None) -> str:
    return f" (its unprotected twin: {percent(figure['value'])})" if figure is not None else ""


def _attacked(evidence: Evidence) -> str:
    evasion, membership = finding(evidence, "evasion"), finding(evidence, "membership")
    sentences: list[str] = []
    if evasion is not None:
        twin = variant(evidence, "unprotected")
        beside = _beside(twin["attacked_accuracy"]) if twin is not None else ""
        share = percent(evasion["value"])
        moved = moved_by(evidence, evasion) or "each input moved a little"
        doubt = ", which is not evidence" if evasion["verdict"] == "not evidence" else ""
        sentences.append(f"With {moved} by an attacker, {share} stay correct{doubt}{beside}.")
    if membership is not None:
        size = signed_text(membership["value"])
        sentences.append(
            f"An attack that guesses who was in the training data has an advantage of {size}: "
            f"{membership['verdict']}."
        )
    return " ".join(sentences)


def key_figures(evidence: Evidence) -> list[Stat]:
    """Privacy, the figure that the plan puts first, accuracy, the price of protection, accuracy
    under attack, membership advantage, exposure of canaries. Where held-out rows have a protected
    figure, it stands for an accuracy that this page cannot show, and else beside it.

    An attack that neither the recipe asked for nor `nacre audit` reported has no figure, and
    without an unprotected twin protection has no price.
    """
    found = {entry["audit"]: entry["headline"] for entry in evidence["findings"]}
    named = _asked(evidence)
    asked = {audit: label for audit, label in HEADLINES.items() if audit in named}
    known = {audit: label for audit, label in HEADLINES.items() if audit in asked | found}
    attacked = [_figure(evidence, audit, label) for audit, label in (known | found).items()]
    protected = _protected(evidence)
    known_here = accuracy(evidence) is not None or loss(evidence) is not None
    own = [] if protected and not known_here else _own(evidence)
    return [_epsilon(evidence), *own, *protected, *attacked, *_price(evidence)]


def _own(evidence: Evidence) -> list[Stat]:
    """How good the model is: the figure that the plan puts first, then accuracy or loss."""
    first = speaking(evidence)
    if first is None:
        return [_accuracy(evidence)]
    kind, figure = first
    label = kind.words[0].upper() + kind.words[1:]
    if figure is None:
        known = accuracy(evidence) is not None or loss(evidence) is not None
        return [_accuracy(evidence) if known else _absent(label, evidence)]
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return [Stat(label, "undefined", str(figure["why"]), False), _accuracy(evidence)]
    detail = str(figure["why"] or "")
    if low is not None and high is not None:
        comparison = evidence["comparison"]
        level = f"{whole(comparison['confidence'])} " if comparison is not None else ""
        detail = f"{level}interval {_in_words(kind, low)} to {_in_words(kind, high)}"
    private = private_measure(evidence, FIGURES)
    return [Stat(label, _in_words(kind, value), detail, private=private), _accuracy(evidence)]


def _protected(evidence: Evidence) -> list[Stat]:
    """The figure of held-out rows that epsilon covers; the reason where the noise hides it."""
    found = evidence.get("evaluation")
    if found is None:
        return []
    value, low, high = (found["accuracy"][name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return [Stat("Protected accuracy", "undefined", str(found["accuracy"]["why"]), False)]
    detail = (
        f"95% interval {percent(low)} to {percent(high)}, noise included; {counted_words(found)}; "
        "may be shown"
    )
    return [Stat("Protected accuracy", percent(value), detail)]


HEADLINES = {kind: option.headline for kind, option in kinds(get_args(AuditOption)).items()}
"""Audit -> what its figure is called, of every audit that a recipe can name, in their order."""


def _asked(evidence: Evidence) -> set[str]:
    """The audits that the recipe names; those that nearly every recipe asks for where it can no
    longer be read."""
    found = recipe_audits(evidence)
    return {"evasion", "membership"} if found is None else found


def epsilon_figure(evidence: Evidence) -> tuple[str, str]:
    """Epsilon as one figure or from the least to the greatest party, and what it has to be read
    with; `unbounded` where nothing is promised."""
    found = promised(evidence)
    if not found:
        return "unbounded", "no differential privacy: nothing is protected"
    figures = [_epsilons(evidence, parties) for parties in found]
    return " and ".join(f for f, _ in figures), "; and ".join(detail for _, detail in figures)


def _epsilons(evidence: Evidence, parties: list[PartyFacts]) -> tuple[str, str]:
    """The same of parties of one unit."""
    whose = "; ".join(dict.fromkeys(unit_words(evidence, party) for party in parties))
    by = ", ".join(dict.fromkeys(str(party["accountant"]).upper() for party in parties))
    deltas = spread([party["delta"] or 0.0 for party in parties], delta)
    each = f", {holders(parties)}" if len(parties) > 1 else ""
    figure = spread([party["epsilon"] or 0.0 for party in parties], epsilon_text)
    return figure, f"for {whose}{each}; at δ = {deltas}, by {by}"


def _epsilon(evidence: Evidence) -> Stat:
    figure, detail = epsilon_figure(evidence)
    return Stat("Privacy loss ε", figure, detail, worst(evidence) is not None)


def private_measure(evidence: Evidence, measure: str) -> bool:
    """Whether a measure of the models compared is from private rows."""
    found = evidence["comparison"]
    return found is not None and measure in found.get("on_private_rows", [])


def _accuracy(evidence: Evidence) -> Stat:
    figure, lost = accuracy(evidence), loss(evidence)
    evasion = finding(evidence, "evasion")
    beside = evidence["comparison"] or evasion
    if lost is not None and beside is not None:
        ends = f"{number_text(lost['low'])} to {number_text(lost['high'])}"
        lm = "; e^loss is the perplexity" if evidence["plan"]["task"] == "causal_lm" else ""
        detail = f"{whole(beside['confidence'])} interval {ends}{lm}"
        private = private_measure(evidence, "loss")
        return Stat("Mean loss", number_text(lost["value"]), detail, private=private)
    if figure is None:
        return _absent("Mean loss" if by_loss(evidence) else "Accuracy", evidence)
    level = f"{whole(beside['confidence'])} " if beside is not None else ""
    model = variant(evidence, "protected")
    compared = model is not None and model["accuracy"] is not None
    private = (
        private_measure(evidence, "accuracy")
        if compared
        else evasion is not None and not evasion["public"]
    )
    detail = f"{level}interval {interval(figure)}"
    return Stat("Accuracy", percent(figure["value"]), detail, private=private)


def _figure(evidence: Evidence, audit: str, label: str) -> Stat:
    """The key figure of an audit. A share that was only measured needs no verdict beside it."""
    entry = finding(evidence, audit)
    if entry is None:
        return _absent(label, evidence)
    value, ends = figure_words(entry)
    plain = entry["unit"] == "share" and entry["verdict"] == "measured"
    verdict = "" if plain else f"; {entry['verdict']}"
    detail = f"{whole(entry['confidence'])} interval {ends}{verdict}"
    return Stat(label, value, detail, private=not entry["public"])


def _absent(label: str, evidence: Evidence) -> Stat:
    """A figure that this page cannot show, and why."""
    if evidence["findings_are_local"]:
        return Stat(label, "withheld", STAYS_LOCAL, False)
    own = evidence["plan"]["estimates"].get("shared") is not None
    why = "each party has a model of its own" if own else "no audit measured it"
    return Stat(label, MISSING, why, False)


def _price(evidence: Evidence) -> list[Stat]:
    """What the training costs, against the unprotected twin; nothing without one."""
    model, twin = variant(evidence, "protected"), variant(evidence, "unprotected")
    if model is None or twin is None:
        return []
    lost, free = model.get("loss"), twin.get("loss")
    if lost is not None and free is not None:
        more = signed_text(lost["value"] - free["value"])
        return [Stat(price_words(evidence), more, "of mean loss, against the unprotected twin")]
    clean = _points(model["accuracy"], twin["accuracy"])
    if clean is None:
        return []
    attacked = _points(model["attacked_accuracy"], twin["attacked_accuracy"])
    under = f", {attacked} points under attack" if attacked is not None else ""
    detail = f"points on clean rows{under}, against the unprotected twin"
    return [Stat(price_words(evidence), clean, detail)]


def _points(one: IntervalFacts | None, other: IntervalFacts | None) -> str | None:
    """The difference of two shares in points, with its sign; None where one was not measured."""
    if one is None or other is None:
        return None
    points = round(100 * (one["value"] - other["value"]), 1) + 0.0
    return f"{points:+.1f}".replace("-", "−") if points else "0.0"

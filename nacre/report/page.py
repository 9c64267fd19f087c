"""Facts -> one HTML file: no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from nacre.audit.finding import Finding
from nacre.report.checking import checks, limits, provenance_section
from nacre.report.facts import FORMAT, Evidence
from nacre.report.sections.accounts import ledger
from nacre.report.sections.blocks import Section, Stat
from nacre.report.sections.card import card, status
from nacre.report.sections.compared import utility
from nacre.report.sections.guarantee import privacy, protection
from nacre.report.sections.headline import abstract, figure_words, key_figures, warnings
from nacre.report.sections.measured import attacks, examples_section, training
from nacre.report.sections.numbers import moment, whole
from nacre.report.sections.words import NOT_FOR_OTHERS

SECTIONS: tuple[Callable[[Evidence], Section | None], ...] = (
    card,
    protection,
    privacy,
    utility,
    attacks,
    examples_section,
    training,
    ledger,
    provenance_section,
    limits,
    checks,
)
"""The parts of the page in reading order; a part may have nothing to say."""


def render(evidence: Evidence, *, holder: bool = False, more: Sequence[Section] = ()) -> str:
    """The page of this evidence; the same evidence always gives the same page.

    `holder` says that it may hold figures on private rows, as sections in `more` do, which come
    before the last one: the page then says whom it is for.
    """
    found = [section for part in SECTIONS if (section := part(evidence)) is not None]
    sections = [*found[:-1], *more, found[-1]]
    footer = f"Written by Nacre from a run folder; recipe {evidence['plan']['recipe_digest']}."
    if not evidence["plan"]["private"]:
        footer += " Nothing in this run is protected."
    if holder:
        footer += " This page stays with the holder of the rows; report.html is the one to hand on."
    return _template("template.html").render(
        name=evidence["plan"]["name"],
        title="evidence of a training run",
        kicker=f"Evidence of a training run planned on {moment(evidence['plan']['created'])}",
        footer=footer,
        format=FORMAT,
        holder=holder,
        status=status(evidence, holder),
        mine=NOT_FOR_OTHERS,
        warnings=warnings(evidence),
        abstract=abstract(evidence),
        stats=key_figures(evidence),
        sections=sections,
    )


def render_party(name: str, party: str, section: Section) -> str:
    """The page of a party in its own house, of the run of this name: for that party alone."""
    status = f"For party {party} alone: figures on its private rows, without noise."
    return _template("parties/page.html").render(
        name=name, party=party, section=section, status=status
    )


def render_attack(found: Finding, name: str, shape: Sequence[int]) -> str:
    """The page of an attack on a model that has no run; `shape` is that of one input."""
    entry: Any = found.to_json()
    facts: Any = {"findings": [entry], "recipe": "", "model": {"shape": list(shape)}}
    parts = [part(facts) for part in (attacks, examples_section)]
    value, ends = figure_words(entry)
    detail = f"{whole(found.confidence)} interval {ends}; {found.verdict}"
    stat = Stat(found.headline, value, detail, private=not found.public)
    why = "; ".join(found.details.get("warnings") or ())
    doubt = [f"{found.headline} is no evidence of robustness: {why}."] if why else []
    return _template("template.html").render(
        name=name,
        title="attacks on a model",
        kicker="Attacks on a model from outside",
        footer="Written by Nacre. Nothing is known here of how the model was trained.",
        format=FORMAT,
        holder=not found.public,
        status="" if found.public else NOT_FOR_OTHERS,
        mine=NOT_FOR_OTHERS,
        warnings=doubt,
        abstract=f"{found.details['rows_tested']:,} rows were attacked: {found.measure}.",
        stats=[stat],
        sections=[part for part in parts if part is not None],
    )


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("nacre.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = prose
    return environment.get_template(name)


def prose(text: str) -> Markup:
    """Escaped text; what stands between backticks is set as code.

    >>> prose("`local/` < 1")
    Markup('<code>local/</code> &lt; 1')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

"""Facts -> one HTML file: no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from nacre.report.checking import checks, limits, provenance_section
from nacre.report.facts import FORMAT, Evidence
from nacre.report.sections.accounts import ledger
from nacre.report.sections.blocks import Section
from nacre.report.sections.card import card, status
from nacre.report.sections.compared import utility
from nacre.report.sections.guarantee import privacy, protection
from nacre.report.sections.headline import abstract, key_figures, warnings
from nacre.report.sections.measured import attacks, examples_section, training
from nacre.report.sections.numbers import moment
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
    return _template("template.html").render(
        name=evidence["plan"]["name"],
        created=moment(evidence["plan"]["created"]),
        digest=evidence["plan"]["recipe_digest"],
        format=FORMAT,
        private=evidence["plan"]["private"],
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

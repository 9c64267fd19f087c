"""Around the columns: why they are declared, and everything else that a recipe says."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from nacre.data.columns.dialect import Dialect
from nacre.recipe.document import FILL
from nacre.recipe.drafting.yaml_text import as_flow, as_name

EPSILON = 3
"""Of the drafted run, and of the grant."""


@dataclass(frozen=True, kw_only=True)
class RecipeParts:
    """What is known of the table."""

    path: str
    file: Path
    dialect: Dialect
    columns: list[str]
    dropped: list[str]
    dropped_by_guess: list[str]
    classes: tuple[str, ...] | None
    target: str | None
    unit: str | None
    party: str | None
    size: int | None
    public: Path | None
    number: str | None
    """A column that may be a number, for the example of a query."""
    category: str | None
    people: str | None
    """A column that may tell people apart."""

    @property
    def name(self) -> str:
        """Of the recipe and of the account, after the file."""
        return name_after(self.file, "table")

    @property
    def delta(self) -> str:
        """A tenth of one in all units, at most; to be filled in where their number is not known."""
        return delta_for(self.size)


def name_after(file: Path, instead: str) -> str:
    """A name for a recipe and an account, after a file; `instead` where its name has no letter.

    >>> name_after(Path("my notes.csv.gz"), "table"), name_after(Path("é.csv"), "table")
    ('my-notes', 'table')
    """
    stem = file.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-") or instead


def delta_for(size: int | None) -> str:
    """A tenth of one in all units, at most; to be filled in where their number is not known.

    >>> delta_for(480), delta_for(None)
    ('1.0e-4', 'FILL')
    """
    return FILL if size is None else f"1.0e-{len(str(size)) + 1}"


def recipe_text(parts: RecipeParts) -> str:
    """The whole recipe."""
    return "\n".join([_head(parts), _data(parts), _rest(parts)])


def _head(parts: RecipeParts) -> str:
    file = as_name(parts.path)
    lines = [
        f"# A private model of {file}, drafted by `nacre init table` from its header alone: no row",
        f"# was read. Where {FILL} stands something is missing; until then `nacre plan` refuses",
        "# this file and names the lines. Every key: `nacre explain`.",
        "#",
        "# Ranges, categories, classes and sizes are declared and public. Taken from private rows",
        "# they would tell of the people in them: a largest age is somebody's age, a rare value is",
        "# somebody's. Write what is true of all people, what a data dictionary says",
        "# (`--documented`), or what another file shows whose rows are public (`--public`).",
        "#",
        "# What nobody knows can be asked of the rows in private. The answers have noise, and each",
        "# costs its epsilon of the grant from which the training is paid:",
        *_asked(parts),
        "",
        "nacre: 1",
        f"name: {as_name(parts.name)}",
        "seed: 0",
        "",
    ]
    return "\n".join(lines)


def _asked(parts: RecipeParts) -> list[str]:
    """The commands, and a file of queries, that find ranges and categories at a price."""
    account = parts.name if parts.party is None else f"{parts.name}/PARTY"
    delta = "DELTA" if parts.delta == FILL else parts.delta
    group = whose = ""
    if parts.unit is not None:
        group = f" --unit group --column {_in_shell(parts.unit, 'COLUMN')}"
        whose = f", unit: {as_name(parts.unit)}, rows_per_unit: 1"
    column, other = as_name(parts.number or "NAME"), as_name(parts.category or "NAME")
    table = _in_shell(parts.path, "TABLE")
    return [
        f"#   nacre ledger grant privacy.db {account} --epsilon {EPSILON} --delta {delta}{group}",
        f"#   nacre release {table} ranges.yaml --ledger privacy.db --account {account}",
        "# with this in ranges.yaml, where low and high are ends that nobody can lie beyond:",
        "#   nacre: 1",
        "#   queries:",
        f"#     - {{kind: quantiles, name: range, column: {column}, low: 0, high: 1000000,",
        f"#        cells: 200, shares: [0.02, 0.98], epsilon: 0.1{whose}}}",
        f"#     - {{kind: histogram, name: values, column: {other}, categories: [a, b],",
        f"#        epsilon: 0.1{whose}}}   # one bar more for all other values",
        "# (`kind: keys` finds values that nobody can list, but a grant of rule `pld` alone has",
        "# room for it, which is for one release: nothing is left for training on the same rows.)",
    ]


def _in_shell(text: str, instead: str) -> str:
    """A word of a command; `instead` of one that no line can hold."""
    return shlex.quote(text) if text.isprintable() else instead


def _data(parts: RecipeParts) -> str:
    lines = ["data:", "  kind: table", f"  path: {as_name(parts.path)}"]
    lines += [*_dialect(parts.dialect), *_target(parts)]
    lines += [
        '  # A column may also be {date: {format: "%d.%m.%Y"}, low: …, high: …} (days since 1970),',
        "  # {boolean: {}} for yes and no, {hash: 64} for codes; a number has `coding` (bins,",
        "  # piecewise), categories `other: true`; any has `missing: {kind: fill, value: …}`.",
        "  columns:",
        *(f"    {line}" for line in parts.columns),
    ]
    if parts.dropped:
        why = ""
        if parts.dropped_by_guess:
            guessed = len(parts.dropped_by_guess)
            why = (
                f"  # {guessed} of them by a guess from name or type; declare those the model needs"
            )
        lines.append(f"  drop: {as_flow(parts.dropped)}{why}")
    if parts.unit is not None:
        lines.append(f"  unit: {as_name(parts.unit)}  # all rows with one value of it are one unit")
    else:
        lines += [
            f"  # unit: {as_name(parts.people) if parts.people else FILL}  # `--unit`: the "
            "column that tells people apart, where",
            "  #   a person has several rows (then `unit: group` below); else a row is hidden",
        ]
    if parts.party is not None:
        lines.append(f"  party: {as_name(parts.party)}")
    lines += size_lines(parts.size, parts.unit)
    if parts.public is not None:
        lines.append(
            "  on_out_of_range: clamp  # private values may lie beyond the range of public ones"
        )
    else:
        lines.append("  # on_out_of_range: clamp  # or a value beyond its range is refused")
    lines += ["  # on_missing: drop  # or a row that lacks a value is refused", ""]
    return "\n".join(lines)


def _dialect(dialect: Dialect) -> list[str]:
    """What the header shows of it, and in comments what it cannot."""
    known: list[str] = []
    if dialect.separator is not None:
        known.append(f'    separator: "{dialect.separator}"  # as the header shows')
    if dialect.encoding != "utf-8":
        known.append(f"    encoding: {dialect.encoding}  # the header is no UTF-8; or latin-1")
    if not known:
        return [
            "  # How the file writes its values, where that is not the usual way:",
            '  # dialect: {decimal: ",", thousands: ".", encoding: cp1252, missing: ["?", "-9"]}',
        ]
    lines = ["  dialect:", *known]
    if dialect.encoding == "utf-8":
        lines.append("    # encoding: cp1252  # where the file is no UTF-8; or latin-1")
    return [
        *lines,
        '    # decimal: ","  # and thousands: "." where numbers are written as 1.234,5',
        '    # missing: ["?", "-9"]  # words for no value, in place of NA, null and the like',
    ]


def _target(parts: RecipeParts) -> list[str]:
    if parts.target is None:
        lines = [
            f"  target: {FILL}  # the column to predict; remove its line under `columns`",
        ]
    else:
        lines = [f"  target: {as_name(parts.target)}"]
    if parts.classes:
        return [*lines, f"  classes: {as_flow(parts.classes)}  # every value of the target"]
    if parts.classes is not None:
        return [*lines, "  task: regression  # the target is a number"]
    return [
        *lines,
        f"  classes: [{FILL}, {FILL}]  # every value of the target; where it is a number, write",
        "  #   `task: regression` and no classes",
    ]


def _prior(parts: RecipeParts) -> list[str]:
    """Where a class is rare, its share decides how a model starts and what is shown of it."""
    if parts.classes is not None and not parts.classes:
        return []
    first, second = ([as_name(name) for name in parts.classes or ()] + ["CLASS", "OTHER"])[:2]
    return [
        f"  # class_prior: {{{first}: 0.9, {second}: 0.1}}  # where one is rare: shares known "
        "elsewhere, not",
        "  #   counted here; answers start there, and AUROC is shown before accuracy",
    ]


_OF_PARTY = 32
"""Units of a step in each party, whose size is often far below the whole."""


def size_lines(size: int | None, unit: str | None) -> list[str]:
    """The declared number of units, and what is held out of them."""
    of = "units (values of that column)" if unit else "rows"
    return [
        f"  size: {FILL if size is None else size}  # {of} left after the holdout: "
        "declared and public, never counted",
        "  holdout: {share: 0.2}  # kept out of training, to score the model with",
    ]


def batch_for(size: int | None, party: str | None, largest: int) -> tuple[int, str]:
    """(units of a step, what bounds them as a comment says it)"""
    batch = 64 if size is None else max(1, min(largest, size // 8))
    if party is not None:
        return min(batch, _OF_PARTY), "in each party, at most the size of the smallest"
    return batch, "at most `size`"


def federation_lines(party: str | None) -> list[str]:
    """The parties of a column; none without one."""
    if party is None:
        return []
    return [
        "federated_learning:",
        "  parties:",
        "    kind: column",
        f"    column: {as_name(party)}",
        f"    sizes: {{{FILL}: {FILL}}}  # every party, with its declared number of units;",
        "    #   counted as `size` is, after the holdout: together they are `size`",
        "  rounds: 50",
        "  local: {steps: 1}",
        "",
    ]


def protection_lines(unit: str | None, epsilon: float, delta: str) -> list[str]:
    """Who is protected, and how well."""
    lines = ["differential_privacy:", f"  unit: {'example' if unit is None else 'group'}"]
    if unit is not None:
        lines.append(
            f"  rows_per_unit: {FILL}  # more rows of one unit are left out by a keyed draw"
        )
    return [
        *lines,
        f"  epsilon: {epsilon:g}  # smaller is more private",
        f"  delta: {delta}  # well below 1 / size",
        "",
    ]


def _rest(parts: RecipeParts) -> str:
    batch, of_batch = batch_for(parts.size, parts.party, 256)
    lines = [
        "model: {kind: mlp, hidden: [32]}",
        "gradient_clipping: {kind: flat, norm: 1.0}   # how far one unit can move a step",
        "",
        *federation_lines(parts.party),
        *protection_lines(parts.unit, EPSILON, parts.delta),
        "training:",
        *(["  steps: 100"] if parts.party is None else []),  # of a federation its rounds count
        f"  batch: {batch}  # units expected a step, {of_batch}",
        "  optimizer: {kind: adam, lr: 0.01}",
        *_prior(parts),
        "",
        "ledger:",
        "  path: privacy.db  # every run and query on these rows is charged to it",
        f"  dataset: {as_name(parts.name)}",
        f"  grant: {{epsilon: {EPSILON}, delta: {parts.delta}}}  # once, by the owner of the data",
        "",
        "audit: [membership]",
        "",
    ]
    return "\n".join(lines)

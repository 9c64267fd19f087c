"""`nacre runs`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nacre.cli.output import columns, common_options, note, show
from nacre.core.errors import Refusal, one_line

if TYPE_CHECKING:
    from nacre.runs.listing.comparing import BesideRow
    from nacre.runs.listing.entry import RunEntry

DEPTH = 4
_GAP = "  "
_NARROWEST = 10  # characters of a column, on a terminal however narrow


@click.command(short_help="List the runs in a folder, or compare two.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path))
@click.option("--compare", is_flag=True, help="Compare two runs: the same as naming two.")
@click.option(
    "--depth", type=click.IntRange(0, 64), default=DEPTH, show_default=True,
    help="How many folders deep to look for runs.",
)  # fmt: skip
@common_options
def command(folders: tuple[Path, ...], compare: bool, depth: int, as_json: bool) -> None:
    """List what was trained in FOLDER (default: here) and below it, one line a run: kind, state,
    epsilon and delta, a figure where it may be shown, size without `local/`. `nacre runs A B` puts
    two runs side by side: what differs in recipe and mechanism, epsilon, and the figures.

    Only files that may be shared are read, so figures on private rows are `not shown`. Epsilon is
    what plan.json promises; `nacre report RUN --check` checks it. A run that stopped early shows
    the epsilon of the whole plan. Links are not followed."""
    if compare and len(folders) != 2:
        raise click.UsageError("`--compare` needs two runs: `nacre runs --compare RUN OTHER`")
    for folder in folders:
        if not os.path.lexists(folder):
            raise Refusal(f"{folder} does not exist; name a folder that holds runs, or a run")
    if len(folders) == 2:
        _compare(folders[0], folders[1], as_json)
    else:
        _list(folders or (Path(),), depth, as_json)


def _list(folders: tuple[Path, ...], depth: int, as_json: bool) -> None:
    from nacre.runs.listing.entry import answers_entry
    from nacre.runs.listing.search import runs_under

    found: list[RunEntry] = []
    deeper = False
    for folder in folders:
        if folder.is_file():
            answers = answers_entry(folder)
            if answers is None:
                raise Refusal(
                    f"{folder} is no file of answers that `nacre release -o` wrote; name that, "
                    "or a folder"
                )
            found.append(answers)
        else:
            search = runs_under(folder, depth)
            found += search.found
            deeper = deeper or search.deeper
    show({"runs": [_facts(entry) for entry in found]}, _lines(found, folders), as_json)
    if deeper:
        note(f"folders more than {depth} deep were not looked into; `--depth {depth + 4}` does")


def _compare(one: Path, other: Path, as_json: bool) -> None:
    from nacre.runs.listing.comparing import compared_runs, named_run
    from nacre.runs.listing.entry import answers_entry, run_entry

    both: list[RunEntry] = []
    for path in (one, other):
        entry = answers_entry(path) if path.is_file() else run_entry(path)
        if problem := named_run(path, entry):
            raise Refusal(
                f"{problem}, and two names are compared; name one folder to list what lies in it"
            )
        assert entry is not None  # named_run says so
        both.append(entry)
    found = compared_runs(both[0], both[1])
    document = {
        "runs": [_facts(entry) for entry in both],
        "recipe": [_pair(row) for row in found.recipe],
        "privacy": [_pair(row) for row in found.privacy],
        "figures": [_pair(row) for row in found.figures],
    }
    head = ("", _shown(both[0].path), _shown(both[1].path))
    rows = [head, ("state", *map(_state, both))]
    for title, part in (
        ("recipe, where it differs", found.recipe),
        ("privacy", found.privacy),
        ("figures on public rows", found.figures),
    ):
        rows += [(title, "" if part else "the same", "")]
        rows += [(f"  {row.key}", *row.values) for row in part]
    show(document, beside_each_other(rows, columns()), as_json)


def _pair(row: BesideRow) -> dict[str, Any]:
    return {"key": row.key, "values": list(row.values)}


def _facts(entry: RunEntry) -> dict[str, Any]:
    """One run for programs; null where nothing is known or may be shown."""
    first = entry.figures.first
    figure = None
    if first is not None:
        name, found = first
        figure = {"name": name, "value": found.value, "low": found.low, "high": found.high}
    return {
        "path": os.fsencode(entry.path).decode("utf-8", "backslashreplace"),
        "kind": entry.kind,
        "state": entry.state,
        "reason": entry.reason or None,
        "name": entry.name or None,
        "created": entry.created or None,
        "done": entry.done,
        "planned": entry.planned,
        "counts": entry.counts,
        "private": entry.private,
        "epsilon": entry.epsilon,
        "delta": entry.delta,
        "figure": figure,
        "no_figure": None if figure or not entry.is_run else entry.figures.missing or None,
        "bytes": entry.size,
    }


def _lines(found: list[RunEntry], folders: tuple[Path, ...]) -> str:
    if not found:
        places = " and ".join(_shown(folder) for folder in folders)
        return f"no runs in {places}; `nacre run RECIPE --into runs/first` makes one"
    head = ("run", "name", "date", "kind", "state", "epsilon", "delta", "figure", "size")
    return _aligned([head, *map(_row, found)])


def _row(entry: RunEntry) -> tuple[str, ...]:
    from nacre.runs.listing.comparing import delta_words, epsilon_words

    if not entry.is_run:
        return (_shown(entry.path), "", "", "", f"{entry.state}: {entry.reason}")
    first = entry.figures.first
    figure = f"{first[0]} {first[1].in_full()}" if first else entry.figures.missing
    date = entry.created[:16].replace("T", " ")
    return (
        _shown(entry.path), entry.name, date, str(entry.kind), _state(entry),
        epsilon_words(entry), delta_words(entry), figure, _size(entry.size),
    )  # fmt: skip


def _state(entry: RunEntry) -> str:
    done, planned = entry.done, entry.planned
    if done is None or planned is None:
        return entry.state
    if entry.counts == "answer":
        return f"{done} answer{'s' if done != 1 else ''}"
    if entry.state == "finished" and done == planned:
        return f"finished, {done:,} {entry.counts}{'s' if done != 1 else ''}"
    return f"{entry.state} at {entry.counts} {done:,} of {planned:,}"


def _shown(path: Path) -> str:
    return one_line(str(path))


def _size(count: int) -> str:
    """Bytes for people, in powers of a thousand.

    >>> _size(0), _size(1234), _size(25_000_000)
    ('0 B', '1.2 kB', '25 MB')
    """
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if size < 9.95 and unit != "B" else f"{size:.0f} {unit}"


def _cell(text: str) -> str:
    """One line that a terminal can be given, indented as it was."""
    return " " * (len(text) - len(text.lstrip(" "))) + one_line(text)


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns side by side, a row a line however long; the cells of a row that lacks some are not
    measured, since its last one may run on."""
    cells = [tuple(_cell(cell) for cell in row) for row in rows]
    count = max(len(row) for row in cells)
    whole = [row for row in cells if len(row) == count]
    wide = [max(len(row[place]) for row in whole) for place in range(count)]
    wide[0] = max(len(row[0]) for row in cells)
    lines = ("  ".join(map(str.ljust, row, wide)).rstrip() for row in cells)
    return "\n".join(lines)


def beside_each_other(rows: Sequence[tuple[str, ...]], width: int) -> str:
    """Three columns in this many characters: a cell that is longer goes on below itself."""
    cells = [tuple(_cell(cell) for cell in row) for row in rows]
    longest = [max(len(row[place]) for row in cells) for place in range(3)]
    room = max(width - 2 * len(_GAP), 3 * _NARROWEST)
    # The key has what it needs, up to a third; of the rest the shorter run leaves what it does not
    # need to the other.
    key = min(longest[0], room // 3)
    half = (room - key) // 2
    other = min(longest[2], max(half, room - key - longest[1]))
    wide = (key, min(longest[1], room - key - other), other)
    lines: list[str] = []
    for row in cells:
        parts = (_wrapped(cell, limit) for cell, limit in zip(row, wide, strict=True))
        for line in zip_longest(*parts, fillvalue=""):
            lines.append(_GAP.join(map(str.ljust, line, wide)).rstrip())
    return "\n".join(lines)


def _wrapped(cell: str, width: int) -> list[str]:
    """A cell in lines of at most this many characters, broken at blanks where it has any; later
    ones are indented by two more."""
    if len(cell) <= width:
        return [cell]
    indent = " " * min(len(cell) - len(cell.lstrip(" ")), width // 2)
    return textwrap.wrap(
        cell.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  "
    ) or [""]  # fmt: skip

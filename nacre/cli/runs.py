"""`nacre runs`."""

from __future__ import annotations

import os
import sys
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
_NARROWEST = 6  # characters of a column that wants them, on a terminal however narrow


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
    epsilon and delta, a figure where it may be shown, size without `local/`; on a terminal a long
    cell goes on below itself. `nacre runs A B` puts two runs side by side: what differs in recipe
    and mechanism, epsilon, and the figures.

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
    # Where no terminal is, other programs read a run a line.
    width = columns() if sys.stdout.isatty() else None
    return beside_each_other([head, *map(_row, found)], width)


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


def beside_each_other(rows: Sequence[tuple[str, ...]], width: int | None) -> str:
    """Columns in this many characters, where a cell that is longer goes on below itself, or, with
    None, a row a line however long. The last cell of a row that lacks some runs on over those: of
    it the beginning alone is measured."""
    cells = [tuple(_cell(cell) for cell in row) for row in rows]
    count = max(len(row) for row in cells)
    known = [row if len(row) == count else (*row[:-1], row[-1][:_NARROWEST]) for row in cells]
    measured = [[row[place] for row in known if len(row) > place] for place in range(count)]
    longest = [max(map(len, column)) for column in measured]
    wide, gap = longest, _GAP
    if width is not None:
        unbroken = [max(map(_unbroken, column)) for column in measured]
        if sum(unbroken) + len(gap) * (count - 1) > width:
            gap = " "
        room = max(width - len(gap) * (count - 1), count * _NARROWEST)
        wide = _shared_out(room, unbroken, longest)
    lines: list[str] = []
    for row in cells:
        limits = wide[: len(row)]
        if len(row) < count:
            rest = sum(wide[len(row) :]) + len(gap) * (count - len(row))
            limits[-1] = max(len(row[-1]), rest) if width is None else limits[-1] + rest
        parts = (_wrapped(cell, limit) for cell, limit in zip(row, limits, strict=True))
        for line in zip_longest(*parts, fillvalue=""):
            lines.append(gap.join(map(str.ljust, line, limits)).rstrip())
    return "\n".join(lines)


def _shared_out(room: int, *wanted: list[int]) -> list[int]:
    """How wide each column is: every one grows alike until it has what it wants first, then what
    it wants next, or the room is used up.

    >>> _shared_out(20, [3, 9, 4], [30, 9, 4]), _shared_out(12, [3, 9, 4], [30, 9, 4])
    ([7, 9, 4], [3, 5, 4])
    """
    wide = [0] * len(wanted[0])
    for sizes in wanted:
        while sum(wide) < room:
            short = [place for place, size in enumerate(sizes) if wide[place] < size]
            if not short:
                break
            wide[min(short, key=wide.__getitem__)] += 1
    return wide


def _unbroken(cell: str) -> int:
    """How many characters `_wrapped` needs to break no word of a cell."""
    first, *others = cell.split() or [""]
    indent = len(cell) - len(cell.lstrip(" "))
    return indent + max([len(first), *(2 + len(word) for word in others)])


def _wrapped(cell: str, width: int) -> list[str]:
    """A cell in lines of at most this many characters, broken at blanks where it has any; later
    ones are indented by two more."""
    if len(cell) <= width:
        return [cell]
    indent = " " * min(len(cell) - len(cell.lstrip(" ")), width // 2)
    return textwrap.wrap(
        cell.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  "
    ) or [""]  # fmt: skip

"""Recipes and tables with something wrong in them, and what nacre may do with such a pair.

Everything is drawn from one number, so a case that fails can be had again: `case(number)`.
`tests/stories/test_mutations.py` looks at some of them, `benchmarks/faults.py` at thousands.
"""

from __future__ import annotations

import contextlib
import csv
import io
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from nacre.core.errors import NacreError, RecipeError
from nacre.runs import rows
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, patients, text

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
"""What one case may take, on a machine that does other things as well."""
MEMORY = 8 << 30
"""Bytes of addresses that one case may take beyond what the process has."""

Draw = random.Random


@dataclass(frozen=True)
class Case:
    """A recipe and the table beside it, at least one of them mutated."""

    number: int
    recipe: bytes
    table: bytes


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `faults` says in words what should not have happened."""

    case: Case
    reached: str  # "refused", "planned", "read" or "trained"
    sentence: str = ""
    faults: tuple[str, ...] = ()


def case(number: int) -> Case:
    """The case of that number."""
    draw = Draw(number)
    name = draw.choices(list(_RECIPES), weights=[1, 1, 4, 4, 6])[0]
    recipe, table = _RECIPES[name](), _table()
    if name == "table" and draw.random() < 0.6:
        return Case(number, recipe.encode(), _mutated_table(draw, table))
    changed = _mutated_tree if draw.random() < 0.5 else _mutated_text
    mutated = changed(draw, recipe).encode(errors="surrogatepass")
    return Case(number, mutated, table)


# -- recipes ---------------------------------------------------------------------------------------

_RECIPES: dict[str, Callable[[], str]] = {
    "clinic": lambda: (ROOT / "recipes" / "clinic.yaml").read_text(encoding="utf-8"),
    "digits": lambda: (ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8"),
    "central": lambda: text(CENTRAL),
    "federated": lambda: text(FEDERATED),
    "table": lambda: text(TABLE, differential_privacy__rows_per_unit=3),
}

_NASTY = (
    "nan", ".nan", ".inf", "-.inf", "1e400", "1e308", "-1", "0", "-0.0", "1e-320", "1e9", "0.5",
    "1000000000", "9223372036854775807", "-9223372036854775808", "99999999999999999999",
    "0x10", "1_000", "true", "no", "null", "~", "''", '" "', "[]", "{}", "[[]]", "[1, -1]",
    "[1000000000]", "[1e9]", "{a: 1}", "text", "ünïcödé", "\u202etxt", "'\U0001f41a'", '"\\0"',
    '"\\x1b[31m"', '"\\n"', "!!python/object/apply:os.getcwd []", "&a [*a]", "*unknown",
    "../outside", "/dev/null", "patients.csv", "'{run}'", "'{run}/../x'", "9" * 5000, "a" * 5000,
)  # fmt: skip
"""What YAML values are replaced by."""

_SIGNS = (
    "\t", "\r", "\x00", "\x1b", "\x7f", "\u2028", "\ufeff", "\ud800", "\u0301", ":", "- ", "? ",
    "&a ", "*a ", "<<: ", "{", "}", "[", "]", "'", '"', "|", ">", "%", "@", "`", "#", "---\n",
)  # fmt: skip


def _mutated_text(draw: Draw, recipe: str) -> str:
    for _ in range(draw.randint(1, 3)):
        recipe = draw.choice(_ON_TEXT)(draw, recipe)
    return recipe


def _lines(change: Callable[[Draw, list[str], int], None]) -> Callable[[Draw, str], str]:
    """A change of the lines of a text, at one of them."""

    def changed(draw: Draw, recipe: str) -> str:
        lines = recipe.splitlines()
        if lines:
            change(draw, lines, draw.randrange(len(lines)))
        return "\n".join(lines) + "\n"

    return changed


def _delete(draw: Draw, lines: list[str], i: int) -> None:
    del lines[i : i + draw.randint(1, 3)]


def _duplicate(draw: Draw, lines: list[str], i: int) -> None:
    lines.insert(draw.randrange(len(lines)), lines[i])


def _swap(draw: Draw, lines: list[str], i: int) -> None:
    j = draw.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def _indent(draw: Draw, lines: list[str], i: int) -> None:
    lines[i] = " " * draw.randint(0, 6) + lines[i].lstrip()


def _misspell(draw: Draw, recipe: str) -> str:
    key = draw.choice(re.findall(r"\w+(?=:)", recipe) or ["nacre"])
    i = draw.randrange(len(key))
    wrong = draw.choice([key[:i] + key[i + 1 :], key[: i + 1] + key[i:], key.upper(), f"{key} "])
    return re.sub(rf"\b{key}(?=:)", lambda _: wrong, recipe, count=1)


def _replace(draw: Draw, recipe: str) -> str:
    values = [m.span(1) for m in re.finditer(r": ([^\s,{}\[\]][^,{}\[\]\n]*)", recipe)]
    if not values:
        return recipe
    start, end = draw.choice(values)
    return recipe[:start] + draw.choice(_NASTY) + recipe[end:]


def _insert(draw: Draw, recipe: str) -> str:
    i = draw.randrange(len(recipe) + 1)
    return recipe[:i] + draw.choice(_SIGNS) * draw.choice([1, 1, 1, 100]) + recipe[i:]


def _nest(draw: Draw, recipe: str) -> str:
    depth = draw.choice([3, 30, 300, 3000])
    return f"{recipe}{draw.choice(['deep', 'model', 'audit'])}: {'[' * depth}{']' * depth}\n"


def _bomb(draw: Draw, recipe: str) -> str:
    doubled = "".join(f"x{i + 1}: &x{i + 1} [*x{i}, *x{i}]\n" for i in range(draw.choice([3, 40])))
    return f"{recipe}x0: &x0 [0]\n{doubled}"


def _cut(draw: Draw, recipe: str) -> str:
    return recipe[: draw.randrange(len(recipe) + 1)]


_ON_TEXT: tuple[Callable[[Draw, str], str], ...] = (
    _lines(_delete), _lines(_duplicate), _lines(_swap), _lines(_indent), _misspell, _replace,
    _replace, _replace, _insert, _insert, _nest, _bomb, _cut,
)  # fmt: skip


def _mutated_tree(draw: Draw, recipe: str) -> str:
    """Values put elsewhere, dropped or replaced: what still is YAML gets further than text does."""
    values = yaml.safe_load(recipe)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(values))
        holder, key = draw.choice(places)
        if draw.random() < 0.2:
            del holder[key]
        elif draw.random() < 0.3:
            other, theirs = draw.choice(places)
            holder[key] = yaml.safe_load(yaml.safe_dump(other[theirs]))
        else:
            holder[key] = _other(draw, holder[key])
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(entries):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _other(draw: Draw, value: Any) -> Any:
    """Something else, often of the same type: only that gets past the types."""
    if isinstance(value, bool):
        return draw.choice([not value, 0, "yes", None])
    if isinstance(value, int):
        return draw.choice([0, -1, 1, value + 1, 10 * value, 10**9, 2**62, 1.5, "1", None, [value]])
    if isinstance(value, float):
        return draw.choice([0.0, -value, 1e-300, 1e300, value / 1000, 1000 * value, 1, "x", None])
    if isinstance(value, str):
        return draw.choice(["", " ", value[:-1], 2 * value, "../x", "\x1b[J", "ü", "a\nb", 3, None])
    if isinstance(value, list):
        return draw.choice([[], value * 2, value[:1], [None], [10**9], [0], [[value]], {}, "x"])
    return draw.choice([{}, [], None, {"kind": "x"}, {**value, "more": 1}, "x", 1])


# -- tables ----------------------------------------------------------------------------------------


def _table() -> bytes:
    return _as_csv(_rows())


def _as_csv(cells: list[list[str]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(cells)
    return stream.getvalue().encode()


def _rows() -> list[list[str]]:
    """A fresh copy of the table of patients, its header first."""
    return [list(row) for row in _patients()]


@cache
def _patients() -> list[list[str]]:
    with TemporaryDirectory() as folder, patients(Path(folder) / "p.csv").open(newline="") as file:
        return list(csv.reader(file))


_CELLS = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e400", "-1", "1e308", "1e38", "4e38", "abc", "null",
    "0x10", "1,5", "²", "\x00", "\x1b[31m", "1e-400", "--1", "true", "\u202e", "9" * 500, '"', "'",
    "=1+1", "ja", "YES",
)  # fmt: skip


def _mutated_table(draw: Draw, table: bytes) -> bytes:
    if draw.random() < 0.3:
        return draw.choice(_ON_BYTES)(draw, table)
    cells = _rows()
    for _ in range(draw.randint(1, 3)):
        if cells:
            draw.choice(_ON_CELLS)(draw, cells)
    return _as_csv(cells)


def _drop_column(draw: Draw, cells: list[list[str]]) -> None:
    i = draw.randrange(6)
    for row in cells:
        del row[i : i + 1]


def _repeat_column(draw: Draw, cells: list[list[str]]) -> None:
    i, name = draw.randrange(6), draw.choice(["", "new"])
    for number, row in enumerate(cells):
        row += row[i : i + 1] if number or not name else [name]


def _cell(draw: Draw, cells: list[list[str]]) -> None:
    for _ in range(draw.choice([1, 1, 5, 50])):
        row = draw.choice(cells)
        if row:
            row[draw.randrange(len(row))] = draw.choice(_CELLS)


def _ragged(draw: Draw, cells: list[list[str]]) -> None:
    row = draw.choice(cells)
    if draw.random() < 0.5:
        row.append("more")
    elif row:
        row.pop()


def _one_class(draw: Draw, cells: list[list[str]]) -> None:
    for row in cells[1:]:
        row[-1:] = ["yes"]


def _same_person(draw: Draw, cells: list[list[str]]) -> None:
    for row in cells[1:]:
        row[:1] = ["p0"]


def _few_rows(draw: Draw, cells: list[list[str]]) -> None:
    del cells[draw.choice([0, 1, 2, 3, 10]) :]


_ON_CELLS: tuple[Callable[[Draw, list[list[str]]], None], ...] = (
    _drop_column, _repeat_column, _cell, _cell, _cell, _ragged, _one_class, _same_person, _few_rows,
)  # fmt: skip

_ON_BYTES: tuple[Callable[[Draw, bytes], bytes], ...] = (
    lambda draw, table: b"",
    lambda draw, table: b"\xef\xbb\xbf" + table,
    lambda draw, table: table.decode().encode("utf-16"),
    lambda draw, table: table.replace(b"yes", "jä".encode("latin-1")),
    lambda draw, table: table.replace(b"\r\n", b"\r"),
    lambda draw, table: table.replace(b",", b";"),
    lambda draw, table: table.replace(b",", b"\t"),
    lambda draw, table: table[: draw.randrange(len(table))],
    lambda draw, table: table + b'"',
    lambda draw, table: table.replace(b"p1,", b'"p1,', 1),
    lambda draw, table: table.replace(b"p1,", b'"p\n1",', 1),
    lambda draw, table: draw.randbytes(3000),
    lambda draw, table: b"\x1f\x8b" + draw.randbytes(100),
    lambda draw, table: b"PAR1" + draw.randbytes(100) + b"PAR1",
    lambda draw, table: table[:50] + b"\x00" * 20 + table[50:],
    lambda draw, table: table + b"," * 300_000 + b"\n",
    lambda draw, table: table + b"x" * 300_000 + b"\n",
)


# -- what becomes of them --------------------------------------------------------------------------


class TooLong(BaseException):
    """A case took longer than anyone would wait; no product code may swallow it."""


def outcome(case: Case, folder: Path, *, train: bool = False) -> Outcome:
    """Puts the case into an empty folder and follows it as far as is cheap, up to training."""
    recipe = _written(case, folder)
    before = _everything(folder)
    reached, sentence, faults = "refused", "", []
    try:
        with bounded():
            for reached in _followed(recipe, train):  # noqa: B007 - the last one is the answer
                pass
    except NacreError as error:
        sentence = str(error)
        for said in (sentence, *(error.others if isinstance(error, RecipeError) else ())):
            faults += told_badly(said)
        if (folder / "run").exists():
            faults.append(f"refused only after it was charged: {sentence}")
    except (Exception, TooLong) as error:
        faults.append(f"{type(error).__name__} after {reached!r}: {error}"[:300])
    # A refusal before the reservation leaves nothing; training leaves a run folder.
    if not (folder / "run").exists():
        faults += [f"left {path} behind" for path in sorted(_everything(folder) - before)]
    return Outcome(case, reached, sentence, tuple(faults))


def _written(case: Case, folder: Path) -> Path:
    recipe = folder / "mutated.yaml"
    recipe.write_bytes(case.recipe)
    (folder / "patients.csv").write_bytes(case.table)
    return recipe


def _followed(recipe: Path, train: bool) -> Iterator[str]:
    """Does one thing after another and says what is done."""
    from nacre.planning.plan import plan
    from nacre.recipe.load import load_recipe
    from nacre.runs.run import train as trained

    yield "refused"
    planned = plan(load_recipe(recipe))
    yield "planned"
    rows.read(planned.recipe, bytes(32))
    yield "read"
    if train and _cheap(planned):
        trained(planned, recipe.parent / "run")
        yield "trained"


def _cheap(planned: Any) -> bool:
    """Whether training ends within seconds."""
    tuning = planned.recipe.fine_tuning
    before = tuning.pretrain.steps if tuning is not None and tuning.pretrain is not None else 0
    return planned.estimate.seconds < 1 and planned.rounds <= 50 and before <= 200


def _everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*")}


def told_badly(sentence: str) -> list[str]:
    """What is wrong with an error's sentence."""
    faults = []
    if "\n" in sentence or not sentence.isprintable():
        faults.append(f"not one printable line: {sentence!r}"[:300])
    if len(sentence) > 1000:
        faults.append(f"{len(sentence)} characters long: {sentence[:100]}")
    if not sentence.strip() or "Traceback" in sentence:
        faults.append(f"says nothing: {sentence!r}")
    return faults


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Raises `TooLong` inside when time is up, and lets no allocation take the machine down."""

    def ring(*_: object) -> None:
        raise TooLong(f"took more than {seconds:g} seconds")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    former = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def through_the_command(case: Case, folder: Path) -> Outcome:
    """The same by `nacre plan` in a process of its own."""
    recipe = _written(case, folder)
    before = _everything(folder)
    command = [sys.executable, "-m", "nacre", "plan", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT)
    faults = [f"left {path} behind" for path in sorted(_everything(folder) - before)]
    if done.returncode not in (0, 1, 2, 3):
        faults.append(f"exit code {done.returncode}")
    if "Traceback" in done.stdout + done.stderr or "fault of nacre" in done.stderr:
        faults.append(f"traceback: {done.stderr[-200:]}")
    if done.returncode:
        for line in done.stderr.removesuffix("\n").split("\n"):  # one for each fault of a recipe
            faults += told_badly(line)
    reached = "refused" if done.returncode else "planned"
    return Outcome(case, reached, done.stderr.strip(), tuple(faults))

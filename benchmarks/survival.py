"""What a ledger survives: kills, crowds, flipped bytes, power cuts, full disks, false clocks.

Each is done for real, to processes and files of their own, and afterwards the ledger is read by a
process that saw nothing of it. *Under-charge* counts steps that somebody was told of and the ledger
has no row for; *overspend* is what was released beyond the allowance. `ledger.py` prints the rows.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dp_accounting as dp
from rows import Row

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.data.sketches.sketch import sketched
from nacre.ledger import Charge, Ledger, Request
from nacre.ledger.rules import Zcdp
from nacre.ledger.storage import writer

EVENT = dp.GaussianDpEvent(4.0)
RHO = 1 / (2 * 4.0**2)  # of one step
NEIGHBOURS = "add_or_remove"
DIGEST = "ab" * 32


def reserved(ledger: Ledger, run: str, steps: int = 100_000, account: str = "clinic") -> Charge:
    return ledger.reserve(
        account, Request.of(run, EVENT, steps=steps, unit="example", adjacency=NEIGHBOURS)
    )


def made(path: Path, epsilon: float = 1e6) -> Path:
    with Ledger.open(path, create=True) as ledger:
        ledger.grant("clinic", "example", epsilon, 1e-5, "zcdp")
    return path


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A folder that costs no disk, where the system has one: for what does not depend on it."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else folder) as made_there:
        yield Path(made_there)


# -- processes -----------------------------------------------------------------------------------


@contextmanager
def forked(work: Callable[[Callable[[str], None]], None]) -> Iterator[tuple[int, int]]:
    """A child that does `work`, and the end of the pipe that it speaks into."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            work(lambda text: os.write(writing, f"{text}\n".encode()) and None)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    try:
        yield child, reading
    finally:
        os.close(reading)


def heard(reading: int) -> list[str]:
    """Everything that a child said before it was gone."""
    parts: list[bytes] = []
    while part := os.read(reading, 65536):
        parts.append(part)
    return b"".join(parts).decode().split("\n")[:-1]


def life(path: Path, name: str) -> Callable[[Callable[[str], None]], None]:
    """Whole short runs, one after another: reserve, journal, settle; each said once it is done."""

    def work(say: Callable[[str], None]) -> None:
        with Ledger.open(path) as ledger:
            for number in range(1000):
                run = f"{name}-{number}"
                charge = reserved(ledger, run, 5)
                for step in range(1, 5):
                    charge.journal(step, DIGEST)
                    say(f"{run} {step}")
                charge.settle()
                say(f"{run} settled")

    return work


def under_charged(ledger: Ledger, lines: list[str]) -> int:
    """How many acknowledged steps and settlements the ledger does not have."""
    told: dict[str, int] = {}
    lost = 0
    for line in lines:
        run, what = line.split()
        if what == "settled":
            lost += ledger.run("clinic", run).end != "settled"
        else:
            told[run] = int(what)
    return lost + sum(max(0, n - ledger.run("clinic", r).journalled) for r, n in told.items())


def kills(folder: Path, times: int) -> Iterator[Row]:
    """kill -9 at random moments: a quarter of them while the process opens the ledger, the rest
    while it reserves, journals and settles."""
    draw = random.Random(1)
    lost = broken = acknowledged = 0
    path = folder / "kills.db"
    for number in range(times):
        if number % 40 == 0:
            path = made(folder / f"kills-{number}.db")
        with forked(life(path, f"{number}")) as (child, reading):
            begun = os.read(reading, 1) if number % 4 else b""
            time.sleep(draw.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines = heard(reading)
        if lines:
            lines[0] = begun.decode() + lines[0]
        with Ledger.open(path) as ledger:
            lost += under_charged(ledger, lines)
            acknowledged += len(lines)
            if number % 40 == 39 or number == times - 1:
                broken += len(ledger.verify())
    yield Row("kill -9: points", times, target=">= 2000", holds=times >= 2000)
    yield Row("kill -9: entries acknowledged before it", acknowledged)
    yield Row("kill -9: under-charged", lost, target="0", holds=lost == 0)
    yield Row("kill -9: findings of verify", broken, target="0", holds=broken == 0)


def crowd(folder: Path, processes: int) -> Iterator[Row]:
    """Processes that spend one grant at once until nothing is left."""
    path = made(folder / "crowd.db", 20.0)
    gate, open_gate = os.pipe()

    def spend(name: int) -> Callable[[Callable[[str], None]], None]:
        def work(say: Callable[[str], None]) -> None:
            os.close(open_gate)
            os.read(gate, 1)  # until the parent opens it for all
            with Ledger.open(path) as ledger:
                for number in range(1000):
                    try:
                        charge = reserved(ledger, f"{name}-{number}", 2)
                    except BudgetExceeded:
                        return
                    for step in range(1, 2 + number % 2):
                        charge.journal(step, DIGEST)
                        say("step")
                    if number % 3 == 0:
                        charge.settle()

        return work

    started = [forked(spend(number)) for number in range(processes)]
    ends = [each.__enter__() for each in started]
    begin = time.perf_counter()
    os.close(open_gate)
    released = sum(len(heard(reading)) for _, reading in ends)
    seconds = time.perf_counter() - begin
    failed = sum(os.waitpid(child, 0)[1] != 0 for child, _ in ends)
    for each in started:
        each.__exit__(None, None, None)
    os.close(gate)
    allowance = Zcdp(20.0, 1e-5).allowance
    with Ledger.open(path) as ledger:
        grant, found = ledger.summary("clinic").grants[0], ledger.verify()
        entries = ledger.head().number
    charged = grant.spent * allowance
    over = max(0.0, released * RHO - allowance)
    under = max(0.0, released * RHO - charged * (1 + 1e-12))
    yield Row(f"{processes} processes: rho released of {allowance:.3f}", released * RHO)
    yield Row(f"{processes} processes: overspent", over, target="0", holds=over == 0)
    yield Row(f"{processes} processes: under-charged", under, target="0", holds=under == 0)
    bad = failed + len(found)
    yield Row(f"{processes} processes: failed or found", bad, target="0", holds=bad == 0)
    yield Row(f"{processes} processes: entries a second in all", entries / seconds)


# -- files ---------------------------------------------------------------------------------------


def small(path: Path) -> Path:
    """A ledger with one entry of every kind, and every entry in the file itself."""
    with Ledger.open(made(path)) as ledger:
        charge = reserved(ledger, "one", 8)
        for step in range(1, 4):
            charge.journal(step, DIGEST)
        charge.settle()
        reserved(ledger, "two", 8).journal(1, DIGEST)
        ledger.record_rows({"clinic": sketched([], ledger.sketch_key())})
        ledger.note("clinic", "313 rows")
        ledger.sign_head(path.with_name("signing.pem"))
    return path


def told(path: Path) -> tuple[object, ...]:
    """All that a ledger says; it goes on being one, too: another entry can be added and read."""
    with Ledger.open(path) as ledger:
        findings = ledger.verify()
        if findings:
            raise LedgerError(findings[0])
        said = (
            ledger.head(),
            ledger.accounts(),
            ledger.summary("clinic"),
            ledger.extract(["clinic"]),
        )
        ledger.journal("clinic", "two", 2, DIGEST)
    with Ledger.open(path) as ledger:
        if ledger.run("clinic", "two").journalled != 2 or ledger.verify():
            raise LedgerError("the entry that was added is not there")
    return said


def flips(folder: Path, every: int) -> Iterator[Row]:
    """Each byte of a ledger's file inverted in turn.

    *Found*: refused, or named by `verify`. *Harmless*: every account, entry and hash reads as it
    did, and an entry that is added then is durable and sound; such bytes are unused space and
    counters of SQLite, and the text of the triggers. Anything else is *silent*.
    """
    whole = small(folder / "flips.db").read_bytes()
    right = told(_copy(folder / "flip.db", whole))
    found = harmless = silent = 0
    for place in range(0, len(whole), every):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        try:
            if told(_copy(folder / "flip.db", bytes(changed))) == right:
                harmless += 1
            else:
                silent += 1
        except LedgerError:
            found += 1
    yield Row("flipped bytes: tried", found + harmless + silent, target=f"{len(whole)} (all)",
              holds=every == 1)  # fmt: skip
    yield Row("flipped bytes: found", found)
    yield Row("flipped bytes: harmless", harmless)
    yield Row("flipped bytes: silent", silent, target="0", holds=silent == 0)


def _copy(path: Path, content: bytes) -> Path:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def power(folder: Path, every: int) -> Iterator[Row]:
    """The log cut at every byte, as a power cut may leave it: what was synced has to be there.

    An acknowledged entry lies before the log's length at that time, and that much was synced; what
    comes after it may be missing or torn.
    """
    path, kept = made(folder / "power.db"), folder / "cut.db"
    log = path.with_name(path.name + "-wal")
    with Ledger.open(path) as ledger:
        charge = reserved(ledger, "one", 8)
        sizes: list[int] = []
        for step in range(1, 7):
            charge.journal(step, DIGEST)
            sizes.append(log.stat().st_size)
        database, logged = path.read_bytes(), log.read_bytes()
    lost = cuts = 0
    for size in range(sizes[0], len(logged) + 1, every):
        for rest in (b"", b"\xff" * (len(logged) - size)):
            _copy(kept, database)
            kept.with_name(kept.name + "-wal").write_bytes(logged[:size] + rest)
            with Ledger.open(kept) as ledger:
                lost += sum(s <= size for s in sizes) > ledger.run("clinic", "one").journalled
                cuts += 1
                lost += len(ledger.verify()) if size % 97 == 0 else 0
    yield Row("power cuts: tried", cuts)
    yield Row("power cuts: under-charged", lost, target="0", holds=lost == 0)


def full(folder: Path, times: int) -> Iterator[Row]:
    """A disk that fills up in mid-run: files may not grow beyond a limit, a little later each time.

    The process is told and stops; another one with room goes on.
    """
    lost = refused = 0
    for number in range(times):
        path = made(folder / f"full-{number}.db")

        def work(say: Callable[[str], None], path: Path = path, number: int = number) -> None:
            limit = 4096 * 4 + 1357 * number
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                life(path, "full")(say)
            except LedgerError:
                say("full refused")

        with forked(work) as (child, reading):
            lines = heard(reading)
            os.waitpid(child, 0)
        stopped = [line for line in lines if line == "full refused"]
        refused += len(stopped)
        with Ledger.open(path) as ledger:
            lost += under_charged(ledger, [line for line in lines if line not in stopped])
            lost += len(ledger.verify())
            reserved(ledger, "after", 5).journal(1, DIGEST)
    yield Row("disk full: refused in a sentence", refused, target=f"{times} (all)",
              holds=refused == times)  # fmt: skip
    yield Row("disk full: under-charged", lost, target="0", holds=lost == 0)


def clock(folder: Path) -> Iterator[Row]:
    """The same run under a clock that goes back with every entry, and under none at all."""
    states: list[object] = []
    right = writer.now
    for times in (iter(f"{y}-01-01T00:00:00+00:00" for y in range(2999, 0, -1)), None):
        path = made(folder / f"clock-{len(states)}.db")
        try:
            if times is not None:
                writer.now = lambda times=times: next(times)
            with Ledger.open(path) as ledger:
                charge = reserved(ledger, "one", 50)
                for step in range(1, 41):
                    charge.journal(step, DIGEST)
                charge.settle()
                numbers = [
                    entry["index"] for entry in ledger.extract(["clinic"])["accounts"][0]["entries"]
                ]
                states.append((ledger.summary("clinic").grants, numbers, ledger.verify()))
        finally:
            writer.now = right
    differ = float(states[0] != states[1])
    yield Row("clock set back: figures that differ", differ, target="0", holds=not differ)

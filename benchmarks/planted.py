"""Whether the laws notice a wrong line: `python benchmarks/planted.py [--quick] [--json]`.

Each fault is one changed line in a copy of the package, of the kind that keeps a run going and its
report pretty while its promise is void. The tests named beside it must fail on the copy (and pass
on the package, which CI sees to). An audit of the trained model finds few of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attacked import ATTACKED
from recorded import RECORDED
from rows import Row, show
from wiring import WIRING, Fault

ROOT = Path(__file__).resolve().parent.parent

CLIP = (
    "tests/laws/test_clip_rules.py tests/laws/test_gradient_sums.py tests/laws/test_taped_sums.py"
)
NOISE = "tests/laws/test_noise.py tests/training/test_step.py"
BITS = "tests/core/test_normals.py tests/core/test_rounded.py"
DRAWS = "tests/laws/test_sampling.py"
EVENTS = "tests/laws/test_events.py tests/oracles/test_accounting.py"
PRICES = "tests/laws/test_bounds.py tests/oracles/test_loss.py"
VERIFIED = "tests/laws/test_verified_sums.py"
FAULTS = [
    Fault(
        "tape: a doubt is not verified", "gradient_clipping/tape/tape.py",
        "turned or other or self._owners.doubt is not None",
        "turned or other",
        VERIFIED,
    ),
    Fault(
        "tape: another branch is taken for the one on trial", "gradient_clipping/tape/tape.py",
        "        turned = tuple(self._turns) not in self._owners.turns",
        "        turned = False",
        VERIFIED,
    ),
    Fault(
        "tape: every arrangement is taken for one by no value",
        "gradient_clipping/tape/followed.py",
        "        return _arranged(call, held, outs, units)",
        "        return True",
        VERIFIED,
    ),
    Fault(
        "tape: two passes are not compared", "gradient_clipping/tape/verified.py",
        "            wrong = away > _AGREES * size + _NOTHING",
        "            wrong = away > size.new_full((), 1e30)",
        VERIFIED,
    ),
    Fault(
        "tape: rows written by a view keep their owners",
        "gradient_clipping/tape/carried_rows/tags.py",
        "            if found is not None and (found[3] or found[1] != t._version):",
        "            if found is not None and found[3] and found[1] == t._version:",
        "tests/gradient_clipping/test_carried_rows.py",
    ),
    Fault(
        "price: what periods add is kept",
        "differential_privacy/accounting/characteristic/bounds.py",
        "        more = self._wrong(epsilon) + self.tails.excess(epsilon, self.period)",
        "        more = self._wrong(epsilon)",
        "tests/differential_privacy/test_many_kinds.py",
    ),
    Fault(
        "clip: twice the norm is let through", "gradient_clipping/rules.py",
        "        return down(norms, self.norm)\n\n    def bound(self, groups: int) -> float:\n"
        '        """`norm` for each group, jointly."""',
        "        return down(norms, 2 * self.norm)\n\n    def bound(self, groups: int) -> float:\n"
        '        """`norm` for each group, jointly."""',
        CLIP,
    ),
    Fault(
        "clip: one tensor is left out of the norm", "gradient_clipping/tape/per_parameter.py",
        "    for name in names:\n        if found[name]:",
        "    for name in list(names)[1:]:\n        if found[name]:",
        CLIP,
    ),
    Fault(
        "clip: uses of one tensor are joined after the norm",
        "gradient_clipping/tape/contributions.py",
        "            result, size = result + term, size + term.abs()",
        "            result, size = result, size + term.abs()",
        CLIP,
    ),
    Fault(
        "clip: what rounding leaves is not counted", "gradient_clipping/tape/contributions.py",
        "    return torch.where(mass > _CANCELS * squared, (squared.sqrt() + slack).square()",
        "    return torch.where(mass > _CANCELS * squared, squared",
        CLIP,
    ),
    Fault(
        "clip: infinite gradients are kept", "gradient_clipping/clipped_sum.py",
        "    usable = (norms < _LARGEST).all(1)",
        "    usable = (norms == norms).all(1)",
        CLIP,
    ),
    Fault(
        "sum: the last microbatch alone counts", "training/step.py",
        "                    total += more",
        "                    total = more",
        "tests/training/test_step.py tests/laws/test_execution.py",
    ),
    Fault(
        "noise: half the deviation", "differential_privacy/noise/unit_scale.py",
        "    return multiplier * total.sensitivity(adjacency)",
        "    return multiplier * total.sensitivity(adjacency) / 2",
        NOISE,
    ),
    Fault(
        "noise: replacing a unit is taken for removing one",
        "differential_privacy/noise/unit_scale.py",
        "    return multiplier * total.sensitivity(adjacency)",
        "    return multiplier * total.bound",
        NOISE,
    ),
    Fault(
        "noise: on the first tensor alone", "differential_privacy/noise/independent.py",
        "    rounded.add_rounded_noise(source, deviation, together, together)",
        "    rounded.add_rounded_noise(source, deviation, together[:1], together[:1])",
        NOISE,
    ),
    Fault(
        "noise: every block of normals is the first one", "core/normals/box_muller.py",
        "        if self._made % _STREAM == 0:",
        "        if self._made % PAIRS == 0:",
        BITS,
    ),
    Fault(
        "noise: both normals of a pair are its cosine", "core/normals/box_muller.py",
        "        return refined.Bits(numbers, self.words[pair], self.angles[pair], second)",
        "        return refined.Bits(numbers, self.words[pair], self.angles[pair], second & False)",
        BITS,
    ),
    Fault(
        "noise: the sign of a zero tells of the sum", "core/normals/rounded.py",
        "    return ((whole + nearest + 0.0) * step).astype(np.float32)",
        "    return ((whole + nearest) * step).astype(np.float32)",
        BITS,
    ),
    Fault(
        "noise: rounded by float32 where that leaves it open", "core/normals/rounded.py",
        "    margin = spread * box_muller.ERROR + _slack(spread)",
        "    margin = 0.0",
        BITS,
    ),
    Fault(
        "noise: the same at every step", "training/step.py",
        '    noise = source.child("noise", number, summed_up)',
        '    noise = source.child("noise")',
        NOISE,
    ),
    Fault(
        "noise: not keyed by the sum, so another sum meets it again", "training/step.py",
        '    summed_up = source.digest("sum", entered, drawn, total.total, scale, *remembered)',
        '    summed_up = source.digest("sum", entered)',
        NOISE,
    ),
    Fault(
        "sampler: twice the declared rate", "data/sampling.py",
        "        return torch.from_numpy(stream.heads(units, self.rate))",
        "        return torch.from_numpy(stream.heads(units, min(1.0, 2 * self.rate)))",
        DRAWS,
    ),
    Fault(
        "sampler: the same units at every step", "data/sampling.py",
        '        stream = source.child("poisson", step, entered).stream()\n'
        "        return",
        '        stream = source.child("poisson", 0, entered).stream()\n'
        "        return",
        DRAWS,
    ),
    Fault(
        "sampler: a fixed number of units", "data/sampling.py",
        "        return torch.from_numpy(stream.heads(units, self.rate))",
        "        return stream.permutation(units)[: round(self.rate * units)].sort().values",
        DRAWS,
    ),
    Fault(
        "account: half of the steps", "differential_privacy/events.py",
        "    count = -(-steps // span(sampling, noise))",
        "    count = -(-steps // (2 * span(sampling, noise)))",
        EVENTS,
    ),
    Fault(
        "account: half the sampling rate", "differential_privacy/events.py",
        "dp_accounting.PoissonSampledDpEvent(sampling.rate, inner)",
        "dp_accounting.PoissonSampledDpEvent(sampling.rate / 2, inner)",
        EVENTS,
    ),
    Fault(
        "account: losses are rounded down", "differential_privacy/accounting/loss_distribution.py",
        "    up = np.clip(exact + error, 0.0, p + p_error)",
        "    up = np.clip(0.9 * exact, 0.0, p + p_error)",
        PRICES,
    ),
    Fault(
        "account: adding a unit is priced alone", "differential_privacy/accounting/composition.py",
        "directions = (False, True) if one_sided",
        "directions = (True, True) if one_sided",
        PRICES,
    ),
    Fault(
        "ledger: a charge beyond the grant is taken", "ledger/rules.py",
        "        return not taken and asked <= self.allowance",
        "        return not taken",
        "tests/laws/test_ledger.py tests/ledger/test_rules.py",
    ),
    Fault("sampler: ties are always heads", "core/random.py", "= bits < np.uint64(rest)", "= True",
          "tests/core/test_random.py"),
    *RECORDED,
    *ATTACKED,
    *WIRING,
]  # fmt: skip


def copied(folder: Path) -> None:
    """Puts a copy of the package and of its tests into `folder`."""
    for part in ("nacre", "tests"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", folder)


def noticed(fault: Fault, folder: Path) -> tuple[bool, str]:
    """Whether a test fails on the copy in `folder` with the fault, and which one."""
    path = folder / "nacre" / fault.file
    sound = path.read_text()
    if sound.count(fault.line) != 1:
        raise SystemExit(f"{fault.file} holds the line of {fault.what!r} not exactly once")
    path.write_text(sound.replace(fault.line, fault.instead))
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    told = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*words, *fault.tests.split()], cwd=folder, env=told, capture_output=True, text=True
        )
    finally:
        path.write_text(sound)
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    name = failures[0].split()[1] if failures else "no test"
    return done.returncode == 1 and bool(failures), name


def misplaced() -> list[str]:
    """Faults whose line is not found exactly once in the package, so that nothing would be
    planted; such a fault is moved to where its line went."""
    return [
        f"{fault.what!r}: {fault.file} does not hold its line exactly once"
        for fault in FAULTS
        if (ROOT / "nacre" / fault.file).read_text().count(fault.line) != 1
    ]


def main() -> None:
    """Reads the command line and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the faults of noise and samplers")
    parser.add_argument("--only", default="", help="faults whose description holds this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if lost := misplaced():
        raise SystemExit("\n".join(lost))
    kinds = ("noise:", "sampler:") if options.quick else ("",)
    chosen = [f for f in FAULTS if f.what.startswith(kinds) and options.only in f.what]
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        for fault in chosen:
            start = time.perf_counter()
            seen, test = noticed(fault, folder)
            taken = time.perf_counter() - start
            print(f"{fault.what}: {test} ({taken:.0f} s)", file=sys.stderr, flush=True)
            found.append(Row(f"noticed: {fault.what}", float(seen), target="1", holds=seen))
    show(found, options.json)


if __name__ == "__main__":
    main()

"""Which models go by the tape: `python benchmarks/zoo.py [--parts layers] [--only bert] [--json]`.

Tiny random models of every architecture of transformers, families of torchvision and timm where
they are installed, layers of torch.nn and functions of free weights. `gradients: auto` chooses a
sum for each on four rows, which is then compared with the loop at random weights on other rows.
Each model has a process of its own, with a limit of time and memory.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import cast

import torch
from architectures import Batch, Case, transformers_cases, vision_cases
from layers import layer_cases
from rows import Row, show
from torch import Tensor, nn

from nacre.core.errors import NacreError
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract
from nacre.gradient_clipping import Flat, Looped
from nacre.gradient_clipping.taped_sum import Taped
from nacre.integrations import trial
from nacre.models.repair import repaired

PARTS: dict[str, Callable[[], Iterator[Case]]] = {
    "transformers": transformers_cases, "vision": vision_cases, "layers": layer_cases,
}  # fmt: skip
_AGREES = 2e-3  # relative
_MEMORY = 10 << 30  # bytes a model
_QUICK = {"transformers": 23, "vision": 10, "layers": 9}  # every so many-th model
LOOPS = {"transformers": 13, "vision": 10, "layers": 10}  # as many may be taken by the loop


@dataclass(frozen=True)
class Found:
    """What became of one model."""

    part: str
    name: str
    how: str  # "tape", "loop", "refused", "wrong", "crash", "not built", "too slow"
    why: str = ""


def _stirred(model: nn.Module) -> None:
    """Noise on each weight, so that nothing that starts at zero hides."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                p.add_(0.05 * torch.randn(p.shape, generator=generator))


def _without_idle(model: nn.Module, batch: Batch, losses: Callable[..., Tensor]) -> None:
    """Fixes weights on which no loss depends, as the refusal asks for."""
    trained = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(losses(model, batch).sum(), trained, allow_unused=True)
    for parameter, gradient in zip(trained, cast("tuple[Tensor | None, ...]", found), strict=True):
        if gradient is None:
            parameter.requires_grad_(False)


def _numbered(batch: Batch) -> Batch:
    units = len(next(iter(batch.values())))
    present = torch.ones(units, dtype=torch.bool)
    return {**batch, "present": present, "unit": torch.arange(units)}


def _turned(batch: Batch) -> Batch:
    """Rows in another order, two of them twice: no longer those that the sum was chosen on."""
    units = len(next(iter(batch.values())))
    order = torch.arange(units).flip(0).repeat(2)[: units + 2]
    return {name: value[order] for name, value in batch.items()}


def judged(case: Case) -> Found:
    """Builds a model, lets `auto` choose, and compares with the loop."""
    try:
        model, batch, losses = case.build()
        model = (
            repaired(model)
            if any("BatchNorm" in type(m).__name__ for m in model.modules())
            else model
        )
        _stirred(model)
        _without_idle(model, batch, losses)
    except Exception as error:
        return Found(case.part, case.name, "not built", f"{type(error).__name__}: {error}"[:200])
    clip, source = Flat(norm=1.0), Source(bytes(32))
    sample = _numbered(batch)
    try:
        chosen = trial.tried(model, losses, clip, sample, "auto")
        if not isinstance(chosen, Taped):
            return Found(case.part, case.name, "loop", _reason(model, losses, clip, sample))
        rows = _numbered(_turned(batch))
        seen = chosen(model, rows, clip, source).total
        single = Looped(chosen.objective, chosen.owners)(model, rows, clip, source).total
    except NacreError as error:
        return Found(case.part, case.name, "refused", str(error))
    except Exception as error:
        return Found(case.part, case.name, "crash", f"{type(error).__name__}: {error}"[:200])
    apart = norm(subtract(seen, single)) / (norm(single) + 1e-30)
    how = "tape" if apart <= _AGREES else "wrong"
    return Found(case.part, case.name, how, f"{apart:.1e} from the loop")


def _reason(model: nn.Module, losses: Callable[..., Tensor], clip: Flat, sample: Batch) -> str:
    """Why book-keeping is not to be had."""
    try:
        trial.tried(model, losses, clip, sample, "bookkeeping")
    except Exception as error:
        return str(error)
    return "not found"


def forked(case: Case, limit: float) -> Found:
    """`judged`, in a process of its own that is stopped after `limit` seconds."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        with os.fdopen(write, "w") as out:
            out.write(json.dumps(asdict(judged(case))))
        os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], limit)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    if not text:
        how = "crash" if ready else "too slow"
        return Found(case.part, case.name, how, "the process ended" if ready else f"{limit:g} s")
    return Found(**json.loads(text))


def kind_of(why: str) -> str:
    """A reason without the names of weights and figures, so that equal ones count together."""
    return re.sub(r" of [\w., ]+(?= )|[\d.]+(e-?\d+)?", "", why.split(";")[0])[:90].strip()


def counted(part: str, found: list[Found], quick: bool) -> list[Row]:
    """The rows of one part: how many went which way, and the reasons of those by the loop."""
    ways = Counter(f.how for f in found)
    built = len(found) - ways["not built"]
    most = 0.05 * built if quick else LOOPS[part]
    loops = ways["loop"] + ways["refused"]
    rows = [Row(f"{part}: built", built), Row(f"{part}: by the tape", ways["tape"])]
    rows.append(Row(f"{part}: by the loop, or refused", loops, target=f"<= {most:.3g}",
                    holds=loops <= most or (quick and loops <= 1)))  # fmt: skip
    for how in ("crash", "wrong", "too slow"):
        rows.append(Row(f"{part}: {how}", ways[how], target="0", holds=ways[how] == 0))
    reasons = Counter(kind_of(f.why) for f in found if f.how in ("loop", "refused"))
    rows += [Row(f"{part}: since {why}", number) for why, number in reasons.most_common()]
    return rows


def main() -> None:
    """Prints one line a model on stderr, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--only", default="", help="names that hold one of these")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    names = [name for name in asked.only.split(",") if name]
    rows: list[Row] = []
    for part in asked.parts.split(","):
        cases = [c for c in PARTS[part]() if not names or any(n in c.name for n in names)]
        found: list[Found] = []
        for case in cases[:: _QUICK[part]] if asked.quick else cases:
            one = forked(case, asked.limit)
            print(f"{part:<13}{one.name:<44}{one.how:<10}{one.why[:150]}", file=sys.stderr)
            found.append(one)
        if found:
            rows += counted(part, found, asked.quick or bool(names))
    show(rows, asked.json)


if __name__ == "__main__":
    main()

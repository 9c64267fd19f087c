"""Training in one process, or in all that `torchrun` started."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nacre.models import Code
    from nacre.runs.progress import Progress
    from nacre.runs.run import Run

_SELDOM = 100_000
"""New objects between two collections while libraries are imported, for 700 as Python has it."""


@contextmanager
def seldom_collected() -> Generator[None]:
    """For imports and plans. Their libraries make a million objects that stay, and to look through
    these again and again for garbage takes an eighth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def trained(recipe: Path, into: Path, resume: bool, watch: Progress, code: Code) -> Run | None:
    """Plans and trains RECIPE; the finished run, in the process that tells of it, None in others.

    Raises what `plan` and `train` raise. Where several processes work, only the first looks at
    ledger and run folder, which may lie where the others cannot reach.
    """
    with seldom_collected():
        from nacre.core.run_folder import refuse_existing
        from nacre.planning.plan import Plan, plan
        from nacre.recipe.load import load_recipe
        from nacre.runs.rows import look
        from nacre.runs.run import train
        from nacre.training.devices.group import join

    with join() as group:

        def planned() -> Plan:
            if not group.first:
                return plan(load_recipe(recipe, code=code), ledger=False)
            if not resume:
                refuse_existing(into)  # at once, and not after the noise is calibrated
            found = load_recipe(recipe, code=code)
            if not resume:
                look(found)  # which is quick, and calibrating is not
            with seldom_collected():
                return plan(found, resume=into if resume else None)

        run = train(group.all_or_raise(planned), into=into, resume=resume, observe=watch)
        return run if group.first else None


def process() -> int:
    """Which of the processes that `torchrun` started this is; 0 for one that stands alone."""
    alone = os.environ.get("WORLD_SIZE", "1") in ("", "1")
    return 0 if alone else int(os.environ.get("RANK", "0"))

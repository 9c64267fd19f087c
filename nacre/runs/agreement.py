"""What the processes of a run must agree on before the first row is read, and how they share."""

from __future__ import annotations

from nacre.core.errors import Incompatible
from nacre.core.random import digest
from nacre.planning.plan import Plan
from nacre.recipe.places import refuse
from nacre.runs.progress import Progress
from nacre.runs.provenance import code
from nacre.training.devices.group import Group
from nacre.training.devices.portions import Devices


def agree(plan: Plan, group: Group) -> None:
    """Raises `Incompatible` where the plan is not for so many processes, `RunError` where they do
    not have one plan or one code. Nobody passes before all have come here."""
    group.all_or_raise(lambda: _fits(plan, group.size))
    if group.size > 1:
        mechanisms = [repr(level.mechanism) for level in plan.levels]
        group.require_equal("the plan", digest(plan.digest, *mechanisms))
        group.require_equal("the code", bytes.fromhex(code(plan.recipe)))


def _fits(plan: Plan, processes: int) -> None:
    if processes == 1:
        return
    if plan.federated:
        raise Incompatible(
            f"{processes} processes were started, but the parties of a federation are trained by "
            "one; start `nacre` without `torchrun`"
        )
    if plan.recipe.execution.devices == "one":
        refuse(
            plan.recipe,
            "execution.devices",
            f"one, but {processes} processes were started; start `nacre` without `torchrun`, or "
            "use replicated or sharded",
        )


def share(plan: Plan, group: Group, portions: int, watch: Progress) -> Devices:
    """How the processes share the steps; a group of one has nothing to deal."""
    if portions < group.size:
        watch.tell(
            f"this run deals its units into {portions} portions, fewer than the {group.size} "
            "processes: some have nothing to sum, and the numbers are the same"
        )
    if plan.recipe.execution.devices != "sharded" or group.size == 1:
        return Devices(group, portions)
    from nacre.training.devices.sharded import (
        Sharded,  # half a second that nobody else need wait for
    )

    return Sharded(group, portions)

"""A plan for people: what will run, the noise, epsilon by step, cost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nacre.training import words
from nacre.training.plan import Holder, Plan


def show(plan: Plan) -> RenderableType:
    """Tables and sentences; every number is public."""
    parts: list[RenderableType] = [Text(f"plan of {plan.recipe.name}", style="bold"), _what(plan)]
    if plan.private:
        parts += [_accounts(plan), _by_step(plan)]
    else:
        parts.append(
            Text("not private: the recipe has no differential_privacy section", style="bold red")
        )
    return Group(*parts)


def _what(plan: Plan) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, sentence in words.techniques(plan.recipe).items():
        table.add_row(name, sentence or "off")
    table.add_row("model", f"{words.model_words(plan.recipe)}, {_model(plan)}")
    table.add_row("steps", _steps(plan))
    estimate = plan.estimate
    table.add_row("gradients", f"{estimate.gradients}: {estimate.why}")
    table.add_row("cost", f"about {_time(estimate.seconds)}, {_bytes(estimate.memory_bytes)}")
    return table


def _model(plan: Plan) -> str:
    estimate = plan.estimate
    return f"{estimate.parameters:,} parameters, {estimate.trained:,} of them trained"


def _steps(plan: Plan) -> str:
    sampling = words.sampling_words(plan.inner_sampling)
    if plan.recipe.federated_learning is None:
        return f"{plan.rounds}, each draws {sampling}"
    local = plan.recipe.federated_learning.local.steps
    return f"{plan.rounds} rounds of {local} local steps, each draws {sampling}"


def _accounts(plan: Plan) -> Table:
    table = Table(title="what is charged", title_justify="left")
    for name in ("account", "unit", "size", "noise", "epsilon", "delta", "by", "of the grant"):
        table.add_column(name, justify="left" if name in ("account", "unit", "by") else "right")
    for holder in plan.holders:
        price = holder.price
        assert price is not None  # every holder of a private plan is priced
        table.add_row(
            holder.account,
            f"{holder.mechanism.unit}, {holder.mechanism.adjacency.replace('_', '-')}",
            str(holder.size),
            f"{holder.mechanism.noise.multiplier:.4g} x {holder.mechanism.clip.bound(1):g}",
            f"{price.epsilon:.4f}",
            f"{holder.delta:g}",
            price.accountant,
            f"{holder.takes.share:.1%}" if holder.takes is not None else "no grant",
        )
    return table


def _by_step(plan: Plan) -> Table:
    holder: Holder = plan.holders[0]
    table = Table(title="epsilon as the run goes on", title_justify="left")
    table.add_column("after step")
    for step, _ in holder.by_step:
        table.add_column(str(step), justify="right")
    table.add_row(holder.account, *(f"{epsilon:.3f}" for _, epsilon in holder.by_step))
    return table


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"

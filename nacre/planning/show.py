"""A plan for people: what will run, the noise, epsilon by step, cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nacre.core.types import BoundedSum
from nacre.differential_privacy.upward import rounded_up_to
from nacre.figures.protected import expected_accuracy
from nacre.planning import words
from nacre.planning.alternatives import settings_in_words
from nacre.planning.levels import ChargedLevel, PricedLevel
from nacre.planning.mechanisms import held_out_expected
from nacre.planning.plan import Plan
from nacre.planning.search_facts import SearchFacts
from nacre.statistics.votes import VOTE
from nacre.training.pieces import learnt_task


def plan_tables(plan: Plan) -> RenderableType:
    """Tables and sentences; every number is public."""
    parts: list[RenderableType] = [Text(f"plan of {plan.recipe.name}", style="bold"), _what(plan)]
    levels = plan.priced
    if levels:
        grows = _by_step(levels[0]) if plan.search is None else _search(plan, plan.search)
        parts += [_accounts(levels), *_together(levels), grows]
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
    if plan.search is not None:
        table.add_row("tune", plan.search.sentence())
    table.add_row("data", words.data_words(plan.recipe))
    table.add_row("model", f"{words.model_words(plan.recipe)}, {_model(plan)}")
    table.add_row("answers", learnt_task(plan.recipe, plan.schema).sentence())
    table.add_row("steps", _steps(plan))
    if plan.priced and plan.priced[0].mechanism.evaluation:
        table.add_row("protected figure", _draws(plan, plan.priced[0]))
    table.add_row("optimizer", plan.recipe.training.optimizer.sentence())
    for audit in plan.recipe.audit:
        table.add_row("audit", audit.sentence())
    noise = words.noise_words(plan.recipe)
    if noise is not None:
        table.add_row("noise", noise)
    estimate = plan.estimate
    table.add_row("gradients", f"{estimate.gradients}: {estimate.why}")
    cost = (
        f"about {_time(estimate.seconds)}, {_bytes(estimate.memory_bytes)} for the steps over rows"
    )
    if plan.search is not None:
        cost += f" of one trial ({plan.search.how_many()})"
    table.add_row("cost", cost + words.not_in_the_cost(plan.recipe))
    return table


def _model(plan: Plan) -> str:
    estimate = plan.estimate
    return f"{estimate.parameters:,} parameters, {estimate.trained:,} of them trained"


def _steps(plan: Plan) -> str:
    sampling = words.sampling_words(plan.inner_sampling)
    copies = plan.recipe.training.augment
    if copies is not None:
        sampling += f", {words.counted_noun(copies.count, 'random version')} of each image"
    if plan.recipe.federated_learning is None:
        return f"{plan.rounds}, each draws {sampling}"
    local = plan.recipe.federated_learning.local.steps
    return (
        f"{plan.rounds} rounds of {words.counted_noun(local, 'local step')}, each draws {sampling}"
    )


def _draws(plan: Plan, level: PricedLevel) -> str:
    """How many draws the protected figure takes, and how wide its interval will be, from declared
    numbers alone."""
    mechanism, draws = level.mechanism, level.mechanism.evaluation
    expected = expected_accuracy(
        draws * held_out_expected(plan.recipe, mechanism),
        len(plan.schema.classes),
        draws=draws,
        rate=float(mechanism.sampling.facts()["rate"]),
        deviation=level.multiplier * BoundedSum({}, VOTE).sensitivity(mechanism.adjacency),
        share=_ASSUMED,
    )
    said = f"{words.counted_noun(draws, 'draw')} for the protected figure, after the steps: "
    if expected["low"] is None or expected["high"] is None:
        return said + (
            f"expected to be undefined, since {expected['why']}; a larger `data.holdout.share` or "
            "`training.batch`, or more steps, give it more votes"
        )
    return said + (
        f"an accuracy of {_ASSUMED:.0%} would have the interval {expected['low']:.1%} to "
        f"{expected['high']:.1%}"
    )


def _accounts(levels: Sequence[PricedLevel]) -> Table:
    mechanism = levels[0].mechanism
    neighbours = mechanism.adjacency.replace("_", "-")
    table = Table(
        title=f"what is charged: unit {mechanism.unit}, neighbours by {neighbours}",
        title_justify="left",
    )
    table.add_column("account", overflow="fold")
    for name in ("units", "noise x sensitivity", "epsilon", "delta", "by", "of the grant"):
        table.add_column(name, justify="right", no_wrap=True)
    alike: dict[tuple[str, ...], list[str]] = {}
    rows: list[tuple[str, ...]] = []
    for level in levels:
        row = (
            str(level.size),
            f"{level.multiplier:.4g} x {_sensitivity(level)}",
            rounded_up_to(level.price.epsilon, 3),
            f"{level.delta:g}",
            level.price.accountant,
            _taken(level),
        )
        alike.setdefault(row, []).append(level.account)
        rows.append(row)
    for level, row in zip(levels, rows, strict=True):
        accounts = alike[row]
        if len(accounts) <= _ALIKE:
            table.add_row(level.account, *row)
        elif accounts[0] == level.account:
            table.add_row(words.first_of(accounts), *row)
    return table


def _taken(level: PricedLevel) -> str:
    """The share of its grant; nothing where no ledger was looked at."""
    if not isinstance(level, ChargedLevel):
        return ""
    return f"{level.quote.share:.1%} ({level.quote.rule})"


def _sensitivity(level: PricedLevel) -> str:
    """How far neighbouring data sets move a sum: times the multiplier it is the deviation of the
    noise. Where the rule moves, at its first step."""
    clip = level.mechanism.clip
    least = BoundedSum({}, clip.bound(1)).sensitivity(level.mechanism.adjacency)
    return f"{least:.4g}" + (" at first" if clip.moved() else "")


def _together(levels: Sequence[PricedLevel]) -> list[Text]:
    """What accounts stand at once this run is added to what they were charged before."""
    quotes = [level.quote for level in levels if isinstance(level, ChargedLevel)]
    alike: dict[str, list[str]] = {}
    for quote in quotes:
        if quote.share_after > quote.share * (1 + 1e-9):
            said = (
                f" charged before: with this run {quote.share_after:.1%} of its grant is taken, "
                f"epsilon {rounded_up_to(quote.epsilon_after, 3)} in all"
            )
            alike.setdefault(said, []).append(quote.account)
    return [
        Text(words.first_of(accounts) + (" was" if len(accounts) == 1 else " were") + said)
        for said, accounts in alike.items()
    ]


def _by_step(level: PricedLevel) -> Table:
    table = Table(title=f"epsilon of {level.account} as the run goes on", title_justify="left")
    table.add_column("after step")
    for step, _ in level.by_step:
        table.add_column(str(step), justify="right")
    passes = level.mechanism.sampling.expected / level.size
    table.add_row("epochs", *(f"{step * passes:.1f}" for step, _ in level.by_step))
    table.add_row("epsilon", *(rounded_up_to(epsilon, 3) for _, epsilon in level.by_step))
    return table


_ALIKE = 3  # accounts of one row that are listed one by one
_ASSUMED = 0.9  # accuracy whose interval is foretold
_SHOWN = 24  # alternatives that fit on a screen


def _search(plan: Plan, search: SearchFacts) -> Table:
    """What a trial may draw, with the noise that it gets."""
    title = f"what a trial draws from, noise of {plan.levels[0].account}"
    table = Table(title=title, title_justify="left")
    table.add_column("settings", overflow="fold")
    for name in ("batch", "steps", "noise"):
        table.add_column(name, justify="right", no_wrap=True)
    tried = list(zip(search.tune.settings(), plan.alternatives, strict=True))
    for settings, each in tried[:_SHOWN]:
        mechanism = each.levels[0].mechanism
        table.add_row(
            settings_in_words(settings),
            f"{mechanism.sampling.expected:g}",
            str(mechanism.steps),
            f"{mechanism.multiplier:.4g}",
        )
    if len(tried) > _SHOWN:
        table.add_row(f"… {len(tried) - _SHOWN} more", "", "", "")
    return table


def _time(seconds: float) -> str:
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    if count < 2**20:
        return "less than 1 MiB"
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"

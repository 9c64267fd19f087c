"""A plan for people: what will run, the noise, epsilon by step, cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nacre.core.types import BoundedSum
from nacre.differential_privacy.noise.distributed import WRAPS
from nacre.differential_privacy.upward import rounded_up_to
from nacre.figures.protected import expected_accuracy
from nacre.planning import words
from nacre.planning.alternatives import settings_in_words
from nacre.planning.levels import ChargedLevel, PricedLevel, by_unit, smallest_and_largest
from nacre.planning.mechanisms import held_out_expected
from nacre.planning.plan import Plan
from nacre.planning.search_facts import SearchFacts
from nacre.planning.shares_of_noise import noised_grid, observers
from nacre.recipe.sections import Training
from nacre.statistics.votes import VOTE
from nacre.training.pieces import learnt_task


def plan_tables(plan: Plan) -> RenderableType:
    """Tables and sentences; every number is public."""
    parts: list[RenderableType] = [Text(f"plan of {plan.recipe.name}", style="bold"), _what(plan)]
    levels = plan.priced
    if levels:
        for some in by_unit(levels):
            grows = _by_step(some) if plan.search is None else _search(plan, plan.search)
            parts += [_accounts(some), *_against(some), *_seen_by(some), *_together(some), grows]
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
    table.add_row("optimizer", _updates(plan.recipe.training))
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


def _updates(training: Training) -> str:
    said = training.optimizer.sentence()
    return said if training.average is None else f"{said}; {training.average.sentence()}"


def _model(plan: Plan) -> str:
    estimate = plan.estimate
    said = f"{estimate.parameters:,} parameters, {estimate.trained:,} of them trained"
    return said if estimate.shared is None else f"{said} and {estimate.shared:,} shared"


def _steps(plan: Plan) -> str:
    sampling = words.sampling_words(plan.inner_sampling)
    copies = plan.recipe.training.augment
    if copies is not None:
        sampling += f", {words.versions(copies)} of each {copies.subject}"
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
    charges = [_charge([level]) for level in levels]
    alike: dict[tuple[str, ...], list[str]] = {}
    for level, charge in zip(levels, charges, strict=True):
        alike.setdefault(charge, []).append(level.account)
    rows: list[tuple[str, tuple[str, ...]]] = []
    for level, charge in zip(levels, charges, strict=True):
        accounts = alike[charge]
        if len(accounts) <= _ALIKE:
            rows.append((level.account, charge))
        elif accounts[0] == level.account:
            rows.append((words.first_of(accounts), charge))
    if len(rows) > _LISTED:
        rows = [(words.first_of([level.account for level in levels]), _charge(levels))]
        table.caption, table.caption_justify = "`--json` has each account by itself", "left"
    for name, row in rows:
        table.add_row(name, *row)
    return table


def _against(levels: Sequence[PricedLevel]) -> list[Text]:
    """Whom the promise holds against, where a recipe makes two."""
    return [Text(f"holds against {said}") for said in (levels[0].against,) if said]


def _charge(levels: Sequence[PricedLevel]) -> tuple[str, ...]:
    """What accounts are charged: one figure where theirs are alike, else the least and the
    greatest."""
    noise = words.spread([level.multiplier for level in levels], lambda z: f"{z:.4g}")
    moved = ", ".join(dict.fromkeys(_sensitivity(level) for level in levels))
    return (
        words.spread([level.size for level in levels], lambda size: f"{size:g}"),
        f"{noise} x {moved}",
        words.spread([level.price.epsilon for level in levels], lambda e: rounded_up_to(e, 3)),
        words.spread([level.delta for level in levels], lambda delta: f"{delta:g}"),
        ", ".join(dict.fromkeys(level.price.accountant for level in levels)),
        _taken(levels),
    )


def _taken(levels: Sequence[PricedLevel]) -> str:
    """The share of their grants; nothing where no ledger was looked at."""
    quotes = [level.quote for level in levels if isinstance(level, ChargedLevel)]
    if not quotes:
        return ""
    share = words.spread([quote.share for quote in quotes], lambda share: f"{share:.1%}")
    return f"{share} ({', '.join(dict.fromkeys(quote.rule for quote in quotes))})"


def _sensitivity(level: PricedLevel) -> str:
    """How far neighbouring data sets move a sum: times the multiplier it is the deviation of the
    noise. Where the rule moves, at its first step."""
    clip = level.mechanism.clip
    least = BoundedSum({}, clip.bound(1)).sensitivity(level.mechanism.adjacency)
    return f"{least:.4g}" + (" at first" if clip.moved() else "")


def _seen_by(levels: Sequence[PricedLevel]) -> list[Text]:
    """Both epsilons of noise in shares, and the grid; nothing of other noise."""
    found: list[Text] = []
    for level in levels:
        against = level.by_observer().get("epsilon_against")
        grid = noised_grid(level.mechanism)
        if against is None or grid is None:
            continue
        found += [
            Text(observers(against)),
            Text(
                f"{words.counted_noun(grid.noise.shares, 'share')} counted, each of deviation "
                f"{math.sqrt(grid.noise.variance):.4g} steps of {grid.step:.3g}; a sum wraps with "
                f"chance {WRAPS:.0e} at most, which costs accuracy alone"
            ),
        ]
    return found


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


def _by_step(levels: Sequence[PricedLevel]) -> Table:
    """Of one account, or of the smallest and the largest party as the least and the greatest
    figure."""
    some = smallest_and_largest(levels)
    whose = " and ".join(level.account for level in some)
    table = Table(title=f"epsilon of {whose} as the run goes on", title_justify="left")
    table.add_column("after step")
    for step, _ in some[0].by_step:
        table.add_column(str(step), justify="right")
    at = [step for step, _ in some[0].by_step]
    passes = [level.mechanism.sampling.expected / level.size for level in some]
    epochs = (words.spread([step * each for each in passes], _tenth) for step in at)
    epsilons = zip(*([epsilon for _, epsilon in level.by_step] for level in some), strict=True)
    table.add_row("epochs", *epochs)
    table.add_row(
        "epsilon", *(words.spread(each, lambda e: rounded_up_to(e, 3)) for each in epsilons)
    )
    return table


def _tenth(value: float) -> str:
    return f"{value:.1f}"


_ALIKE = 3  # accounts of one row that are listed one by one
_LISTED = 8  # accounts that have a row each
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

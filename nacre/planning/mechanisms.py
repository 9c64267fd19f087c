"""recipe -> who holds rows, and what happens at each level of its run; no noise is calibrated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nacre.core.errors import DataError, Incompatible
from nacre.core.parts import Noise, Sampling
from nacre.data.partition import Counted, Sizes
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.gradient_clipping import Unclipped
from nacre.planning.levels import Level
from nacre.planning.limits import OF_ROWS, of_parties
from nacre.planning.protection import Protection
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training import pieces

UNPROTECTED = NoNoise(because="the recipe has no differential_privacy section")
NOT_YET = NoNoise(because="the unit is a client: noise is added to the sum over clients alone")


def declared_sizes(recipe: Recipe) -> Sizes:
    """Holder of rows -> declared units; one without a name where nothing is federated."""
    if recipe.federated_learning is None:
        return Sizes(("",), np.array([recipe.data.size]))
    try:
        return recipe.federated_learning.parties.declared_sizes(recipe.data.size)
    except Incompatible as error:
        refuse(recipe, "federated_learning.parties", str(error))


def evaluation_draws(recipe: Recipe, rate: float, steps: int) -> int:
    """Draws of a protected figure: as many as show each unit once on average, and a tenth of the
    steps at most, so that it adds little to the price. 0 where the recipe asks for none."""
    holdout = recipe.data.holdout
    if holdout is None or not holdout.protected:
        return 0
    return min(math.ceil(1 / rate), max(1, steps // 10))


def held_out_expected(recipe: Recipe, mechanism: Mechanism) -> float:
    """Held-out units in a draw, from declared numbers: `data.size` counts what is left of all units
    once the holdout's share is taken."""
    holdout = recipe.data.holdout
    share = holdout.share if holdout is not None else 0.0
    return mechanism.sampling.expected * share / (1 - share)


def over_rows(recipe: Recipe, size: int) -> Mechanism:
    """What happens over the rows of one holder."""
    privacy, steps = recipe.privacy_of_rows, recipe.row_steps
    sampling = pieces.sampling(recipe, size)
    noise: Noise = UNPROTECTED if recipe.differential_privacy is None else NOT_YET
    if privacy is not None:
        noise = privacy.noise.build(steps, sampling.separation)
    rate = float(sampling.facts()["rate"])
    neighbours = privacy or recipe.differential_privacy
    return Mechanism(
        unit=privacy.unit if privacy is not None else "example",
        adjacency=neighbours.adjacency if neighbours is not None else "add_or_remove",
        sampling=sampling,
        clip=pieces.clip(recipe),
        noise=noise,
        steps=steps,
        evaluation=evaluation_draws(recipe, rate, steps) if privacy is not None else 0,
    )


def over_parties(recipe: Recipe) -> Mechanism | None:
    """What happens over the parties; None without a federation.

    Raises `Unbounded` where noise is to hide a party whose change no rule bounds.
    """
    federation, privacy = recipe.federated_learning, recipe.differential_privacy
    if federation is None:
        return None
    names = federation.parties.names
    sampling = cohort(recipe)
    clip, noise = Unclipped(), UNPROTECTED
    if privacy is not None and privacy.unit == "client":
        clip = pieces.unit_clip(recipe) or Unclipped()
        noise = privacy.noise.build(federation.rounds, sampling.separation)
    elif privacy is not None:
        inherited = _inherited(names)
        because = "each party's change is already private for its own rows"
        noise = NoNoise(because=because, inherited=inherited)
    return Mechanism(
        unit="client",
        adjacency=privacy.adjacency if privacy is not None else "add_or_remove",
        sampling=sampling,
        clip=clip,
        noise=noise,
        steps=federation.rounds,
    )


def cohort(recipe: Recipe) -> Sampling:
    """Who is asked in a round. Refuses a cycle that the parties are too few for."""
    federation, privacy = recipe.federated_learning, recipe.differential_privacy
    assert federation is not None
    whole = privacy is not None and privacy.unit == "client"
    bands = privacy.noise.bands if privacy is not None and whole else 1
    try:
        return federation.cohort.build(len(federation.parties.names), bands)
    except DataError as error:
        refuse(recipe, "federated_learning.cohort", str(error))


def _inherited(names: Sequence[str]) -> tuple[str, ...]:
    """Whose noised steps the changes of a round are computed from; a count where they are many."""
    if len(names) > _NAMED:
        return (f"the noised steps of {len(names)} parties",)
    return tuple(f"the noised steps of {name}" for name in names)


_NAMED = 32  # parties that are named one by one
_LISTED = 1000  # parties that have an entry each in plan.json although nothing is promised to them


def declared_levels(
    recipe: Recipe,
    sizes: Sizes,
    outer: Mechanism | None,  # over parties
    protection: Protection | None,
) -> tuple[Level, ...]:
    """The levels at which gradients of private rows are released: the parties together where whole
    parties are protected, and each holder of rows where its rows are. Parties that nobody protects
    are one level for each size, where they are counted or very many."""
    whole, within = tuple[Level, ...](), ""
    if outer is not None and recipe.privacy_of_parties is not None:
        if recipe.privacy_of_rows is None:
            return (_level("", len(sizes), outer, protection),)
        whole = (_level("", len(sizes), outer, protection, against=of_parties(recipe)),)
        within = OF_ROWS
    if protection is None and (isinstance(sizes.names, Counted) or len(sizes) > _LISTED):
        return tuple(
            _level(sizes.names[first], size, over_rows(recipe, size), None, count)
            for size, (first, count) in sizes.distinct().items()
        )
    mechanisms = {size: over_rows(recipe, size) for size in sizes.distinct()}
    each = (
        _level(name, size, mechanisms[size], protection, against=within)
        for name, size in sizes.items()
    )
    return (*whole, *each)


def _level(
    name: str, size: int, mechanism: Mechanism, protection: Protection | None, parties: int = 1,
    against: str = "",
) -> Level:  # fmt: skip
    account = protection.account(name) if protection is not None else None
    return Level(
        name=name, account=account, size=size, mechanism=mechanism, parties=parties,
        against=against,
    )  # fmt: skip

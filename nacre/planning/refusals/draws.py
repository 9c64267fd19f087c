"""The refusals that are about who enters a step, and what noise that allows."""

from __future__ import annotations

from nacre.core.errors import DataError, Refusal, UnsupportedEvent
from nacre.data.sampling import CyclicPoisson
from nacre.differential_privacy.events import require_neighbours, require_pair
from nacre.differential_privacy.options import DistributedGaussianNoise
from nacre.federated_learning.secure import SecureGather
from nacre.planning.facts import RecipeFacts
from nacre.planning.mechanisms import cohort
from nacre.recipe.places import refuse
from nacre.training import pieces
from nacre.training.pieces import protects


def sampling_with_event(facts: RecipeFacts) -> None:
    """Noise over rows is priced for draws, and neighbours, that have a proof."""
    recipe, privacy = facts.recipe, facts.recipe.differential_privacy
    if privacy is None or protects(recipe) == "client":
        return
    for size in facts.sizes.distinct():
        try:
            require_neighbours(pieces.sampling(recipe, size), privacy.adjacency)
        except UnsupportedEvent as error:
            refuse(recipe, "training.sampling", str(error), UnsupportedEvent)


def noise_fits_the_sampling(facts: RecipeFacts) -> None:
    """Correlated noise is proven for units that take turns: rows of one holder, or parties."""
    recipe, privacy = facts.recipe, facts.recipe.differential_privacy
    for size in facts.sizes.distinct():
        try:
            pieces.sampling(recipe, size)
        except DataError as error:
            refuse(recipe, "training.batch", str(error))
    if privacy is None:
        return
    problem = privacy.noise.unfit()
    if problem is not None:
        refuse(recipe, "differential_privacy.noise", problem)
    if isinstance(privacy.noise, DistributedGaussianNoise):
        _parties_add_it(facts)
    if not privacy.noise.correlated:
        return
    federation = recipe.federated_learning
    if federation is not None and privacy.unit != "client":
        refuse(
            recipe,
            "differential_privacy.noise",
            f"{privacy.noise.kind} noise remembers earlier steps, and a party keeps none of its "
            "noise between rounds; use `noise: {kind: gaussian}`, or protect whole parties "
            "(`unit: client`), whose noise the server adds",
        )
    if federation is not None:
        sampling, steps = cohort(recipe), federation.rounds
        if not isinstance(sampling, CyclicPoisson):
            refuse(
                recipe,
                "differential_privacy.noise",
                f"{privacy.noise.kind} noise is proven for parties that take turns, and these may "
                "be asked in rounds that are close together, whose noise partly cancels; use "
                "`cohort: {kind: cyclic_poisson, expected: …}`, or `noise: {kind: gaussian}`",
            )
    else:
        sampling, steps = pieces.sampling(recipe, facts.sizes[""]), recipe.training.steps
    try:
        noise = privacy.noise.build(steps, sampling.separation)
        require_pair(sampling, noise)
    except Refusal as error:
        refuse(recipe, "differential_privacy.noise", str(error), type(error))


def _parties_add_it(facts: RecipeFacts) -> None:
    """Noise in shares needs parties, a sum that hides each share, and one share at least that
    nobody who looks knows."""
    recipe, federation = facts.recipe, facts.recipe.federated_learning
    key = "differential_privacy.noise"
    if protects(recipe) != "client" or federation is None:
        refuse(
            recipe, key,
            "noise in shares is added by parties that protect themselves as a whole; use `unit: "
            "client` with a federation, or `noise: {kind: gaussian}`",
        )  # fmt: skip
    if not isinstance(federation.gather, SecureGather):
        refuse(
            recipe, key,
            "each party adds a share of the noise that is too small to hide it, so no share may be "
            "seen by itself; use `gather: {kind: secure, threshold: …}`, or `noise: {kind: "
            "gaussian}`, which a server adds that is trusted with it",
        )  # fmt: skip
    if federation.gather.colluders < 1:
        refuse(
            recipe, "federated_learning.gather.colluders",
            "each party knows its own share of the noise and sees the model, so one colluder is "
            "the least that noise in shares can assume; say `colluders: 1` or more",
        )  # fmt: skip

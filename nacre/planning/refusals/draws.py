"""The refusals that are about who enters a step, and what noise that allows."""

from __future__ import annotations

from nacre.core.errors import DataError, Refusal, UnsupportedEvent
from nacre.data.sampling import CyclicPoisson
from nacre.differential_privacy.events import require_neighbours, require_pair
from nacre.differential_privacy.options import DistributedGaussianNoise
from nacre.federated_learning.secure import SecureGather
from nacre.planning.facts import RecipeFacts
from nacre.planning.mechanisms import cohort
from nacre.planning.protection import key_of_rows, protections_of
from nacre.recipe.places import refuse
from nacre.training import pieces


def sampling_with_event(facts: RecipeFacts) -> None:
    """Noise over rows is priced for draws, and neighbours, that have a proof."""
    recipe, privacy = facts.recipe, facts.recipe.privacy_of_rows
    if privacy is None:
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
    for protection in protections_of(recipe):
        problem = protection.privacy.noise.unfit()
        if problem is not None:
            refuse(recipe, f"{protection.key}.noise", problem)
        if isinstance(protection.privacy.noise, DistributedGaussianNoise):
            _parties_add_it(facts, protection.key)
    federation, of_rows = recipe.federated_learning, recipe.privacy_of_rows
    if federation is not None and of_rows is not None and of_rows.noise.correlated:
        refuse(
            recipe,
            f"{key_of_rows(recipe)}.noise",
            f"{of_rows.noise.kind} noise remembers earlier steps, and a party keeps none of its "
            "noise between rounds; use `noise: {kind: gaussian}`, or protect whole parties "
            "(`unit: client`), whose noise the server adds",
        )
    if not privacy.noise.correlated:
        return
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


def _parties_add_it(facts: RecipeFacts, level: str) -> None:
    """Noise in shares needs parties, a sum that hides each share, and one share at least that
    nobody who looks knows."""
    recipe, federation = facts.recipe, facts.recipe.federated_learning
    key = f"{level}.noise"
    if recipe.privacy_of_parties is None or level != "differential_privacy" or federation is None:
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

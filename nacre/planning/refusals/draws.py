"""The refusals that are about who enters a step, and what noise that allows."""

from __future__ import annotations

from nacre.core.errors import DataError, Refusal, UnsupportedEvent
from nacre.data.sampling import CyclicPoisson
from nacre.differential_privacy.events import require_neighbours, require_pair
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

"""What `nacre plan` refuses about secure sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nacre.core.errors import PartyError
from nacre.core.types import Tensors
from nacre.federated_learning.options import AllParties
from nacre.federated_learning.roster import SERVER, Identity
from nacre.federated_learning.secure import SecureGather
from nacre.planning.facts import RecipeFacts
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training import pieces

_KEY = "federated_learning.gather"


def secure_sums_hide_parties(facts: RecipeFacts) -> None:
    """A server that opens two sums over almost the same parties has the difference."""
    recipe = facts.recipe
    federation = recipe.federated_learning
    if federation is None or not isinstance(federation.gather, SecureGather):
        return
    if not federation.parties.named:
        refuse(
            recipe, "federated_learning.parties",
            "the parties of a secure sum sign with keys under their own names, which nobody knows "
            "here before rows are read, and each of them has to take part; name them by `sizes: "
            "{NAME: UNITS, …}`, or use `gather: {kind: plain}`",
        )  # fmt: skip
    option, names = federation.gather, federation.parties.names
    parties, threshold = len(names), option.threshold
    tolerated = option.tolerated(parties)
    if threshold > parties:
        refuse(
            recipe,
            _KEY,
            f"threshold={threshold} of {parties} parties can never answer; say `threshold: "
            f"{parties}`, or fewer where a round may go on without somebody",
        )
    if tolerated < option.colluders:
        least = next(
            (t for t in range(2, parties + 1) if _with(option, t, parties) >= option.colluders),
            None,
        )
        remedy = (
            f"say `threshold: {least}` or more"
            if least is not None
            else "so few parties cannot have it: say `colluders: 0`, or let more take part"
        )
        refuse(
            recipe, _KEY,
            f"threshold={threshold} of {parties} parties tolerates {tolerated} colluders, the "
            f"least of 2 * threshold - parties - 1 = {2 * threshold - parties - 1} and of "
            f"threshold - 2 = {threshold - 2}, and colluders={option.colluders} is asked for: a "
            f"server with more on its side could open a single party's change; {remedy}",
        )  # fmt: skip
    if not isinstance(federation.cohort, AllParties):
        refuse(
            recipe, "federated_learning.cohort",
            "the parties of a secure sum know who takes part and a draw smaller than the threshold "
            "has no sum, so a random cohort would neither be hidden nor always give a release; use "
            "`cohort: {kind: all}`",
        )  # fmt: skip
    if federation.compression is not None:
        refuse(
            recipe, "federated_learning.compression",
            "a secure sum adds masked entries, one for each weight, so a change has to come whole; "
            "leave `compression` out, and send fewer bytes by `gather: {bits: 16}`",
        )  # fmt: skip
    _names_sign(facts, names)


def _with(option: SecureGather, threshold: int, parties: int) -> int:
    return SecureGather(threshold=threshold, bits=option.bits).tolerated(parties)


def _names_sign(facts: RecipeFacts, names: Sequence[str]) -> None:
    """Names stand in signatures, beside that of the server."""
    try:
        for name in names:
            Identity.from_secret(name, bytes(32))
            if name == SERVER:
                raise PartyError(f"a party cannot be called {SERVER!r} beside the server itself")
    except PartyError as error:
        refuse(facts.recipe, "federated_learning.parties", str(error))


def sums_fit_the_grid(recipe: Recipe, sent: Tensors) -> None:
    """Refuses a grid that is too coarse for a change, of which `sent` has the weights: those of the
    model as it will be trained, without what stays with the parties."""
    federation, norm = recipe.federated_learning, None
    if federation is None or not isinstance(federation.gather, SecureGather):
        return
    option, parties = federation.gather, len(federation.parties.names)
    if pieces.protects(recipe) == "client":
        clip = pieces.unit_clip(recipe)
        if clip is not None:
            if clip.facts().get("moves", False):
                refuse(
                    recipe, "gradient_clipping",
                    f"{clip.kind} moves its norm from round to round, and in a secure sum each "
                    "party clips its own change, by a norm that no server may raise; use `kind: "
                    "flat`",
                )  # fmt: skip
            bound = clip.bound(len(clip.groups(list(sent))))
            norm = bound if math.isfinite(bound) else None
    try:
        grid = option.grid(parties, norm)
    except ValueError as error:
        refuse(recipe, _KEY, str(error))
    entries = sum(weight.numel() for weight in sent.values())
    if norm is not None and grid.step * math.sqrt(entries) / 2 > norm / 2:
        refuse(
            recipe, _KEY,
            f"bits={option.bits} leave a grid of {grid.step:.3g} for {parties} parties, on which "
            f"rounding moves {entries} entries by up to {grid.step * math.sqrt(entries) / 2:.3g} "
            f"where a change is no longer than {norm:g}; say `bits: 32`, or let a smaller part be "
            "trained",
        )  # fmt: skip

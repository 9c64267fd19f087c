"""Which rows the twins of a federation are trained and measured on, and the recipe for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from nacre.core.errors import DataError, Incompatible
from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.data.partition import ByColumn, Counted, PartitionOption, Uniform
from nacre.federated_learning import FederatedLearning, PlainGather, SecureGather
from nacre.planning.robustness import rule_of
from nacre.recipe.audits import Poisoning
from nacre.recipe.schema import Recipe
from nacre.runs.rows import Holdings
from nacre.training import pieces

_APART = 5
"""Of this number of rows of `data.public` one is kept apart for each use that is no party's."""


class TwinRows(NamedTuple):
    """What a twin is trained by and on."""

    recipe: Recipe
    held: Holdings
    test: Rows
    public: bool  # all of it
    words: str  # whose rows


def rows_of_twins(recipe: Recipe, held: Holdings, option: Poisoning, source: Source) -> TwinRows:
    """The run's own rows where they are public or the option asks for them, else public ones.

    *Guarantee:* with `public`, the rows and the recipe of a twin are functions of the recipe, of
    rows declared public and of the key `source`; a private row more or less changes none of them.

    Raises `Incompatible` where there are no such rows, `DataError` where they are too few.
    """
    if option.rows == "private" or held.private_is_public:
        if held.test is None:
            raise Incompatible(
                "poisoning measures on rows that were not trained on, and there are none; add "
                "`data: {holdout: {share: 0.2}}`"
            )
        public = held.private_is_public and held.test_is_public
        words = "the run's own rows, which are public" if public else "the run's private rows"
        return TwinRows(_twin_of(recipe), _server(recipe, held), held.test, public, words)
    if held.public is None:
        raise Incompatible(
            "poisoning trains the federation again, and there are no public rows for it; declare "
            "`data: {public: …}`"
        )
    return _of_public_rows(recipe, held, held.public, source.child("public rows"))


def _of_public_rows(recipe: Recipe, held: Holdings, rows: Rows, source: Source) -> TwinRows:
    """Public rows dealt to the declared number of parties, each about as large as another unless
    the recipe's own partition says otherwise."""
    order = source.stream().permutation(len(rows))
    test, rooted = held.test if held.test_is_public else None, _rooted(recipe)
    cut = len(rows) // _APART
    if test is None:
        test, order = rows.take(order[:cut]), order[cut:]
    root = rows.take(order[:cut]) if rooted else None
    own = rows.take(order[cut:] if rooted else order)
    federation = recipe.federated_learning
    assert federation is not None
    count = len(federation.parties.names)
    if len(own) < count or not len(test) or (root is not None and not len(root)):
        raise DataError(
            f"{len(rows)} public rows are too few for {count} parties and rows to measure on; "
            "declare more under `data.public`, or say `rows: private` beside `kind: poisoning`"
        )
    if pieces.protects(recipe) == "group":  # of a public file nobody says whose rows are whose
        own = replace(own, group=tuple(map(str, range(len(own)))))
    parties = _dealt_by(federation.parties)
    twin = _twin_of(recipe, parties=parties)
    data: Any = replace(
        twin.data, size=len(own), public_demonstration=True,
        **({"holdout": None} if getattr(twin.data, "holdout", None) is not None else {}),
    )  # fmt: skip
    least = parties.declared_sizes(len(own)).least[1]
    training = replace(twin.training, batch=min(twin.training.batch, least))
    twin = replace(twin, data=data, training=training)
    privacy = recipe.differential_privacy
    dealt = parties.split(own, "example" if privacy is None else privacy.unit, recipe.seed)
    held = replace(
        held, private=dealt, public=root, test=test, outsiders=None, private_is_public=True,
        test_is_public=True, canaries=0,
    )  # fmt: skip
    return TwinRows(twin, held, test, True, f"{len(own)} public rows, dealt to {count} parties")


def _twin_of(recipe: Recipe, **federation: Any) -> Recipe:
    """The recipe of a twin: the same training, with nothing measured beside it; a secure sum is a
    plain mean, since that is what it adds up."""
    option = recipe.federated_learning
    assert option is not None
    if isinstance(option.gather, SecureGather):
        federation["gather"] = PlainGather()
    own: FederatedLearning = replace(option, stop=None, **federation)
    return replace(recipe, federated_learning=own, audit=(), compare=(), tune=None, evaluate=None)


def _server(recipe: Recipe, held: Holdings) -> Holdings:
    """Without the public rows that nobody needs: they would be measured after each round."""
    return held if _rooted(recipe) else replace(held, public=None)


def _rooted(recipe: Recipe) -> bool:
    rule = rule_of(recipe)
    return rule is not None and rule.rooted


def _dealt_by(parties: PartitionOption) -> PartitionOption:
    """The recipe's own partition where it is simulated; public rows have no column of parties."""
    if not isinstance(parties, ByColumn):
        return parties
    names = parties.names
    return Uniform(names=names if isinstance(names, Counted) else tuple(names))

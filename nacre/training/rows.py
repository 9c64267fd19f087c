"""The rows of a run, read once, checked, scaled by public numbers, dealt to their holders."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass

from nacre.core.random import digest
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Cohorts, Rows, Schema
from nacre.data.scaling import Scaler, fit_scaling
from nacre.recipe.schema import Recipe


@dataclass(frozen=True)
class Holdings:
    """Scaled rows by who may see them."""

    schema: Schema
    scaler: Scaler
    space: FeatureSpace
    private: dict[str, Rows]  # holder -> rows; one holder named "" without a federation
    public: Rows | None
    test: Rows | None
    outsiders: Rows | None  # test rows drawn as the private ones were; None where all test rows are
    test_is_public: bool
    private_is_public: bool
    notes: tuple[str, ...]  # for the local terminal only
    hmac: str  # of the data under the holder's key

    @property
    def not_public(self) -> tuple[Rows, ...]:
        """All rows that are nobody's to show; none in a public demonstration."""
        if self.private_is_public:
            return ()
        kept_out = () if self.test is None or self.test_is_public else (self.test,)
        return (*self.private.values(), *kept_out)


def read(recipe: Recipe, holder_key: bytes) -> Holdings:
    """Reads and checks every row. Nothing leaves; raises `DataError` where rows do not fit."""
    schema = recipe.data.schema()
    cohorts = recipe.data.read(recipe.folder, recipe.seed, holder_key)
    scaler = fit_scaling(recipe.data.scaling, schema, cohorts.public)
    return Holdings(
        schema=schema,
        scaler=scaler,
        space=scaler.space(schema),
        private=_dealt(recipe, cohorts, scaler),
        public=_scaled(scaler, cohorts.public),
        test=_scaled(scaler, cohorts.test),
        outsiders=_scaled(scaler, cohorts.outsiders),
        test_is_public=cohorts.test_is_public,
        private_is_public=cohorts.private_is_public,
        notes=cohorts.notes,
        hmac=_hmac(cohorts, holder_key),
    )


def _hmac(cohorts: Cohorts, key: bytes) -> str:
    """Hex HMAC-SHA-256 of the rows *as they were read*, so that nothing can change in between."""
    state = hmac.new(key, b"nacre rows", hashlib.sha256)
    for rows in (cohorts.private, cohorts.public, cohorts.test, cohorts.outsiders):
        if rows is None:
            state.update(digest("none"))
        else:
            names = json.dumps([rows.group, rows.party])
            state.update(digest(rows.features, rows.label, names))
    return state.hexdigest()


def _scaled(scaler: Scaler, rows: Rows | None) -> Rows | None:
    return None if rows is None else scaler.apply(rows)


def _dealt(recipe: Recipe, cohorts: Cohorts, scaler: Scaler) -> dict[str, Rows]:
    rows = scaler.apply(cohorts.private)
    if recipe.federated_learning is None:
        return {"": rows}
    privacy = recipe.differential_privacy
    unit = privacy.unit if privacy is not None else "example"
    return recipe.federated_learning.parties.split(rows, unit, recipe.seed)

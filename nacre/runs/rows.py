"""The rows of a run, read once, checked, scaled by public numbers, dealt to their holders."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import DataError
from nacre.core.random import digest
from nacre.core.types import FeatureSpace
from nacre.data import Table
from nacre.data.dataset import Cohorts, Rows, Schema
from nacre.data.partition import Dealt
from nacre.data.scaling import Scaler, fit_scaling
from nacre.data.sketches.cells import Cells
from nacre.data.text.token_cache import Aids
from nacre.data.units import members_of
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe

_ROLES = ("text", "prompt", "completion", "label", "target", "unit", "party")
"""Keys under `data` that name a column."""


@dataclass(frozen=True)
class Holdings:
    """Scaled rows by who may see them."""

    schema: Schema
    scaler: Scaler
    space: FeatureSpace
    private: Mapping[str, Rows]  # holder -> rows; one holder named "" without a federation
    public: Rows | None
    test: Rows | None
    outsiders: Rows | None  # test rows drawn as the private ones were; None where all test rows are
    test_is_public: bool
    private_is_public: bool
    notes: tuple[str, ...]  # for the local terminal only
    hmac: str  # of the data under the holder's key
    cells: tuple[
        Cells, ...
    ]  # of all rows that are not public, held-out ones too, as they were read
    parts: Mapping[str, tuple[Cells, ...]]  # the same by party; empty without a column of parties
    tokenizer: Mapping[str, Any] | None = None  # that of `Cohorts`
    canaries: int = 0  # made-up rows, which are the last ones of the only holder


def read(
    recipe: Recipe, holder_key: bytes, aids: Aids | None = None, *, holder: str | None = None
) -> Holdings:
    """Reads and checks every row. Nothing leaves; raises `DataError`, with the place in the recipe,
    where rows do not fit. With `holder` the file is that party's own, and all its rows are its."""
    schema = recipe.schema
    try:
        cohorts = recipe.data.read(recipe.folder, recipe.seed, holder_key, aids)
    except DataError as error:
        refuse(recipe, _key(recipe, error), str(error), DataError)
    scaler = fit_scaling(recipe.data.scaling, schema, cohorts.public)
    hmac = _hmac(cohorts, holder_key)  # before raw rows may be overwritten by scaled ones
    return Holdings(
        schema=schema,
        scaler=scaler,
        space=scaler.space(schema),
        private=_dealt(recipe, cohorts, scaler, holder),
        public=_scaled(scaler, cohorts.public),
        test=_scaled(scaler, cohorts.test),
        outsiders=_scaled(scaler, cohorts.outsiders),
        test_is_public=cohorts.test_is_public,
        private_is_public=cohorts.private_is_public,
        notes=(*cohorts.notes, *_size_notes(recipe, cohorts, holder)),
        hmac=hmac,
        cells=_cells(cohorts),
        parts=_parts(cohorts),
        tokenizer=cohorts.tokenizer,
        canaries=0 if cohorts.canaries is None else len(cohorts.canaries),
    )


def _key(recipe: Recipe, error: DataError) -> str:
    """The key of the recipe that the rows do not fit: the one that names the column or the file."""
    data = recipe.data
    if error.column is not None:
        if error.column in getattr(data, "columns", ()):
            return f"data.columns.{error.column}"
        for role in _ROLES:
            if getattr(data, role, None) == error.column:
                return f"data.{role}"
    files = {
        "data.public.path": getattr(data, "public", None),
        "data.test.path": getattr(data, "test", None),
        "data.path": data,
    }
    for key, option in files.items():
        path: str | None = getattr(option, "path", None)
        if path is not None and str(error).startswith(str(recipe.folder / path)):
            return key
    return "data"


def _cells(cohorts: Cohorts) -> tuple[Cells, ...]:
    """None in a public demonstration. As they were read: another scaling is no other data."""
    if cohorts.private_is_public:
        return ()
    if cohorts.cells:
        return cohorts.cells
    return tuple(_of_rows(rows) for rows in _protected(cohorts))


def _parts(cohorts: Cohorts) -> Mapping[str, tuple[Cells, ...]]:
    if cohorts.private_is_public or cohorts.cells:
        return cohorts.parts
    found: dict[str, tuple[Cells, ...]] = {}
    for rows in _protected(cohorts):
        names, which = members_of(rows.party or ())
        for place, name in enumerate(names):
            own: list[int] = np.flatnonzero(which == place).tolist()
            found[name] = (*found.get(name, ()), _of_rows(rows.take(own)))
    return found


def _protected(cohorts: Cohorts) -> tuple[Rows, ...]:
    kept_out = () if cohorts.test is None or cohorts.test_is_public else (cohorts.test,)
    return (cohorts.private, *kept_out)


def _of_rows(rows: Rows) -> Cells:
    """The features of each row beside its label, in blocks."""

    def blocks() -> Iterator[NDArray[Any]]:
        features, label = rows.features.flatten(1).numpy(), rows.label.reshape(len(rows), -1)
        step = max(1, _AT_ONCE // max(1, features.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            yield np.concatenate([features[part], label[part].numpy()], axis=1)

    return Cells("cells", blocks)


_AT_ONCE = 1 << 22  # numbers


def _size_notes(recipe: Recipe, cohorts: Cohorts, holder: str | None) -> list[str]:
    """What the holder should know where the declared size is not that of the units at hand.

    For the local terminal only: how many units there are is private, so nothing is refused.
    """
    privacy = recipe.privacy_of_rows
    rows = cohorts.private
    by_group = privacy is not None and privacy.unit == "group" and rows.group is not None
    units = len(set(rows.group or ())) if by_group else len(rows)
    what = f"values of {recipe.data.unit!r}" if by_group else "rows"
    federation = recipe.federated_learning
    if holder is not None and federation is not None:
        declared = federation.parties.declared_sizes(recipe.data.size)[holder]
        keys = ("federated_learning.parties", "training.batch")
        return size_notes(units, what, declared, recipe.training.batch, keys)
    keys = ("data.size", "training.batch")
    return size_notes(units, what, recipe.data.size, recipe.training.batch, keys)


def size_notes(
    units: int, what: str, declared: int, batch: int, keys: tuple[str, str]
) -> list[str]:
    """What to say of `units` at hand where `declared` is far from them; nothing where it is near.
    `keys` are the names of the declared size and of the batch. For the local terminal only."""
    if abs(units - declared) <= _NEAR * declared:
        return []
    size, of_step = keys
    return [
        f"READ {units:,} {what} to train on, DECLARED {declared:,} (`{size}`): the guarantee "
        f"holds, but a step draws about {batch * units / declared:.3g} units and divides by the "
        f"{batch} of `{of_step}`; correct `{size}` if it is a mistake"
    ]


_NEAR = 0.1  # of the declared number: no more is worth a line


def look(recipe: Recipe) -> None:
    """Reads and checks a table as `read` does and keeps nothing of it, so that faults are told
    before noise is calibrated. Raises `DataError`, with the place in the recipe. Larger files than
    64 MiB and other data are left to `read`."""
    data = recipe.data
    if isinstance(data, Table):
        file = recipe.folder / data.path
        if not file.is_file() or file.stat().st_size > _SMALL:
            return
        try:
            data.look(recipe.folder)
        except DataError as error:
            refuse(recipe, _key(recipe, error), str(error), DataError)


_SMALL = 64 << 20  # bytes


def _hmac(cohorts: Cohorts, key: bytes) -> str:
    """Hex HMAC-SHA-256 of the rows *as they were read*, so that nothing can change in between."""
    state = hmac.new(key, b"nacre rows", hashlib.sha256)
    cohorts_of = (cohorts.private, cohorts.public, cohorts.test, cohorts.outsiders)
    for rows in (*cohorts_of, cohorts.canaries):
        if rows is None:
            state.update(digest("none"))
        else:
            names = json.dumps([rows.group, rows.party])
            state.update(digest(rows.features, rows.label, names))
    return state.hexdigest()


def _scaled(scaler: Scaler, rows: Rows | None) -> Rows | None:
    return None if rows is None else scaler.apply(rows)


def holder_names(private: Mapping[str, Rows]) -> Sequence[str]:
    """The holders, in order; of counted parties no list of names is made."""
    return private.names if isinstance(private, Dealt) else tuple(private)


def without_private(recipe: Recipe) -> Holdings:
    """What the server of a federation has whose parties are elsewhere: no private row, and of the
    public ones those of a table's own public file. Raises as `read`."""
    data, schema = recipe.data, recipe.schema
    try:
        public = data.read_public(recipe.folder) if isinstance(data, Table) else None
    except DataError as error:
        refuse(recipe, "data.public.path", str(error), DataError)
    scaler = fit_scaling(data.scaling, schema, public)
    return Holdings(
        schema=schema,
        scaler=scaler,
        space=scaler.space(schema),
        private={},
        public=_scaled(scaler, public),
        test=None,
        outsiders=None,
        test_is_public=False,
        private_is_public=False,
        notes=(),
        hmac="",
        cells=(),
        parts={},
    )


def _own(recipe: Recipe, rows: Rows, holder: str) -> Rows:
    """The rows of a party's own file. Raises `DataError` where some are another's."""
    others = sorted(set(rows.party or ()) - {holder})
    if others:
        refuse(
            recipe,
            "data.party",
            f"the file of party {holder!r} has rows of {others[0]!r}; give this party its own "
            "rows alone",
            DataError,
        )
    return rows


def _dealt(
    recipe: Recipe, cohorts: Cohorts, scaler: Scaler, holder: str | None
) -> Mapping[str, Rows]:
    # Rows that come with the cells of their file are not read again, and are nobody else's.
    rows = scaler.apply(cohorts.private, overwrite=bool(cohorts.cells))
    if cohorts.canaries is not None:
        rows = rows + cohorts.canaries
    if holder is not None:
        return {holder: _own(recipe, rows, holder)}
    if recipe.federated_learning is None:
        return {"": rows}
    privacy = recipe.privacy_of_rows or recipe.differential_privacy
    unit = privacy.unit if privacy is not None else "example"
    return recipe.federated_learning.parties.split(rows, unit, recipe.seed)

"""What an estimator declares, in the forms that people write it in: ranges of columns and of the
target, classes, and the promise. Each is refused in a sentence where it is missing or of another
form; none is ever learnt from a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BadArgument
from nacre.differential_privacy.options import Privacy

_FORM = (
    "one pair for all columns, as `bounds=(0, 1)`, a pair for each, as `bounds=[(0, 120), "
    "(30, 220)]`, or pairs by name, as `bounds={'age': (0, 120)}`"
)


def privacy_of(epsilon: Any, delta: Any, rows_per_unit: int | None) -> Privacy:
    """The promise of one `fit`. Raises `BadArgument` where epsilon or delta is not declared."""
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise BadArgument(
                f"{name}={value!r} is not declared, and what one `fit` may spend is nobody's to "
                "guess: give both, as `epsilon=3, delta=1e-5` (delta well below 1 / size)"
            )
    return Privacy(
        unit="example" if rows_per_unit is None else "group",
        epsilon=float(epsilon),
        delta=float(delta),
        rows_per_unit=rows_per_unit,
    )


def column_bounds(
    bounds: Any,
    count: int,  # F, columns of the rows
    names: Sequence[str] | None,  # of the columns, where the rows have a header
) -> NDArray[np.float64]:  # (F, 2): the lowest and the highest value of each column
    """Raises `BadArgument` for what is not declared, or not for these columns."""
    if bounds is None:
        raise BadArgument(
            "bounds=None: the range of each column is not declared, and to learn it from private "
            f"rows would leak it; give {_FORM}"
        )
    if isinstance(bounds, Mapping):
        found = _named(bounds, names)
    else:
        found = _numbers("bounds", bounds, _FORM)
        if found.shape == (2,):
            found = np.broadcast_to(found, (count, 2))
    if found.shape != (count, 2):
        raise BadArgument(
            f"`bounds` has shape {found.shape} and there are {count} columns; give {_FORM}"
        )
    _ordered("bounds", found)
    return found.copy()


def refuse_missing_cells(
    rows: NDArray[np.float64],  # (N, F)
    names: Sequence[str] | None,  # of the columns, where the rows have a header
) -> None:
    """Raises `BadArgument` for rows in which a value is missing or infinite."""
    bad = np.flatnonzero(~np.isfinite(rows).all(0))
    if len(bad):
        place = int(bad[0])
        column = f"number {place}, counted from 0" if names is None else repr(names[place])
        kind = "NaN, a missing value," if np.isnan(rows[:, place]).any() else "infinity"
        raise BadArgument(
            f"X holds {kind} in the column {column}, and a network reads finite numbers: write a "
            "declared number in its place before `fit` and `predict`, as `np.nan_to_num(X, nan=0)` "
            "does, or leave the column out; never a number that private rows decide, as their mean"
        )


def target_bounds(target_range: Any) -> tuple[float, float]:
    """The lowest and the highest target. Raises `BadArgument` for what is no such pair."""
    form = "a pair of its lowest and highest value, as `target_range=(0, 100)`"
    if target_range is None:
        raise BadArgument(
            "target_range=None: the range of the target is not declared, and to learn it from "
            f"private rows would leak it; give {form}"
        )
    found = _numbers("target_range", target_range, form)
    if found.shape != (2,):
        raise BadArgument(f"`target_range` has shape {found.shape}; give {form}")
    _ordered("target_range", found[None])
    return float(found[0]), float(found[1])


def known_classes(classes: Any) -> NDArray[Any]:  # (C,) sorted, as scikit-learn has them
    """The declared classes. Raises `BadArgument` for fewer than two different ones."""
    form = "every class that a row may have, as `classes=('no', 'yes')`"
    if classes is None:
        raise BadArgument(
            "classes=None: the classes are not declared, and to learn them from private rows would "
            f"tell whether a rare one is there; give {form}"
        )
    found = np.asarray(classes)
    if isinstance(classes, str) or found.ndim != 1 or found.dtype.kind not in "biufUSO":
        raise BadArgument(f"`classes` is no list of classes; give {form}")
    different = np.unique(found)
    if len(different) < 2 or len(different) < len(found):
        raise BadArgument(
            f"classes={list(classes)!r} holds {len(different)} different classes of {len(found)}; "
            f"give {form}, two at least and each once"
        )
    return different


def places_of(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    """(N,): the place of each label among the classes. Raises `BadArgument` for another label."""
    known = {value: place for place, value in enumerate(classes.tolist())}
    listed = labels.tolist()
    strange = [value for value in listed if value not in known]
    if strange:
        raise BadArgument(
            f"y holds {strange[0]!r}, which is none of the declared classes "
            f"({', '.join(repr(value) for value in known)}); declare it or correct the rows"
        )
    return np.array([known[value] for value in listed], np.int64)


def _named(bounds: Mapping[Any, Any], names: Sequence[str] | None) -> NDArray[np.float64]:
    if names is None:
        raise BadArgument(
            "`bounds` goes by names and the rows have none; give a DataFrame whose columns have "
            "names, or a pair for each column in their order"
        )
    missing = [name for name in names if name not in bounds]
    if missing:
        raise BadArgument(
            f"`bounds` declares no range for the column {missing[0]!r}; add it, as "
            f"{{{missing[0]!r}: (low, high)}}, or leave the column out of the rows"
        )
    return np.array([_pair(name, bounds[name]) for name in names], np.float64)


def _pair(name: str, value: Any) -> NDArray[np.float64]:
    found = _numbers(f"bounds[{name!r}]", value, "a pair, as (0, 120)")
    if found.shape != (2,):
        raise BadArgument(f"bounds[{name!r}]={value!r} is no pair; give one, as (0, 120)")
    return found


def _numbers(name: str, value: Any, form: str) -> NDArray[np.float64]:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise BadArgument(f"`{name}` does not hold numbers alone ({error}); give {form}") from error


def _ordered(name: str, pairs: NDArray[np.float64]) -> None:
    wrong = np.flatnonzero(~np.isfinite(pairs).all(1) | ~(pairs[:, 0] < pairs[:, 1]))
    if len(wrong):
        low, high = pairs[wrong[0]].tolist()
        raise BadArgument(
            f"`{name}` holds ({low:g}, {high:g}), and a range goes from a finite number up to a "
            "larger one; correct it"
        )

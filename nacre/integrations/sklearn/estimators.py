"""A private classifier and a private regressor for tables of numbers.

    PrivateClassifier(bounds=…, classes=…, epsilon=…, delta=…, size=…, ledger=…).fit(X, y)

They are no second engine: `fit` takes the steps of `nacre.integrations.torch.Private`.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.utils.data import TensorDataset

from nacre.core.errors import BadArgument
from nacre.core.optimizers import Adam
from nacre.gradient_clipping import Flat
from nacre.integrations.arguments import owners_of, require_count
from nacre.integrations.sklearn.declarations import (
    column_bounds,
    known_classes,
    places_of,
    privacy_of,
    refuse_missing_cells,
    target_bounds,
)
from nacre.integrations.sklearn.ranged import RangedNetwork
from nacre.integrations.torch import Private
from nacre.models import Classification, Regression
from nacre.recipe.credentials import without_credentials, without_password
from nacre.recipe.sections import LedgerChoice
from nacre.runs.rows import size_notes


class _PrivateEstimator(BaseEstimator):
    """What both have in common. `fit` alone touches private rows; what it leaves on the estimator
    is computed from releases and from what was declared: no row, no key, nothing of the ledger."""

    bounds: Any
    epsilon: float | None
    delta: float | None
    size: int | None
    ledger: LedgerChoice | None
    rows_per_unit: int | None
    column: str | None
    steps: int
    batch: int | None
    hidden: tuple[int, ...]
    clip_norm: float
    learning_rate: float
    random_state: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # noise that came twice could be subtracted
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: of a ledger's URL no password, which `~/.pgpass` keeps."""
        held: Any = super().__getstate__()
        state: dict[str, Any] = dict(held)
        choice = state["ledger"]
        if isinstance(choice, LedgerChoice):
            state["ledger"] = replace(choice, path=without_password(choice.path))
        elif isinstance(choice, str):  # which `fit` refuses
            state["ledger"] = without_password(choice)
        return state

    def _trained(
        self,
        features: NDArray[np.float64],  # (N, F)
        label: Tensor,  # (N,)
        groups: Any,  # (N,): whose each row is, or None
        task: Classification | Regression,
        made_up: Tensor,  # (8,) labels
    ) -> None:
        """Takes all steps, and puts `module_`, `epsilon_` on the estimator once all are taken."""
        privacy = privacy_of(self.epsilon, self.delta, self.rows_per_unit)
        if (groups is None) != (self.rows_per_unit is None):
            raise BadArgument(
                f"rows_per_unit={self.rows_per_unit!r} and "
                f"{'no groups are' if groups is None else 'groups are'} given: who protects people "
                "with several rows declares `rows_per_unit` and `column`, and gives `fit(X, y, "
                "groups=…)`, whose each row is; who protects single rows gives none of them"
            )
        if not isinstance(self.ledger, LedgerChoice):
            shown = without_credentials(repr(self.ledger))
            raise BadArgument(
                f"ledger={shown} names no ledger, and one that is made and thrown away would "
                "forget what was spent on these rows; name it and the account of the data, as "
                "`ledger=LedgerChoice(path='privacy.db', dataset='visits', grant=Grant(epsilon="
                "8, delta=1e-5))`"
            )
        self._require_settings()
        assert self.size is not None
        bounds = column_bounds(self.bounds, features.shape[1], self._names())
        batch = self.batch or _batch(self.size)
        column = None if groups is None else self.column
        owners = owners_of(groups, column, len(features))
        people = len(features) if owners is None else len(set(owners))
        what = "rows" if owners is None else f"values of {column!r}"
        for note in size_notes(people, what, self.size, batch, ("size", "batch")):
            warnings.warn(note, stacklevel=3)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        module = RangedNetwork(bounds, tuple(self.hidden), task.outputs, seed)
        optimizer = Adam(lr=self.learning_rate).build(module.parameters())

        def losses(model: torch.nn.Module, rows: Tensor, label: Tensor) -> Tensor:
            return task.row_losses(model(rows), label)

        with Private(
            module,
            optimizer,
            TensorDataset(torch.from_numpy(features.copy()), label),
            losses,
            privacy=privacy,
            clip=Flat(norm=self.clip_norm),
            ledger=self.ledger,
            size=self.size,
            batch=batch,
            steps=self.steps,
            groups=groups,
            column=column,
            sample=(module.made_up(), made_up),
        ) as steps:
            for _ in steps:
                pass
            spent = steps.finish()
        self.module_, self.epsilon_ = module.eval(), spent

    def _names(self) -> Sequence[str] | None:
        """Of the columns, where the rows that `fit` was given had names."""
        return getattr(self, "feature_names_in_", None)

    def _require_settings(self) -> None:
        """Raises `BadArgument` for counts, widths and numbers of another form."""
        for name in ("size", "steps", "batch"):
            if getattr(self, name) is not None or name != "batch":
                require_count(name, getattr(self, name))
        hidden: Any = self.hidden
        if not isinstance(hidden, tuple | list):
            raise BadArgument(
                f"hidden={self.hidden!r} is no list of widths; give one, as `hidden=(32,)`, or "
                "`hidden=()` for a linear model"
            )
        for width in self.hidden:
            require_count("hidden", width)
        for name in ("clip_norm", "learning_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise BadArgument(f"{name}={value!r} is no number; give one above 0")

    @contextmanager
    def _whole(self) -> Generator[None]:
        """A `fit` that ends early leaves the estimator as it was, fitted before or not at all."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """(N, outputs): what the network answers."""
        check_is_fitted(self)
        rows: Any = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False)
        refuse_missing_cells(rows, self._names())
        with torch.no_grad():
            found: Tensor = self.module_(torch.from_numpy(rows.copy()))
        return found.double().numpy()


class PrivateClassifier(ClassifierMixin, _PrivateEstimator):
    """A small network that tells declared classes apart, trained with differential privacy.

    *Guarantee:* each `fit` is (epsilon, delta)-private for one row, or with `groups` for all rows
    of one person, and is charged to the ledger before it begins. Several fits on rows of the same
    people add up: the account says to what. Not covered is what is computed from private rows
    otherwise: `score` on them, and a choice made by such scores.
    """

    def __init__(
        self,
        *,
        bounds: Any = None,  # one (low, high), or one a column, or {name: (low, high)}
        classes: Any = None,  # every class that a row may have
        epsilon: float | None = None,  # of one `fit`
        delta: float | None = None,
        size: int | None = None,  # rows (or people) that `fit` is given, declared
        ledger: LedgerChoice | None = None,
        rows_per_unit: int | None = None,  # of one person at most, where people are protected
        column: str | None = None,  # what people are told apart by, as "patient"
        steps: int = 200,
        batch: int | None = None,  # units expected a step; None: a tenth of `size`, 64 at least
        hidden: tuple[int, ...] = (32,),
        clip_norm: float = 1.0,
        learning_rate: float = 0.02,
        random_state: Any = None,  # of the first weights alone
    ) -> None:
        self.bounds = bounds
        self.classes = classes
        self.epsilon = epsilon
        self.delta = delta
        self.size = size
        self.ledger = ledger
        self.rows_per_unit = rows_per_unit
        self.column = column
        self.steps = steps
        self.batch = batch
        self.hidden = hidden
        self.clip_norm = clip_norm
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> PrivateClassifier:
        """Trains on private rows X (N, F) and their classes y (N,), and charges the ledger.

        `groups` (N,) says whose each row is, where people are protected. Values outside `bounds`
        are clipped to them. Raises `BadArgument` (a `ValueError`) for what is not declared or does
        not fit, `BudgetExceeded` where the account does not cover it.
        """
        with self._whole():
            checked: Any = validate_data(self, X, y, dtype=np.float64, ensure_all_finite=False)
            rows, labels = checked
            refuse_missing_cells(rows, self._names())
            check_classification_targets(labels)
            classes = known_classes(self.classes)
            count = len(classes)
            label = torch.from_numpy(places_of(labels, classes))
            self._trained(rows, label, groups, Classification(count), torch.arange(8) % count)
            self.classes_ = classes
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """(N,) of two classes, above 0 for the second; (N, C) logits of more."""
        found = self._outputs(X)
        return found[:, 1] - found[:, 0] if found.shape[1] == 2 else found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, C): the probability of each class, in the order of `classes_`."""
        return torch.softmax(torch.from_numpy(self._outputs(X)), 1).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """(N,): the likeliest class of each row."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(1)]


class PrivateRegressor(RegressorMixin, _PrivateEstimator):
    """A small network that tells a number in a declared range, trained with differential privacy.

    *Guarantee:* that of `PrivateClassifier`.
    """

    def __init__(
        self,
        *,
        bounds: Any = None,  # one (low, high), or one a column, or {name: (low, high)}
        target_range: Any = None,  # (low, high) of the target
        epsilon: float | None = None,  # of one `fit`
        delta: float | None = None,
        size: int | None = None,  # rows (or people) that `fit` is given, declared
        ledger: LedgerChoice | None = None,
        rows_per_unit: int | None = None,  # of one person at most, where people are protected
        column: str | None = None,  # what people are told apart by, as "patient"
        steps: int = 200,
        batch: int | None = None,  # units expected a step; None: a tenth of `size`, 64 at least
        hidden: tuple[int, ...] = (32,),
        clip_norm: float = 1.0,
        learning_rate: float = 0.02,
        random_state: Any = None,  # of the first weights alone
    ) -> None:
        self.bounds = bounds
        self.target_range = target_range
        self.epsilon = epsilon
        self.delta = delta
        self.size = size
        self.ledger = ledger
        self.rows_per_unit = rows_per_unit
        self.column = column
        self.steps = steps
        self.batch = batch
        self.hidden = hidden
        self.clip_norm = clip_norm
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> PrivateRegressor:
        """Trains on private rows X (N, F) and their targets y (N,), and charges the ledger.

        Values outside `bounds`, and targets outside `target_range`, are clipped to them. Raises
        what `PrivateClassifier.fit` raises.
        """
        with self._whole():
            checked: Any = validate_data(
                self, X, y, dtype=np.float64, y_numeric=True, ensure_all_finite=False
            )
            rows, targets = checked
            refuse_missing_cells(rows, self._names())
            low, high = target_bounds(self.target_range)
            inside = (np.clip(targets, low, high) - (low + high) / 2) / ((high - low) / 2)
            label = torch.from_numpy(inside.astype(np.float32))
            self._trained(rows, label, groups, Regression(), torch.linspace(-1, 1, 8))
            self.target_range_ = (low, high)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """(N,): the target of each row, inside `target_range`."""
        found = self._outputs(X)[:, 0]
        low, high = self.target_range_
        return np.clip(found * ((high - low) / 2) + (low + high) / 2, low, high)


def _batch(size: int) -> int:
    """Units expected a step where none are declared: a function of what is declared."""
    return min(size, max(64, size // 10))

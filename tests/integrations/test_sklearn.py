"""Estimators in scikit-learn's own company: its checks, pipelines, folds, and what each costs."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from nacre.core.errors import BadArgument, BudgetExceeded, Incompatible, LedgerError
from nacre.integrations.sklearn import (
    EXPECTED_FAILED_CHECKS,
    PrivateClassifier,
    PrivateRegressor,
)
from nacre.integrations.torch import Private
from nacre.ledger import Ledger
from nacre.recipe.sections import GrantOption, LedgerChoice

pytestmark = pytest.mark.filterwarnings("ignore:READ ")  # folds and checks of other sizes

DRAWN = np.random.default_rng(0)
ROWS = DRAWN.normal(size=(60, 3))
LABEL = (ROWS.sum(1) > 0).astype(int)


def account(place: Path, name: str = "rows", **allowed: float) -> LedgerChoice:
    grant = GrantOption(**{"epsilon": 1e7, "delta": 1e-3, **allowed})
    return LedgerChoice(path=str(place / "privacy.db"), dataset=name, grant=grant)


def declared(place: Path, **changed):
    """Everything that both estimators declare, of steps that cost little."""
    book = account(place)
    small = {"steps": 2, "hidden": (), "learning_rate": 0.1, "batch": 30}
    return {"bounds": (-10, 10), "epsilon": 100.0, "delta": 1e-5, "size": 60, "ledger": book} | (
        small | changed
    )


def classifier(place: Path, **changed) -> PrivateClassifier:
    return PrivateClassifier(**{"classes": (0, 1), **declared(place), **changed})


def regressor(place: Path, **changed) -> PrivateRegressor:
    return PrivateRegressor(**{"target_range": (-10, 10), **declared(place), **changed})


def runs(place: Path) -> int:
    with Ledger.open(place / "privacy.db") as ledger:
        return len(ledger.summary("rows").runs)


# -- scikit-learn's checks ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_classifier_passes_every_check_that_is_no_exception(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        found = check_estimator(
            classifier(tmp_path, classes=(0, 1, 2, 3), steps=1, learning_rate=2.0),
            expected_failed_checks=EXPECTED_FAILED_CHECKS,
            on_fail=None,
        )
    passed = [result for result in found if result["status"] == "passed"]
    failed = {r["check_name"]: r["exception"] for r in found if r["status"] == "failed"}
    assert failed == {} and len(passed) > 40


@pytest.mark.slow
def test_the_regressor_passes_the_checks_of_regressors(tmp_path):
    """The others are those of the classifier, and `fit` is the same."""
    made = regressor(
        tmp_path, steps=25, learning_rate=0.2, bounds=(-3, 3), target_range=(-3, 3), size=200
    )
    names = []
    for estimator, check in estimator_checks_generator(made):
        name = check.func.__name__
        if "regressor" in name and name not in {*EXPECTED_FAILED_CHECKS, *names}:
            check(estimator)
            names.append(name)
    assert set(names) == {"check_regressors_train", "check_regressors_no_decision_function"}


class Declaring(PrivateClassifier):
    """Declares the classes that it is shown: the rows of a check are nobody's."""

    def fit(self, X, y):
        self.classes = np.unique(y)
        return super().fit(X, y)


def test_checks_of_several_classes_pass_once_each_fit_declares_its_own(tmp_path):
    ours = (
        "check_classifiers_classes",
        "check_classifiers_train",
        "check_decision_proba_consistency",
    )
    made = Declaring(**declared(tmp_path, steps=8, learning_rate=1.0, bounds=(-3, 3)))
    names = []
    for estimator, check in estimator_checks_generator(made):
        name = check.func.__name__
        if name in ours and name not in names:
            check(estimator)
            names.append(name)
    assert set(names) == set(ours)


# -- what is declared --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "changed", "told"),
    [
        (classifier, {"bounds": None}, r"bounds=None: .*learn it from private rows"),
        (classifier, {"bounds": (1, 1)}, r"`bounds` holds \(1, 1\)"),
        (classifier, {"bounds": [(0, 1)] * 2}, r"shape \(2, 2\) and there are 3 columns"),
        (classifier, {"bounds": {"age": (0, 1)}}, r"the rows have none; give a DataFrame"),
        (classifier, {"bounds": "wide"}, r"`bounds` does not hold numbers"),
        (classifier, {"classes": None}, r"classes=None: .*whether a rare one"),
        (classifier, {"classes": (1, 1)}, r"1 different classes of 2"),
        (classifier, {"classes": (0, 7)}, r"y holds 1, which is none of the declared"),
        (classifier, {"epsilon": None}, r"epsilon=None is not declared"),
        (classifier, {"delta": None}, r"delta=None is not declared"),
        (classifier, {"size": None}, r"size=None .*declared and not counted"),
        (classifier, {"ledger": None}, r"made and thrown away would forget"),
        (classifier, {"ledger": "privacy.db"}, r"names no ledger"),
        (classifier, {"hidden": (0,)}, r"hidden=0 "),
        (classifier, {"hidden": 32}, r"hidden=32 is no list of widths"),
        (classifier, {"clip_norm": "1"}, r"clip_norm='1' is no number"),
        (classifier, {"learning_rate": -1}, r"lr=-1 must be > 0"),
        (regressor, {"target_range": None}, r"target_range=None: "),
        (regressor, {"target_range": (2, 1)}, r"`target_range` holds \(2, 1\)"),
    ],
)
def test_what_is_not_declared_is_refused_before_a_ledger_is_made(tmp_path, made, changed, told):
    with pytest.raises(ValueError, match=told):
        made(tmp_path, **changed).fit(ROWS, LABEL)
    assert not (tmp_path / "privacy.db").exists()


def test_a_ledger_in_a_run_folder_is_refused(tmp_path):
    with pytest.raises(Incompatible, match="fresh budget"):
        classifier(tmp_path, ledger=LedgerChoice(path="{run}/p.db", dataset="rows")).fit(
            ROWS, LABEL
        )


def test_a_value_outside_its_range_counts_as_the_nearest_one_inside(tmp_path):
    """In training and in predictions, and no value widens a range."""
    model = classifier(tmp_path, bounds=[(-1, 1)] * 3).fit(100 * ROWS, LABEL)
    assert np.array_equal(
        model.decision_function(100 * ROWS), model.decision_function(np.clip(100 * ROWS, -1, 1))
    )
    assert model.module_.low.tolist() == [-1] * 3 and model.module_.high.tolist() == [1] * 3


def test_rows_of_all_sizes_of_target_move_a_regressor_by_its_range_alone(tmp_path, monkeypatch):
    seen = []
    kept = Private.__init__

    def noting(self, model, optimizer, dataset, losses, **declared):
        seen.append(dataset.tensors[1])
        kept(self, model, optimizer, dataset, losses, **declared)

    monkeypatch.setattr(Private, "__init__", noting)
    model = regressor(tmp_path, target_range=(0, 4)).fit(ROWS, np.linspace(-100, 100, 60))
    assert seen[0].min() == -1 and seen[0].max() == 1
    assert ((model.predict(ROWS) >= 0) & (model.predict(ROWS) <= 4)).all()


def test_ranges_by_name_follow_the_columns_of_a_frame(tmp_path):
    frame = pd.DataFrame(ROWS, columns=["age", "pulse", "weight"])
    bounds = {"pulse": (30, 220), "age": (0, 120), "weight": (2, 300), "unused": (0, 1)}
    model = classifier(tmp_path, bounds=bounds).fit(frame, LABEL)
    assert model.module_.high.tolist() == [120, 220, 300]
    assert model.feature_names_in_.tolist() == ["age", "pulse", "weight"]
    del bounds["pulse"]
    with pytest.raises(ValueError, match="no range for the column 'pulse'"):
        model.set_params(bounds=bounds).fit(frame, LABEL)


@pytest.mark.parametrize("made", [classifier, regressor])
def test_missing_and_infinite_values_are_refused_in_a_sentence_of_privacy(tmp_path, made):
    """In `fit`, before a ledger is made, and in `predict`; with a remedy that tells of no row."""
    for value, told in ((np.nan, "X holds NaN, a missing value"), (np.inf, "X holds infinity")):
        rows = ROWS.copy()
        rows[7, 1] = value
        frame = pd.DataFrame(rows, columns=["age", "pulse", "weight"])
        for given, column in ((rows, "number 1, counted from 0"), (frame, "'pulse'")):
            with pytest.raises(BadArgument, match=f"{told},? in the column {column}.*declared"):
                made(tmp_path).fit(given, LABEL)
        assert not (tmp_path / "privacy.db").exists()
    with pytest.raises(BadArgument, match="X holds infinity"):
        made(tmp_path).fit(ROWS, LABEL).predict(rows)


@pytest.mark.filterwarnings("error")
def test_a_declared_size_far_from_the_rows_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"^READ 60 rows .*DECLARED 50 \(`size`\).*`batch`"):
        classifier(tmp_path, size=50).fit(ROWS, LABEL)
    people = np.repeat(np.arange(20), 3)
    owned = {"rows_per_unit": 3, "column": "patient", "batch": 10}
    with pytest.warns(UserWarning, match=r"^READ 20 values of 'patient'"):
        classifier(tmp_path, size=60, ledger=account(tmp_path, "people"), **owned).fit(
            10 * ROWS + 1, LABEL, people
        )
    classifier(tmp_path, size=62).fit(ROWS, LABEL)


@pytest.mark.parametrize("made", [classifier, regressor])
def test_a_second_fit_that_is_refused_leaves_the_first_one_whole(tmp_path, made):
    model = made(tmp_path, ledger=account(tmp_path, epsilon=101, delta=1e-5)).fit(ROWS, LABEL)
    before = {name: value for name, value in vars(model).items() if name.endswith("_")}
    answers = model.predict(ROWS)
    other = {"classes": ("a", "b", "c")} if made is classifier else {"target_range": (0, 1)}
    label = np.array(["a", "b"])[LABEL] if made is classifier else LABEL
    model.set_params(**other)
    for rows in (ROWS, ROWS[:, :2]):
        with pytest.raises(BudgetExceeded):
            model.fit(rows, label)
        assert all(vars(model)[name] is value for name, value in before.items())
        assert np.array_equal(model.predict(ROWS), answers)


# -- what it costs -----------------------------------------------------------------------------


def test_every_fold_and_candidate_is_charged_to_the_account_of_the_rows(tmp_path):
    """Folds of the same rows add up, whoever asks for them."""
    steps = make_pipeline(FunctionTransformer(np.arcsinh), classifier(tmp_path, epsilon=2.0))
    assert len(cross_val_score(steps, ROWS, LABEL, cv=3)) == 3
    assert runs(tmp_path) == 3
    grid = {"privateclassifier__clip_norm": [0.5, 1.0]}
    search = GridSearchCV(steps, grid, cv=2, refit=True, error_score="raise").fit(ROWS, LABEL)
    assert runs(tmp_path) == 3 + 2 * 2 + 1
    assert 1.5 < search.best_estimator_[-1].epsilon_ <= 2


def test_people_with_several_rows_are_protected_whole_also_in_folds(tmp_path):
    people = np.repeat(np.arange(20), 3)
    model = classifier(tmp_path, size=20, batch=10, rows_per_unit=2, column="patient")
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(groups=True)
        found = cross_val_score(
            model, ROWS, LABEL, cv=GroupKFold(3), params={"groups": people}, error_score="raise"
        )
    assert len(found) == 3 and runs(tmp_path) == 3
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        assert [grant.unit for grant in ledger.summary("rows").grants] == ["group"]
    for changed, groups in (({"rows_per_unit": None}, people), ({}, None)):
        with pytest.raises(ValueError, match="declares `rows_per_unit` and `column`"):
            clone(model).set_params(**changed).fit(ROWS, LABEL, groups)


def test_an_account_that_is_spent_ends_the_folds(tmp_path):
    scarce = account(tmp_path, epsilon=2.5, delta=1e-5)
    model = classifier(tmp_path, ledger=scarce, epsilon=2.0)
    with pytest.raises(BudgetExceeded):
        cross_val_score(model, ROWS, LABEL, cv=3, error_score="raise")
    assert runs(tmp_path) == 1


def test_the_same_rows_under_another_name_are_refused(tmp_path):
    """Also with other ranges, with columns in another order, and as one fold of them."""
    model = classifier(tmp_path).fit(ROWS, LABEL)
    again = clone(model).set_params(ledger=account(tmp_path, "others"), bounds=(-4, 4))
    with pytest.raises(LedgerError, match="rows"):
        again.fit(ROWS[:40, ::-1], LABEL[:40])


def test_a_fit_that_is_stopped_gives_back_what_it_did_not_spend(tmp_path, monkeypatch):
    taken = Private.step

    def stopped(self):
        if self.done:
            raise KeyboardInterrupt
        return taken(self)

    monkeypatch.setattr(Private, "step", stopped)
    model = classifier(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        model.fit(ROWS, LABEL)
    assert not hasattr(model, "epsilon_")
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        run = ledger.summary("rows").runs[0]
    assert (run.journalled, run.end) == (1, "abandoned")


# -- what it keeps -----------------------------------------------------------------------------


def test_a_pickle_holds_no_key_and_no_row(tmp_path, monkeypatch):
    """Keys are noted where they are made; rows are looked for by their bytes."""
    drawn = os.urandom
    keys = []

    def noted(count):
        keys.append(drawn(count))
        return keys[-1]

    monkeypatch.setattr(os, "urandom", noted)
    model = classifier(tmp_path).fit(ROWS, LABEL)
    written = pickle.dumps(model)
    assert 32 in map(len, keys)
    assert not any(form in written for key in keys for form in (key, key.hex().encode()))
    assert not any(np.float64(value).tobytes() in written for value in ROWS.ravel())
    again = pickle.loads(written)
    assert np.array_equal(again.decision_function(ROWS), model.decision_function(ROWS))


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("postgresql://ada:s3cret@db:5432/book", "postgresql://ada@db:5432/book"),
        (
            "postgresql://db/book?password=s3cret&user=ada",
            "postgresql://db/book?password=&user=ada",
        ),
        ("postgresql://db:5432/book", "postgresql://db:5432/book"),
        ("a:b@c.db", "a:b@c.db"),
    ],
)
def test_a_pickle_holds_no_password(path, kept):
    model = PrivateClassifier(ledger=LedgerChoice(path=path, dataset="rows"))
    assert pickle.loads(pickle.dumps(model)).ledger.path == kept
    assert model.ledger.path == path


def test_random_state_fixes_first_weights_and_nothing_else(tmp_path):
    first, second = (classifier(tmp_path, random_state=3, learning_rate=1e-6) for _ in range(2))
    one, two = (m.fit(ROWS, LABEL).decision_function(ROWS) for m in (first, second))
    assert np.allclose(one, two, atol=1e-4) and not np.array_equal(one, two)

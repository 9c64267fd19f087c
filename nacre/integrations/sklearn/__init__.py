"""Private training behind the interface of scikit-learn: `fit`, `predict`, pipelines, folds."""

from nacre.integrations.sklearn.estimators import PrivateClassifier, PrivateRegressor
from nacre.integrations.sklearn.exceptions import EXPECTED_FAILED_CHECKS

__all__ = ["EXPECTED_FAILED_CHECKS", "PrivateClassifier", "PrivateRegressor"]

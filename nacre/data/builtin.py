"""Real data sets that ship inside scikit-learn: public, small, and known without being read."""

# scikit-learn carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument
from nacre.data.columns.column import Column
from nacre.data.dataset import Cohorts, Rows, Schema, checked
from nacre.data.scaling import DeclaredScaling, ScalingOption, scaling_problem
from nacre.data.split import PublicCohort, Test, demonstration, like_private, sizes
from nacre.data.text.token_cache import Aids


def _table(
    ranges: dict[str, tuple[float, float]],  # feature -> (low, high), rounded outwards
    classes: tuple[str, ...],
) -> Schema:
    columns = tuple(Column(name, "number", low, high) for name, (low, high) in ranges.items())
    return Schema((len(columns),), columns, "classification", classes)


# Ten measurements of cell nuclei, as mean, standard error and mean of the three largest.
# Wolberg, Street and Mangasarian 1995, https://doi.org/10.24432/C5DW2B; ranges rounded outwards.
_BREAST_CANCER = _table(
    {
        "mean radius": (5, 30),
        "mean texture": (5, 40),
        "mean perimeter": (40, 200),
        "mean area": (100, 2600),
        "mean smoothness": (0.05, 0.2),
        "mean compactness": (0, 0.4),
        "mean concavity": (0, 0.5),
        "mean concave points": (0, 0.25),
        "mean symmetry": (0.1, 0.35),
        "mean fractal dimension": (0.04, 0.1),
        "radius error": (0, 3),
        "texture error": (0, 5),
        "perimeter error": (0, 25),
        "area error": (0, 600),
        "smoothness error": (0, 0.04),
        "compactness error": (0, 0.15),
        "concavity error": (0, 0.4),
        "concave points error": (0, 0.06),
        "symmetry error": (0, 0.08),
        "fractal dimension error": (0, 0.03),
        "worst radius": (5, 40),
        "worst texture": (10, 50),
        "worst perimeter": (40, 260),
        "worst area": (150, 4300),
        "worst smoothness": (0.05, 0.25),
        "worst compactness": (0, 1.1),
        "worst concavity": (0, 1.3),
        "worst concave points": (0, 0.3),
        "worst symmetry": (0.1, 0.7),
        "worst fractal dimension": (0.05, 0.25),
    },
    ("malignant", "benign"),
)
_WINE = _table(
    {
        "alcohol": (11, 15),
        "malic_acid": (0, 6),
        "ash": (1, 4),
        "alcalinity_of_ash": (10, 30),
        "magnesium": (60, 180),
        "total_phenols": (0, 4),
        "flavanoids": (0, 6),
        "nonflavanoid_phenols": (0, 1),
        "proanthocyanins": (0, 4),
        "color_intensity": (0, 14),
        "hue": (0, 2),
        "od280/od315_of_diluted_wines": (1, 5),
        "proline": (200, 1800),
    },
    ("class_0", "class_1", "class_2"),
)
_IRIS = _table(
    {
        "sepal length (cm)": (4, 8),
        "sepal width (cm)": (2, 5),
        "petal length (cm)": (0, 7),
        "petal width (cm)": (0, 3),
    },
    ("setosa", "versicolor", "virginica"),
)
_DIGITS = Schema((1, 8, 8), (), "classification", tuple("0123456789"), low=0, high=16)

_SCHEMAS = {"breast_cancer": _BREAST_CANCER, "digits": _DIGITS, "wine": _WINE, "iris": _IRIS}
_COUNTS = {"breast_cancer": 569, "digits": 1797, "wine": 178, "iris": 150}


@dataclass(frozen=True, kw_only=True)
class Builtin(NoAssumptions):
    """A real data set from scikit-learn's wheel: no file, no network."""

    kind: Literal["builtin"] = "builtin"
    name: Literal["breast_cancer", "digits", "wine", "iris"]
    """Which one."""
    size: int
    """Private rows. These data are public, so a wrong number is refused with the right one."""
    public_demonstration: bool = False
    """Whether every row is treated as public, so that figures on any of them may be shown."""
    test: Test | None = None
    """A test set, fixed by the seed; needs `public_demonstration`."""
    public: PublicCohort | None = None
    """Rows that play the part of public data; needs `public_demonstration`."""
    scaling: ScalingOption = field(default_factory=DeclaredScaling)
    """How features become inputs of the model."""

    def sentence(self) -> str:
        """Which data set."""
        return f"the public data set {self.name}"

    @property
    def holdout(self) -> None:
        """None: the test rows are fixed by the seed."""
        return None

    def __post_init__(self) -> None:
        if not self.public_demonstration and (self.test or self.public):
            name = "test" if self.test else "public"
            raise BadArgument(
                f"{name} splits the private rows by the seed, which only public rows allow; set "
                f"`public_demonstration: true` or leave `{name}` out"
            )
        column = self.public.column if self.public else None
        if column is not None and column not in self.schema().feature_names():
            raise BadArgument(f"public.column={column!r} is no feature of {self.name}; name one")
        private, public, test = sizes(_COUNTS[self.name], self.test, self.public)
        if private < 1:
            raise BadArgument("test and public take every row; lower their shares")
        if self.size != private:
            raise BadArgument(
                f"size={self.size} must be {private}: {self.name} has {_COUNTS[self.name]} rows, "
                f"of which {test} are for testing and {public} are public"
            )
        problem = scaling_problem(self.scaling, self.schema(), self.has_public)
        if problem:
            raise BadArgument(problem)

    @property
    def unit(self) -> None:
        """These data name no groups."""
        return None

    @property
    def party(self) -> None:
        """These data name no parties."""
        return None

    @property
    def has_public(self) -> bool:
        """Whether `read` will return public rows."""
        return self.public is not None

    @property
    def has_test(self) -> bool:
        """Whether `read` will return test rows."""
        return self.test is not None

    def schema(self, folder: Path = Path()) -> Schema:
        """What a row looks like: a constant."""
        return _SCHEMAS[self.name]

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """The rows, split by `seed`; `folder` and `split_key` are not needed."""
        features, target = _arrays(self.name)
        rows = Rows(
            torch.from_numpy(features.astype(np.float32)).reshape(-1, *self.schema().shape),
            torch.from_numpy(target.astype(np.int64)),
            place=torch.arange(len(target)),
        )
        private, public, test = demonstration(rows, self.schema(), self.test, self.public, seed)
        shown = self.public_demonstration
        outsiders = None
        if test is not None and public is not None and self.public is not None:
            outsiders = like_private(test, private, public, self.schema(), self.public, seed)
        cohorts = Cohorts(private, public, test, shown, shown, outsiders=outsiders)
        return checked(cohorts, self.schema(), self.name)


def _arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
    """((N, D) float64 features, (N,) class numbers), as scikit-learn has them."""
    from sklearn import datasets  # a second to import, and only needed here

    load = {
        "breast_cancer": datasets.load_breast_cancer,
        "digits": datasets.load_digits,
        "wine": datasets.load_wine,
        "iris": datasets.load_iris,
    }[name]
    features, target = load(return_X_y=True)
    return np.asarray(features), np.asarray(target)

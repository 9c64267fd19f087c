"""Rows as tensors: declared beforehand, split by right of use, gathered into units, drawn."""

from nacre.data.arrays import Arrays, Images
from nacre.data.augment import Copies
from nacre.data.builtin import Builtin
from nacre.data.columns.column import Column
from nacre.data.columns.dates import Dates
from nacre.data.columns.dialect import Dialect
from nacre.data.columns.spec import (
    Bins,
    ColumnSpec,
    DropMissing,
    FillMissing,
    PiecewiseLinear,
    RefuseMissing,
    Truths,
)
from nacre.data.data_option import DataOption
from nacre.data.dataset import Cohorts, Rows, Schema
from nacre.data.partition import ByColumn, Dirichlet, PartitionOption, Uniform
from nacre.data.sampling import (
    SAMPLINGS,
    BallsInBins,
    BallsInBinsSampling,
    CyclicPoisson,
    CyclicPoissonSampling,
    FixedSize,
    FixedSizeSampling,
    FullBatch,
    Poisson,
    PoissonSampling,
    SamplingOption,
    Shuffled,
    ShuffledSampling,
)
from nacre.data.scaling import (
    SCALINGS,
    DeclaredScaling,
    NoScaling,
    PublicScaling,
    Scaler,
    ScalingOption,
    fit_scaling,
)
from nacre.data.split import Holdout, PublicCohort, PublicFile, Test
from nacre.data.table import Table
from nacre.data.text.text import Text
from nacre.data.text.tokens import BPE, Bytes, OfModel
from nacre.data.units import Units

AnyData = Builtin | Table | Arrays | Images | Text
"""Every option that a recipe may name under `data`."""

DATA: tuple[type[DataOption], ...] = (Builtin, Table, Arrays, Images, Text)
"""The same as a tuple, each held against the protocol by the type checker."""

__all__ = [
    "BPE",
    "DATA",
    "SAMPLINGS",
    "SCALINGS",
    "AnyData",
    "Arrays",
    "BallsInBins",
    "BallsInBinsSampling",
    "Bins",
    "Builtin",
    "ByColumn",
    "Bytes",
    "Cohorts",
    "Column",
    "ColumnSpec",
    "Copies",
    "CyclicPoisson",
    "CyclicPoissonSampling",
    "DataOption",
    "Dates",
    "DeclaredScaling",
    "Dialect",
    "Dirichlet",
    "DropMissing",
    "FillMissing",
    "FixedSize",
    "FixedSizeSampling",
    "FullBatch",
    "Holdout",
    "Images",
    "NoScaling",
    "OfModel",
    "PartitionOption",
    "PiecewiseLinear",
    "Poisson",
    "PoissonSampling",
    "PublicCohort",
    "PublicFile",
    "PublicScaling",
    "RefuseMissing",
    "Rows",
    "SamplingOption",
    "Scaler",
    "ScalingOption",
    "Schema",
    "Shuffled",
    "ShuffledSampling",
    "Table",
    "Test",
    "Text",
    "Truths",
    "Uniform",
    "Units",
    "fit_scaling",
]

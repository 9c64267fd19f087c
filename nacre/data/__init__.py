"""Rows as tensors: declared beforehand, split by right of use, gathered into units, drawn."""

from nacre.data.arrays import Arrays, Images
from nacre.data.augment import Copies
from nacre.data.builtin import Builtin
from nacre.data.columns.column import Column
from nacre.data.columns.spec import ColumnSpec
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
    "DeclaredScaling",
    "Dirichlet",
    "FixedSize",
    "FixedSizeSampling",
    "FullBatch",
    "Holdout",
    "Images",
    "NoScaling",
    "OfModel",
    "PartitionOption",
    "Poisson",
    "PoissonSampling",
    "PublicCohort",
    "PublicFile",
    "PublicScaling",
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
    "Uniform",
    "Units",
    "fit_scaling",
]

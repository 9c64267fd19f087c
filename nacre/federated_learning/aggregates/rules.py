"""Every rule that stands by itself. A new one is its own file, and a line in each of these two."""

from __future__ import annotations

from nacre.federated_learning.aggregates.coordinates import Median, TrimmedMean
from nacre.federated_learning.aggregates.distances import GeometricMedian, Krum, MultiKrum
from nacre.federated_learning.aggregates.mean import CentredClipping, MeanAggregate, NormBound
from nacre.federated_learning.aggregates.root import FLTrust

RuleOption = (
    MeanAggregate
    | NormBound
    | Median
    | TrimmedMean
    | GeometricMedian
    | Krum
    | MultiKrum
    | CentredClipping
    | FLTrust
)

RULES = (
    MeanAggregate,
    NormBound,
    Median,
    TrimmedMean,
    GeometricMedian,
    Krum,
    MultiKrum,
    CentredClipping,
    FLTrust,
)

"""Aggregates: what a server makes of the parties' contributions."""

from __future__ import annotations

from nacre.federated_learning.aggregates.aggregate import (
    NOTHING_KNOWN,
    Aggregate,
    RoundFacts,
    at_fault,
)
from nacre.federated_learning.aggregates.coordinates import Median, TrimmedMean
from nacre.federated_learning.aggregates.distances import GeometricMedian, Krum, MultiKrum
from nacre.federated_learning.aggregates.mean import CentredClipping, MeanAggregate, NormBound
from nacre.federated_learning.aggregates.mixing import Bucketing, NearestNeighbourMixing
from nacre.federated_learning.aggregates.root import FLTrust
from nacre.federated_learning.aggregates.rules import RULES, RuleOption

AggregateOption = RuleOption | Bucketing | NearestNeighbourMixing

AGGREGATES = (*RULES, Bucketing, NearestNeighbourMixing)
"""Every aggregate; the laws run over them."""

__all__ = [
    "AGGREGATES",
    "NOTHING_KNOWN",
    "RULES",
    "Aggregate",
    "AggregateOption",
    "Bucketing",
    "CentredClipping",
    "FLTrust",
    "GeometricMedian",
    "Krum",
    "MeanAggregate",
    "Median",
    "MultiKrum",
    "NearestNeighbourMixing",
    "NormBound",
    "RoundFacts",
    "RuleOption",
    "TrimmedMean",
    "at_fault",
]

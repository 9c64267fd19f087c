"""Federated learning: parties keep their rows, and a round is a step whose units are parties."""

from nacre.federated_learning.aggregates import (
    AGGREGATES,
    AggregateOption,
    Bucketing,
    CentredClipping,
    FLTrust,
    GeometricMedian,
    Krum,
    MeanAggregate,
    Median,
    MultiKrum,
    NearestNeighbourMixing,
    NormBound,
    RoundFacts,
    TrimmedMean,
    at_fault,
)
from nacre.federated_learning.federation import Federation
from nacre.federated_learning.gather import Plain
from nacre.federated_learning.local.compression import (
    COMPRESSIONS,
    CompressionOption,
    EightBits,
    TopK,
)
from nacre.federated_learning.messages import Reply, RoundRequest
from nacre.federated_learning.options import (
    GATHERS,
    AllParties,
    CyclicCohort,
    FederatedLearning,
    GatherOption,
    Local,
    PlainGather,
    PoissonCohort,
    StopWhenFlat,
)
from nacre.federated_learning.party import Party
from nacre.federated_learning.roster import Identity, Roster
from nacre.federated_learning.secure import SecureGather
from nacre.federated_learning.transport import InProcess, OnDemand

__all__ = [
    "AGGREGATES",
    "COMPRESSIONS",
    "GATHERS",
    "AggregateOption",
    "AllParties",
    "Bucketing",
    "CentredClipping",
    "CompressionOption",
    "CyclicCohort",
    "EightBits",
    "FLTrust",
    "FederatedLearning",
    "Federation",
    "GatherOption",
    "GeometricMedian",
    "Identity",
    "InProcess",
    "Krum",
    "Local",
    "MeanAggregate",
    "Median",
    "MultiKrum",
    "NearestNeighbourMixing",
    "NormBound",
    "OnDemand",
    "Party",
    "Plain",
    "PlainGather",
    "PoissonCohort",
    "Reply",
    "Roster",
    "RoundFacts",
    "RoundRequest",
    "SecureGather",
    "StopWhenFlat",
    "TopK",
    "TrimmedMean",
    "at_fault",
]

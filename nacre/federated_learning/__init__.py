"""Federated learning: parties keep their rows, and a round is a step whose units are parties."""

from nacre.federated_learning.aggregates import AGGREGATES, AggregateOption, MeanAggregate, Median
from nacre.federated_learning.federation import Federation
from nacre.federated_learning.gather import Plain
from nacre.federated_learning.messages import Reply, RoundRequest
from nacre.federated_learning.options import (
    GATHERS,
    AllParties,
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
from nacre.federated_learning.transport import InProcess

__all__ = [
    "AGGREGATES",
    "GATHERS",
    "AggregateOption",
    "AllParties",
    "FederatedLearning",
    "Federation",
    "GatherOption",
    "Identity",
    "InProcess",
    "Local",
    "MeanAggregate",
    "Median",
    "Party",
    "Plain",
    "PlainGather",
    "PoissonCohort",
    "Reply",
    "Roster",
    "RoundRequest",
    "SecureGather",
    "StopWhenFlat",
]

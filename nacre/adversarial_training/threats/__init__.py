"""How far an attacker may move an input: the threat that an attack stays inside."""

from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.options import THREATS, ThreatOption
from nacre.adversarial_training.threats.region import Region
from nacre.adversarial_training.threats.relations import LinearRelation, RatioRelation
from nacre.adversarial_training.threats.table import ColumnMove, TableThreat

__all__ = [
    "THREATS",
    "Ball",
    "ColumnMove",
    "LinearRelation",
    "RatioRelation",
    "Region",
    "TableThreat",
    "ThreatOption",
]

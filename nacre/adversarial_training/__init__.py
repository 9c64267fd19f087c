"""Training against an adversary who moves the inputs, and attacks to measure it by."""

from nacre.adversarial_training.attacks import ATTACKS, FGSM, PGD, AttackOption, attacked
from nacre.adversarial_training.objectives import (
    OBJECTIVES,
    AdversarialTraining,
    Fast,
    Guard,
    Madry,
    Mart,
    ObjectiveOption,
    Ramp,
    Standard,
    StandardTraining,
    Trades,
)
from nacre.adversarial_training.threats import Ball, Region

__all__ = [
    "ATTACKS",
    "FGSM",
    "OBJECTIVES",
    "PGD",
    "AdversarialTraining",
    "AttackOption",
    "Ball",
    "Fast",
    "Guard",
    "Madry",
    "Mart",
    "ObjectiveOption",
    "Ramp",
    "Region",
    "Standard",
    "StandardTraining",
    "Trades",
    "attacked",
]

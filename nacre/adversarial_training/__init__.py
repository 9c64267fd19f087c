"""Training against an adversary who moves the inputs, and attacks to measure it by."""

from nacre.adversarial_training.ball import Ball
from nacre.adversarial_training.evaluate import attacked
from nacre.adversarial_training.fgsm import FGSM
from nacre.adversarial_training.objectives import (
    OBJECTIVES,
    Madry,
    ObjectiveOption,
    Standard,
    StandardTraining,
    Trades,
)
from nacre.adversarial_training.pgd import ATTACKS, PGD, AttackOption
from nacre.adversarial_training.region import Region

__all__ = [
    "ATTACKS",
    "FGSM",
    "OBJECTIVES",
    "PGD",
    "AttackOption",
    "Ball",
    "Madry",
    "ObjectiveOption",
    "Region",
    "Standard",
    "StandardTraining",
    "Trades",
    "attacked",
]

"""Training against an adversary who moves the inputs, and attacks to measure it by."""

from nacre.adversarial_training.attacks import ATTACKS, FGSM, PGD, AttackOption, attacked
from nacre.adversarial_training.objectives import (
    OBJECTIVES,
    Madry,
    ObjectiveOption,
    Standard,
    StandardTraining,
    Trades,
)
from nacre.adversarial_training.text.embedding import Embedding
from nacre.adversarial_training.text.freelb import EmbeddingPGD, FreeLB
from nacre.adversarial_training.threats import Ball, Region

__all__ = [
    "ATTACKS",
    "FGSM",
    "OBJECTIVES",
    "PGD",
    "AttackOption",
    "Ball",
    "Embedding",
    "EmbeddingPGD",
    "FreeLB",
    "Madry",
    "ObjectiveOption",
    "Region",
    "Standard",
    "StandardTraining",
    "Trades",
    "attacked",
]

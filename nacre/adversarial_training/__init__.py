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
from nacre.adversarial_training.text.embedding import Embedding
from nacre.adversarial_training.text.freelb import EmbeddingPGD, FreeLB
from nacre.adversarial_training.text.words import Words
from nacre.adversarial_training.threats import (
    Ball,
    ColumnMove,
    LinearRelation,
    RatioRelation,
    Region,
    TableThreat,
)

__all__ = [
    "ATTACKS",
    "FGSM",
    "OBJECTIVES",
    "PGD",
    "AdversarialTraining",
    "AttackOption",
    "Ball",
    "ColumnMove",
    "Embedding",
    "EmbeddingPGD",
    "Fast",
    "FreeLB",
    "Guard",
    "LinearRelation",
    "Madry",
    "Mart",
    "ObjectiveOption",
    "Ramp",
    "RatioRelation",
    "Region",
    "Standard",
    "StandardTraining",
    "TableThreat",
    "Trades",
    "Words",
    "attacked",
]

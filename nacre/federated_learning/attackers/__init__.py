"""Parties at fault, for tests, benchmarks and audits of one's own federation."""

from __future__ import annotations

from nacre.federated_learning.attackers.attacker import Attacker, Seen
from nacre.federated_learning.attackers.changes import (
    ALittleIsEnough,
    GaussianLie,
    InnerProduct,
    MinMax,
    ModelReplacement,
    SignFlip,
)
from nacre.federated_learning.attackers.infiltrated import Infiltrated, infiltrated_rows
from nacre.federated_learning.attackers.rows import LabelFlip, PixelBackdoor

AttackerOption = (
    LabelFlip
    | PixelBackdoor
    | SignFlip
    | GaussianLie
    | ALittleIsEnough
    | InnerProduct
    | MinMax
    | ModelReplacement
)

ATTACKERS = (
    LabelFlip,
    PixelBackdoor,
    SignFlip,
    GaussianLie,
    ALittleIsEnough,
    InnerProduct,
    MinMax,
    ModelReplacement,
)
"""Every attacker; the laws run over them."""

__all__ = [
    "ATTACKERS",
    "ALittleIsEnough",
    "Attacker",
    "AttackerOption",
    "GaussianLie",
    "Infiltrated",
    "InnerProduct",
    "LabelFlip",
    "MinMax",
    "ModelReplacement",
    "PixelBackdoor",
    "Seen",
    "SignFlip",
    "infiltrated_rows",
]

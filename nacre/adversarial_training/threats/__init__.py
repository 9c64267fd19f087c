"""How far an attacker may move an input: the threat that an attack stays inside."""

from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.region import Region

__all__ = ["Ball", "Region"]

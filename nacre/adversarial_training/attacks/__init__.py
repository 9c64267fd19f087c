"""Searches for the input inside a threat that a model does worst on."""

from nacre.adversarial_training.attacks.evaluate import attacked
from nacre.adversarial_training.attacks.fgsm import FGSM
from nacre.adversarial_training.attacks.options import ATTACKS, AttackOption
from nacre.adversarial_training.attacks.pgd import PGD

__all__ = ["ATTACKS", "FGSM", "PGD", "AttackOption", "attacked"]

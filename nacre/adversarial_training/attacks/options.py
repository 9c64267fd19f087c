"""Every attack that a recipe can name."""

from __future__ import annotations

from nacre.adversarial_training.attacks.fgsm import FGSM
from nacre.adversarial_training.attacks.pgd import PGD

AttackOption = FGSM | PGD

ATTACKS = (FGSM, PGD)
"""Every attack that a recipe can name; the laws run over them."""

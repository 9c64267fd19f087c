"""A threat in a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.adversarial_training.text.words import Words
from nacre.adversarial_training.threats.options import ThreatOption


@dataclass(frozen=True, kw_only=True)
class ThreatFile:
    """How far an attacker may move the inputs of a model that no recipe of ours trained."""

    nacre: Literal[1] = 1
    """The format of this file, which begins with it."""
    threat: ThreatOption | Words
    """What a recipe says under `ball`: a ball, with `kind: table` the columns that may move, with
    `kind: words` how many words of a text may be replaced."""

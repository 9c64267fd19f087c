"""What a step minimises: the loss, the loss under attack, or both held together.

Each loss is a function of its own row alone, so the clipped sum over units keeps its bound. The
search for the adversarial inputs (`perturb`) happens before any gradient by the weights is taken
and hands on numbers, not a graph.

*Guarantee:* the perturbation of a row depends on that row, its unit's number, the run's key and
weights that were released, and on nothing else: change one row, and every other perturbation of
the same batch is the same bit for bit. The clipped gradient of a unit is then a function of the
unit and of released numbers, which is all that the price of a step asks for. Methods that carry a
perturbation from one row or step to another (Free, FGSM-PCO, universal perturbations), or move the
weights by the gradient of the batch (AWP), have no such bound; see `refused`.
"""

from nacre.adversarial_training.objectives.fast import Fast
from nacre.adversarial_training.objectives.guard import OVERFITTED, Guard, Guarded, best_point
from nacre.adversarial_training.objectives.madry import Madry, WorstCase
from nacre.adversarial_training.objectives.mart import Mart
from nacre.adversarial_training.objectives.packing import without_stopped_rows
from nacre.adversarial_training.objectives.ramp import Ramp, at
from nacre.adversarial_training.objectives.standard import Standard, StandardTraining
from nacre.adversarial_training.objectives.trades import Consistent, Trades
from nacre.adversarial_training.text.freelb import TEXT_OBJECTIVES, EmbeddingPGD, FreeLB

AdversarialTraining = Madry | Trades | Mart | Fast | FreeLB | EmbeddingPGD
"""What a recipe may name under `adversarial_training`."""

ObjectiveOption = StandardTraining | AdversarialTraining

INPUT_OBJECTIVES = (StandardTraining, Madry, Trades, Mart, Fast)
"""Objectives of models that read numbers."""

OBJECTIVES = (*INPUT_OBJECTIVES, *TEXT_OBJECTIVES)
"""Every objective that a recipe can name; the laws run over them."""

__all__ = [
    "INPUT_OBJECTIVES",
    "OBJECTIVES",
    "OVERFITTED",
    "AdversarialTraining",
    "Consistent",
    "Fast",
    "Guard",
    "Guarded",
    "Madry",
    "Mart",
    "ObjectiveOption",
    "Ramp",
    "Standard",
    "StandardTraining",
    "Trades",
    "WorstCase",
    "at",
    "best_point",
    "without_stopped_rows",
]

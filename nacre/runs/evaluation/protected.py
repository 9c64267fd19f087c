"""The protected figure of a run: a confusion matrix of held-out units, noised as its steps are.

Each draw is one more step of the run's mechanism: held-out units enter by its sampling, each moves
the sum by one vote at most, and its noise is added and journalled as a step's is (`Journalled`),
held against plan.json before and after. The sum over the draws, the accuracy and its interval are
computed from what was released.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import torch

from nacre.core.files import read_json, write_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.types import Noised, Tensors
from nacre.figures.protected import majority_share, protected_accuracy
from nacre.models import FormerRun, PythonModel
from nacre.planning.mechanisms import held_out_expected
from nacre.planning.plan import Plan
from nacre.runs.released import Log
from nacre.runs.reservations import Charges
from nacre.runs.rows import Holdings
from nacre.statistics.votes import COVERED, Votes
from nacre.training import pieces
from nacre.training.fit import Journalled
from nacre.training.holders import units
from nacre.training.planned import HeldToPlan, PlannedLevels

FILE = "evaluation.json"


def protected_figure(
    plan: Plan,
    folder: RunFolder,
    held: Holdings,
    weights: Tensors,  # of the finished model, adapters merged
    charges: Charges,
    source: Source,  # of the run
) -> None:
    """Releases the figure that the plan promises, into RUN/evaluation.json; nothing where it
    promises none.

    As a step's, sampling is keyed by the weights and the number of the draw, and noise by the sum
    as well: done again after a crash it gives the same answer, and is charged once. Raises as
    `Votes.cast`, before anything is journalled, and as `Journalled.add`.
    """
    planned = PlannedLevels.of(read_json(folder.plan)).outer.evaluation
    if planned is None or held.test is None:
        return
    recipe, mechanism = plan.recipe, plan.levels[0].mechanism
    model = recipe.build_model(plan.schema)
    model.load_state_dict(weights)
    task, own = pieces.task_of(plan.schema), source.child("evaluation")
    drawn_from = units(recipe, held.test, own)
    own_code = isinstance(recipe.model, PythonModel | FormerRun)  # which may hold such a model
    expected = held_out_expected(recipe, mechanism)
    votes = Votes(model.eval(), task, drawn_from, expected, own_code=own_code)
    entered = own.digest("entering", weights)
    numbers = range(mechanism.steps, mechanism.releases)
    coins = own.child("sampling")
    draws = [mechanism.sampling.draw(len(drawn_from), i, coins, entered) for i in numbers]
    votes.cast(torch.cat(draws))  # a model that would be refused is, before anything is journalled
    held_to = HeldToPlan(planned, mechanism.sampling, mechanism.clip, 0)
    counts = torch.zeros(task.outputs, task.outputs, dtype=torch.float64)
    deviation = 0.0
    log = Log(folder.path / "released.jsonl")
    try:
        for number, drawn in zip(numbers, draws, strict=True):
            total = votes.total(drawn)
            scale = repr((mechanism.multiplier, mechanism.adjacency, total.bound))
            summed_up = own.digest("sum", entered, drawn, total.total, scale)
            noise = Journalled(mechanism.noise, charges[""], number + 1, held_to)
            keyed = own.child("noise", number, summed_up)
            release, _ = noise.add(total, None, keyed, mechanism.adjacency)
            assert isinstance(release.how, Noised)  # a plan with an evaluation has noise
            log.add(number + 1, release, evaluation=True)
            counts += release.total["votes"].double()
            deviation = release.how.deviation
        log.sync()
    finally:
        log.close()
    matrix: list[list[float]] = counts.tolist()
    rate = float(mechanism.sampling.facts()["rate"])
    known = {"draws": mechanism.evaluation, "rate": rate, "deviation": deviation}
    accuracy = protected_accuracy(
        matrix, draws=mechanism.evaluation, rate=rate, deviation=deviation
    )
    write_json(
        folder.path / FILE,
        {
            "unit": mechanism.unit,
            "classes": list(plan.schema.classes),
            **known,
            "votes": matrix,
            "accuracy": accuracy,
            "majority": None if accuracy["value"] is None else majority_share(matrix),
            "covered": COVERED,
        },
    )

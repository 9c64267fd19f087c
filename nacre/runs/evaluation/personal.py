"""The models of parties that keep layers of their own: each written at home, and measured there.

A party's model is the common layers with its own. It is computed from its rows without noise, or is
the party's own affair at least, so model and figures lie in `local/` and nowhere else: in a run of
one process in that run's, of a party in its own house in its own. The common model by itself, with
layers that nobody trained in place of theirs, has no figure that means anything.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nacre.core.errors import DataError, Incompatible
from nacre.core.files import write_json
from nacre.core.run_folder import RunFolder
from nacre.core.tensors import parameters_of
from nacre.core.types import Tensors
from nacre.data.dataset import Rows
from nacre.data.partition import Dealt
from nacre.data.units import members_of
from nacre.figures.names import FigureName
from nacre.fine_tuning import export
from nacre.planning.plan import Plan
from nacre.recipe.schema import Recipe
from nacre.runs.evaluation.finished import save_finished
from nacre.runs.rows import Holdings, holder_names
from nacre.training import pieces
from nacre.training.curve import figures

FIGURES = "figures.json"
"""In `RunFolder.personal`: of each party the name of its folder, and how good its model is on rows
that are not trained on; for the owner of the rows."""


def write_homes(
    plan: Plan,
    held: Holdings,
    run: Path,
    own: Callable[[str], Tensors],  # a party's own layers; empty where it took part in no round
    model: nn.Module,  # the common one, adapters and all
) -> None:
    """Writes the model of each party that took part into RUN/local/personal/NAME, then what was
    measured of them; done again it writes the same."""
    found: dict[str, Any] = {}
    outside = rows_outside(plan.recipe, held)
    for name in holder_names(held.private):
        if layers := own(name):
            rows = outside.get(name)
            found[name] = write_home(plan.recipe, held, run, name, model, layers, rows)
    _keep_figures(run, found)


def write_own_home(
    recipe: Recipe,
    held: Holdings,
    run: Path,
    name: str,
    model: nn.Module,  # whose common weights are set to `common`
    common: Tensors,
    layers: Tensors,  # the party's own
) -> Path:
    """The same at a party in its own house, whose test rows are its own; where its model lies."""
    weights = parameters_of(model)
    with torch.no_grad():
        for key, value in common.items():
            weights[key].copy_(value)
    found = write_home(recipe, held, run, name, model, layers, held.test)
    _keep_figures(run, {name: found})
    return RunFolder(run).personal / found["folder"]


def _keep_figures(run: Path, found: dict[str, Any]) -> None:
    folder = RunFolder(run).personal
    folder.mkdir(exist_ok=True)
    write_json(folder / FIGURES, {"parties": found})


def write_home(
    recipe: Recipe,
    held: Holdings,
    run: Path,
    name: str,
    model: nn.Module,
    layers: Tensors,  # the party's own
    rows: Rows | None,  # of the party, not trained on
) -> dict[str, Any]:
    """Writes one party's model; returns the name of its folder, and where there are `rows` how
    many, its accuracy (0 to 1) and mean loss on them, and the figure that `evaluate` asks for."""
    whole = copy.deepcopy(model)
    weights = parameters_of(whole)
    with torch.no_grad():
        for key, value in layers.items():
            weights[key].copy_(value)
    place = folder_name(name)
    into = RunFolder(run).personal / place
    into.mkdir(parents=True, exist_ok=True)
    save_finished(recipe, held, export.merged(whole), into)
    found: dict[str, Any] = {"folder": place}
    if rows is not None and len(rows):
        evaluate = recipe.evaluate
        figure = evaluate.figure if evaluate is not None else None
        asked: list[FigureName] = [] if figure is None else [figure]
        measured = figures(whole, pieces.task_of(held.schema), rows, asked)
        found |= {"rows": len(rows), **measured}
    return found


def folder_name(party: str) -> str:
    """The folder of a party's model: its name, or digits where a column calls it something that no
    folder should be called.

    >>> folder_name("north ward"), folder_name("../north")
    ('north ward', 'party 2d3b5819b089eb10')
    """
    if re.fullmatch(r"\w[\w .-]*", party) and len(party.encode()) <= _LONGEST:
        return party
    return f"party {hashlib.sha256(party.encode()).hexdigest()[:16]}"


_LONGEST = 200  # bytes


def rows_outside(recipe: Recipe, held: Holdings) -> Mapping[str, Rows]:
    """The test rows by party: those that a column gives it; of simulated parties those that the
    same rule and seed would deal to it, so of the same mixture of classes."""
    test, option = held.test, recipe.federated_learning
    if test is None or option is None:
        return {}
    if not option.parties.simulated:
        names, which = members_of(test.party or ())
        return Dealt(test, tuple(names), np.asarray(which)) if names else {}
    try:
        return option.parties.split(test, "example", recipe.seed)
    except (DataError, Incompatible):  # fewer rows than parties
        return {}

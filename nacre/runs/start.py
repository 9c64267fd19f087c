"""The model that training starts from, and the unprotected twin that a run is held against."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from nacre.core.files import load_tensors, save_tensors
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.fine_tuning import export
from nacre.models import FormerRun
from nacre.planning.plan import plan
from nacre.recipe.schema import Recipe
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.loop import loop
from nacre.runs.progress import Progress
from nacre.runs.rows import Holdings
from nacre.training.devices.group import Group
from nacre.training.holders import Setting
from nacre.training.pretrain import pretrain


def starting_model(
    setting: Setting, held: Holdings, source: Source, folder: RunFolder | None, watch: Progress,
    group: Group,
) -> nn.Module:  # fmt: skip
    """The model before private rows: built, pre-trained where the recipe says so, prepared.

    With a folder the public base is kept at state/base.safetensors, and read back on resume.
    """
    recipe = setting.recipe
    model = recipe.build_model(setting.schema)
    if has_base(recipe):
        group.on_rank_zero(lambda: _trained_base(setting, held, source, folder, watch, model), None)
        if group.size > 1:
            model.load_state_dict(group.broadcast_tensors(model.state_dict()))
    choice = recipe.fine_tuning
    return model if choice is None else choice.prepare(model, recipe.seed)


def _trained_base(
    setting: Setting, held: Holdings, source: Source, folder: RunFolder | None, watch: Progress,
    model: nn.Module,
) -> None:  # fmt: skip
    """Trains the base in place, or puts the one that was kept back."""
    choice = setting.recipe.fine_tuning
    stored = folder.state / "base.safetensors" if folder is not None else None
    if stored is not None and stored.exists():
        weights, _ = load_tensors(stored)
        model.load_state_dict(weights)
    elif choice is not None and choice.pretrain is not None:
        assert held.public is not None  # public_rows_exist has refused the rest
        with watch.stage("public base", choice.pretrain.steps) as advance:
            keyed = source.child("pretrain")
            pretrain(
                setting, choice.pretrain, model, held.public, keyed,
                lambda state, release: bool(advance()),
            )  # fmt: skip
    if stored is not None and not stored.exists():
        save_tensors(stored, model.state_dict())


def has_base(recipe: Recipe) -> bool:
    """Whether the run starts from weights that were trained before."""
    pretrained = recipe.fine_tuning is not None and recipe.fine_tuning.pretrain is not None
    return pretrained or isinstance(recipe.model, FormerRun)


def unprotected(recipe: Recipe) -> Recipe:
    """The same recipe without protection: no noise, no per-unit clipping, clean inputs."""
    return replace(
        recipe,
        differential_privacy=None,
        within_parties=None,
        gradient_clipping=None,
        adversarial_training=None,
        ledger=None,
        compare=(),
        audit=(),
    )


def train_twin(
    recipe: Recipe, held: Holdings, source: Source, folder: RunFolder, watch: Progress
) -> None:
    """Trains the unprotected twin on the same (public) rows and keeps its weights in state/.

    It charges nothing: `comparison_on_public_data` lets it run on rows that are public anyway.
    """
    path = folder.state / "unprotected.safetensors"
    if path.exists():
        return
    twin = plan(unprotected(recipe))
    setting = Setting(twin.recipe, held.schema, held.space)
    keyed = source.child("unprotected twin")
    base = starting_model(setting, held, keyed, None, watch, Group())
    outcome = loop(twin, setting, held, base, keyed, Surroundings(watch=watch))
    save_tensors(path, export.merged(outcome.model))

"""A recipe: the union of the techniques' own options. What is absent is off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nacre.adversarial_training import AdversarialTraining
from nacre.core.errors import BadArgument
from nacre.data import AnyData, OfModel, Text
from nacre.data.dataset import Schema
from nacre.differential_privacy.options import Privacy
from nacre.federated_learning.options import FederatedLearning
from nacre.fine_tuning.choices import FineTuningOption
from nacre.gradient_clipping import ClippingOption, UnitClip
from nacre.models import OWN, Code, FormerRun, ModelOption, Pretrained, build, start_at
from nacre.recipe.audits import AuditOption
from nacre.recipe.options import content
from nacre.recipe.sections import Evaluate, Execution, LedgerChoice, Training, WithinParties
from nacre.recipe.tune import Tune

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Origin:
    """The text that a recipe was read from."""

    file: str
    source: bytes
    lines: Mapping[str, int]  # key path -> line, counted from 1
    digest: str  # of the recipe as it was read


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run: its data, its model, the five techniques, and what is measured afterwards."""

    nacre: Literal[1] = 1
    """The format of this file, which begins with it."""
    name: str
    """What the run is called in plans and reports."""
    seed: int = 0
    """Fixes splits, first weights and public training; private randomness has keys of its own."""
    data: AnyData
    """The rows: where they are, what they hold, and who is a unit."""
    model: ModelOption
    """What is trained."""
    fine_tuning: FineTuningOption | None = None
    """Which weights move, and the public base that training starts from."""
    gradient_clipping: ClippingOption | None = None
    """How long one unit's gradient, or the mean gradient, may be."""
    federated_learning: FederatedLearning | None = None
    """Who holds the rows, and how the parties' changes come together."""
    differential_privacy: Privacy | None = None
    """Who is protected, and how well."""
    within_parties: WithinParties | None = None
    """What each party promises for its own rows, where the sections above protect whole parties."""
    adversarial_training: AdversarialTraining | None = None
    """Against which attack on its inputs the model is trained."""
    training: Training = field(default_factory=Training)
    """Steps, batch and optimizer."""
    execution: Execution = field(default_factory=Execution)
    """How the work is done; never what is guaranteed."""
    ledger: LedgerChoice | None = None
    """Where the privacy budget is kept."""
    tune: Tune | None = None
    """What `nacre tune` searches over; without it the recipe is one run."""
    evaluate: Evaluate | None = None
    """Which figures are shown of the model, and for which groups of rows."""
    audit: tuple[AuditOption, ...] = ()
    """Attacks on the finished model, by name or with options."""
    compare: tuple[Literal["unprotected", "public_base"], ...] = ()
    """Models to hold the result against; `unprotected` needs data that are declared public."""

    # What follows is not part of the recipe's content: it is not written, compared or digested.
    folder: Path = field(default=Path(), compare=False)
    """What the recipe's paths are relative to: where its file stands."""
    code: Code = field(default=OWN, compare=False)
    """Which Python code may be run for it: said by the caller who loads it, never by its file."""
    origin: Origin | None = field(default=None, compare=False, repr=False)
    """The text that it was read from; None for a recipe made in Python."""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise BadArgument(f"name={self.name!r} must be a line of text")
        if not 0 <= self.seed < 2**63:
            raise BadArgument(f"seed={self.seed} must be at least 0 and below 2**63")
        if isinstance(self.data, Text) and self.data.tokenizer is None:
            object.__setattr__(self, "data", _with_tokenizer(self.data, self.model))
        for key in ("audit", "compare"):
            chosen: tuple[Any, ...] = getattr(self, key)
            if any(chosen.count(entry) > 1 for entry in chosen):
                raise BadArgument(f"{key} names the same entry twice; remove one")

    @property
    def schema(self) -> Schema:
        """What a row looks like, without reading one."""
        return self.data.schema(self.folder)

    @property
    def rows_per_unit(self) -> int | None:
        """Rows that a protected unit holds at most, as declared; None where nothing is declared,
        as for units of single rows."""
        privacy = self.privacy_of_rows
        return privacy.rows_per_unit if privacy is not None else None

    @property
    def row_steps(self) -> int:
        """Steps over the rows of one holder, in the whole run."""
        federation = self.federated_learning
        if federation is None:
            return self.training.steps
        return federation.rounds * federation.local.steps

    @property
    def privacy_of_rows(self) -> Privacy | None:
        """The promise that steps over rows are noised for: to rows or groups of them. None where
        nothing, or whole parties alone, are protected."""
        if self.within_parties is not None:
            return self.within_parties.differential_privacy
        privacy = self.differential_privacy
        return privacy if privacy is not None and privacy.unit != "client" else None

    @property
    def privacy_of_parties(self) -> Privacy | None:
        """The promise that the sum over parties is noised for: to whole parties, or None."""
        privacy = self.differential_privacy
        return privacy if privacy is not None and privacy.unit == "client" else None

    @property
    def clipping_of_rows(self) -> ClippingOption | UnitClip | None:
        """What bounds a step over rows; None where nothing does, or the change of a whole party is
        bounded instead."""
        if self.within_parties is not None:
            return self.within_parties.gradient_clipping
        return self.gradient_clipping if self.privacy_of_parties is None else None

    def build_model(self, schema: Schema) -> nn.Module:
        """The model before training, for rows of this schema; its first weights follow the seed,
        and the bias of its last layer the declared shares of the classes.

        Raises what `nacre.models.build` and `start_at` raise.
        """
        model = build(self.model, schema.shape, schema.outputs(), self.seed, self.folder, self.code)
        if shares := self.training.first_shares(schema.classes):
            start_at(model, shares)
        return model

    @property
    def lines(self) -> dict[str, tuple[str, int]]:
        """Key path -> (file, line); empty for a recipe made in Python."""
        origin = self.origin
        return {} if origin is None else {k: (origin.file, n) for k, n in origin.lines.items()}

    @property
    def source(self) -> bytes | None:
        """The file it was read from, byte for byte, as long as the recipe still says the same.

        None for a recipe that was made in Python, or changed since it was read.
        """
        origin = self.origin
        return (
            origin.source if origin is not None and origin.digest == recipe_digest(self) else None
        )

    def where(self, key: str) -> tuple[str | None, int | None]:
        """(file, line) of a key path, or of the nearest section around it that is written."""
        lines = self.lines
        while key and key not in lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return lines.get(key, (None, None))


def _with_tokenizer(data: Text, model: ModelOption) -> Text:
    """Text becomes the tokens that its model was trained with."""
    if isinstance(model, Pretrained):
        return replace(data, tokenizer=OfModel(name=model.name))
    if isinstance(model, FormerRun):
        return replace(data, tokenizer=OfModel(name=model.path))
    raise BadArgument(
        f"data of kind text need a tokenizer and model {model.kind!r} brings none; declare "
        "`data: {tokenizer: {kind: bytes}}`"
    )


def recipe_digest(recipe: Recipe) -> str:
    """Hex SHA-256 of what the recipe says, whichever way it was written down.

    Comments, the order of keys and values written out that are defaults anyway make no difference.
    """
    text = json.dumps(_canonical(content(recipe)), sort_keys=True, allow_nan=False)
    return hashlib.sha256(b"nacre recipe" + text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """`lr: 1` and `lr: 1.0` are the same recipe, so whole floats become ints."""
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return int(value) if isinstance(value, float) and value.is_integer() else value

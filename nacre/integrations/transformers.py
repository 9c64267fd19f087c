"""A Transformers `Trainer` whose steps are private, and whose logs tell epsilon.

    trainer = PrivateTrainer(
        model, args, train_dataset=rows, data_collator=collator,
        privacy=Privacy(epsilon=8, delta=1e-6), clip=Flat(norm=1.0), size=60_000,
        ledger=LedgerChoice(path="privacy.db", dataset="notes-2026", grant=Grant(…)),
    )
    trainer.train()

The Trainer keeps its loop, schedule, logs, evaluation and checkpoints. What it counts (batches and
their parts) is declared and not drawn: its data loader gives empty places, and at the place where
it would update, one private step happens. So neither its data loader, its way of accumulating
gradients nor its own clipping ever sees a private row.
"""

# Parts of torch and transformers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Rows
from transformers import Trainer, TrainingArguments, default_data_collator
from transformers.trainer_utils import TrainOutput

from nacre.core.errors import BadArgument, Incompatible
from nacre.core.parts import Clip, GradientSum
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.types import Batch
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.options import Privacy
from nacre.integrations import account
from nacre.integrations import trial as trial_of
from nacre.integrations.arguments import (
    INPUT_LOSSES,
    require_callable,
    require_declared,
    require_losses,
    require_parts,
    require_rows,
    require_sample,
)
from nacre.integrations.collating import require_own_entries
from nacre.integrations.declaration import Promise
from nacre.integrations.examples import batch_of, cells, collated
from nacre.integrations.fetching import Dataset, Fetcher
from nacre.integrations.inputs import (
    DatasetRow,
    InputLosses,
    Vocabulary,
    inputs_of,
    made_up_rows,
    own_loss,
)
from nacre.integrations.mixing import Alone, alone
from nacre.integrations.steps import PrivateSteps
from nacre.integrations.trainer_arguments import require_arguments
from nacre.recipe.sections import LedgerChoice
from nacre.runs.rows import size_notes

_PRIVATE = ("loss", "grad_norm", "total_flos")
"""What the Trainer would log and nothing protects; with it goes all that begins with `train_`: how
long private work took speaks of how many rows were drawn."""


class PrivateTrainer(Trainer):
    """A Trainer that gives (epsilon, delta)-differential privacy to each row of `train_dataset`.

    *Guarantee:* that of `nacre.integrations.torch.Private`, for the weights after every step, the
    checkpoints and the logs. A step expects `per_device_train_batch_size` times
    `gradient_accumulation_steps` rows (the declared batch) and takes the former at a time. An
    epoch is as many steps as `size` rows make, and rows are drawn by coins, not in turn.

    `epsilon` stands in every log and in what `train` returns; no training loss does, and no time.
    `eval_dataset` has to be public: what is measured on it is logged as it is. `max_grad_norm` has
    no effect, `clip` bounds each row. Other arguments that would break the promise are refused.

    The run's key lies in `output_dir/private` while the run is open, and is destroyed at the end of
    `train`. After an interruption `train(resume_from_checkpoint=True)` goes on.

    Raises as `Private` does; from `train`, not on construction.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        privacy: Privacy,
        clip: Clip,
        ledger: LedgerChoice,
        size: int,  # rows of train_dataset, declared
        train_dataset: Dataset,
        eval_dataset: Any = None,  # public
        data_collator: Callable[..., dict[str, Any]] | None = None,
        processing_class: Any = None,
        losses: InputLosses | None = None,  # None: the model's own, of each row alone
        sample: Sequence[DatasetRow]
        | None = None,  # made-up or public rows, as train_dataset has them
        gradients: trial_of.Gradients = "auto",
        compute_metrics: Any = None,
        callbacks: Any = None,
        optimizers: Any = (None, None),
        preprocess_logits_for_metrics: Any = None,
    ) -> None:
        _require_forms(model, args, train_dataset, data_collator, losses, sample, gradients)
        require_declared(privacy, clip, ledger, size=size)
        if clip.moved():
            raise Incompatible(
                f"{type(clip).__name__} moves from step to step, and the Trainer's checkpoints do "
                "not keep where it stands; use a rule that stands still, as `Flat(norm=1.0)`"
            )
        if eval_dataset is train_dataset:
            raise Incompatible(
                "eval_dataset is train_dataset, and what is measured on private rows is not "
                "covered by epsilon; evaluate on public rows"
            )
        super().__init__(
            model,
            args,
            data_collator=data_collator,
            train_dataset=train_dataset,  # pyright: ignore[reportArgumentType]
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self._private_rows = train_dataset
        self._losses, self._sample = losses, sample
        self._gradients: trial_of.Gradients = gradients
        self._spent = 0.0
        self._steps: PrivateSteps | None = None
        self._promise = Promise(
            privacy=privacy,
            clip=clip,
            ledger=ledger,
            size=size,
            batch=args.per_device_train_batch_size * args.gradient_accumulation_steps,
            steps=_steps_of(args, size),
        )
        keys = ("size", "per_device_train_batch_size")
        for note in size_notes(len(train_dataset), "rows", size, self._promise.batch, keys):
            warnings.warn(note, stacklevel=2)

    @property
    def epsilon(self) -> float:
        """What the steps taken so far cost, at `privacy.delta`; 0 before the first."""
        if self._steps is not None:
            self._spent = self._steps.epsilon(self.state.global_step)
        return self._spent

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains, and ends the run: the account takes back what its rule allows.

        An error leaves the run open, with what it reserved: call `train` again, from a checkpoint
        where there is one. The ledger refuses a step that was taken before from another state.
        """
        if trial is not None:
            raise Incompatible(
                "each trial of a search is a run of its own that costs epsilon of its own; train "
                "with fixed settings"
            )
        begun = RunFolder(self._folder).run_key.exists()
        if not begun:
            account.refuse_taken(self._folder)
        mechanism = self._promise.mechanism()
        sums, rows = self._tried(), alone(Fetcher(self._private_rows))
        if self.optimizer is not None:
            trial_of.require_optimizer(self._own_model, self._own_optimizer, new=not begun)
        standing = self._standing(mechanism, begun, rows)
        try:
            self._steps = PrivateSteps(
                self._own_model, rows, self._collated, sums, self._promise, mechanism,
                standing, self.args.per_device_train_batch_size,
            )  # fmt: skip
            output = super().train(resume_from_checkpoint, None, ignore_keys_for_eval)
            if not self.args.load_best_model_at_end:  # which puts earlier weights back
                self._steps.require_untouched()
            self._steps.require_unmoved()
            metrics = {**_released(output.metrics), "epsilon": self.epsilon}
            standing.settle(self.state.global_step)
            return TrainOutput(output.global_step, math.nan, metrics)
        finally:
            standing.close()
            self._steps = None

    @property
    def _folder(self) -> Path:
        """Where the run's key and its name in the ledger are."""
        return Path(str(self.args.output_dir)) / "private"

    def _standing(self, mechanism: Mechanism, begun: bool, rows: Alone) -> account.Standing:
        """The run that is open in the output folder, or a new one."""
        if begun:
            return account.resume(self._promise, mechanism, self._folder)
        held = cells(rows.fetcher, self._collated)
        return account.start_run(self._promise, mechanism, held, self._folder)

    def _tried(self) -> GradientSum:
        """The gradient sum, once model, loss and collator were tried on made-up rows."""
        model = self._own_model
        equal = self.data_collator is default_data_collator
        rows = self._sample
        if rows is None:
            (first,) = Fetcher(self._private_rows).rows([0], Source(bytes(32)))
            rows = made_up_rows(first, Vocabulary.of(model), equal)
        require_own_entries(lambda some: inputs_of(self._batch(some)), list(rows))
        together, alone = self._batch(rows), [self._batch([row]) for row in rows]
        as_given = _Inputs(self._losses or own_loss(model, inputs_of(alone[0])))
        sums = trial_of.tried(model, as_given, self._promise.clip, together, self._gradients)
        trial_of.require_padding(model, as_given, together, alone)
        return sums

    def _batch(self, rows: Sequence[DatasetRow]) -> Batch:
        """Made-up rows as a batch."""
        device = next(self._own_model.parameters()).device
        return batch_of(collated(self._collated, rows), torch.arange(len(rows)), device)

    def _collated(self, rows: Sequence[Any]) -> dict[str, Tensor]:
        """Rows without the columns that the model does not take, as tensors."""
        collate = self._get_collator_with_removed_columns(self.data_collator, "training")
        return collate(list(rows))

    @property
    def _own_model(self) -> nn.Module:
        """The model itself; nothing wraps it, since one process trains it."""
        assert isinstance(self.model, nn.Module)
        return self.model

    @property
    def _own_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer inside the Trainer's wrapper."""
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        assert isinstance(inner, torch.optim.Optimizer)
        return inner

    # -- the seams of the Trainer ------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[None]:
        """Empty places, as many as batches of declared rows: which rows a step takes is drawn in
        the step."""
        return DataLoader(
            _Places(self._promise.size),
            batch_size=self.args.per_device_train_batch_size,
            drop_last=self.args.dataloader_drop_last,
            collate_fn=_nothing,
        )

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """One private step, update included, at the last part of what the Trainer takes for a
        batch; the update that follows finds no gradients. Its loss is not told: 0."""
        if self._steps is None:
            raise Incompatible("a private step is taken inside `train` only, which reserves it")
        if self.accelerator.sync_gradients:
            optimizer, done = self._own_optimizer, self.state.global_step
            if done == 0:
                trial_of.require_optimizer(self._own_model, optimizer, new=True)
            self._steps.take(optimizer, done)
        return torch.zeros((), device=self.args.device)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model, within a checkpoint too. Raises `Incompatible` where a frozen weight or
        buffer is not as the first step found it, before anything is written."""
        if self._steps is not None:
            self._steps.require_unmoved()
        super().save_model(output_dir, _internal_call)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs what is released, and epsilon."""
        super().log({**_released(logs), "epsilon": self.epsilon}, None)


def _require_forms(
    model: Any, args: Any, train_dataset: Any, data_collator: Any, losses: Any, sample: Any,
    gradients: Any,
) -> None:  # fmt: skip
    """Raises `BadArgument` and `Incompatible` for arguments of another form."""
    require_parts(model, None, gradients)
    if not isinstance(args, TrainingArguments):
        raise BadArgument(
            f"`args` is of type {type(args).__name__}, and the length and the batch of the run "
            "stand there: pass `TrainingArguments(…)`"
        )
    require_rows(train_dataset, "train_dataset")
    require_arguments(args)
    if data_collator is not None:
        require_callable(
            "data_collator", data_collator, "one that is made, as `default_data_collator`"
        )
    if losses is not None:
        require_losses(losses, INPUT_LOSSES)
    require_sample(sample)


class _Places(Rows[None]):
    """As many places as rows were declared, with nothing in them."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> None:
        return None


class _Inputs:
    """A loss of (model, inputs) as one of (model, batch)."""

    def __init__(self, losses: InputLosses) -> None:
        self._losses = losses

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._losses(model, inputs_of(batch))


def _nothing(places: Sequence[None]) -> dict[str, Tensor]:
    return {}


def _released(logs: Mapping[str, float]) -> dict[str, float]:
    """The logs without what nothing protects."""
    return {
        name: value
        for name, value in logs.items()
        if name not in _PRIVATE and not name.startswith("train_")
    }


def _steps_of(args: TrainingArguments, size: int) -> int:
    """Steps of the run, as the Trainer counts them."""
    if args.max_steps > 0:
        return args.max_steps
    width = args.per_device_train_batch_size
    places = size // width if args.dataloader_drop_last else -(-size // width)
    return math.ceil(args.num_train_epochs * max(1, -(-places // args.gradient_accumulation_steps)))

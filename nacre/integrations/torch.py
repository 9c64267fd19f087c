"""Makes an existing PyTorch loop private: the same model, the same optimizer, another step.

    for features, label in loader:          for step in private:
        optimizer.zero_grad()                   scheduler.step()
        loss = criterion(model(features), label)
        loss.backward()
        optimizer.step()
        scheduler.step()

What a step needs to be private (units drawn by coins, one bounded share each, noise, the charge
before the release) happens inside one call, so no order of lines in the loop can undo it.
Processes that `torchrun` starts with such a script share each step's work.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from nacre.core.errors import BadArgument, DataError, Incompatible
from nacre.core.parts import Clip, GradientSum
from nacre.core.random import Source, digest
from nacre.core.rows import flatten, grouped, per_unit
from nacre.core.theirs import cause, form_of
from nacre.core.types import Batch
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.options import Privacy
from nacre.integrations import account, trial
from nacre.integrations.arguments import (
    ROW_LOSSES,
    owners_of,
    require_count,
    require_losses,
    require_parts,
    require_rows,
)
from nacre.integrations.declaration import Promise
from nacre.integrations.examples import as_owned, batch_of, cells, digest_of
from nacre.integrations.fetching import Dataset, Fetcher
from nacre.integrations.mixing import Alone, alone
from nacre.integrations.steps import PrivateSteps
from nacre.recipe.sections import LedgerChoice
from nacre.runs import checkpoint
from nacre.runs.rows import size_notes
from nacre.training.devices.group import join_until_exit

RowLosses = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, features (B, *shape), label (B, …)) -> (B,), entry i a function of row i alone."""

_MADE_UP = 4  # rows that a model is tried on: a first, a last and two in between


class Private:
    """The private steps of a loop of your own. Iterating takes them, one a turn.

    *Guarantee:* (epsilon, delta)-differential privacy of the weights after every step, for one unit
    of the data set, as `privacy` declares it: units are drawn by independent coins at the declared
    rate, each unit's gradient is clipped alone, the sum is noised, and only the noised sum, divided
    by the declared `batch`, reaches the optimizer. A unit is a row, or with `groups` all rows of
    one owner, whose loss is the mean of theirs. Nothing that was computed from private rows
    (losses, norms, how many were drawn) comes out. It covers the weights that *these* steps made:
    what was in them before, and what your loop computes from the rows elsewhere, is not covered.

    The model and the optimizer stay your own; each step puts the model into training mode. The
    model, the loss and the optimizer are tried on made-up rows first, and the whole run is reserved
    in the ledger before its first step. A loop that dies leaves the reservation standing; so does
    one that closes early, where it has a folder to go on from.

    *Several processes*, which `torchrun` starts, all make the same model, optimizer and `Private`
    and take the same steps; the first alone opens the ledger and the folder. Why the release stays
    covered: all draw the same units, each unit's bounded share is in one portion of the sum, and to
    that sum, whose parts never leave the group, one noise is added, keyed by run, step and sum, so
    that all make the same release of one journalled step. Weights, options and rows that are not
    the same in all of them are refused.

    A `size` a tenth away from the units at hand is told as a Python warning, which is for the
    holder of the rows: it counts them.

    Raises `Incompatible` and `UnsupportedLayer` for what no epsilon would cover, `BudgetExceeded`
    where the account does not, `RunError` for a folder that holds something else.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        dataset: Dataset,  # row i: (features, label)
        losses: RowLosses,
        *,
        privacy: Privacy,
        clip: Clip,
        ledger: LedgerChoice,
        size: int,  # units of the data set, declared
        batch: int,  # units expected a step
        steps: int,
        groups: Any = None,  # (N,): whose each row is; None: each row is a unit of its own
        column: str | None = None,  # what owners are told apart by; the account is bound to it
        microbatch: int | None = None,  # units at a time, to save memory
        gradients: trial.Gradients = "auto",
        precision: trial.Precision = "float32",  # of the model's passes; sums are float32
        sample: tuple[Tensor, Tensor] | None = None,  # made-up or public (features, label)
        portions: int | None = None,  # that a draw is dealt into; None: as many as processes
        folder: Path | str | None = None,  # of the run; None: it cannot be saved or resumed
        resume: bool = False,
    ) -> None:
        group = join_until_exit()

        def prepared() -> _Prepared:
            require_rows(dataset)
            require_parts(model, optimizer, gradients, microbatch, folder, precision)
            require_losses(losses, ROW_LOSSES)
            if portions is not None:
                require_count("portions", portions)
            owners = owners_of(groups, column, len(dataset))
            promise = Promise(
                privacy=privacy, clip=clip, ledger=ledger, size=size, batch=batch, steps=steps,
                column=unicodedata.normalize("NFC", column or ""),
            )  # fmt: skip
            if resume and folder is None:
                raise Incompatible(
                    "a run is resumed from its folder; name it, as `folder='runs/notes'`"
                )
            trial.require_optimizer(model, optimizer, new=not resume)
            row_losses = _Paired(losses)
            tried_on = _sample(dataset, sample, model)
            if privacy.rows_per_unit is not None:
                tried_on = as_owned(tried_on, privacy.rows_per_unit)
            sums = trial.tried(model, row_losses, clip, tried_on, gradients, precision)
            return _Prepared(promise, promise.mechanism(), sums, alone(Fetcher(dataset)), owners)

        ready = group.all_or_raise(prepared)
        place = None if folder is None else Path(folder)
        units = len(dataset) if ready.owners is None else len(set(ready.owners))
        what = "rows" if ready.owners is None else f"values of {column!r}"

        def told() -> None:
            for note in size_notes(units, what, size, batch, ("size", "batch")):
                warnings.warn(note, stacklevel=4)  # before anything is charged

        group.on_rank_zero(told, None)
        declared = (
            ready.promise, microbatch, gradients, precision, portions, place is None, resume,
            type(optimizer).__qualname__, [_numbers(one) for one in optimizer.param_groups],
        )  # fmt: skip
        group.require_equal("what they declare", digest(repr(declared)), _SAME_CALL)
        sharing = account.Sharing(
            group=group,
            portions=portions,
            rows=lambda source: source.digest(
                digest_of(ready.rows.fetcher, _pairs, source), *(ready.owners or ())
            ),
            model=None if resume else model,
        )
        if resume and place is not None:
            standing = account.resume(ready.promise, ready.mechanism, place, sharing)
        else:
            held = group.on_rank_zero(lambda: cells(ready.rows.fetcher, _pairs), ())
            standing = account.start_run(ready.promise, ready.mechanism, held, place, sharing)
        self.done = 0
        """Steps taken."""
        self.steps = steps
        """Steps of the whole run."""
        self.extra: dict[str, Any] = {}
        """What `save` was given, after a resume."""
        self.first = group.first
        """Whether this is the process that writes, and should print; True where there is one."""
        self._model, self._optimizer, self._folder = model, optimizer, place
        self._steps = PrivateSteps(
            model, ready.rows, _pairs, ready.sums, ready.promise, ready.mechanism, standing,
            microbatch, ready.owners,
        )  # fmt: skip
        if resume:
            self._restore()
        self._steps.guard(optimizer)

    def step(self) -> int:
        """Takes the next step and gives its number, counted from 1. The only way to move weights.
        For all processes at once.

        Raises `RunError` once all steps are taken or the run has ended, `Incompatible` where
        something else has moved the weights or left gradients on them, and `LedgerError` where a
        step was taken before from another state.
        """
        self._steps.take(self._optimizer, self.done)
        self.done += 1
        return self.done

    def __iter__(self) -> Iterator[int]:
        """Takes all steps that are left; the loop's body runs after each, in every process."""
        while self.done < self.steps:
            yield self.step()

    def epsilon(self) -> float:
        """What the steps taken so far cost, at the declared delta; 0 before the first.

        Never more than `privacy.epsilon`, which holds for the whole run. To stop early because of
        this number is fine; because of anything that private rows decide, it is the whole run's
        that counts.
        """
        return self._steps.epsilon(self.done)

    def save(self, extra: Mapping[str, Any] | None = None) -> Path:
        """Writes weights, buffers, optimizer and `extra` (JSON, such as `scheduler.state_dict()`)
        into `folder/state`, durable when this returns; the newest two are kept.

        Nothing in it is private, and the run's key is not in it. Of several processes the first
        writes, and need not be joined by the others. Raises `Incompatible` without a folder, and
        where something else has moved the weights.
        """
        if self._folder is None:
            raise Incompatible(
                "this run has no folder to be saved in; give one, as `folder='runs/notes'`"
            )
        self._require_handable()
        place = self._folder / "state"
        if not self.first:
            return checkpoint.place_of(place, self.done)
        place.mkdir(exist_ok=True)
        groups = [_numbers(group) for group in self._optimizer.param_groups]
        facts = {"groups": groups, "clip": self._steps.clip.moved(), "extra": dict(extra or {})}
        return checkpoint.save_checkpoint(place, self._model, self._optimizer, self.done, facts)

    def _require_handable(self) -> None:
        """Raises `Incompatible` where something else than a step has moved what is handed over."""
        self._steps.require_untouched()
        self._steps.require_unmoved()

    def _restore(self) -> None:
        """Puts the newest checkpoint back, or leaves the model as it is where there is none."""
        devices = self._steps.standing.devices
        try:
            kept = checkpoint.read_by_first(devices.group, self._newest)
            if kept is None:
                return
            path, tensors, self.done, facts = kept
            devices.group.all_or_raise(
                lambda: checkpoint.put_back(path, tensors, self._model, self._optimizer)
            )
        except BaseException:
            self.close()
            raise
        for group, numbers in zip(self._optimizer.param_groups, facts["groups"], strict=True):
            group.update(numbers)
        self._steps.clip = self._steps.clip.at(facts["clip"])
        self.extra = facts["extra"]

    def _newest(self) -> checkpoint.Kept | None:
        assert self._folder is not None
        kept = checkpoint.checkpoints(self._folder / "state")
        return (kept[-1], *checkpoint.read(kept[-1])) if kept else None

    def finish(self) -> float:
        """Ends the run and gives its epsilon: the account takes back what its rule allows, and the
        key that could strip the noise off is destroyed. The model stays yours. For all processes
        at once.

        Raises `Incompatible` where something else has moved the weights since the last step,
        `RunError` where they are not the same in all processes.
        """
        self._steps.standing.devices.group.all_or_raise(self._require_handable)
        self._steps.require_same()
        spent = self.epsilon()
        self._steps.standing.settle(self.done)
        return spent

    def close(self) -> None:
        """Lets go of the ledger and the folder. With a folder the run stays open and can be
        resumed; without one it ends here, as abandoned: the steps taken stay charged, and the
        account gets back what its rule allows of the others."""
        self._steps.standing.close()

    def __enter__(self) -> Private:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What each process makes of the arguments, before any of them goes on."""

    promise: Promise
    mechanism: Mechanism
    sums: GradientSum
    rows: Alone
    owners: tuple[str, ...] | None


_SAME_CALL = "give `Private` the same arguments, and the same optimizer, in every process"


@dataclass(frozen=True, eq=False)
class _Paired:
    """A loss of (model, features, label) as one of (model, batch); that of an owner is the mean of
    those of their rows."""

    losses: RowLosses

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        flat = flatten(batch)
        found = self.losses(model, flat["features"], flat["label"])
        if not grouped(batch):
            return found
        trial.require_one_a_row(found, len(flat["present"]))
        return per_unit(found, batch)


def _pairs(items: Sequence[Any]) -> dict[str, Tensor]:
    """Rows (features, label) as tensors. Raises `DataError` for rows of another form."""
    pairs = [tuple(item) for item in items if isinstance(item, tuple | list) and len(item) == 2]
    if len(pairs) == len(items):
        try:
            features, label = default_collate(pairs)
        except Exception as error:
            raise DataError(
                f"rows of the data set cannot be put together ({cause(error)}); give each row "
                "features and a label of the same shape and type, padded where they are shorter"
            ) from error
        if isinstance(features, Tensor) and isinstance(label, Tensor):
            return {"features": features, "label": label}
    raise DataError(
        "a row of the data set is no pair (features, label) of tensors, arrays or numbers; wrap "
        "the data set so that `dataset[i]` gives one"
    )


def _sample(dataset: Dataset, sample: tuple[Tensor, Tensor] | None, model: nn.Module) -> Batch:
    """The rows that the model is tried on: those given, or made up in the shape of the first row,
    of which nothing but shapes and types is read."""
    if sample is None:
        first = _pairs(Fetcher(dataset).rows([0], Source(bytes(32))))
        features, label = _made_up(first["features"]), _made_up(first["label"])
        if not (features.is_floating_point() or features.is_complex()):
            raise Incompatible(
                "features are whole numbers (tokens), and which are allowed is not known: give "
                "`sample`, a few made-up or public rows (features, label)"
            )
    else:
        features, label = _two(sample)
    if len(features) < 2:
        raise BadArgument(
            f"`sample` has {len(features)} rows and needs at least 2 different ones: give more"
        )
    device = next(model.parameters()).device
    ids = torch.arange(len(features))
    return batch_of({"features": features, "label": label}, ids, device)


def _two(sample: Any) -> tuple[Tensor, Tensor]:
    """Features and labels. Raises `DataError` and `BadArgument` for a sample of another form."""
    parts = len(sample) if hasattr(sample, "__len__") else 1
    if parts != 2:
        raise DataError(
            f"`sample` has {parts} parts where it needs two: a tensor of features and one of "
            "labels, a row of each for every made-up row; stack the rows first"
        )
    features, label = sample
    if not isinstance(features, Tensor) or not isinstance(label, Tensor):
        raise BadArgument(
            f"`sample` is {form_of(sample)} and needs tensors: pass a tensor of features and "
            "one of labels, with a row of each for every made-up row"
        )
    return features, label


def _made_up(row: Tensor) -> Tensor:
    """Normals of this shape, or zeros for whole numbers: class 0 exists whatever the classes."""
    shape = (_MADE_UP, *row.shape[1:])
    if row.is_complex():
        return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=row.dtype)
    if row.is_floating_point():
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(row.dtype)
    return torch.zeros(shape, dtype=row.dtype)


def _numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group that JSON can hold; a tuple (betas) comes back a list."""
    return {
        name: value
        for name, value in group.items()
        if name != "params" and isinstance(value, int | float | bool | str | tuple | list | None)
    }

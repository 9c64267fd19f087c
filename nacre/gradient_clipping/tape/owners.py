"""Who owns which row of each operation's output, found by trial before the first step.

Single losses are differentiated on a few units: an entry of an output that answers to one loss
alone belongs to that unit. An output that answers to several units holds no row of anybody (a
transposed weight, position embeddings): it is a parameter derived from parameters.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.tensors import trainable
from nacre.core.types import Batch, Tensors
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.carried_rows.handed import (
    Hidden,
    handed,
    numbers_handed,
    told,
)
from nacre.gradient_clipping.tape.composite_functions import Packed
from nacre.gradient_clipping.tape.counters import (
    ALIKE,
    CallKey,
    CallPath,
    Counter,
    MoveCounter,
    MoveKey,
    function_name,
    in_place,
    names_of,
    numbers_alone,
)
from nacre.gradient_clipping.tape.dropout_masks import masked
from nacre.gradient_clipping.tape.flow import DATA, FIXED, WEIGHTS, Flow, Moved, asks, shapes, turns
from nacre.gradient_clipping.tape.followed import (
    CallOnTrial,
    bare_name,
    first_doubt,
    plain_rows,
)
from nacre.gradient_clipping.tape.function_mode import Watching
from nacre.gradient_clipping.tape.layout import (
    MOVED,
    SHARED,
    Layout,
    LossAnswers,
    Owner,
    loss_answers,
)


@dataclass(frozen=True)
class Place:
    """What a trial shows of a call that moves something by values."""

    inside: bool  # whether nothing leaves its unit
    layouts: tuple[Layout | None, ...]  # of each tensor that is moved, where one fits


@dataclass(eq=False)
class Owners:
    """What was found out about a model's operations; grows as other paths through it are seen."""

    operations: dict[CallKey, Owner] = field(default_factory=dict)
    masks: dict[int, Owner] = field(default_factory=dict)  # of each dropout, in order
    moves: dict[MoveKey, Place] = field(default_factory=dict)
    unfollowed: str | None = None  # what lets values decide whose a row is, and where
    answers: list[Any] | None = None  # what a trial handed to Python as numbers
    doubt: str | None = None  # the first call that may lay rows otherwise on another batch
    turns: set[tuple[bool | str, ...]] = field(default_factory=set)  # answers to `if`, and numbers
    paths: set[int] = field(
        default_factory=set
    )  # the calls of each trial, as `CallPath` counts them

    @property
    def carries(self) -> bool:
        """Whether values move rows between units, or a call takes rows of some units alone, so that
        each call has to be followed."""
        moved = not all(place.inside for place in self.moves.values())
        return moved or MOVED in self.operations.values()

    def learn(self, losses: UnitLosses, batch: Batch, units: int = 3) -> None:
        """Tries the model on the first few units of a perturbed batch, which are at least two."""
        some = rows.select(batch, slice(min(units, len(batch["unit"]))))
        some = {name: _differentiable(value) for name, value in some.items()}
        weights = _moved(losses.model)
        scout, moving = _Scout(some), set(trainable(losses.model))
        with torch.enable_grad():
            scout.flow.mark((t for n, t in weights.items() if n in moving), WEIGHTS)
            scout.flow.mark((t for n, t in weights.items() if n not in moving), FIXED)
            with scout.hidden, scout:
                values = losses.at(weights, some, scout.flow)
            values = values.unbind()
        self.unfollowed = self.unfollowed or told(scout.hidden)
        # A call may hand on what it was given (dropout of nothing): each tensor counts once.
        outputs = {id(t): t for trial in scout.trials for t in trial.outputs}
        sources = [t for move in scout.moves for t, _ in move.moved if t.requires_grad]
        outputs |= {id(t): t for t in sources}
        try:
            answers = loss_answers(values, list(outputs.values()))
        except RuntimeError as error:
            raise UnsupportedLayer(
                "single losses of the model cannot be differentiated by what its operations give "
                f"({str(error).strip().splitlines()[0]}): re-entrant activation checkpointing is "
                "one cause; switch it off, or use `gradients: looped`"
            ) from error
        self._settle(scout, weights, moving, answers)
        leaves: dict[int, Owner] = {id(t): Layout(0) for t in some.values() if t.dim()}
        seen = [trial.seen for trial in scout.trials if trial.level == DATA]
        units = len(values)
        doubt = first_doubt(seen, lambda t: leaves.get(id(t)) or answers.owner([t]), units)
        self.doubt = self.doubt or scout.doubt or doubt
        self.turns.add(tuple(scout.turns))
        self.paths.add(scout.path.digest)
        for move in scout.moves:
            inside = all(_inside(t, axis, answers, len(values)) for t, axis in move.moved)
            layouts = tuple(answers.layout(t) for t, _ in move.moved)
            before = self.moves.get(move.key, Place(True, layouts))
            self.moves[move.key] = Place(inside and before.inside, layouts)
        self._steered(scout, losses, weights, some)

    def _steered(
        self, scout: _Scout, losses: UnitLosses, weights: dict[str, Tensor], batch: Batch
    ) -> None:
        """Numbers that a model hands to Python may steer it where they are the same for each unit
        alone and for all of them: then they tell no unit of another."""
        if self.answers is not None and self.answers != scout.answers:
            self.unfollowed = self.unfollowed or _STEERS
        self.answers = scout.answers
        numbers = handed(scout.turns)
        for unit in range(len(batch["unit"]) if scout.answers or numbers else 0):
            alone = _Scout({})
            alone.flow.mark(weights.values(), FIXED)
            with torch.no_grad(), alone:
                losses.at(weights, rows.select(batch, slice(unit, unit + 1)), alone.flow)
            if alone.answers != scout.answers or handed(alone.turns) != numbers:
                self.unfollowed = self.unfollowed or _STEERS
                return

    def _settle(
        self, scout: _Scout, weights: Mapping[str, Tensor], moving: set[str], answers: LossAnswers
    ) -> None:
        known: dict[int, tuple[str, ...]] = {
            id(t): (name,) for name, t in weights.items() if name in moving
        }
        counter = Counter()
        for trial in scout.trials:
            names = names_of(known.get(id(t)) for t in trial.inputs)
            owner = answers.owner(trial.outputs)
            given = {id(t) for t in trial.inputs}
            fresh = not all(id(t) in given for t in trial.outputs)
            writes = trial.into is not None and id(trial.into) not in known
            alike = trial.function in ALIKE and id(trial.inputs[0]) not in known
            if names and (fresh or writes) and not alike:
                key = counter.key(trial.function, names)
                mixed = owner == SHARED and trial.data
                self.operations[key] = MOVED if mixed else owner
                if mixed:
                    continue
                if owner == SHARED or trial.level < DATA:
                    known |= {id(t): names for t in trial.outputs}
        for number, (entered, output) in enumerate(scout.dropouts):
            owner = answers.owner([output])
            if owner == SHARED and id(entered) not in known:
                kind = Packed if scout.flow.sizes else UnsupportedLayer
                raise kind(
                    "a dropout acts on entries of which it cannot be told whose they are, so its "
                    "masks would follow the units' places; keep the units along one axis"
                )
            self.masks[number] = owner


_STEERS = "values of the batch steer the program, by numbers that are handed to Python"


@dataclass
class _Trial:
    function: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    into: Tensor | None  # what was written into
    level: int  # where what entered comes from
    data: bool  # whether something differentiable that comes from the batch entered
    seen: CallOnTrial


@dataclass
class _Move:
    key: MoveKey
    moved: list[Moved]


def _inside(tensor: Tensor, axis: int | None, answers: LossAnswers, units: int) -> bool:
    """Whether what moves along an axis stays inside its unit."""
    if axis is None:
        return False
    if id(tensor) in answers.by_output:
        owner = answers.owner([tensor])
        if isinstance(owner, Layout):
            return owner.axis != axis
        if owner == SHARED:
            return False
    # No loss can be differentiated by it: a tensor of numbers such as tokens or lengths.
    return tensor.shape[axis] % units != 0 or (axis != 0 and tensor.shape[0] == units)


class _Scout(Watching):
    """Notes every call; dropout keeps everything, so that nothing is hidden."""

    def __init__(self, batch: Tensors) -> None:
        super().__init__()
        self.plain = {id(t): t for t in batch.values() if t.dim()}  # rows as the batch has them
        self.units = len(batch["unit"]) if batch else 1
        self.hidden = Hidden()
        self.doubt: str | None = None
        self.turns: list[bool | str] = []
        self.path = CallPath()
        self.trials: list[_Trial] = []
        self.flow = Flow()
        self.moves: list[_Move] = []
        self.answers: list[Any] = []  # what was handed to Python as numbers
        self._moved = MoveCounter()
        self.dropouts: list[tuple[Tensor, Tensor]] = []  # what entered, and what came out
        self.packing: dict[int, Tensor] = {}  # rows in the order of a packed sequence

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.hidden.seen += 1
        try:
            return super().__torch_function__(func, types, args, kwargs)
        finally:
            self.hidden.seen -= 1

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result, which is noted where a gradient can reach it."""
        inputs = [*tensors_in(args), *tensors_in(kwargs)]
        level = max((self.flow.level(t) for t in inputs), default=FIXED)
        self.turns += numbers_handed(self.flow, function, args, kwargs)
        came = [t for t in inputs if self.flow.level(t) == DATA]
        entered = tuple(t for t in came if t.requires_grad)
        numbers = [t for t in came if not t.requires_grad]
        strange = any(id(t) not in self.plain for t in numbers)
        if level == DATA:
            moved = self.flow.moved(function, args, kwargs)
            if moved:
                self.moves.append(_Move(self._moved.key(function, moved), moved))
        into = args[0] if in_place(function) is not None else None
        result = function(*args, **kwargs)
        name = bare_name(function_name(function))
        if level == DATA:
            self.path.add(name)
            if asks(self.flow, function, args):
                self.answers.append(numbers_alone(result))
            elif turns(function):
                self.turns.append(bool(result))
            elif shapes(self.flow, name, args, kwargs):
                self.doubt = self.doubt or name
            if numbers and not entered and not strange:
                for t in tensors_in(result):
                    if not t.requires_grad and plain_rows(name, args, kwargs, t, self.units):
                        self.plain[id(t)] = t
        self.flow.follow(function, args, kwargs, tensors_in(result), level)
        if name == "pack_padded_sequence":
            self.packing |= {id(result[0]): result[0]}
        elif name != "pad_packed_sequence":
            lengths = {len(t) for t in inputs if id(t) in self.packing}
            found = (t for t in tensors_in(result) if t.dim() and len(t) in lengths)
            self.packing |= {id(t): t for t in found}
        outputs = [t for t in tensors_in(into if result is None else result) if t.requires_grad]
        if outputs:
            # Which rows a call of `torch.ops` moves is not looked at, so it has no reason either.
            known = name if not type(function).__name__.startswith("OpOverload") else f"{name} op"
            seen = CallOnTrial(
                function, known, args, kwargs, entered, bool(numbers), strange, tuple(outputs)
            )
            self.trials.append(_Trial(function, inputs, outputs, into, level, bool(entered), seen))
        return result

    def dropout(
        self, function: Any, share: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Everything, as a tensor of its own."""
        entered, path = args[0], self.path.digest
        if id(entered) in self.packing:  # also where all are of one length, as other rows are not
            raise Packed(
                "a dropout acts on the rows of a packed sequence, so its masks would hang on other "
                "units' lengths; drop before packing, or use `gradients: looped`"
            )
        with self:
            output = masked(entered, torch.ones_like(entered), args, kwargs)
        self.path.digest = path  # a mask is made otherwise on a real batch
        self.dropouts.append((entered, output))
        return output


def _differentiable(value: Tensor) -> Tensor:
    """Rows of numbers get a gradient, so that what happens before the first weight shows too."""
    return value.detach().clone().requires_grad_() if value.is_floating_point() else value


def _moved(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights, all of them differentiable and a little moved: an adapter that starts at zero
    would hide who owns what goes into it."""
    generator = torch.Generator().manual_seed(0)
    moved: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        value = p.detach()
        if p.requires_grad:
            noise = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
            value = value + 0.02 * noise
        moved[name] = value.requires_grad_() if value.is_floating_point() else value
    return moved

"""What entered each operation that used a trainable tensor, and what came back to its output.

The tape works on operations, not on modules. While it is open, every torch function that takes a
trainable tensor gets that tensor without its graph, so autograd computes no weight gradient, and a
probe at its output notes the gradient that the backward pass brings. From both, each operation's
rule tells what every unit adds to the tensor's gradient.

*Fails closed.* What autograd itself delivers to a trainable tensor during the backward pass is a
use that the tape missed (activation checkpointing, a function behind the mode), and raises.
"""

# Parts of torch are untyped.
# pyright: reportAttributeAccessIssue=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.core.types import Tensors
from nacre.gradient_clipping.operations import rule_for
from nacre.gradient_clipping.operations.call import (
    Backward,
    Call,
    ParameterShares,
    replaced,
    tensors_in,
)
from nacre.gradient_clipping.tape.carried_rows.handed import handed, numbers_handed, unremarkable
from nacre.gradient_clipping.tape.carried_rows.moves import (
    begin_move,
    finish_move,
    nothing_left,
    refuse_steps,
)
from nacre.gradient_clipping.tape.carried_rows.packed import fills_up, in_the_batchs_order
from nacre.gradient_clipping.tape.carried_rows.tags import MIXED, NOBODY, Carried, CarriedStep
from nacre.gradient_clipping.tape.composite_functions import over_packed
from nacre.gradient_clipping.tape.counters import (
    ALIKE,
    CallPath,
    Counter,
    MoveCounter,
    function_name,
    in_place,
    names_of,
    numbers_alone,
    writes,
)
from nacre.gradient_clipping.tape.dropout_masks import Masks
from nacre.gradient_clipping.tape.flow import DATA, FIXED, WEIGHTS, Flow, asks, turns
from nacre.gradient_clipping.tape.followed import bare_name
from nacre.gradient_clipping.tape.function_mode import Unseen, Watching, refuse_checkpoints
from nacre.gradient_clipping.tape.layout import MOVED, SHARED, Layout, Owner, Ragged
from nacre.gradient_clipping.tape.owners import Owners
from nacre.gradient_clipping.tape.probe import (
    Probe,
    fresh_base,
    guarded,
    of_one,
    of_somebody,
    refuse_transforms,
    saves_itself,
    unanswered,
)
from nacre.gradient_clipping.tape.uses import Derivation, Known, Use, cuts, rewrite

_NOTHING = torch.zeros(())

Whose = tuple[Owner | None, Tensor | None]
"""The owner that a trial found, and the owners that this very call carries."""


class Tape(Watching):
    """Open for one forward pass; afterwards each backward pass hands its gradients to `take`."""

    def __init__(
        self,
        parameters: Tensors,  # the trainable ones, by name
        owners: Owners,
        units: int,
        masks: Masks,
    ) -> None:
        super().__init__()
        self.parameters = parameters
        self.known = {id(p): Known(p, (name,)) for name, p in parameters.items()}
        self.uses: list[Use] = []
        self.take: Callable[[Use, ParameterShares], None] | None = None
        self.watch: Callable[[Use, Tensor], None] | None = None  # sees each output's gradient
        self._turns: list[bool | str] = []
        self._path = CallPath()
        self._owners, self._units, self._masks = owners, units, masks
        self._counter, self._moves = Counter(), MoveCounter()
        self.flow = Flow()
        self.flow.mark(parameters.values(), WEIGHTS)
        self.carried = Carried(self.flow, units) if owners.carries and units > 1 else None
        self._plain = units > 1 and self.carried is None
        self._masking, self._inside = False, 0
        self.filled = False  # whether units were filled up to the longest of them
        self._in_order = False  # inside a call whose rows lie along one axis by construction
        self._answered = 0  # numbers handed to Python so far
        self._learnt: Layout | None = None  # how the result of this call lies, by the trial

    def __enter__(self) -> Any:
        self._inside += 1  # functions that hide others are looked into
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._inside -= 1
        if self.carried is not None and not self._inside:  # it holds what is moved
            try:
                if raised[0] is None:
                    nothing_left(self.carried)
            finally:
                self.carried.clear()

    @property
    def doubtful(self) -> bool:
        """Whether rows may lie otherwise than on trial, so that this sum has to be verified."""
        if self._units < 2:
            return False
        turned = tuple(self._turns) not in self._owners.turns
        other = self._path.digest not in self._owners.paths
        return self.carried is not None or turned or other or self._owners.doubt is not None

    @property
    def handed_otherwise(self) -> bool:
        """Whether torch read other numbers of the batch than on trial, as bounds of slices: what
        single units hand over, and whether others make it, is unknown then."""
        found = handed(self._turns)
        return self._units > 1 and all(found != handed(turns) for turns in self._owners.turns)

    def carry(self, batch: Tensors) -> None:
        """Notes that the first axis of a batch's tensors carries the units."""
        if self.carried is not None:
            for tensor in batch.values():
                if tensor.dim():
                    self.carried.seed(tensor, Layout(0))

    def opens(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Always. Raises `UnsupportedLayer` where that is not worth its time."""
        if self.carried is not None:
            refuse_steps(self.carried, function, args, kwargs)
        return True

    def packed(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Over padded steps, in the order of the batch."""
        self.opens(function, args, kwargs)
        if self.carried is None and self._units > 1:
            raise Unseen(f"{function_name(function)} of packed sequences")
        table, owners = in_the_batchs_order(self.carried, function, args)
        self.flow.mark(table.tensors(), FIXED)
        self._in_order = self.carried is not None
        try:
            with self:
                result = over_packed(function, table, args)
        finally:
            self._in_order = False
        if self.carried is not None:
            self._path.add(function_name(function))
            self.carried.note(result, owners)
        return result

    def dropout(
        self, function: Any, share: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """By the units' own masks; the product is an operation of its own."""
        c, mask = self.carried, self._owners.masks.get(self._masks.number)
        if c is not None and (c.holds_rows(args, kwargs) or not c.lies_as(args[0], mask)):
            raise UnsupportedLayer(
                "a dropout acts on rows that values of the batch have moved, so its masks would "
                "not be the units' own; take the dropout out, or use `gradients: looped`"
            )
        owners = None if c is None else c.seen(args[0])
        self._masking = True  # what draws a mask moves no row
        try:
            with self:
                result = self._masks.output(function, share, args, kwargs)
        finally:
            self._masking = False
        if c is not None and owners is not None:
            c.note(result, owners)
        return result

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result, with a probe behind it where a trainable tensor entered."""
        moving: list[Tensor] = []
        level = FIXED
        for t in (entering := tensors_in((args, kwargs))):
            if id(t) in self.known:
                moving.append(t)
                level = max(level, WEIGHTS)
            elif level < DATA:
                level = max(level, self.flow.level(t))
        if self._in_order and not moving:
            return function(*args, **kwargs)
        if moving and torch.is_grad_enabled():
            refuse_transforms()
        self._learnt = None
        plain = self._plain and level == DATA and not (self._masking or self.flow.counts)
        if plain and unremarkable(function, args, entering):
            self._path.add(bare_name(function_name(function)))
            if moving and torch.is_grad_enabled():
                return self._moved(function, args, kwargs, moving, level, None)
            return function(*args, **kwargs)
        if self._units > 1 and not (self._masking or self._in_order):
            self._turns += numbers_handed(self.flow, function, args, kwargs)
        follows = level == DATA and self._units > 1 and not (self._masking or self._in_order)
        must = follows and self._followed(function, args, kwargs)
        carried = self.carried if follows else None
        step = None if carried is None else begin_move(carried, function, args, kwargs)
        if not moving or not torch.is_grad_enabled():
            result = function(*args, **kwargs)
        else:
            result = self._moved(function, args, kwargs, moving, level, step)
        if follows:
            self._path.add(bare_name(function_name(function)))
        if follows and asks(self.flow, function, args):
            self._asked(function, result)
        elif follows and turns(function):
            self._turns.append(bool(result))
        self.flow.follow(function, args, kwargs, tensors_in(result), level)
        if carried is not None and step is not None:
            finish_move(carried, function, args, kwargs, result, step, must=must)
            if self._learnt is not None and step.owners is None and isinstance(result, Tensor):
                carried.seed(result, self._learnt)
        return result

    def _followed(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether values of this batch move rows between units, by this very call."""
        self.filled = self.filled or fills_up(func)
        moved = self.flow.moved(func, args, kwargs)
        if not moved:
            return False
        place = self._owners.moves.get(self._moves.key(func, moved))
        if self.carried is None:
            if place is None or not place.inside:
                raise Unseen(f"{function_name(func)}, which moves rows by values of the batch,")
            return False
        if place is not None:
            for (tensor, _), layout in zip(moved, place.layouts, strict=True):
                if layout is not None and self.carried.seen(tensor) is None:
                    self.carried.seed(tensor, layout)
        return place is None or not place.inside

    def _asked(self, function: Any, result: Any) -> None:
        """Raises where a number that steers the model is another one than on trial."""
        known = self._owners.answers or []
        self._answered += 1
        if self._answered > len(known) or known[self._answered - 1] != numbers_alone(result):
            raise Unseen(f"{function_name(function)}, which hands numbers to Python,")

    def _moved(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, moving: list[Tensor], level: int,
        step: CarriedStep | None,
    ) -> Any:  # fmt: skip
        refuse_checkpoints()
        if func in ALIKE and id(args[0]) not in self.known:  # a type or a shape, no numbers
            fixed = {id(t): t.detach() for t in moving}
            return func(*replaced(args, fixed), **replaced(kwargs, fixed))
        names = names_of(self.known[id(t)].names for t in moving)
        owner = Layout(args[0].dim() - 2) if self._in_order else self._owner(func, names)
        if level < DATA:  # of weights and constants alone: a weight, whatever depends on it
            return self._derived(func, args, kwargs, names, known=True)
        held = None if step is None or not isinstance(step.owners, Tensor) else step.owners
        if held is not None and bool((held == NOBODY).all()):  # the weights of one expert
            return self._derived(func, args, kwargs, names, known=True)
        if held is None and owner == MOVED:
            raise UnsupportedLayer(
                f"{function_name(func)} of {', '.join(names)} mixes rows of the batch, or puts "
                "them in an order that the tape cannot follow; use `gradients: looped`"
            )
        if held is None and (owner is None or owner == SHARED):
            if cuts(self.flow, self.known, args, kwargs):
                raise Unseen(f"{function_name(func)} of {', '.join(names)}")
            return self._derived(func, args, kwargs, names, known=owner is not None)
        fixed = {id(t): t.detach() for t in moving}
        plain = in_place(func)
        if plain is not None and id(args[0]) not in self.known:
            return self._written(func, plain, args, kwargs, fixed, names, (owner, held))
        result = func(*replaced(args, fixed), **replaced(kwargs, fixed))
        if not isinstance(result, Tensor):
            if any(t.requires_grad for t in tensors_in(result)):
                raise UnsupportedLayer(
                    f"{function_name(func)} of {', '.join(names)} gives several tensors, which the "
                    "tape does not follow; use `gradients: looped`"
                )
            return result
        return self._probed(func, args, kwargs, fixed, names, (owner, held), result)

    def _owner(self, func: Any, names: tuple[str, ...]) -> Owner | None:
        """Whose the output is; None where no such call was seen."""
        known = self._owners.operations.get(self._counter.key(func, names))
        return known if self._units > 1 else Layout(0)  # a single one owns whatever depends on data

    def _derived(
        self, func: Any, args: Any, kwargs: Any, names: tuple[str, ...], *, known: bool
    ) -> Any:
        result = func(*args, **kwargs)
        if (writes(func) or func is Tensor.__setitem__) and id(args[0]) in self.known:
            rewrite(self.known, args[0], names)
        for tensor in tensors_in(result):
            if tensor.requires_grad and id(tensor) not in self.known:
                if not known:  # what has no gradient (a shape, a detached copy) needs no owner
                    raise Unseen(f"{function_name(func)} of {', '.join(names)}")
                derivation = Derivation(func, args, kwargs)
                self.known[id(tensor)] = Known(tensor, names, derivation)
        return result

    def _written(
        self, func: Any, plain: Any, args: tuple[Any, ...], kwargs: Any, fixed: dict[int, Tensor],
        names: tuple[str, ...], owner: Whose,
    ) -> Any:  # fmt: skip
        """A write into data by a call that takes a weight, as `h += w`: the probe comes behind it,
        and the rule sees the same function of the numbers that were there before."""
        target: Tensor = args[0]
        before = target.detach().clone()
        result = func(*replaced(args, fixed), **replaced(kwargs, fixed))
        use = self._use(plain, (before, *args[1:]), kwargs, fixed, names, owner, target)
        Probe.apply(use.anchor, target, self, use)
        return result

    def _probed(
        self, func: Any, args: Any, kwargs: Any, fixed: dict[int, Tensor],
        names: tuple[str, ...], owner: Whose, result: Tensor,
    ) -> Tensor:  # fmt: skip
        use = self._use(func, args, kwargs, fixed, names, owner, result)
        base = fresh_base(result, args, kwargs)
        if base is not None and not saves_itself(base):
            return Probe.apply(use.anchor, base, self, use).view(result.shape)  # pyright: ignore[reportOptionalMemberAccess]
        marked = result.requires_grad and result.is_leaf
        if result._is_view() or marked or saves_itself(result):
            result = result.clone()
        return Probe.apply(use.anchor, result, self, use)  # pyright: ignore[reportReturnType]

    def _use(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, fixed: dict[int, Tensor],
        names: tuple[str, ...], owner: Whose, result: Tensor,
    ) -> Use:  # fmt: skip
        """Notes the call, with what its rule needs to read its output's gradient."""
        what = f"{function_name(func)} of {', '.join(names)}"
        layout = self._whose(owner, result, what)
        if layout is None:
            answer: Backward = unanswered(what)
        else:
            only = layout.only if isinstance(layout, Ragged) else None
            own, units = (layout, self._units) if only is None else (Layout(0), 1)
            call = Call(func, args, kwargs, set(fixed), own, result.shape, units, what)
            answer = rule_for(call)
            call.forget()
            if only is not None:
                answer = of_one(answer, only, self._units)
            elif isinstance(layout, Ragged):
                answer = of_somebody(answer, layout, what)
        anchor = _NOTHING.detach().requires_grad_()
        size = result.numel() * result.element_size()
        use = Use(answer, size, anchor, frozenset(fixed), result.shape, layout, what)
        self.uses.append(use)
        return use

    def _whose(self, owner: Whose, result: Tensor, what: str) -> Layout | Ragged | None:
        """How the rows of an output lie; None where no loss answered to it on trial."""
        learnt, held = owner
        if self.carried is None:
            return learnt if isinstance(learnt, Layout) else None
        if isinstance(learnt, Layout) and (held is None or self.carried.follows(held, learnt)):
            self._learnt = learnt
            return learnt
        if held is None:
            return None
        if bool((held == MIXED).any()):
            raise UnsupportedLayer(
                f"{what} takes rows of several units at once; use `gradients: looped`"
            )
        ragged = self.carried.layout(held, result.shape)
        if ragged is None:
            raise UnsupportedLayer(
                f"{what} has rows of several units along several axes, which the tape cannot "
                "follow; use `gradients: looped`"
            )
        return ragged

    def backward(
        self, losses: Tensor, uses: Sequence[Use] | None = None, *, again: bool = False
    ) -> None:
        """One backward pass from the sum of `losses`, to all uses or to some; `again` keeps the
        graph for another one."""
        anchors = None if uses is None else [use.anchor for use in uses]
        with torch.enable_grad():
            total = losses.sum()
        try:
            with guarded(self.parameters):
                torch.autograd.backward([total], inputs=anchors, retain_graph=again)
        finally:
            self.take = None  # it knows the tape: a circle would keep what the tape holds

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

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.core.types import Tensors
from nacre.gradient_clipping.flow import DATA, FIXED, WEIGHTS, Flow, asks
from nacre.gradient_clipping.function_mode import Unseen, Watching, refuse_checkpoints
from nacre.gradient_clipping.layout import SHARED, Layout, Owner
from nacre.gradient_clipping.masks import Masks
from nacre.gradient_clipping.operations import rule_for
from nacre.gradient_clipping.operations.call import Answer, Call, Given, replaced, tensors_in
from nacre.gradient_clipping.owners import (
    ALIKE,
    Counter,
    MoveCounter,
    Owners,
    in_place,
    name_of,
    names_of,
    writes,
)


@dataclass(frozen=True)
class Known:
    """A tensor that moves: a parameter, or something computed from parameters alone."""

    tensor: Tensor
    names: tuple[str, ...]
    derivation: Derivation | None = None  # None for a parameter itself


@dataclass(frozen=True)
class Derivation:
    """How a derived parameter came about."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Any


@dataclass(eq=False)
class Use:
    """One call that took trainable tensors: how to read its output's gradient."""

    answer: Answer
    bytes: int  # of the output's gradient
    anchor: Tensor  # a leaf of its own, so that a backward pass can aim at this use
    tensors: frozenset[int]  # ids of the trainable tensors that it took
    shape: torch.Size  # of the output


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
        self.take: Callable[[Use, Given], None] | None = None
        self._owners, self._units, self._masks = owners, units, masks
        self._counter, self._moves = Counter(), MoveCounter()
        self.flow = Flow()
        self.flow.mark(parameters.values(), WEIGHTS)
        self._masking = False

    def dropout(
        self, function: Any, share: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """By the units' own masks; the product is an operation of its own."""
        self._masking = True  # what draws a mask moves no row
        try:
            with self:
                return self._masks.output(function, share, args, kwargs)
        finally:
            self._masking = False

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result, with a probe behind it where a trainable tensor entered."""
        moving: list[Tensor] = []
        level = FIXED
        for t in tensors_in((args, kwargs)):
            if id(t) in self.known:
                moving.append(t)
                level = max(level, WEIGHTS)
            elif level < DATA:
                level = max(level, self.flow.level(t))
        if moving and torch.is_grad_enabled():
            _refuse_transforms()
        if level == DATA and self._units > 1 and not self._masking:
            self._followed(function, args, kwargs)
        if not moving or not torch.is_grad_enabled():
            result = function(*args, **kwargs)
        else:
            result = self._moved(function, args, kwargs, moving, level)
        self.flow.follow(function, args, tensors_in(result), level)
        return result

    def _followed(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises where values of this batch move rows in a way that the trial has not shown to
        stay inside the units."""
        if name_of(func) == "_pack_padded_sequence":
            raise UnsupportedLayer(
                "the model packs sequences, in which the rows of one step belong to varying units; "
                "pass padded sequences instead of `pack_padded_sequence`, or use "
                "`gradients: looped`"
            )
        if asks(func):
            raise UnsupportedLayer(
                f"{name_of(func)} makes values of the batch steer the program, which the tape "
                "does not follow; use `gradients: looped`"
            )
        if self.flow.moved(func, args, kwargs):
            key = self._moves.key(func)
            if key not in self._owners.moves:
                raise Unseen(f"{key[0]}, which moves rows by values of the batch,")

    def _moved(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, moving: list[Tensor], level: int
    ) -> Any:
        refuse_checkpoints()
        if func in ALIKE and id(args[0]) not in self.known:  # a type or a shape, no numbers
            fixed = {id(t): t.detach() for t in moving}
            return func(*replaced(args, fixed), **replaced(kwargs, fixed))
        names = names_of(self.known[id(t)].names for t in moving)
        owner = self._owner(func, names, args, kwargs)
        if level < DATA:  # of weights and constants alone: a weight, whatever depends on it
            return self._derived(func, args, kwargs, names, known=True)
        if owner is None or owner == SHARED:
            self._without_data(func, names, args, kwargs)
            return self._derived(func, args, kwargs, names, known=owner is not None)
        fixed = {id(t): t.detach() for t in moving}
        plain = in_place(func)
        if plain is not None and id(args[0]) not in self.known:
            return self._written(func, plain, args, kwargs, fixed, names, owner)
        result = func(*replaced(args, fixed), **replaced(kwargs, fixed))
        if not isinstance(result, Tensor):
            if any(t.requires_grad for t in tensors_in(result)):
                raise UnsupportedLayer(
                    f"{name_of(func)} of {', '.join(names)} gives several tensors, which the tape "
                    "does not follow; use `gradients: looped`"
                )
            return result
        return self._probed(func, args, kwargs, fixed, names, owner, result)

    def _owner(self, func: Any, names: tuple[str, ...], args: Any, kwargs: Any) -> Owner | None:
        """Whose the output is; None where no such call was seen."""
        known = self._owners.operations.get(self._counter.key(func, names))
        if known is not None or self._units > 1:
            return known
        alone = all(id(t) in self.known for t in tensors_in((args, kwargs)))
        return SHARED if alone else Layout(0)  # a single unit owns whatever depends on data

    def _without_data(self, func: Any, names: tuple[str, ...], args: Any, kwargs: Any) -> None:
        """Raises where a weight is to be derived from what has a way back to the batch, which
        treating the result as a weight would cut."""
        for t in tensors_in((args, kwargs)):
            if t.requires_grad and id(t) not in self.known and self.flow.level(t) == DATA:
                raise Unseen(f"{name_of(func)} of {', '.join(names)}")

    def _derived(
        self, func: Any, args: Any, kwargs: Any, names: tuple[str, ...], *, known: bool
    ) -> Any:
        result = func(*args, **kwargs)
        if (writes(func) or func is Tensor.__setitem__) and id(args[0]) in self.known:
            self._rewritten(args[0], names)
        for tensor in tensors_in(result):
            if tensor.requires_grad and id(tensor) not in self.known:
                if not known:  # what has no gradient (a shape, a detached copy) needs no owner
                    raise Unseen(f"{name_of(func)} of {', '.join(names)}")
                derivation = Derivation(func, args, kwargs)
                self.known[id(tensor)] = Known(tensor, names, derivation)
        return result

    def _rewritten(self, target: Tensor, names: tuple[str, ...]) -> None:
        """After a write into a derived weight: what it was derived by no longer says how."""
        place = target.untyped_storage().data_ptr()
        for key, known in self.known.items():
            if known.tensor.untyped_storage().data_ptr() == place and known.derivation is not None:
                both = names_of((known.names, names))
                self.known[key] = Known(known.tensor, both, Derivation(None, (), {}))

    def _written(
        self, func: Any, plain: Any, args: tuple[Any, ...], kwargs: Any, fixed: dict[int, Tensor],
        names: tuple[str, ...], owner: Owner,
    ) -> Any:  # fmt: skip
        """A write into data by a call that takes a weight, as `h += w`: the probe comes behind it,
        and the rule sees the same function of the numbers that were there before."""
        target: Tensor = args[0]
        before = target.detach().clone()
        result = func(*replaced(args, fixed), **replaced(kwargs, fixed))
        use = self._use(plain, (before, *args[1:]), kwargs, fixed, names, owner, target)
        _Probe.apply(use.anchor, target, self, use)
        return result

    def _probed(
        self, func: Any, args: Any, kwargs: Any, fixed: dict[int, Tensor],
        names: tuple[str, ...], owner: Owner, result: Tensor,
    ) -> Tensor:  # fmt: skip
        use = self._use(func, args, kwargs, fixed, names, owner, result)
        base = _fresh_base(result, args, kwargs)
        if base is not None and not _saves_itself(base):
            return _Probe.apply(use.anchor, base, self, use).view(result.shape)  # pyright: ignore[reportOptionalMemberAccess]
        marked = result.requires_grad and result.is_leaf
        if result._is_view() or marked or _saves_itself(result):
            result = result.clone()
        return _Probe.apply(use.anchor, result, self, use)  # pyright: ignore[reportReturnType]

    def _use(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, fixed: dict[int, Tensor],
        names: tuple[str, ...], owner: Owner, result: Tensor,
    ) -> Use:  # fmt: skip
        """Notes the call, with what its rule needs to read its output's gradient."""
        what = f"{name_of(func)} of {', '.join(names)}"
        moving = set(fixed)
        if not isinstance(owner, Layout):
            answer: Answer = _unanswered(what)
        else:
            call = Call(
                func, args, kwargs, moving, owner, result.shape, self._units, what
            )  # fmt: skip
            answer = rule_for(call)
            call.forget()
        anchor = torch.zeros((), requires_grad=True)
        use = Use(
            answer, result.numel() * result.element_size(), anchor, frozenset(moving), result.shape
        )
        self.uses.append(use)
        return use

    def backward(
        self, losses: Tensor, uses: Sequence[Use] | None = None, *, again: bool = False
    ) -> None:
        """One backward pass from the sum of `losses`, to all uses or to some; `again` keeps the
        graph for another one."""
        anchors = None if uses is None else [use.anchor for use in uses]
        with torch.enable_grad():
            total = losses.sum()
        try:
            with self._guarded():
                torch.autograd.backward([total], inputs=anchors, retain_graph=again)
        finally:
            self.take = None  # it knows the tape: a circle would keep what the tape holds

    @contextmanager
    def _guarded(self) -> Generator[None]:
        """Raises where autograd itself reaches a trainable tensor."""

        def reached(name: str) -> Callable[[Tensor], NoReturn]:
            def hook(gradient: Tensor) -> NoReturn:
                raise UnsupportedLayer(
                    f"the gradient of {name!r} took a way that the tape does not see (activation "
                    "checkpointing, or a function of your own that hides it), so a unit's share in "
                    "it is unknown; switch checkpointing off, or use `gradients: looped`"
                )

            return hook

        hooks = [p.register_hook(reached(name)) for name, p in self.parameters.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class _Probe(torch.autograd.Function):
    """Nothing but a place in the graph: hands the gradient at an operation's output to the tape."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, result: Tensor, tape: Tape, use: Use) -> Tensor:
        ctx.tape, ctx.use = tape, use
        ctx.mark_dirty(result)  # the same memory: what follows may write into it as before
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if torch.is_grad_enabled():
            raise UnsupportedLayer(
                "the objective differentiates a gradient (as gradient penalties do), and a unit's "
                "share in that is not on the tape; leave it out, or use `gradients: looped`"
            )
        if ctx.tape.take is not None:
            ctx.tape.take(ctx.use, ctx.use.answer(gradient.reshape(ctx.use.shape)))
        return None, gradient, None, None


def _fresh_base(result: Tensor, args: tuple[Any, ...], kwargs: Any) -> Tensor | None:
    """What `result` is a reshaped view of, where the operation made it for that alone.

    A linear layer of (B, T, I) computes (B T, O) and hands on a view of it. To note the gradient
    there saves a copy of the output: 2 % of an encoder's step.
    """
    base = result._base
    if base is None or base.is_leaf or base.shape.numel() != result.shape.numel():
        return None
    if not (base.is_contiguous() and result.is_contiguous()):
        return None
    held = {t.untyped_storage().data_ptr() for t in tensors_in((args, kwargs))}
    return None if base.untyped_storage().data_ptr() in held else base


def _saves_itself(result: Tensor) -> bool:
    """Whether the operation's own backward reads its output (`pow`, attention with a bias): a
    probe counts as a write into it, so it needs a copy."""
    node = result.grad_fn
    if node is None:
        return False
    place = result.untyped_storage().data_ptr()
    for name in dir(node):
        if name.startswith("_saved_"):
            for saved in tensors_in(getattr(node, name)):
                if saved.untyped_storage().data_ptr() == place:
                    return True
    return False


def _refuse_transforms() -> None:
    if torch._C._are_functorch_transforms_active():
        raise UnsupportedLayer(
            "the model gives a trainable tensor to a transform of torch.func (vmap, grad), "
            "and the tape does not see into it; use `gradients: looped`"
        )


def _unanswered(what: str) -> Answer:
    """For an output that no loss answered to when the model was tried."""

    def answer(gradient: Tensor) -> Given:
        if bool((gradient != 0).any()):
            raise UnsupportedLayer(
                f"{what} answers to a loss now and did not when the model was tried, so it is "
                "unknown who owns its rows; use `gradients: looped`"
            )
        return []

    return answer

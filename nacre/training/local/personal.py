"""Which layers stay with a party (`local.personal`), and the rest of the model, which travels.

Source: FedPer, Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818, algorithms 1 and 2 (the
last layers stay); FedBN, Li et al. 2021, https://arxiv.org/abs/2102.07623, algorithm 1 (the layers
that normalise stay; here those of GroupNorm, LayerNorm and RMSNorm, since running statistics mix
rows and are refused in a federation).
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.tensors import trainable
from nacre.core.types import Tensors
from nacre.fine_tuning.layers import heads, is_norm

HEAD, NORMS = "head", "norms"
"""Words for the last layer and for the layers that normalise, as `fine_tuning` has them."""


def personal_names(patterns: Sequence[str], model: nn.Module) -> tuple[str, ...]:
    """The parameters that stay with a party, in the model's order; () without patterns.

    Only what training moves is named: what is fixed does not travel anyway. A pattern is `head`,
    `norms`, or a name of a module or parameter, in which `*` stands for anything; a module means
    all below it, and a tensor of two names is found by either.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    >>> personal_names(["norms", "2.b*"], model)
    ('1.weight', '1.bias', '2.bias')

    Raises `Incompatible` for a pattern that names nothing that training moves, and where nothing
    would be left to share.
    """
    moved = {id(weight): name for name, weight in trainable(model).items()}
    every = [(name, id(w)) for name, w in model.named_parameters(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in patterns:
        meant = _meant(pattern, model)
        named = {which for name, which in every if _matches(name, meant)}
        mine = {moved[which] for which in named if which in moved}
        if not mine:
            raise Incompatible(_nothing(pattern, [*moved.values()], fixed=bool(named)))
        found |= mine
    if patterns and len(found) == len(moved):
        raise Incompatible(
            "every weight that training moves would stay with its party, so nothing would be "
            "shared and no model be common; leave some out, or train each party by itself"
        )
    return tuple(name for name in moved.values() if name in found)


def shared_weights(model: nn.Module, personal: Collection[str]) -> Tensors:
    """The parameters that training moves and parties share."""
    return {name: w for name, w in trainable(model).items() if name not in personal}


def fix_personal(model: nn.Module, personal: Collection[str]) -> None:
    """Fixes these parameters in a server's model, in place: from then on what training moves there
    is what travels, and so what is clipped, summed, noised and updated."""
    for name, weight in trainable(model).items():
        if name in personal:
            weight.requires_grad_(False)


def _meant(pattern: str, model: nn.Module) -> list[str]:
    """Names of modules and parameters, or patterns of them."""
    if pattern == HEAD:
        try:
            return [name.partition(".lora_")[0] for name in heads(model)]
        except Incompatible:  # no linear layer
            return []
    if pattern == NORMS:
        return [name for name, module in model.named_modules() if is_norm(module)]
    return [pattern]


def _matches(name: str, patterns: Collection[str]) -> bool:
    parts = name.split(".")
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatchcase(prefix, pattern) for prefix in prefixes for pattern in patterns)


def _nothing(pattern: str, moved: list[str], *, fixed: bool) -> str:
    """Why a pattern names no weight that could stay, in words."""
    if fixed:
        return (
            f"{pattern!r} names weights that training does not move, so every party has the same "
            "ones anyway; name others, or let `fine_tuning` move these"
        )
    near = difflib.get_close_matches(pattern, moved, n=1, cutoff=0)
    such = {HEAD: "no last linear layer", NORMS: "no layer that normalises by weights of its own"}
    lacks = such.get(pattern, f"no weight or module {pattern!r}")
    return f"the model has {lacks}; name what it has, as {near[0]!r}" if near else f"it has {lacks}"

"""The forms of what people pass: each argument of another form is refused in one sentence that says
which is needed."""

# Arguments may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nacre.core.errors import BadArgument, Incompatible
from nacre.core.theirs import theirs
from nacre.data.files import rows_named
from nacre.data.readers import is_missing, unit_name
from nacre.differential_privacy.options import Privacy
from nacre.integrations.trial import Gradients, Precision
from nacre.recipe.sections import LedgerChoice

ROW_LOSSES = (
    "losses(model, features, label)",
    "lambda model, x, y: functional.cross_entropy(model(x), y, reduction='none')",
)
INPUT_LOSSES = (
    "losses(model, inputs)",
    "lambda model, inputs: functional.cross_entropy(model(inputs['x']), inputs['labels'], "
    "reduction='none')",
)
"""How a loss is called, and one that is right."""


def require_declared(privacy: Any, clip: Any, ledger: Any, **numbers: Any) -> None:
    """Raises `BadArgument` for declarations of another type: the privacy, the clip rule, the
    ledger, and whole numbers from 1 on."""
    if not isinstance(privacy, Privacy):
        raise _bad("privacy", privacy, "`Privacy(epsilon=…, delta=…)`")
    if isinstance(clip, type) or not callable(getattr(clip, "factors", None)):
        raise _bad("clip", clip, "a rule, as `Flat(norm=1.0)`")
    if not isinstance(ledger, LedgerChoice):
        needed = "`LedgerChoice(path='privacy.db', dataset=…, grant=Grant(epsilon=…, delta=…))`"
        raise _bad("ledger", ledger, needed)
    for name, value in numbers.items():
        require_count(name, value)


def require_count(name: str, value: Any) -> None:
    """Raises `BadArgument` for anything but a whole number from 1 on."""
    try:
        whole = -1 if isinstance(value, bool | Tensor) else operator.index(value)
    except TypeError:
        whole = -1
    if whole < 1:
        raise _bad(name, value, "a whole number of at least 1, declared and not counted")


def require_parts(
    model: Any, optimizer: Any, gradients: Any, microbatch: Any = None, folder: Any = None,
    precision: Any = "float32",
) -> None:  # fmt: skip
    """Raises `BadArgument` for what is no model, no optimizer, no gradient sum, no number of rows,
    no folder or no precision."""
    if not isinstance(model, nn.Module):
        raise _bad("model", model, "a `torch.nn.Module`, made and not wrapped")
    _require_plain(model)
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise _bad("optimizer", optimizer, "one of `torch.optim`, as `SGD(model.parameters(), …)`")
    for name, value, known in (
        ("gradients", gradients, get_args(Gradients)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in known:
            raise _bad(name, value, f"one of {', '.join(map(repr, known))}")
    if microbatch is not None:
        require_count("microbatch", microbatch)
    if folder is not None and not isinstance(folder, str | Path):
        raise _bad("folder", folder, "a path, as `folder='runs/notes'`")


def _require_plain(model: nn.Module) -> None:
    """Raises `Incompatible` for a model that shares its work between processes by itself."""
    for module in model.modules():
        for kind in type(module).__mro__:
            if kind.__module__.startswith(_SHARES_BY_ITSELF):
                raise Incompatible(
                    f"the model is wrapped in {kind.__name__}, which adds gradients up past the "
                    "bound of each unit: pass the plain model (`model.module`); started by "
                    "`torchrun`, the processes of a private loop share the steps by themselves"
                )
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "to_local"):
            raise Incompatible(
                f"the parameter {name!r} lies in parts in several processes (DTensor), and a "
                "private loop sums whole ones: pass the model as it was before it was sharded"
            )


_SHARES_BY_ITSELF = (
    "torch.nn.parallel.", "torch.distributed.", "fairscale.nn.", "deepspeed.runtime.",
)  # fmt: skip


def require_losses(losses: Any, form: tuple[str, str]) -> None:
    """Raises `BadArgument` for a loss that cannot be called as it will be: a criterion of torch,
    a class, or a function of another number of arguments."""
    call, example = form
    criterion = isinstance(losses, nn.Module) or getattr(losses, "__module__", "") in (
        "torch.nn.functional", "torch._C._nn",
    )  # fmt: skip
    if not callable(losses) or isinstance(losses, type) or criterion:
        raise _bad("losses", losses, f"a function that is called as `{call}`, as `{example}`")
    count = call.count(",") + 1
    try:
        inspect.signature(losses).bind(*[None] * count)
    except TypeError as error:
        raise BadArgument(
            f"`losses` is called as `{call}` and does not take {count} arguments ({error}); give a "
            f"function that does, as `{example}`"
        ) from error
    except ValueError:  # a function without a signature is found out by calling it
        return


def require_rows(dataset: Any, name: str = "dataset") -> None:
    """Raises `Incompatible` for a stream, since no coin can be thrown for rows that come by, and
    `BadArgument` for what wraps rows or holds them in another form."""
    if isinstance(dataset, DataLoader):
        raise _bad(name, dataset, f"the data set itself, as `{name}=loader.dataset`")
    if isinstance(dataset, Mapping) or type(dataset).__module__.partition(".")[0] == "pandas":
        raise _bad(name, dataset, "a list of rows, or a data set with `__getitem__` by number")
    if type(dataset) in (tuple, list) and len(dataset) == 2 and _columns(*dataset):
        raise _bad(name, dataset, "one entry a row, as `TensorDataset(features, label)`")
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise Incompatible(
            f"{type(dataset).__name__} is a stream of rows, and Poisson sampling draws each row by "
            "a coin of its own: use a data set with `__len__` and `__getitem__`, or a list"
        )
    with theirs("the data set", "its rows were counted"):
        len(dataset)


def owners_of(groups: Any, column: Any, count: int) -> tuple[str, ...] | None:
    """(N,): whose each row is, by name; None where rows are units themselves.

    Raises `BadArgument` unless `groups` names an owner for each of the `count` rows and `column`
    says what owners are told apart by: the account is bound to it.
    """
    if groups is None:
        if column is not None:
            raise _bad("column", column, "`groups` with it: the owner of each row")
        return None
    if not isinstance(column, str) or not column.strip() or not column.isprintable():
        raise _bad(
            "column", column,
            "the name of what tells owners apart, as `column='patient'`; the account is bound to "
            "it, since visits of a patient under the same account would be another promise",
        )  # fmt: skip
    listed: Any = groups.tolist() if hasattr(groups, "tolist") else groups
    if not isinstance(listed, list | tuple) or any(
        not isinstance(value, str | int) and not is_missing(value) for value in listed
    ):
        raise _bad("groups", groups, "a list of whose each row is, as names or whole numbers")
    if len(listed) != count:
        raise BadArgument(
            f"`groups` names the owner of {len(listed)} rows and there are {count}: give one for "
            "each row, in the order of the data set"
        )
    lacking = [place for place, value in enumerate(listed) if is_missing(value)]
    if lacking:
        raise BadArgument(
            f"`groups` names no owner in {rows_named(lacking)}, and a row of nobody is covered by "
            "no promise: name one, or leave the row out"
        )
    return tuple(unit_name(value) for value in listed)


def _columns(features: Any, label: Any) -> bool:
    """Whether these are all rows' features and all rows' labels, and not two rows."""
    both = isinstance(features, Tensor) and isinstance(label, Tensor)
    return both and features.dim() > 0 and label.dim() > 0 and len(features) == len(label) > 2


def require_sample(sample: Any) -> None:
    """Raises `BadArgument` unless this is None or a few rows."""
    if sample is None:
        return
    if isinstance(sample, Mapping | Tensor | str) or not hasattr(sample, "__len__"):
        raise _bad("sample", sample, "a list of rows, as train_dataset has them")
    if len(sample) < 2:
        raise _bad("sample", sample, "at least 2 different rows")


def require_callable(name: str, value: Any, form: str) -> None:
    """Raises `BadArgument` for what cannot be called, or is a class instead of one that is made."""
    if not callable(value) or isinstance(value, type):
        raise _bad(name, value, form)


def _bad(name: str, value: Any, needed: str) -> BadArgument:
    """An argument of another form. What it holds is shown where it is short and plain."""
    plain = value is None or isinstance(value, bool | int | float | str | Mapping | type)
    shown = f"{name}={value!r}" if plain and len(repr(value)) <= 60 else f"`{name}`"
    kind = "a class" if isinstance(value, type) else f"of type {type(value).__name__}"
    return BadArgument(f"{shown} is {kind}, which cannot be used here: pass {needed}")

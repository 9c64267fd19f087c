"""Any PyTorch module, by a Python function that returns it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nacre.core.errors import Refusal
from nacre.models.causes import cause

ALLOWED = "NACRE_ALLOW_PACKAGES"
"""The environment variable with the installed packages whose functions a recipe may call, parted by
commas. `nacre --allow-package` sets it, so that processes which a command starts have it too."""


@dataclass(frozen=True, kw_only=True)
class PythonModel:
    """A module that a Python function of yours returns. It runs your code with your rights."""

    kind: Literal["python"] = "python"
    call: str
    """`package.module:function`, in a file beside the recipe; called with `arguments`. A function
    of an installed package is called only where `nacre --allow-package NAME` allows it."""
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    """Keyword arguments of the function: numbers, text, lists."""

    def __post_init__(self) -> None:
        module, colon, function = self.call.partition(":")
        names = [*module.split("."), *function.split(".")]
        if not colon or not all(name.isidentifier() for name in names):
            raise ValueError(f"call={self.call!r} must read `package.module:function`")
        try:
            json.dumps(self.arguments, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"arguments={self.arguments} must be plain values ({error})") from None


def called(option: PythonModel, folder: Path) -> nn.Module:
    """What the function returns. Raises `Refusal` where it fails or returns no module, and before
    anything is imported where it is neither in a file inside `folder` nor in an allowed package.

    Whatever the user's code raises becomes one sentence: the cause is kept as `__cause__`.
    """
    function = _found(option, folder)
    try:
        model = function(**option.arguments)
    except Exception as error:
        raise Refusal(
            f"model {option.call!r} failed with {cause(error)}; correct the "
            f"function or its arguments {sorted(option.arguments)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise Refusal(
            f"model {option.call!r} returned {type(model).__name__} where a torch.nn.Module is "
            "needed; return the module itself"
        )
    return model


def _found(option: PythonModel, folder: Path) -> Callable[..., object]:
    module, _, path = option.call.partition(":")
    top = module.partition(".")[0]
    allowed = top in os.environ.get(ALLOWED, "").split(",")
    if not allowed and not _beside(module, folder):
        raise Refusal(
            f"model {option.call!r} cannot be imported from {folder}: there is no file "
            f"{module.replace('.', '/')}.py, and a recipe may not call whatever is installed; put "
            f"the function into such a file, or allow the package by `nacre --allow-package {top}`"
        )
    try:
        with _importing_from(folder, module):
            found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
            home = getattr(found, "__module__", None)
            if not allowed and callable(found) and home != module:
                raise Refusal(
                    f"model {option.call!r} is not defined in {module.replace('.', '/')}.py but in "
                    f"{home!r}; define a function in that file which returns the module"
                )
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(
            f"model {option.call!r} cannot be imported from {folder} ({cause(error)}); "
            "correct `call` or install what the module needs"
        ) from error
    if not callable(found):
        raise Refusal(f"model {option.call!r} is no function; name one that returns the module")
    return found


def _beside(module: str, folder: Path) -> bool:
    """Whether `module` is a file inside `folder`, links followed."""
    place = folder.resolve()
    stem = place.joinpath(*module.split("."))
    files = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return any(file.is_file() and file.resolve().is_relative_to(place) for file in files)


@contextmanager
def _importing_from(folder: Path, module: str) -> Generator[None, None, None]:
    """Imports look into `folder` first, and not at a module of the same name from elsewhere."""
    place = str(folder.resolve())
    top = module.partition(".")[0]
    own = [str(Path(place, name)) for name in (f"{top}.py", f"{top}/__init__.py")]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if any(Path(file).is_file() for file in own) and loaded not in own:
        for name in [name for name in sys.modules if name.partition(".")[0] == top]:
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)

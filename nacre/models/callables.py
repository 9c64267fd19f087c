"""Any PyTorch module, by a Python function that returns it, and which functions may be called.

*Guarantee:* nothing is imported for a recipe but a file beside it, or a package that the caller
allows by name; nothing at all for a model or a recipe that a run folder names, unless the caller
trusts that folder. The function is *defined* there: a file that imports `os` gives no way to
`os.system`. Code that is allowed runs with the caller's rights, and what it imports is its affair.
"""

from __future__ import annotations

import importlib
import json
import sys
import sysconfig
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument, Refusal
from nacre.core.theirs import cause, foreign_cause
from nacre.models.imports import files_reached


@dataclass(frozen=True, kw_only=True)
class PythonModel(NoAssumptions):
    """A module that a Python function of yours returns. It runs your code with your rights."""

    kind: Literal["python"] = "python"
    call: str
    """`module:function`, a function in `module.py` beside the recipe, or in a package that
    `--allow-package` names; called with `arguments`."""
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    """Keyword arguments of the function: numbers, text, lists."""

    def sentence(self, folder: Path) -> str:
        """Kind and function."""
        return f"{self.kind} {self.call}"

    def __post_init__(self) -> None:
        module, colon, function = self.call.partition(":")
        if module.endswith(".py"):
            written = module.removesuffix(".py").strip("./").replace("/", ".")
            raise BadArgument(
                f"call={self.call!r} names a file where a module is meant; write "
                f"`{written}:{function or 'function'}`"
            )
        names = [*module.split("."), *function.split(".")]
        if not colon or not all(name.isidentifier() for name in names):
            raise BadArgument(f"call={self.call!r} must read `package.module:function`")
        if any(name.startswith("_") for name in function.split(".")):
            raise BadArgument(
                f"call={self.call!r} names something private; name a function that begins with a "
                "letter"
            )
        try:
            json.dumps(self.arguments, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadArgument(
                f"arguments={self.arguments} must be plain values ({error})"
            ) from None


@dataclass(frozen=True, kw_only=True)
class Code:
    """Which Python code may be run for a recipe or a run folder.

    >>> Code(packages=("timm",)).of_run_folder().beside
    False
    """

    beside: bool = True
    """Whether a recipe's `call` may name a function in a file beside it."""
    packages: tuple[str, ...] = ()
    """Packages or modules, as `timm` or `torch.nn`, whose functions a `call` may name as well."""
    runs: bool = False
    """Whether a run folder is trusted: whether code may be run that its model.json or its
    recipe.yaml names."""

    def __post_init__(self) -> None:
        for name in self.packages:
            parts = name.split(".")
            if not all(part.isidentifier() for part in parts):
                raise BadArgument(f"packages={name!r} must be a package's name, as `timm`")
            if parts[0] in sys.stdlib_module_names:
                raise BadArgument(
                    f"packages={name!r} belongs to Python's own library, which holds no model; "
                    "name the package that does"
                )

    def of_run_folder(self) -> Code:
        """What may be run for a recipe or a model that a run folder names."""
        return replace(self, beside=self.beside and self.runs)

    def allows(self, module: str) -> bool:
        """Whether a module belongs to one of `packages`."""
        return any(module == name or module.startswith(f"{name}.") for name in self.packages)


OWN = Code()
"""Code beside a recipe of one's own, and none that a run folder names."""


def called(option: PythonModel, folder: Path, code: Code = OWN) -> nn.Module:
    """What the function returns. Raises `Refusal` where it may not be called, fails or returns no
    module.

    Whatever the user's code raises becomes one sentence: the cause is kept as `__cause__`.
    """
    if not code.beside:
        raise Refusal(
            f"the run's model is Python code ({option.call!r}), and a run folder from elsewhere "
            "could name any; read that code, then trust it by `--trust-code`, in Python "
            "`code=Code(runs=True)`"
        )
    function = _found(option, folder, code)
    try:
        model = function(**option.arguments)
    except (Exception, SystemExit) as error:
        raise Refusal(
            f"model {option.call!r} failed with {foreign_cause(error)}; correct the "
            f"function or its arguments {sorted(option.arguments)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise Refusal(
            f"model {option.call!r} returned {type(model).__name__} where a torch.nn.Module is "
            "needed; return the module itself"
        )
    return model


def files_beside(option: PythonModel, folder: Path) -> list[Path]:
    """The files beside the recipe that its function comes from, sorted: the module's own or all of
    its package, and those that they import from beside the recipe; none for an installed package.
    Nothing is run. `files_reached` says what it does not find."""
    return files_reached(folder, option.call.partition(":")[0].partition(".")[0])


def _found(option: PythonModel, folder: Path, code: Code) -> Callable[..., object]:
    module, _, path = option.call.partition(":")
    file = _beside(option.call, module, folder, code)
    try:
        if file is None:
            found: Any = importlib.import_module(module)
        else:
            with _importing_from(folder, module):
                found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise Refusal(
            f"model {option.call!r} cannot be imported from {folder} ({foreign_cause(error)}); "
            "correct the file there or install what it needs"
        ) from error
    if file is not None and _file_of(module) != file:
        raise Refusal(
            f"model {option.call!r}: Python finds another module {module!r} than {file}; give the "
            "file a name of its own"
        )
    return _function(option.call, found, path, folder, code)


def _function(call: str, found: Any, path: str, folder: Path, code: Code) -> Callable[..., object]:
    """The function at `path` in a module. Raises `Refusal` for one that is defined elsewhere."""
    try:
        for name in path.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as error:
        raise Refusal(
            f"model {call!r} has no function {path!r} ({cause(error)}); correct its name"
        ) from error
    if not callable(found):
        raise Refusal(f"model {call!r} is no function; name one that returns the module")
    home = getattr(found, "__module__", None)
    home = home if isinstance(home, str) else ""
    file = _file_of(home)
    if not (code.allows(home) or (file is not None and _inside(file, folder))):
        raise Refusal(
            f"model {call!r} is defined in {home or 'no module'!r}, neither beside the recipe nor "
            "in an allowed package; write a function beside the recipe that calls it, or allow its "
            "package by `--allow-package`, in Python `code=Code(packages=(…,))`"
        )
    return found


def _beside(call: str, module: str, folder: Path, code: Code) -> Path | None:
    """The module's file beside the recipe; None for a module of an allowed package. Raises
    `Refusal` for any other module, and for a file that lies elsewhere in truth."""
    place = Path(folder, *module.split("."))
    top = module.partition(".")[0]
    for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if not path.is_file():
            continue
        if not _inside(path, folder):
            raise Refusal(
                f"model {call!r}: {path} is a link to {path.resolve()}, outside the recipe's "
                "folder; put the file itself beside the recipe"
            )
        if top in sys.stdlib_module_names or top == "nacre" or _installed(top):
            raise Refusal(
                f"model {call!r}: {top!r} is the name of a package that is installed; give the "
                "file beside the recipe a name of its own"
            )
        return path.resolve()
    if code.allows(module):
        return None
    raise Refusal(
        f"model {call!r} cannot be imported from {folder} (there is no {place.name}.py at "
        f"{place.parent}); put that file there, or allow an installed package by "
        f"`--allow-package {top}`, in Python `code=Code(packages=({top!r},))`"
    )


def _inside(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def _file_of(module: str) -> Path | None:
    """The file of a loaded module."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file).resolve()


def _installed(top: str) -> bool:
    """Whether a loaded module of this name is an installed package."""
    file = _file_of(top)
    paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return file is not None and any(file.is_relative_to(Path(path).resolve()) for path in paths)


@contextmanager
def _importing_from(folder: Path, module: str) -> Generator[None, None, None]:
    """Imports look into `folder` first, and not at a module of the same name from elsewhere."""
    place = str(folder.resolve())
    top = module.partition(".")[0]
    own = [str(Path(place, name)) for name in (f"{top}.py", f"{top}/__init__.py")]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded not in own:
        for name in [name for name in sys.modules if name.partition(".")[0] == top]:
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)

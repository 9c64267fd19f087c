"""Where a result comes from: versions, seeds, and an HMAC of the data."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from nacre.core.theirs import version_of
from nacre.models import PythonModel
from nacre.recipe.schema import Recipe

_PACKAGES = ("nacre", "torch", "numpy", "scipy", "dp-accounting", "opendp", "cryptography")
_OF_TEXT = ("transformers", "tokenizers", "peft")  # named where they were loaded


def provenance(recipe: Recipe, digest: str, hmac: str) -> dict[str, Any]:
    """Facts that let somebody repeat the run, none of which speaks about a private row.

    The data are named by an HMAC under a key that stays in `local/`: a plain digest would let
    who knows all rows but one confirm the last.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {
            name: version_of(name)
            for name in (*_PACKAGES, *(name for name in _OF_TEXT if name in sys.modules))
        },
        "recipe_digest": digest,
        "data_hmac": hmac,
        "seed": recipe.seed,
        "noise_key": "drawn from the operating system, destroyed at the end of the run",
    }


def code(recipe: Recipe) -> str:
    """Hex SHA-256 of what decides a step's numbers beside recipe and data: the versions of nacre,
    torch and NumPy (which makes the noise), the kind of processor, and every module that a Python
    model loaded from beside the recipe. It makes a resume refuse early; that no noise is used twice
    does not hang on it."""
    packages = " ".join(f"{name} {version_of(name)}" for name in ("nacre", "torch", "numpy"))
    state = hashlib.sha256(packages.encode())
    state.update(torch.backends.cpu.get_cpu_capability().encode())
    if isinstance(recipe.model, PythonModel):
        for file in _modules_in(recipe.folder.resolve()):
            state.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


def _modules_in(folder: Path) -> list[Path]:
    """The files of all loaded modules that lie in `folder`, sorted."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = {Path(file).resolve() for file in files if file}
    return sorted(path for path in paths if path.is_relative_to(folder) and path.is_file())

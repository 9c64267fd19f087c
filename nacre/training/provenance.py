"""Where a result comes from: versions, seeds, and an HMAC of the data."""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nacre.models import PythonModel
from nacre.recipe.schema import Recipe

_PACKAGES = ("nacre", "torch", "numpy", "scipy", "dp-accounting", "opendp", "cryptography")


def provenance(recipe: Recipe, digest: str, hmac: str) -> dict[str, Any]:
    """Facts that let somebody repeat the run, none of which speaks about a private row.

    The data are named by an HMAC under a key that stays in `local/`: a plain digest would let
    who knows all rows but one confirm the last.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {name: version(name) for name in _PACKAGES},
        "recipe_digest": digest,
        "data_hmac": hmac,
        "seed": recipe.seed,
        "noise_key": "drawn from the operating system, destroyed at the end of the run",
    }


def code(recipe: Recipe) -> str:
    """Hex SHA-256 of what decides a step's numbers beside recipe and data: the versions of nacre
    and torch, and the file that a Python model is defined in (not what that file imports)."""
    state = hashlib.sha256(f"nacre {version('nacre')} torch {version('torch')}".encode())
    if isinstance(recipe.model, PythonModel):
        module = recipe.model.call.partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        state.update(Path(file).read_bytes() if file else b"")
    return state.hexdigest()

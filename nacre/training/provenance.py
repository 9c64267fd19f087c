"""Where a result comes from: versions, seeds, and an HMAC of the data."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

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

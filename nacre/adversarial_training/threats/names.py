"""Names of features, and what to say where there is no such name."""

from __future__ import annotations

import math
from difflib import get_close_matches

from nacre.core.types import FeatureSpace


def entry_names(space: FeatureSpace) -> tuple[str, ...]:
    """The name of each entry of an input, in the order of its memory; () without names."""
    if space.names and len(space.names) != math.prod(space.shape):
        raise ValueError(f"{len(space.names)} names for inputs of shape={space.shape}")
    return space.names


def unknown_name(name: str, known: tuple[str, ...]) -> str:
    """That no feature is called so, with the nearest that is, or some where none is near."""
    if not known:
        return f"no feature is called {name!r}, for these inputs have no names: use `radius` alone"
    near = get_close_matches(name, known, n=1)
    if near:
        return f"no feature is called {name!r}: the nearest name is {near[0]!r}"
    listed = ", ".join(map(repr, known[:_LISTED])) + (", …" if len(known) > _LISTED else "")
    return f"no feature is called {name!r}: use one of {listed}"


_LISTED = 8  # names that a message gives where none is near

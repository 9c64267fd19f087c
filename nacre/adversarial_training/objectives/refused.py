"""Adversarial training that no epsilon covers: what is refused by name, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FREE = (
    "hands the perturbation that one step found on to the rows of the next, so what a unit adds to "
    "a sum depends on other units and no clipping bounds its reach; use `kind: fast`, which takes "
    "as few passes and keeps each row to itself"
)
_PCO = (
    "begins a row's perturbation at one kept from an earlier epoch, which is computed from private "
    "rows and was never noised; use `kind: fast`, with a `guard` against catastrophic overfitting"
)
_AWP = (
    "moves the weights by the gradient of the whole batch before each unit's gradient is taken, so "
    "every unit's share depends on all others before any noise; use `kind: trades`, with "
    "`training.average` for a flatter minimum"
)
_UNIVERSAL = (
    "finds one perturbation for all rows together, so each row's depends on every other; use "
    "`kind: madry`, which searches for each row by itself"
)

REFUSED: Mapping[str, str] = {
    "free": f"Free adversarial training (Shafahi et al. 2019) {_FREE}",
    "fgsm_pco": f"FGSM-PCO (Wang et al. 2024) {_PCO}",
    "fgsm_pgi": f"FGSM-PGI (Jia et al. 2022) {_PCO}",
    "awp": f"adversarial weight perturbation (Wu et al. 2020) {_AWP}",
    "universal": f"universal adversarial training (Shafahi et al. 2020) {_UNIVERSAL}",
}
"""Name -> why it is refused and what to use. None of them is built without differential privacy
either: a recipe is one thing with and without it."""


def refused(section: Any) -> tuple[tuple[str, ...], str] | None:
    """Where the `adversarial_training` of a recipe, as it was read, names one of them (its kind,
    the kind of its attack, or a key), and the sentence; None where it names none."""
    if not isinstance(section, Mapping):
        return None
    given: Mapping[str, Any] = section  # pyright: ignore[reportUnknownVariableType]
    attack: Any = given.get("attack")
    inner: Any = attack.get("kind") if isinstance(attack, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for place, named in ((("kind",), given.get("kind")), (("attack", "kind"), inner)):
        name = plainly_spelt(named)
        if name in REFUSED:
            return place, REFUSED[name]
    for key in given:
        if plainly_spelt(key) in REFUSED:
            return (str(key),), REFUSED[plainly_spelt(key)]
    return None


def plainly_spelt(name: Any) -> str:
    """A name as `REFUSED` has it, however it was spelt."""
    return str(name).lower().replace("-", "_")

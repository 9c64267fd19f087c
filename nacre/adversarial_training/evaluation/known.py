"""Attacks by the names that they have elsewhere, and where each of them is here."""

from __future__ import annotations

from collections.abc import Mapping

_PART = (
    "is part of the audit `{kind: evasion}`: `effort` says how much is tried (`quick`, `standard`, "
    "`full`), and `nacre explain evasion` has all keys"
)
_APGD = f"APGD (Croce & Hein 2020) {_PART}; `steps` and `restarts` change its climbs"
_SMALLEST = (
    "looks for the smallest move that breaks a row. The audit `{kind: evasion}` asks which rows "
    "break within a radius instead, and its curve at which shares of it. In Python "
    "`nacre.adversarial_training.evaluation.nearest.nearest_broken` (DDN) measures distances"
)
_AUTOATTACK = (
    "AutoAttack (Croce & Hein 2020) is what `effort: full` of the audit `{kind: evasion}` stands "
    "for: 100 steps of APGD on each of two losses and towards each of up to nine wrong classes, "
    "then 5,000 queries of Square; `nacre explain evasion` has all keys"
)
_TABLES = (
    "is what the audit `{kind: evasion}` does on rows of a table, under a threat of `kind: table`: "
    "a climb that keeps what is declared, then a search without gradients (docs/tables.md)"
)

KNOWN: Mapping[str, str] = {
    "autoattack": _AUTOATTACK,
    "auto_attack": _AUTOATTACK,
    "apgd": _APGD,
    "auto_pgd": _APGD,
    "apgd_ce": _APGD,
    "apgd_dlr": _APGD,
    "apgd_t": _APGD,
    "square": f"Square (Andriushchenko et al. 2020), 1,000 queries by default, {_PART}",
    "fab": f"FAB (Croce & Hein 2020) {_SMALLEST}",
    "ddn": f"DDN (Rony et al. 2019) {_SMALLEST}",
    "deepfool": f"DeepFool (Moosavi-Dezfooli et al. 2016) {_SMALLEST}",
    "cw": f"the attack of Carlini & Wagner (2017) {_SMALLEST}",
    "pgd": (
        "PGD moves rows in training, under `adversarial_training.attack`. A finished model is "
        "attacked by the audit `{kind: evasion}`, whose climbs are APGD, which chooses its own "
        "steps (Croce & Hein 2020); `nacre explain evasion` has its keys"
    ),
    "capgd": f"constrained APGD (Simonetto et al. 2024) {_TABLES}",
    "moeva": f"a search by populations (MOEVA, Simonetto et al. 2022) {_TABLES}",
}
"""Name -> where the attack is, and by which key it is asked for."""

"""What a plan's promises rest on, and what no figure of the report speaks about."""

from __future__ import annotations

from nacre.differential_privacy.options import DistributedGaussianNoise, Privacy
from nacre.federated_learning.secure import SecureGather
from nacre.planning.robustness import robustness, rule_of
from nacre.recipe.schema import Recipe

OF_ROWS = (
    "everyone who reads what a party sends or what is made of it: the server, the other parties "
    "and all who see the models. The server's clipping and noise make it no worse, and no better "
    "figure is claimed for them"
)
"""Against whom the promise within parties holds."""


def of_parties(recipe: Recipe) -> str:
    """Against whom the promise to whole parties holds: all but who sees sums without their
    noise."""
    whom = "everyone who sees the models of all rounds, the other parties among them; "
    secure = _secure(recipe)
    if secure is not None and _in_shares(recipe):
        return (
            f"{whom}and against the server with as many colluders as are assumed "
            f"({secure.colluders}): it sees sums that are noised already"
        )
    seen = "each party's change" if secure is None else "the sum of the changes, and no single one,"
    return f"{whom}not against the server, which sees {seen} before it adds the noise"


def assumptions(recipe: Recipe) -> list[str]:
    """What has to hold for the guarantees to hold."""
    found = [
        "The run key in `local/` stays secret while the run is open; it is destroyed at its end.",
        "The declared sizes, ranges and classes are public knowledge, not read off the rows.",
    ]
    if recipe.training.class_prior is not None:
        found.append(
            "The shares in `training.class_prior` are public knowledge too: they set first biases"
            + (" and weights of the loss." if recipe.training.class_weights != "none" else ".")
        )
    option = recipe.differential_privacy
    if option is not None:
        found += [
            "Sampling and noise come from AES-256 in counter mode, keyed by the operating system.",
            *dict.fromkeys(each.noise.rounding for each in _promises(recipe)),
            _units(recipe),
        ]
        if option.noise.correlated:
            found.append(
                "What the noise remembers of its last steps, in `local/`, stays secret while the "
                "run is open; it is removed at its end."
            )
    secure = _secure(recipe)
    if recipe.federated_learning is not None and recipe.differential_privacy is not None:
        both = recipe.within_parties is not None
        if recipe.differential_privacy.unit == "client":
            whom = " for the promise to whole parties" if both else ""
            found.append(
                f"The server is trusted{whom}: it sees each party's change before the noise."
                if secure is None
                else f"{_noised_by(recipe, secure, whom)} Epsilon covers what a party's rows say, "
                "and not that it takes part."
            )
        if recipe.privacy_of_rows is not None:
            found += [
                "Each party trusts itself only: what it sends is noised for its own rows already.",
                "A person with rows in two parties is charged in both; both epsilons add up.",
            ]
    rule = robustness(recipe)
    if rule is not None:
        found += [rule.limits, *rule.warnings]
    if secure is not None:
        found.append(secure.trust())
    found += recipe.model.assumptions(recipe.folder)
    found += recipe.data.assumptions(recipe.folder)
    if recipe.data.public_demonstration:
        found.append("The owner declares all rows public: this run is a demonstration.")
    return found


def _secure(recipe: Recipe) -> SecureGather | None:
    federation = recipe.federated_learning
    gather = federation.gather if federation is not None else None
    return gather if isinstance(gather, SecureGather) else None


def _in_shares(recipe: Recipe) -> bool:
    """Whether the parties add the noise over parties."""
    option = recipe.differential_privacy
    return option is not None and isinstance(option.noise, DistributedGaussianNoise)


def _promises(recipe: Recipe) -> list[Privacy]:
    inner = recipe.within_parties
    both = (recipe.differential_privacy, inner.differential_privacy if inner is not None else None)
    return [each for each in both if each is not None]


def _noised_by(recipe: Recipe, secure: SecureGather, whom: str) -> str:
    """Who is trusted with the noise of a secure sum."""
    if not _in_shares(recipe):
        return (
            f"The server is trusted{whom} to add the noise: before it, it sees the sum of the "
            "changes and no single one."
        )
    known = secure.threshold - secure.colluders
    return (
        f"Nobody is trusted with the noise{whom}: of each sum, which is over "
        f"{secure.threshold} parties or more, at least {known} are honest, each adds its own "
        "share, and epsilon counts the shares of these alone. What other parties add or leave out "
        "changes nothing of it. Parties in one process have their keys from the run's key, which "
        "knows all shares."
    )


def _units(recipe: Recipe) -> str:
    column = recipe.data.unit
    option = recipe.privacy_of_rows
    if option is not None and option.unit == "example" and column is not None:
        return (
            f"Epsilon is that of one row. Rows of one `{column}` add up: whoever has k of them is "
            "covered by k times the epsilon or worse; `unit: group` protects them whole."
        )
    return "Every row belongs to exactly one unit, as declared."


def _beyond(recipe: Recipe) -> str:
    """What parties at fault can do, in words."""
    rule = rule_of(recipe)
    if rule is None or not rule.robust:
        return "a malicious party can spoil the mean"
    return (
        f"more than {rule.faults} at fault, or lies that look like rare honest rows (a backdoor), "
        "are not withstood"
    )


def _personal(recipe: Recipe) -> str:
    """Of what parties keep for themselves, in words."""
    said = (
        "How good the models are: each party's has layers of its own and is measured at the party, "
        "in `local/personal`; the model of this run has untrained ones in their place."
    )
    whole = recipe.differential_privacy is not None and recipe.differential_privacy.unit == "client"
    alone = " What a party keeps for itself is made of its rows without noise, and never leaves it."
    return said + alone if whole or recipe.differential_privacy is None else said


def not_covered(recipe: Recipe) -> list[str]:
    """What no figure in the report speaks about."""
    found = [
        "Settings (noise, steps, learning rate, radius) chosen by looking at the same rows: each "
        "look leaks, and only runs in the ledger are counted.",
        "What the model lets one infer about people who are not in the data.",
        "Attacks stronger than those listed; an attack that fails proves nothing.",
        "Theft or inversion of the model through its answers: not audited in this run.",
    ]
    if recipe.differential_privacy is None:
        found.insert(0, "Privacy: this run has no differential privacy; nothing bounds a leak.")
    if recipe.adversarial_training is None:
        found.append("Robustness: this run trains on clean inputs only.")
    holdout = recipe.data.holdout
    if holdout is not None:
        found.append(
            "The people in the holdout: scores on their rows are computed without noise and stay "
            "in `local/`" + (", but for the protected figure." if holdout.protected else ".")
        )
    if not recipe.data.public_demonstration:
        found.append(
            "Figures computed on private rows (membership, holdout accuracy): they stay in "
            "`local/`, on the page for the holder of the rows."
        )
    if recipe.federated_learning is not None and recipe.federated_learning.local.personal:
        found.append(_personal(recipe))
    if recipe.federated_learning is not None:
        found.append(
            f"Parties that lie: {_beyond(recipe)}, and a plain gather lets the "
            "server see each party's (noised) change."
            if _secure(recipe) is None
            else "Parties that lie: a malicious party can move the secure sum as far as it likes, "
            "or keep it from being opened, and nobody sees which one did."
        )
    return found

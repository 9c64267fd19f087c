"""What a plan's promises rest on, and what no figure of the report speaks about."""

from __future__ import annotations

from nacre.data import OfModel, Text
from nacre.differential_privacy.options import GaussianNoise, NoiseOption
from nacre.models import FormerRun, Pretrained
from nacre.models.pretrained import starts_random
from nacre.planning.words import counted
from nacre.recipe.schema import Recipe


def assumptions(recipe: Recipe) -> list[str]:
    """What has to hold for the guarantees to hold."""
    found = [
        "The run key in `local/` stays secret while the run is open; it is destroyed at its end.",
        "The declared sizes, ranges and classes are public knowledge, not read off the rows.",
    ]
    option = recipe.differential_privacy
    if option is not None:
        found += [
            "Sampling and noise come from AES-256 in counter mode, keyed by the operating system.",
            _rounding(option.noise),
            _units(recipe),
        ]
        if option.noise.kind != "gaussian":
            found.append(
                "What the noise remembers of its last steps, in `local/`, stays secret while the "
                "run is open; it is removed at its end."
            )
    if recipe.federated_learning is not None and recipe.differential_privacy is not None:
        if recipe.differential_privacy.unit == "client":
            found.append("The server is trusted: it sees each party's change before the noise.")
        else:
            found += [
                "Each party trusts itself only: what it sends is noised for its own rows already.",
                "A person with rows in two parties is charged in both; both epsilons add up.",
            ]
    if isinstance(recipe.model, FormerRun):
        found.append(_base(recipe.model))
    if isinstance(recipe.model, Pretrained) and not starts_random(recipe.model, recipe.folder):
        found.append(
            f"What the weights of {recipe.model.name} were learnt from is public, or at least "
            "holds none of these rows: epsilon does not cover what the base knew before."
        )
    if isinstance(recipe.data, Text):
        found += _text(recipe.data)
    if recipe.data.public_demonstration:
        found.append("The owner declares all rows public: this run is a demonstration.")
    return found


def _rounding(noise: NoiseOption) -> str:
    """What floating point leaves open."""
    if isinstance(noise, GaussianNoise):
        return (
            "Noise is exact: each noised sum is rounded to a grid as real numbers would be. The "
            "sum itself is added up in 32-bit floating point, and how that rounds, by about a "
            "sixteen-millionth of the total, may depend on one unit."
        )
    return (
        "Noise that later steps take parts of back is added in 32-bit floating point; attacks on "
        "that approximation (Mironov 2012) are not excluded."
    )


def _text(data: Text) -> list[str]:
    """How documents become rows of tokens."""
    kinds = {
        "bytes": "the bytes of UTF-8, so nothing is learnt from the text",
        "bpe": "pieces learnt from the public rows alone",
    }
    option = data.tokenizer
    of_model = f"those of {option.name}" if isinstance(option, OfModel) else ""
    side = "beginning" if data.cut == "start" else "end"
    found = [
        f"Tokens are {of_model or kinds[option.kind if option is not None else 'bytes']}.",
        f"A row holds one document, of which {data.length} tokens at most are read; a longer one "
        f"loses its {side}.",
    ]
    if data.canaries is not None:
        found.append(
            f"About half of {data.canaries.count} made-up secrets are learnt beside the documents, "
            f"{counted(data.canaries.repeats, 'time')} each; nobody's secret is among them."
        )
    return found


def _units(recipe: Recipe) -> str:
    column = recipe.data.unit
    option = recipe.differential_privacy
    if option is not None and option.unit == "example" and column is not None:
        return (
            f"Epsilon is that of one row. Rows of one `{column}` add up: whoever has k of them is "
            "covered by k times the epsilon or worse; `unit: group` protects them whole."
        )
    return "Every row belongs to exactly one unit, as declared."


def _base(model: FormerRun) -> str:
    if model.public:
        return f"The rows that the base {model.path} was trained on are public, as declared."
    return (
        f"The base is the model of the run {model.path}. Whoever is in its rows and in these is "
        "covered by both epsilons added up; where both runs are charged to one account, the "
        "ledger adds them."
    )


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
    if getattr(recipe.data, "holdout", None) is not None:
        found.append(
            "The people in the holdout: scores on their rows are computed without noise and stay "
            "in `local/`."
        )
    if not recipe.data.public_demonstration:
        found.append(
            "Figures computed on private rows (membership, holdout accuracy): they stay in "
            "`local/` and are not in this report."
        )
    if recipe.federated_learning is not None:
        found.append(
            "Parties that lie: a malicious party can spoil the mean, and a plain gather lets the "
            "server see each party's (noised) change."
        )
    return found

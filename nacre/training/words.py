"""A plan in words: what each technique does here, what is assumed, what is not covered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nacre.adversarial_training import Ball, Madry, Trades
from nacre.core.parts import Noise, Sampling
from nacre.data import OfModel, Text
from nacre.data.sampling import BallsInBins, CyclicPoisson, FixedSize, Full, Poisson, Shuffled
from nacre.differential_privacy.buffered import Buffered
from nacre.differential_privacy.correlated import Banded
from nacre.differential_privacy.forms import told
from nacre.gradient_clipping import Unclipped, UnitClip
from nacre.models import FormerRun, Pretrained, Scattering
from nacre.models.pretrained import starts_random
from nacre.recipe.schema import Recipe

if TYPE_CHECKING:
    from nacre.training.pricing import Holder


_NO_WEIGHTS = "from random weights, since its folder holds none"


def counted(count: int, name: str) -> str:
    """The count with its name, as `1 step` or `2 steps`."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def holder(holder: Holder) -> dict[str, Any]:
    """One account's mechanism and price as plan.json has it."""
    mechanism, price = holder.mechanism, holder.price
    return {
        "name": holder.name or "all rows",
        "account": holder.account,
        "size": holder.size,
        "unit": mechanism.unit,
        "adjacency": mechanism.adjacency,
        "sampling": _sampling(mechanism.sampling),
        "clip": {"kind": _kind(holder), "norm": _norm(holder)},
        "noise": _noise(mechanism.noise),
        "steps": mechanism.steps,
        "epsilon": price.epsilon if price else None,
        "delta": holder.delta,
        "accountant": price.accountant if price else None,
        "epsilon_by_step": [list(point) for point in holder.by_step],
        "takes": holder.takes.to_json() if holder.takes else None,
        **(told(holder.event, price.accountant, mechanism.adjacency) if price else {}),
    }


def _sampling(sampling: Sampling) -> dict[str, Any]:
    drawn = isinstance(sampling, Poisson | CyclicPoisson | FixedSize)
    kind = str(getattr(sampling, "kind", type(sampling).__name__.lower()))
    rate = sampling.rate if drawn else 1.0
    found: dict[str, Any] = {"kind": kind, "expected": sampling.expected, "rate": rate}
    match sampling:
        case CyclicPoisson():
            return found | {"cycle": sampling.cycle}
        case BallsInBins(anew=False):
            return found | {"cycle": sampling.bins}
        case BallsInBins():
            return found | {"epoch": sampling.bins}
        case Shuffled():
            return found | {"epoch": sampling.epoch}
        case _:
            return found


def _noise(noise: Noise) -> dict[str, Any]:
    if isinstance(noise, Buffered):
        buffers = len(noise.weights)
        return {"kind": noise.kind, "multiplier": noise.multiplier, "buffers": buffers}
    found = {"kind": type(noise).__name__.lower(), "multiplier": noise.multiplier}
    return found | {"bands": noise.bands} if isinstance(noise, Banded) else found


def _kind(holder: Holder) -> str:
    clip = holder.mechanism.clip
    return "unclipped" if isinstance(clip, Unclipped) else str(getattr(clip, "kind", "other"))


def _norm(holder: Holder) -> float | None:
    bound = holder.mechanism.clip.bound(1)
    return bound if bound < float("inf") else None


def techniques(recipe: Recipe) -> dict[str, str | None]:
    """One sentence for each of the five techniques; None where it is off."""
    return {
        "gradient_clipping": _clipping(recipe),
        "fine_tuning": _fine_tuning(recipe),
        "federated_learning": _federated(recipe),
        "differential_privacy": _privacy(recipe),
        "adversarial_training": _adversarial(recipe),
    }


def _clipping(recipe: Recipe) -> str | None:
    option, copies = recipe.gradient_clipping, recipe.training.augment
    if option is None:
        return None
    if option.kind == "by_value":
        return f"Each entry of the mean gradient is clamped to ±{option.limit:g}."
    if option.kind == "by_norm":
        return f"The mean gradient is scaled down to an L2 norm of at most {option.norm:g}."
    what = "Each unit's gradient"
    if _unit(recipe) == "client":
        what = "Each party's change"
    elif copies is not None:
        what += f" (of the mean loss over {counted(copies.count, 'random version')} of its images)"
    return f"{what} is {_rule(option)}."


def _rule(option: UnitClip) -> str:
    """What a rule that bounds units does, and its bound."""
    if option.kind == "automatic":
        return (
            f"scaled to an L2 norm of almost {option.norm:g}, whatever its length (stability "
            f"{option.stability:g})"
        )
    if option.kind == "per_layer":
        parts = "by the norms of its parts" if option.norms else f"{option.by} by {option.by}"
        return f"scaled down {parts}, to a joint L2 norm of at most {option.bound(1):g}"
    if option.kind == "adaptive":
        return (
            f"scaled down to an L2 norm that begins at {option.norm:g} and follows the "
            f"{option.quantile:g} quantile of such norms, which is learnt from the same noised "
            f"sums; one unit moves a sum by at most {option.bound(1) / option.norm:.4g} times the "
            "norm"
        )
    return f"scaled down to an L2 norm of at most {option.norm:g}"


def _fine_tuning(recipe: Recipe) -> str | None:
    option = recipe.fine_tuning
    if option is None:
        return None
    what = {
        "full": "All weights are trained on",
        "head": "Only the last layer is trained on",
        "bias": "Only the biases and the last layer are trained on",
        "norms": "Only the layers that normalise and the last layer are trained on",
        "lora": "Low-rank adapters are trained on; the base stays fixed on",
    }[option.kind]
    if option.pretrain is None:
        return f"{what} the private rows."
    steps = option.pretrain.steps
    return f"{what} the private rows, from a base trained for {steps} steps on public rows."


def _federated(recipe: Recipe) -> str | None:
    option = recipe.federated_learning
    if option is None:
        return None
    names = option.parties.names
    gather = option.gather.aggregate.kind
    local = counted(option.local.steps, "local step")
    return (
        f"{len(names)} parties keep their rows and send changes of the weights, up to "
        f"{option.rounds} rounds of {local}; the server takes the {gather} of the changes. Here "
        "the parties run in one process and every message passes as bytes."
    )


def _privacy(recipe: Recipe) -> str | None:
    option = recipe.differential_privacy
    if option is None:
        return None
    unit = {
        "example": "one row",
        "group": f"all rows with one value of `{getattr(recipe.data, 'unit', '')}`",
        "client": "everything one party holds",
    }[option.unit]
    noise = {
        "gaussian": "Gaussian noise",
        "banded": "Noise of which each step takes back a part of the last ones' (banded matrix "
        "factorisation)",
        "tree": "Noise on a binary tree over the steps (DP-FTRL)",
        "blt": "Noise of which each step takes back a part of all earlier ones' (BLT)",
    }[option.noise.kind]
    return (
        f"{noise} hides {unit}: epsilon at most {option.epsilon:g} at delta "
        f"{option.delta:g}, neighbours by {option.adjacency.replace('_', '-')}."
    )


def _adversarial(recipe: Recipe) -> str | None:
    option = recipe.adversarial_training
    if not isinstance(option, Madry | Trades):
        return None
    name = "TRADES" if option.kind == "trades" else "Madry"
    attack = option.attack
    return f"{name} trains on inputs moved by {attack.kind.upper()} inside {_reach(attack.ball)}."


def _reach(ball: Ball) -> str:
    """A ball in words: its norm, its radius and what that is measured in, and the exceptions."""
    unit = "the features' own units" if ball.unit == "features" else "scaled units"
    words = f"an {ball.kind} ball of radius {ball.radius:g} in {unit}"
    if ball.radii:
        words += f" ({counted(len(ball.radii), 'feature')} with radii of their own)"
    return words + (f", {', '.join(ball.frozen)} fixed" if ball.frozen else "")


def _unit(recipe: Recipe) -> str | None:
    return recipe.differential_privacy.unit if recipe.differential_privacy else None


def not_in_the_cost(recipe: Recipe) -> str:
    """What a run takes time for beside its steps over rows; empty where it is little."""
    stage = recipe.fine_tuning.pretrain if recipe.fine_tuning is not None else None
    found = [
        f"{stage.steps} steps on public rows" if stage is not None else "",
        "an unprotected twin of as many steps" if "unprotected" in recipe.compare else "",
        f"the audits ({', '.join(audit.kind for audit in recipe.audit)})" if recipe.audit else "",
    ]
    told = ", ".join(part for part in found if part)
    return f"; on top of it come {told}" if told else ""


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
            "Real numbers are approximated by 32-bit floating point; attacks on that "
            "approximation (Mironov 2012) are not excluded.",
            _units(recipe),
        ]
        if option.noise.kind != "gaussian":
            found.append(
                "What the noise remembers of its last steps, in `local/`, stays secret while the "
                "run is open; it is removed at its end."
            )
    if recipe.federated_learning is not None and recipe.differential_privacy is not None:
        if _unit(recipe) == "client":
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
    if _unit(recipe) == "example" and column is not None:
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


def model(recipe: Recipe, parameters: int) -> dict[str, Any]:
    """The model in a line: kind, sizes and number of parameters."""
    return {"kind": recipe.model.kind, "parameters": parameters, "words": model_words(recipe)}


def model_words(recipe: Recipe) -> str:
    """A short description, as `mlp 16`."""
    option = recipe.model
    parts = [str(option.kind)]
    if isinstance(option, Scattering):
        parts.append(f"of {option.scales} scales and {option.angles} angles, {option.head} head")
        if option.whiten is not None:
            parts[-1] += ", whitened on made-up pictures"
        if option.random:
            parts[-1] += f", {option.random} random features"
        return " ".join(parts)
    for name in ("hidden", "channels", "layers", "width", "call", "path", "name"):
        value: Any = getattr(option, name, None)
        if value is not None:
            parts.append(str(value).strip("(),").replace(", ", "-"))
    if isinstance(option, Pretrained) and starts_random(option, recipe.folder):
        parts.append("from random weights" if option.from_scratch else _NO_WEIGHTS)
    return " ".join(parts)


def sampling_words(sampling: object) -> str:
    """How a step draws, as `each of 104 with probability 0.77`."""
    if isinstance(sampling, Poisson):
        return f"each unit with probability {sampling.rate:.3g}"
    if isinstance(sampling, CyclicPoisson):
        return (
            f"from one of {sampling.cycle} groups in turn, each unit of it with probability "
            f"{sampling.rate:.3g}"
        )
    if isinstance(sampling, FixedSize):
        return f"{sampling.batch} of {sampling.size} units, all sets of so many alike"
    if isinstance(sampling, BallsInBins):
        thrown = "thrown anew in every round" if sampling.anew else "the same in every round"
        return f"everybody in one of {sampling.bins} bins in turn, {thrown}"
    if isinstance(sampling, Shuffled):
        return f"the next {sampling.batch} units of a random order, a new one every epoch"
    return "all units" if isinstance(sampling, Full) else "units"

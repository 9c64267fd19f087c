"""A plan in words: what each technique does here; `limits.py` says what that rests on."""

from __future__ import annotations

from typing import Any

from nacre.adversarial_training import Ball, Madry, Trades
from nacre.core.normals.box_muller import COMPILED
from nacre.core.parts import Clip, Noise, Sampling
from nacre.data.sampling import BallsInBins, CyclicPoisson, FixedSize, Full, Poisson, Shuffled
from nacre.differential_privacy.noise.blt import Buffered
from nacre.differential_privacy.noise.correlated import Banded, Tree
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.differential_privacy.options import GaussianNoise
from nacre.gradient_clipping import Adaptive, Unclipped, UnitClip
from nacre.models import Pretrained, Scattering
from nacre.models.pretrained import starts_random
from nacre.planning.levels import Level
from nacre.recipe.schema import Recipe

_NO_WEIGHTS = "from random weights, since its folder holds none"


def counted(count: int, name: str) -> str:
    """The count with its name, as `1 step` or `2 steps`."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def holder(holder: Level) -> dict[str, Any]:
    """One account's mechanism and price as plan.json has it."""
    mechanism = holder.mechanism
    return {
        "name": holder.name or "all rows",
        "account": holder.account,
        "size": holder.size,
        "unit": mechanism.unit,
        "adjacency": mechanism.adjacency,
        "sampling": _sampling(mechanism.sampling),
        "clip": {"kind": _kind(holder), "norm": _norm(holder), **_path(mechanism.clip)},
        "noise": _noise(mechanism.noise),
        "steps": mechanism.steps,
        **holder.promise(),
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
        return {
            "kind": noise.kind,
            "multiplier": noise.multiplier,
            "buffers": buffers,
            "weights": list(noise.weights),
            "decays": list(noise.decays),
            "separation": noise.separation,
        }
    found: dict[str, Any] = {
        "kind": type(noise).__name__.lower(), "multiplier": noise.multiplier
    }  # fmt: skip
    if isinstance(noise, Gaussian):
        return found | {"draws": noise.draws}
    if isinstance(noise, Tree):
        return found | {"separation": noise.separation}
    if isinstance(noise, Banded):
        return found | {"bands": noise.bands, "coefficients": list(noise.coefficients)}
    return found


def _path(clip: Clip) -> dict[str, float]:
    """What moves the bound of a rule that moves; {} for the others."""
    if not isinstance(clip, Adaptive):
        return {}
    return {"quantile": clip.quantile, "pace": clip.rate, "share": clip.share}


def _kind(holder: Level) -> str:
    clip = holder.mechanism.clip
    return "unclipped" if isinstance(clip, Unclipped) else str(getattr(clip, "kind", "other"))


def _norm(holder: Level) -> float | None:
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
    privacy = recipe.differential_privacy
    if privacy is not None and privacy.unit == "client":
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


def noise_words(recipe: Recipe) -> str | None:
    """Where noise comes from and how it is added; None without privacy."""
    option = recipe.differential_privacy
    if option is None:
        return None
    made = (
        "compiled code" if COMPILED else "NumPy, as the compiled code was not built at installation"
    )
    added = (
        "noised sums are rounded as those of exact real numbers would be"
        if isinstance(option.noise, GaussianNoise)
        else "added in 32-bit floating point, since later steps take parts of it back"
    )
    return f"secure: AES-256 keyed by the operating system, made normal by {made}; {added}"


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

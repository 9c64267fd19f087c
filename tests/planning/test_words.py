"""The sentences of a plan, word for word: readers and tools of finished runs know them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nacre.planning import limits, words
from nacre.recipe.load import loads
from tests.training.tiny import CENTRAL, FEDERATED, changed, recipe

OPEN = {"differential_privacy": None, "ledger": None}
BALL = {"radius": 0.1}
CLIENT = changed(FEDERATED, {"differential_privacy.unit": "client"})
HIDES = "hides one row: epsilon at most 8 at delta 0.0001, neighbours by add-or-remove."
PARTIES = (
    "2 parties keep their rows and send changes of the weights, up to 4 rounds of 2 local steps; "
    "the server takes the {} of the changes. Here the parties run on one machine, in this "
    "process or in workers of it."
)
ADAPTIVE = (
    "{} is scaled down to an L2 norm that begins at 0.5 and follows the 0.5 quantile of such "
    "norms, which is learnt from the same noised sums; one unit moves a sum by at most 1.005 times "
    "the norm."
)
TAKEN_BACK = "Noise of which each step takes back a part of"
TRAINED = "trained on the private rows."

Case = tuple[dict[str, Any], dict[str, Any], str, str | None]
CASES: list[Case] = [
    (CENTRAL, {"gradient_clipping": None, **OPEN}, "gradient_clipping", None),
    (CENTRAL, {"gradient_clipping": None, **OPEN}, "differential_privacy", None),
    (
        CENTRAL, {}, "gradient_clipping",
        "Each unit's gradient is scaled down to an L2 norm of at most 1.",
    ),
    (
        CENTRAL, {"gradient_clipping": {"kind": "automatic", "norm": 0.5}}, "gradient_clipping",
        "Each unit's gradient is scaled to an L2 norm of almost 0.5, whatever its length "
        "(stability 0.01).",
    ),
    (
        CENTRAL, {"gradient_clipping": {"kind": "per_layer", "norm": 0.5}}, "gradient_clipping",
        "Each unit's gradient is scaled down layer by layer, to a joint L2 norm of at most 0.5.",
    ),
    (
        CENTRAL, {"gradient_clipping": {"kind": "per_layer", "norms": {"head": 3.0, "a": 4.0}}},
        "gradient_clipping",
        "Each unit's gradient is scaled down by the norms of its parts, to a joint L2 norm of at "
        "most 5.",
    ),
    (
        CENTRAL, {"gradient_clipping": {"kind": "adaptive", "norm": 0.5}}, "gradient_clipping",
        ADAPTIVE.format("Each unit's gradient"),
    ),
    (
        CLIENT, {"gradient_clipping": {"kind": "adaptive", "norm": 0.5}}, "gradient_clipping",
        ADAPTIVE.format("Each party's change"),
    ),
    (
        CENTRAL, {"training.augment": {"kind": "copies", "count": 3, "flip": True}},
        "gradient_clipping",
        "Each unit's gradient (of the mean loss over 3 random versions of its images) is scaled "
        "down to an L2 norm of at most 1.",
    ),
    (
        CENTRAL,
        {"training.augment": {"kind": "copies", "count": 3, "noise": 1, "include_original": True}},
        "gradient_clipping",
        "Each unit's gradient (of the mean loss over the original and 2 random versions of its "
        "rows) is scaled down to an L2 norm of at most 1.",
    ),
    (
        CENTRAL, {"gradient_clipping": {"kind": "by_norm", "norm": 1.5}, **OPEN},
        "gradient_clipping", "The mean gradient is scaled down to an L2 norm of at most 1.5.",
    ),
    (
        CENTRAL, {"gradient_clipping": {"kind": "by_value", "limit": 1.5}, **OPEN},
        "gradient_clipping", "Each entry of the mean gradient is clamped to ±1.5.",
    ),
    (CENTRAL, {}, "differential_privacy", f"Gaussian noise {HIDES}"),
    (
        CENTRAL, {"differential_privacy.noise": {"kind": "banded", "bands": 2}},
        "differential_privacy",
        f"{TAKEN_BACK} the last ones' (banded matrix factorisation) {HIDES}",
    ),
    (
        CENTRAL, {"differential_privacy.noise": {"kind": "tree"}}, "differential_privacy",
        f"Noise on a binary tree over the steps (DP-FTRL) {HIDES}",
    ),
    (
        CENTRAL, {"differential_privacy.noise": {"kind": "blt"}}, "differential_privacy",
        f"{TAKEN_BACK} all earlier ones' (BLT) {HIDES}",
    ),
    (
        CLIENT, {}, "differential_privacy",
        "Gaussian noise hides everything one party holds: epsilon at most 8 at delta 0.0001, "
        "neighbours by add-or-remove.",
    ),
    (FEDERATED, {}, "federated_learning", PARTIES.format("mean")),
    (
        FEDERATED,
        {"federated_learning.gather": {"kind": "plain", "aggregate": {"kind": "median"}}},
        "federated_learning", PARTIES.format("median"),
    ),
    (
        FEDERATED,
        {
            "federated_learning.cohort": {"kind": "poisson", "expected": 1.5},
            "federated_learning.optimizer": {"kind": "yogi", "lr": 0.1},
        },
        "federated_learning",
        PARTIES.format("mean")
        .replace("local steps", "local steps, each by a coin of its own, 1.5 a round on average")
        .replace(
            "the changes",
            "the changes and moves the weights by Yogi, step size 0.1, betas 0.9 and 0.99",
        ),
    ),
    (CENTRAL, {"fine_tuning": {"kind": "full"}}, "fine_tuning", f"All weights are {TRAINED}"),
    (
        CENTRAL, {"fine_tuning": {"kind": "bias"}}, "fine_tuning",
        f"Only the biases and the last layer are {TRAINED}",
    ),
    (
        CENTRAL, {"fine_tuning": {"kind": "head", "pretrain": {"steps": 7}}}, "fine_tuning",
        "Only the last layer is trained on the private rows, from a base trained for 7 steps on "
        "public rows.",
    ),
    (
        CENTRAL,
        {"adversarial_training": {"kind": "madry", "attack": {"kind": "fgsm", "ball": BALL}}},
        "adversarial_training",
        "Madry trains on inputs moved by FGSM inside an linf ball of radius 0.1 in scaled units.",
    ),
    (
        CENTRAL,
        {"adversarial_training": {"kind": "trades", "attack": {"kind": "pgd", "ball": BALL}}},
        "adversarial_training",
        "TRADES trains on inputs moved by PGD inside an linf ball of radius 0.1 in scaled units.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("base", "changes", "technique", "sentence"), CASES)
def test_each_technique_is_said_in_these_words(
    tmp_path: Path,
    base: dict[str, Any],
    changes: dict[str, Any],
    technique: str,
    sentence: str | None,
) -> None:
    asked = recipe(tmp_path, base, **{k.replace(".", "__"): v for k, v in changes.items()})
    assert words.techniques(asked)[technique] == sentence


@pytest.mark.parametrize(
    ("noise", "exact"),
    [
        ({"kind": "gaussian"}, True),
        ({"kind": "banded", "bands": 2}, False),
        ({"kind": "tree"}, False),
        ({"kind": "blt"}, False),
    ],
)
def test_what_floating_point_leaves_open_goes_with_the_noise(
    tmp_path: Path, noise: dict[str, Any], exact: bool
) -> None:
    asked = recipe(tmp_path, CENTRAL, differential_privacy__noise=noise)
    found = limits.assumptions(asked)
    assert any(line.startswith("Noise is exact") for line in found) == exact
    assert any("Mironov 2012" in line for line in found) == (not exact)
    assert any("What the noise remembers" in line for line in found) == (not exact)


RARE = "training: {class_prior: {malignant: 0.05, benign: 0.95}}\n"
EVEN = "training: {class_prior: {malignant: 0.4, benign: 0.6}}\n"
THREE = "training: {class_prior: {setosa: 0.9, versicolor: 0.06, virginica: 0.04}}\n"


@pytest.mark.parametrize(
    ("name", "more", "figure"),
    [
        ("breast_cancer", "", "accuracy"),
        ("breast_cancer", EVEN, "accuracy"),
        ("breast_cancer", RARE, "auroc"),
        ("iris", THREE, "balanced_accuracy"),
        ("numbers", "", "loss"),
        ("numbers", "evaluate: {figure: r2}\n", "r2"),
        ("breast_cancer", RARE + "evaluate: {figure: f1}\n", "f1"),
        ("breast_cancer", RARE + "tune: {over: {training.steps: [1, 2]}, trials: 2, "
         "score: {kind: public, figure: brier}}\n", "brier"),
        ("breast_cancer", "federated_learning: {parties: {kind: uniform, names: [a, b]}, "
         "stop: {kind: flat, patience: 2, figure: auroc}}\n", "auroc"),
    ],
)  # fmt: skip
def test_what_is_declared_chooses_the_figure_that_stands_first(
    name: str, more: str, figure: str
) -> None:
    data = {
        "breast_cancer": "{kind: builtin, name: breast_cancer, size: 569}",
        "iris": "{kind: builtin, name: iris, size: 150}",
        "numbers": "{kind: table, path: r.csv, target: y, task: regression, size: 9, "
        "columns: {x: {low: 0, high: 1}}}",
    }[name]
    text = f"nacre: 1\nname: x\ndata: {data}\nmodel: {{kind: mlp, hidden: [4]}}\n{more}"
    assert words.speaking_figure(loads(text)) == figure

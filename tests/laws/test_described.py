"""What holds for every option that a recipe can name: it is in its list, and speaks for itself."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from nacre.adversarial_training import (
    ATTACKS,
    FGSM,
    OBJECTIVES,
    PGD,
    AttackOption,
    Ball,
    ColumnMove,
    Embedding,
    EmbeddingPGD,
    Fast,
    FreeLB,
    Guard,
    LinearRelation,
    Madry,
    Mart,
    ObjectiveOption,
    Ramp,
    RatioRelation,
    StandardTraining,
    TableThreat,
    Trades,
    Words,
)
from nacre.adversarial_training.certificates.options import Smoothing
from nacre.audit.catalogue import AUDITS
from nacre.core.errors import BadArgument
from nacre.core.optimizers import (
    OPTIMIZERS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    OptimizerOption,
    Yogi,
)
from nacre.data import (
    DATA,
    SAMPLINGS,
    SCALINGS,
    AnyData,
    Arrays,
    Builtin,
    Bytes,
    ColumnSpec,
    Images,
    SamplingOption,
    ScalingOption,
    Table,
    Text,
)
from nacre.data.scaling import DeclaredScaling, NoScaling, PublicScaling
from nacre.differential_privacy.options import (
    NOISES,
    BandedNoise,
    BufferedNoise,
    DistributedGaussianNoise,
    GaussianNoise,
    NoiseOption,
    TreeNoise,
)
from nacre.federated_learning import (
    AGGREGATES,
    COMPRESSIONS,
    GATHERS,
    AggregateOption,
    Bucketing,
    CentredClipping,
    CompressionOption,
    EightBits,
    FLTrust,
    GatherOption,
    GeometricMedian,
    Krum,
    MeanAggregate,
    Median,
    MultiKrum,
    NearestNeighbourMixing,
    NormBound,
    PlainGather,
    SecureGather,
    TopK,
    TrimmedMean,
)
from nacre.fine_tuning.choices import (
    CHOICES,
    Bias,
    FineTuningOption,
    Full,
    Head,
    LoRA,
    Norms,
    Pretrain,
)
from nacre.gradient_clipping import (
    CLIP_RULES,
    Adaptive,
    Automatic,
    ByNorm,
    ByValue,
    ClippingOption,
    Flat,
    PerLayer,
    Unclipped,
    UnitClip,
)
from nacre.models import (
    CNN,
    GPT,
    MLP,
    MODELS,
    TASKS,
    AnyTask,
    CausalLM,
    Classification,
    FormerRun,
    ModelOption,
    Pretrained,
    PythonModel,
    Regression,
    Scattering,
    TokenClassification,
)
from nacre.recipe.audits import (
    AuditOption,
    CanaryAudit,
    CertificateAudit,
    Evasion,
    Membership,
    Poisoning,
)

LISTS: dict[str, tuple[Any, Any]] = {
    "clip rules": (set(CLIP_RULES), {*get_args(UnitClip), Unclipped}),
    "attacks": (set(ATTACKS), set(get_args(AttackOption))),
    "objectives": (set(OBJECTIVES), set(get_args(ObjectiveOption))),
    "aggregates": (set(AGGREGATES), set(get_args(AggregateOption))),
    "compressions": (set(COMPRESSIONS), set(get_args(CompressionOption))),
    "gathers": (set(GATHERS), set(get_args(GatherOption))),
    "audits": (set(AUDITS), set(get_args(AuditOption))),
    "samplings": (set(SAMPLINGS), set(get_args(SamplingOption))),
    "noises": (set(NOISES), set(get_args(NoiseOption))),
    "tasks": (set(TASKS), set(get_args(AnyTask))),
    "models": (set(MODELS), set(get_args(ModelOption))),
    "data": (set(DATA), set(get_args(AnyData))),
    "scalings": (set(SCALINGS), set(get_args(ScalingOption))),
    "optimizers": (set(OPTIMIZERS), set(get_args(OptimizerOption))),
    "fine-tuning": (set(CHOICES), set(get_args(FineTuningOption))),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_holds_all_that_a_recipe_can_name_and_nothing_else(name: str) -> None:
    listed, named = LISTS[name]
    assert listed == named


BALL = Ball(radius=0.37, unit="features", radii={"age": 2.0}, frozen=("sex",))
WORDS = Words(share=0.37, similarity=0.71)
NUMBER = ColumnSpec(low=0, high=1)
SHARE = "Each party's change"
HERE = Path()
# One of each, with the words that nobody but itself can have put into its sentence.
SAID: list[tuple[Any, tuple[Any, ...], str, tuple[str, ...]]] = [
    (Flat(norm=0.3), (SHARE,), "clip", (SHARE, "scaled down", "0.3")),
    (Automatic(norm=0.3, stability=0.7), (SHARE,), "clip", (SHARE, "almost 0.3", "0.7")),
    (PerLayer(norm=0.3), (SHARE,), "clip", (SHARE, "layer by layer", "0.3")),
    (Adaptive(norm=0.3, quantile=0.9), (SHARE,), "clip", (SHARE, "begins at 0.3", "0.9 quantile")),
    (Unclipped(), (SHARE,), "clip", (SHARE, "as it comes")),
    (ByValue(limit=0.3), (SHARE,), "clip", ("clamped to ±0.3",)),
    (ByNorm(norm=0.3), (SHARE,), "clip", ("mean gradient", "0.3")),
    (FGSM(ball=BALL), (), "attack", ("FGSM", BALL.sentence())),
    (PGD(ball=BALL), (), "attack", ("PGD", "an linf ball of radius 0.37 in the features' own")),
    (StandardTraining(), (), "objective", ("clean inputs",)),
    (Madry(attack=FGSM(ball=BALL)), (), "objective", ("Madry", "FGSM", "sex fixed")),
    (FreeLB(threat=Embedding(radius=0.5)), (), "objective", ("FreeLB", "3 points", "radius 0.5")),
    (
        EmbeddingPGD(threat=Embedding(radius=0.5, around="token")),
        (),
        "objective",
        ("3 steps", "around each embedding"),
    ),
    (Trades(attack=PGD(ball=BALL)), (), "objective", ("TRADES", "PGD", "1 feature with radii")),
    (Mart(attack=FGSM(ball=BALL), ramp=Ramp()), (), "objective", ("MART", "FGSM", "30%")),
    (Fast(ball=BALL, guard=Guard(rows=77)), (), "objective", ("N-FGSM", "77 public rows")),
    (MeanAggregate(), (), "aggregate", ("mean",)),
    (NormBound(norm=0.3), (), "aggregate", ("mean", "at most 0.3")),
    (Median(), (), "aggregate", ("median",)),
    (TrimmedMean(bad=7), (), "aggregate", ("trimmed mean", "smallest 7")),
    (GeometricMedian(), (), "aggregate", ("geometric median",)),
    (Krum(bad=7), (), "aggregate", ("Krum", "7 at fault")),
    (MultiKrum(bad=7, keep=9), (), "aggregate", ("multi-Krum", "7 at fault", "mean of 9")),
    (CentredClipping(radius=0.3), (), "aggregate", ("last direction", "0.3")),
    (FLTrust(), (), "aggregate", ("public rows",)),
    (Bucketing(size=3, before=Median()), (), "aggregate", ("median", "buckets of 3")),
    (NearestNeighbourMixing(before=Krum(bad=7)), (), "aggregate", ("Krum", "neighbours", "7 of")),
    (PlainGather(aggregate=Median()), (), "gather", ("median",)),
    (SecureGather(threshold=77, colluders=5), (), "gather", ("secure sum", "77", "at most 5")),
    (Evasion(ball=BALL, effort="full"), (), "audit", ("evasion", "full", BALL.sentence())),
    (Evasion(ball=WORDS), (), "audit", ("evasion", "standard", WORDS.sentence())),
    (Membership(rows=99), (), "audit", ("membership", "99 rows")),
    (CanaryAudit(candidates=63), (), "audit", ("canaries", "63")),
    (CertificateAudit(rows=77), (), "audit", ("certificate", "at most 77", "CROWN")),
    (Poisoning(bad=7, rounds=9), (), "audit", ("poisoning", "of 9 rounds", "7 parties")),
    (GaussianNoise(), (), "noise", ("Gaussian",)),
    (BandedNoise(bands=3), (), "noise", ("banded",)),
    (TreeNoise(), (), "noise", ("tree",)),
    (BufferedNoise(), (), "noise", ("BLT",)),
    (DistributedGaussianNoise(), (), "noise", ("in shares", "each party")),
    (Classification(5), (), "task", ("5 classes",)),
    (Regression(), (), "task", ("squared error",)),
    (CausalLM(77), (), "task", ("77 tokens",)),
    (TokenClassification(5), (), "task", ("5 classes for each token",)),
    (MLP(hidden=(16, 8)), (HERE,), "model", ("mlp 16-8",)),
    (CNN(channels=(8,), hidden=9), (HERE,), "model", ("cnn 9 8",)),
    (GPT(layers=2, width=12, heads=3), (HERE,), "model", ("gpt 2 12",)),
    (Scattering(whiten=1.0, random=5), (HERE,), "model", ("whitened", "5 random features")),
    (PythonModel(call="mine:net"), (HERE,), "model", ("python mine:net",)),
    (Pretrained(name="x", from_scratch=True), (HERE,), "model", ("x from random weights",)),
    (FormerRun(path="runs/a"), (HERE,), "model", ("run runs/a",)),
    (PublicScaling(clamp=2.5), (), "scaling", ("public rows", "2.5")),
    (DeclaredScaling(), (), "scaling", ("declared ranges",)),
    (NoScaling(), (), "scaling", ("not scaled",)),
    (SGD(lr=0.3, momentum=0.9), (), "optimizer", ("SGD", "0.3", "momentum 0.9")),
    (Adam(lr=0.3, beta1=0.8), (), "optimizer", ("Adam", "0.3", "0.8")),
    (AdamW(lr=0.3, weight_decay=0.2), (), "optimizer", ("AdamW", "0.3", "weight decay 0.2")),
    (Adagrad(lr=0.3), (), "optimizer", ("Adagrad", "0.3")),
    (Yogi(lr=0.3, beta2=0.7), (), "optimizer", ("Yogi", "0.3", "0.7")),
    (EightBits(), (), "compression", ("8 bits",)),
    (TopK(share=0.07), (), "compression", ("7 %", "added to the next")),
    (Full(), (), "tuning", ("All weights",)),
    (Head(), (), "tuning", ("Only the last layer",)),
    (Bias(), (), "tuning", ("Only the biases",)),
    (Norms(), (), "tuning", ("normalise",)),
    (LoRA(pretrain=Pretrain(steps=31)), (), "tuning", ("adapters", "31 steps on public rows")),
]


@pytest.mark.parametrize(("option", "given", "union", "words"), SAID, ids=lambda v: repr(v)[:40])
def test_an_option_says_its_own_numbers(
    option: Any, given: tuple[Any, ...], union: str, words: tuple[str, ...]
) -> None:
    sentence = option.sentence(*given)
    for word in words:
        assert word in sentence
    others = [o.sentence(*g) for o, g, u, _ in SAID if u == union and type(o) is not type(option)]
    assert sentence not in others, "no two members of a list are described alike"


def test_every_member_of_every_list_is_among_them() -> None:
    """Draws are told apart in `test_sampling.py`."""
    said = {type(option) for option, *_ in SAID} | {type(option) for option in FILES}
    listed = [members for name, (members, _) in LISTS.items() if name != "samplings"]
    assert said == set().union(*listed, get_args(ClippingOption))


FILES: list[Any] = [
    Builtin(name="iris", size=150),
    Table(path="a.csv", target="y", columns={"x": NUMBER}, size=9, classes=("n", "y")),
    Arrays(path="b.npz", shape=(3,), classes=2, low=0, high=1, size=9),
    Images(images="c.gz", labels="d.gz", size=9),
    Text(path="e.txt", task="causal_lm", tokenizer=Bytes(), size=9),
]


def test_data_say_which_rows_they_are() -> None:
    sentences = [option.sentence() for option in FILES]
    for name, sentence in zip(("iris", "a.csv", "b.npz", "c.gz", "e.txt"), sentences, strict=True):
        assert name in sentence


MOVED: list[Any] = [
    *(option for option, _, union, _ in SAID if union in ("attack", "objective", "audit")),
    BALL,
    WORDS,
    Embedding(radius=0.5),
    ColumnMove(),
    TableThreat(columns={"age": ColumnMove(cost=2)}, budget=9),
    LinearRelation(terms={"age": 1}, at_most=9),
    RatioRelation(of="debt", over="income", at_most=9),
    Ramp(),
    Guard(),
    Smoothing(deviation=0.5),
]


@pytest.mark.parametrize("option", MOVED, ids=lambda option: type(option).__name__)
def test_text_in_place_of_a_number_is_refused_in_one_sentence(option: Any) -> None:
    """Of everything that says how an adversary moves inputs: recipes are read by pydantic, and in
    Python anything may be handed in."""
    hints = get_type_hints(type(option))
    for field in fields(option):
        if {*(get_args(hints[field.name]) or {hints[field.name]})} <= {int, float, type(None)}:
            with pytest.raises(BadArgument) as caught:
                replace(option, **{field.name: "x"})
            assert re.fullmatch(
                rf"{field.name}='x' is no (whole )?number: it must [^.]+(\.\d[^.]*)?",
                str(caught.value),
            )


def test_text_in_place_of_a_number_of_one_column_is_refused_with_its_name() -> None:
    for make in (
        lambda: replace(BALL, radii={"debt": "x"}),
        lambda: LinearRelation(terms={"age": 1, "debt": "x"}, at_most=9),  # type: ignore[dict-item]
    ):
        with pytest.raises(BadArgument, match=r"^\w+\['debt'\]='x' is no number: it must be "):
            make()


@pytest.mark.parametrize("rule", [option for option, _, u, _ in SAID if u == "clip"], ids=repr)
def test_a_rule_that_bounds_units_states_its_bound_under_its_own_name(rule: Any) -> None:
    if not isinstance(rule, UnitClip | Unclipped):
        return
    facts = rule.facts()
    bound = rule.bound(1)
    assert facts["kind"] == rule.kind
    assert facts["norm"] == (bound if bound < float("inf") else None)
    assert facts.get("moves", False) == bool(rule.moved())

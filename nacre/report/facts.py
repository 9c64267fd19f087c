"""The documented shape of evidence.json, format 1: one `TypedDict` for each object in it.

`conform` checks JSON against these types, so what is written here is what is enforced, and the
page is type-checked against it. Keys are never removed and never change their meaning; readers
ignore keys they do not know.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from nacre.audit.federation.facts import PoisoningFacts
from nacre.audit.finding import AttackStageFacts, Rates, Verdict
from nacre.audit.model_security.facts import (
    Attacked,
    AttackedRowFacts,
    AttackedTextFacts,
    Picture,
)
from nacre.figures.intervals import IntervalFacts
from nacre.figures.measured import CurvePoint, MeasuredFigures
from nacre.figures.protected import EvaluationDraws, ProtectedFigure
from nacre.recipe.audits import FigureUnit
from nacre.report.ledger_facts import LedgerFacts

FORMAT = 1


class SamplingFacts(TypedDict):
    """Which units enter a step."""

    kind: str
    expected: float
    """Units a step, on average: declared, never counted."""
    rate: float
    """Probability of each unit to enter a step; 1 without sampling. Where units take turns, of
    each unit whose turn it is."""
    cycle: NotRequired[int]
    """Groups that take turns."""
    epoch: NotRequired[int]
    """Steps of a pass over the units, in which each enters once at most; the next pass has another
    order."""


class ClipFacts(TypedDict):
    """How far one unit can move a sum."""

    kind: str
    norm: float | None
    """L2 norm that no clipped unit exceeds; null where nothing bounds it. Of an adaptive rule, that
    of the first step, with the answers that its path is made of."""
    quantile: NotRequired[float]
    """Share of the units that an adaptive norm leaves unscaled."""
    pace: NotRequired[float]
    """How fast an adaptive norm moves: see `nacre.gradient_clipping.Adaptive.rate`."""
    share: NotRequired[float]
    """How much a unit's answer weighs beside its gradient, in units of the norm."""
    moves: NotRequired[bool]
    """Whether the norm follows the releases from step to step; absent where it stays."""


class NoiseFacts(TypedDict):
    """What hides one unit."""

    kind: str
    multiplier: float | None
    """Standard deviation in units of the sensitivity; null without noise."""
    draws: NotRequired[Literal["secure", "fast"]]
    """Of independent noise: from AES and rounded exactly, or from PyTorch's generator."""
    bands: NotRequired[int]
    """Steps whose noise belongs together, of banded noise."""
    buffers: NotRequired[int]
    """What is kept of all earlier noise, of noise by buffers (BLT)."""
    coefficients: NotRequired[list[float]]
    """The first column of C, of banded noise C^-1 z."""
    weights: NotRequired[list[float]]
    """Of the buffers."""
    decays: NotRequired[list[float]]
    """Of the buffers."""
    separation: NotRequired[int]
    """Steps from one participation of a unit to its next at least, of noise for a whole run."""
    sums: NotRequired[dict[str, float]]
    """What parties' shares go into: `parties` at most, `threshold` of them at least, and so on."""


class TakesFacts(TypedDict):
    """What the run takes from its account's grant."""

    rule: str
    share: float
    """Of the grant, 0 to 1."""
    order: NotRequired[float | None]
    """Order of the Rényi filter, where the rule has one."""
    share_after: NotRequired[float]
    """Share of the grant that stands once this run is added to all runs of the account before."""
    epsilon_after: NotRequired[float]
    """The epsilon of all of them together, at the grant's delta."""


class PartyFacts(TypedDict):
    """One account's mechanism and its price; the whole run where nothing is federated."""

    name: str
    account: str | None
    size: int
    """Declared units."""
    parties: NotRequired[int]
    """How many parties of this size are alike, of which `name` is the first: parties that are
    counted and not named, where nothing is promised to them."""
    unit: Literal["example", "group", "client"]
    adjacency: Literal["add_or_remove", "replace_one", "zero_out"]
    sampling: SamplingFacts
    clip: ClipFacts
    noise: NoiseFacts
    steps: int
    evaluation: NotRequired[EvaluationDraws]
    """Where a protected figure is released after the steps; epsilon is that of both."""
    against: NotRequired[str]
    """Whom the promise holds against, where a run makes one to whole parties and one to rows."""
    epsilon: float | None
    """An upper bound for the whole run; null where nothing is promised."""
    delta: float | None
    accountant: str | None
    epsilon_by_step: list[list[float]]
    """`[step, epsilon]` pairs, steps ascending; draws of a protected figure count as steps."""
    epsilon_by_delta: NotRequired[list[list[float]]]
    """`[delta, epsilon]` pairs: each holds, of the whole run; none where nothing is promised."""
    mu: NotRequired[float | None]
    """Of Gaussian differential privacy; null where the mechanism has none."""
    rho: NotRequired[float | None]
    """Of zero-concentrated differential privacy (sampling does not amplify it); null without."""
    epsilon_against: NotRequired[dict[Literal["model", "server_and_parties"], float]]
    """Of noise in shares: against those who see the model alone, and those who know some shares."""
    takes: TakesFacts | None


class Techniques(TypedDict):
    """What each of the five techniques does in this run, as a sentence; null where it is off."""

    gradient_clipping: str | None
    fine_tuning: str | None
    federated_learning: str | None
    differential_privacy: str | None
    adversarial_training: str | None


class SearchPlan(TypedDict):
    """A private search, of which the run is the winner."""

    over: dict[str, list[Any]]
    """Key path of the recipe -> the values that trials drew from."""
    trials: float
    """How many there were on average; how many there were is secret."""
    shape: float
    """Of the law of their number: 1 is geometric, 0 logarithmic."""
    score: str
    """By what trials were compared, in words."""
    chosen: dict[str, Any] | None
    """The winner's settings; null before there is one."""


class SearchOutcome(TypedDict):
    """The winner of a private search."""

    chosen: dict[str, Any]
    figure: str
    """By what trials were compared, in words."""
    value: float | None
    """The winner's; null where it was no number."""


class PlanFacts(TypedDict):
    """What was going to run, as declared before a row was read."""

    nacre: str
    """Version that made the plan."""
    name: str
    recipe_digest: str
    created: str
    """ISO 8601, UTC."""
    seed: int
    task: str
    figure: NotRequired[str]
    """Which figure speaks for the model, by what the recipe declares."""
    private: bool
    """Whether every release is covered by an epsilon."""
    rounds: int
    """Steps of the outermost loop: of a federation its rounds."""
    parties: list[PartyFacts]
    techniques: Techniques
    assumptions: list[str]
    not_covered: list[str]
    model: dict[str, Any]
    estimates: dict[str, Any]
    search: NotRequired[SearchPlan]
    """Where epsilon is that of a whole search."""


class OutcomeFacts(TypedDict):
    """How the training ended."""

    done: int
    """The step that the model is of."""
    planned: int
    """Rounds of a federation, steps of a central run."""
    stopped: str
    released: NotRequired[int]
    """Releases on record, where the model is that of an earlier step than the last of them."""
    unrecorded: NotRequired[int]
    """Noised steps that the ledger journalled and that are on no line of released.jsonl."""
    seconds: dict[str, float]
    """Wall time of each stage."""
    provenance: dict[str, Any]
    """Versions, seeds, the HMAC of the data; none speaks about a private row."""
    curve: list[CurvePoint]
    search: NotRequired[SearchOutcome]


class Range(TypedDict):
    """Releases one after another, and whether they are what plan.json promises."""

    first: int
    """Step of the first of them."""
    last: int
    """Step of the last of them."""
    how: str
    """`noised`, `inherited` or `unprotected`."""
    deviation: list[float]
    """Least and greatest standard deviation of the noise; empty where none was added."""
    bound: list[float]
    """Least and greatest L2 norm by which one unit moves a sum; empty where it is not recorded."""
    evaluation: NotRequired[bool]
    """True for draws of a protected figure, which follow the steps."""
    as_planned: bool
    """Whether each deviation is the planned multiplier times the sensitivity under the planned
    adjacency and bound, recomputed from plan.json and released.jsonl."""


class Released(TypedDict):
    """What left the private side, counted from released.jsonl: that of steps, but for ranges."""

    count: int
    noised: int
    """Covered by noise added at this level."""
    inherited: int
    """Computed from releases that were noised already."""
    unprotected: int
    """Covered by nothing."""
    deviations: list[float]
    """The standard deviations of the noise that was added, each once, ascending."""
    evaluation: NotRequired[int]
    """Draws of a protected figure, each noised, beside these."""
    ranges: list[Range]
    """The releases in order, steps alike taken together, each held against plan.json."""


class LowerBounds(TypedDict):
    """How large epsilon must be for the attack to have done so well."""

    claimed: float
    delta: float
    one_run: float
    """Allows for rows that share a model; this one decides the verdict."""
    independent_rows: float
    """Takes each row as a trial of its own."""


class Details(TypedDict):
    """The parts of a finding's details that the page shows; an audit may add others."""

    rows_tested: NotRequired[int]
    ball: NotRequired[dict[str, Any]]
    """How far an attack may move an input: `kind`, `radius`, `unit`; of `words` also `similarity`
    and `candidates`."""
    clean: NotRequired[IntervalFacts]
    curve: NotRequired[list[Attacked]]
    pictures: NotRequired[list[Picture]]
    rows: NotRequired[list[AttackedRowFacts]]
    texts: NotRequired[list[AttackedTextFacts]]
    roc: NotRequired[list[Rates]]
    epsilon: NotRequired[LowerBounds | None]
    poisoning: NotRequired[PoisoningFacts]
    notes: NotRequired[list[str]]
    stages: NotRequired[list[AttackStageFacts]]
    """Of an evasion at the whole radius, in the order in which they ran."""
    warnings: NotRequired[list[str]]
    """Why a figure is no evidence; none where the verdict is another."""
    smoothed: NotRequired[bool]
    """Of a certificate: whether it speaks of the answers that win a vote under noise, and not of
    the model's own."""


class FindingFacts(TypedDict):
    """One attack's result, as `nacre.audit.finding.Finding` writes it; public ones only."""

    audit: str
    headline: str
    """What the figure is called."""
    unit: FigureUnit
    """Whether it is a share of rows, a difference that may be negative, or bits."""
    claim: str
    measure: str
    value: float
    low: float
    high: float
    confidence: float
    verdict: Verdict
    public: bool
    details: Details


class Variant(TypedDict):
    """One of the models that are compared."""

    name: str
    accuracy: IntervalFacts | None
    loss: NotRequired[IntervalFacts | None]
    """Mean loss in nats, of a language model and where a number is predicted."""
    attacked_accuracy: IntervalFacts | None
    membership_advantage: IntervalFacts | None
    figures: NotRequired[MeasuredFigures | None]
    """Every figure of the task on the test rows; null for a language model."""
    note: str


class Comparison(TypedDict):
    """The protected model beside others, on the same public test rows."""

    variants: list[Variant]
    rows: int
    """Test rows."""
    confidence: float
    radius: NotRequired[dict[str, Any]]
    on_private_rows: NotRequired[list[str]]
    """Measures of the variants that private rows gave: on the page for their holder alone, and
    never in evidence.json."""


class Evidence(TypedDict):
    """evidence.json."""

    format: Literal[1]
    plan: PlanFacts
    outcome: OutcomeFacts
    released: Released
    findings: list[FindingFacts]
    """`[]` where no audit ran, or where all they found is on private rows."""
    findings_are_local: bool
    """Whether findings exist that were computed on private rows and therefore stay in local/."""
    comparison: Comparison | None
    evaluation: NotRequired[ProtectedFigure]
    """Where the recipe asks for a protected figure, and the training was completed."""
    ledger: LedgerFacts | None
    model: dict[str, Any]
    """What model.json says: architecture, input shape, task, scaling."""
    recipe: str
    """The recipe's text; credentials in addresses are masked."""
    files: dict[str, str]
    """SHA-256 of each file of the run folder that this evidence was read from."""

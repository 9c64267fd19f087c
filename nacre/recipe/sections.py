"""The sections of a recipe that belong to no technique: training, execution and ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.core.optimizers import SGD, Average, OptimizerOption, Schedule
from nacre.data.augment import Copies
from nacre.data.sampling import PoissonSampling, SamplingOption
from nacre.differential_privacy.options import Privacy
from nacre.figures.names import FigureName
from nacre.gradient_clipping import UnitClip
from nacre.ledger import is_url
from nacre.recipe.credentials import without_credentials


@dataclass(frozen=True, kw_only=True)
class Training:
    """One level of training: the whole run, or what each party does between two rounds."""

    steps: int = 100
    """Updates. In a federation this is ignored: rounds x local steps count."""
    batch: int = 64
    """Units expected a step; with a federation, in each party. Declared, and the divisor."""
    sampling: SamplingOption = field(default_factory=PoissonSampling)
    """How the units of a step are drawn."""
    optimizer: OptimizerOption = field(default_factory=lambda: SGD(lr=0.1))
    """What turns a release into an update."""
    schedule: Schedule | None = None
    """Learning-rate schedule; None keeps the rate constant. Not for federations."""
    average: Average | None = None
    """The finished model is an average of the weights over the steps; None takes the last ones.
    With a federation, over its rounds."""
    augment: Copies | None = None
    """Copies of each row, flipped, shifted or moved by noise, that a step takes instead of the row
    itself."""
    class_prior: dict[str, float] | None = None
    """The share of each class among all people, as far as it is known without these rows (they are
    never counted): the bias of the model's last layer starts at its logarithm."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` multiplies the loss of a row by 1 / (classes x declared share of its class), so
    that rare classes count as much as frequent ones; needs `class_prior`. The weight comes before
    the clip, so the bound and the price stay as they are, and a weight has less effect once the
    weighted gradient is longer than the clip's norm. Answers are those of a population in
    which classes are equally frequent."""
    checkpoint: int = 10
    """Steps (or rounds, in a federation) between two checkpoints."""

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps, batch=self.batch, checkpoint=self.checkpoint)
        prior = self.class_prior
        if prior is not None:
            for name, share in prior.items():
                if not 0 < share < 1:
                    raise BadArgument(
                        f"class_prior={{{name}: {share}}} must lie between 0 and 1; a class that "
                        "nobody has is none"
                    )
            if abs(sum(prior.values()) - 1) > _SUM_WITHIN:
                raise BadArgument(
                    f"class_prior has shares of sum {sum(prior.values()):g}, and all classes "
                    "together are 1; correct them"
                )
        elif self.class_weights != "none":
            raise BadArgument(
                f"class_weights={self.class_weights!r} needs `class_prior`: shares that are "
                "counted on private rows would tell of them"
            )

    def shares(self, classes: tuple[str, ...]) -> tuple[float, ...]:
        """The declared share of each class; () where none is declared."""
        prior = self.class_prior
        return () if prior is None else tuple(prior[name] for name in classes)

    def loss_weights(self, classes: tuple[str, ...]) -> tuple[float, ...]:
        """What the loss of a row of each class is multiplied by; () for 1."""
        if self.class_weights == "none":
            return ()
        return tuple(1 / (len(classes) * share) for share in self.shares(classes))

    def first_shares(self, classes: tuple[str, ...]) -> tuple[float, ...]:
        """Where answers start: the shares of the classes as the loss weighs them; () for where the
        model's own first weights lie."""
        shares, weights = self.shares(classes), self.loss_weights(classes)
        return tuple(1 / len(classes) for _ in shares) if weights else shares


_SUM_WITHIN = 1e-3  # of 1: declared shares are rounded


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """What is measured of a model beside accuracy and loss, and for whom."""

    figure: FigureName | None = None
    """The figure that stands first where one speaks for the model, and that is shown of public
    rows, if there are any, while a run trains. None: accuracy, and loss where answers are numbers
    or tokens; where `training.class_prior` gives one class more than 0.8, AUROC stands first of two
    classes and balanced accuracy of more."""
    groups: tuple[str, ...] = ()
    """Columns with categories: `nacre audit` gives every figure on test rows also for the rows of
    each category."""

    def __post_init__(self) -> None:
        if len(set(self.groups)) < len(self.groups):
            raise BadArgument(f"groups={self.groups} name a column twice; remove one")


@dataclass(frozen=True, kw_only=True)
class WithinParties:
    """What each party promises for its own rows, beside `differential_privacy: {unit: client}`,
    which promises something for whole parties.

    *Guarantee:* everything that a party sends, of all rounds together, is (epsilon, delta)-private
    for the units below, against everyone who reads it, the server among them. What the server makes
    of it, clipping and noise included, is post-processing (Dwork & Roth 2014, proposition 2.1): it
    holds for the models too, at the same epsilon, and no better one is claimed. The promise to
    whole parties rests on the bound of a change and on the server's noise alone, whatever a party
    does inside (with coins of its own, independent of the others'), so neither weakens the other.
    Each is charged to accounts of its own: this one to those of the parties.
    """

    differential_privacy: Privacy
    """Who is protected within a party, and how well: rows (example) or people (group)."""
    gradient_clipping: UnitClip
    """How long one unit's gradient may be in a party's own steps."""

    def __post_init__(self) -> None:
        if self.differential_privacy.unit == "client":
            raise BadArgument(
                "unit=client is no unit within a party: whole parties are protected by the "
                "section `differential_privacy` of the recipe; use unit=example or unit=group"
            )


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the work is done: nothing here can change what is guaranteed (a law test proves it)."""

    gradients: Literal["auto", "bookkeeping", "grouped", "ghost", "vmapped", "looped", "whole"] = (
        "auto"
    )
    """Which gradient sum; all per-unit sums give the same numbers. `bookkeeping` is the fastest,
    `ghost` takes the least memory, `grouped` lies between them in time, `looped` works for every
    model."""
    verify: Literal["first", "always", "never"] = "first"
    """Whether norms are checked against single units: in the first sums, in all, or in none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; norms and sums are float32 either way."""
    microbatch: int | None = None
    """Units at a time, to save memory; None takes the whole draw."""
    threads: int | None = None
    """Threads that one operation may use; None leaves PyTorch's choice."""
    compile: bool = False
    """Whether `torch.compile` is tried on random rows before the run. It is taken where it is
    faster by more than it costs and agrees with the plain model; the plan says which, with both
    times. Never taken where units are clipped, an epsilon is claimed, or parties train."""
    workers: int | None = None
    """Processes that train the parties of a federation, this one among them, each on its own core;
    the numbers are the same bits for any of them. None: one a core where a run is long enough to
    gain by it. On Linux; elsewhere there is one, whatever is asked."""
    stacked: int | None = None
    """Parties of a round that a process trains together, each over its own weights, in one pass of
    `torch.func.vmap`: from 2 to 100; None trains them one after another. The numbers are the same
    up to rounding, and the same bits for any number of workers. It pays for small models whose
    operations are many and short; of a network of 1.2 million parameters it halved the speed. For
    parties that add no noise of their own; a model that cannot run so is
    refused."""
    devices: Literal["auto", "one", "replicated", "sharded"] = "auto"
    """How the processes that `torchrun` starts share the work. `replicated`: each holds the whole
    model. `sharded`: each keeps a part of the weights and of the optimizer's state (FSDP2). `one`
    refuses several; auto is replicated. A single process does the same work alone."""
    portions: int | None = None
    """Into how many portions a step's units are dealt, each summed by one process in one go.
    Portions are added up in a fixed order, so a run may be resumed by another number of processes,
    to the same bits. None: as many as there are processes when the run is started."""

    def __post_init__(self) -> None:
        for name in ("microbatch", "threads", "portions", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadArgument(f"{name}={value} must be at least 1")
        for name in ("threads", "workers"):
            value = getattr(self, name)
            if value is not None and value > 1024:
                raise BadArgument(f"{name}={value} must be at most 1024")
        if self.stacked is not None and not 2 <= self.stacked <= 100:
            raise BadArgument(
                f"stacked={self.stacked} must be from 2 to 100; leave it out to train parties one "
                "after another"
            )


@dataclass(frozen=True, kw_only=True)
class GrantOption:
    """What the owner of the data allows to be spent, once, when the account is new."""

    epsilon: float
    """The whole allowance."""
    delta: float
    """The probability with which epsilon may fail."""
    rule: Literal["rdp", "zcdp", "pld"] = "rdp"
    """How charges add up: a Rényi or zCDP filter for any number of runs, or `pld` for exactly one
    run that is fixed beforehand (the tightest)."""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise BadArgument(f"epsilon={self.epsilon} must be > 0")
        require.between(0, 1, delta=self.delta)


@dataclass(frozen=True, kw_only=True)
class LedgerChoice:
    """Where the budget is kept, and the name of the account."""

    path: str
    """A file, relative to the recipe, or `postgresql://USER@HOST/DATABASE` where runs share no disk
    (its password belongs in `~/.pgpass`: the recipe is copied into the run). `{run}/…` puts the
    file in the run folder, for demonstrations only: who deletes the run forgets what was spent."""
    dataset: str
    """The account's declared name; a party's account is `DATASET/PARTY`."""
    grant: GrantOption | None = None
    """Granted once, when the account is new; a recipe never widens an existing grant."""
    grant_within_parties: GrantOption | None = None
    """The same for the account of each party, where `within_parties` promises something for its
    rows beside what is promised for whole parties."""

    def __post_init__(self) -> None:
        if not self.dataset or any(c in self.dataset for c in "/\n"):
            raise BadArgument(f"dataset={self.dataset!r} must be a name without slashes")
        if is_url(self.path) and any(c.isspace() for c in self.path):
            raise BadArgument("path: the URL of a database holds a space; write it as %20")

    def __repr__(self) -> str:
        """As a dataclass has it, without the credentials of the URL."""
        path = without_credentials(self.path)
        return (
            f"LedgerChoice(path={path!r}, dataset={self.dataset!r}, grant={self.grant!r}, "
            f"grant_within_parties={self.grant_within_parties!r})"
        )

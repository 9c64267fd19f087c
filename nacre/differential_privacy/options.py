"""What a recipe says about differential privacy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from nacre.core import require
from nacre.core.errors import BadArgument, FileDamaged, Incompatible
from nacre.core.types import Adjacency, Unit
from nacre.differential_privacy.noise.blt import Buffered
from nacre.differential_privacy.noise.correlated import Banded, Tree
from nacre.differential_privacy.noise.distributed import DistributedGaussian
from nacre.differential_privacy.noise.factorization import banded, buffered
from nacre.differential_privacy.noise.independent import Draws, Gaussian


class TakenBack:
    """What noises state whose later steps take back a part of earlier ones'."""

    correlated: ClassVar[bool] = True
    added: ClassVar[str] = "added in 32-bit floating point, since later steps take parts of it back"
    rounding: ClassVar[str] = (
        "Noise that later steps take parts of back is added in 32-bit floating point; attacks on "
        "that approximation (Mironov 2012) are not excluded."
    )

    def unfit(self) -> str | None:
        """None: it is made on the processor."""
        return None


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Independent normal noise on every coordinate of every step, calibrated to the budget."""

    kind: Literal["gaussian"] = "gaussian"
    draws: Draws = "secure"
    """`secure`: AES-256 keyed by the operating system, and sums rounded as exact real numbers would
    be; `fast`: PyTorch's generator and its floating point, for accelerators alone."""

    made: ClassVar[type[Gaussian]] = Gaussian
    """What `build` gives."""
    bands: ClassVar[int] = 1
    """Steps whose noise belongs together."""
    correlated: ClassVar[bool] = False
    """Whether a step's noise depends on that of earlier ones, which is kept in `local/`."""
    added: ClassVar[str] = "noised sums are rounded as those of exact real numbers would be"
    """How it is added to a sum."""
    rounding: ClassVar[str] = (
        "Noise is exact: each noised sum is rounded to a grid as real numbers would be. The "
        "sum itself is added up in 32-bit floating point, and how that rounds, by about a "
        "sixteen-millionth of the total, may depend on one unit."
    )
    """What floating point leaves open."""

    def sentence(self) -> str:
        """The noise, as the subject of a sentence."""
        return "Gaussian noise"

    def remembered(self, steps: int) -> int:
        """0: tensors as large as the parameters that are kept from step to step."""
        return 0

    def unfit(self) -> str | None:
        """Why a recipe cannot be trained with it, with the remedy; None where it can."""
        if self.draws == "secure":
            return None
        return (
            "`draws: fast` is PyTorch's generator of an accelerator, and a recipe is trained "
            "on the processor, where anyone can try its 32 bits of seed and `draws: secure` "
            "is twice as fast; leave `draws` out"
        )

    def build(self, steps: int, cycle: int = 1) -> Gaussian:
        """The noise, without a multiplier until it is calibrated."""
        return Gaussian(draws=self.draws)


@dataclass(frozen=True, kw_only=True)
class BandedNoise(TakenBack):
    """Noise of which each step takes back a part of the last ones', so that less of it stays in
    the weights (BandMF); for `training.sampling: {kind: cyclic_poisson}` or `{kind:
    balls_in_bins}`."""

    kind: Literal["banded"] = "banded"
    bands: int
    """Steps whose noise belongs together, the present one included; the run keeps 4 (bands - 1)
    bytes a parameter."""
    momentum: float = 0.0
    """The optimizer's momentum, which the noise is shaped for; a wrong one costs accuracy only."""
    decay: float = 0.0
    """How much the weights forget a step: step size times weight decay; as `momentum`."""

    made: ClassVar[type[Banded]] = Banded

    def sentence(self) -> str:
        """The noise, as the subject of a sentence."""
        return (
            "Noise of which each step takes back a part of the last ones' (banded matrix "
            "factorisation)"
        )

    def remembered(self, steps: int) -> int:
        """The noise of the last steps."""
        return self.bands - 1

    def __post_init__(self) -> None:
        require.at_least(1, bands=self.bands)
        for name in ("momentum", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise BadArgument(f"{name}={getattr(self, name)} must lie in [0, 1)")

    def build(self, steps: int, cycle: int = 1) -> Banded:
        """The noise with the coefficients that are best for so many steps, uncalibrated.

        Raises `Incompatible` for more bands than steps.
        """
        if self.bands > steps:
            raise Incompatible(
                f"bands={self.bands} is more than the steps of the run, {steps}; use "
                f"`bands: {steps}` or fewer"
            )
        return Banded(coefficients=banded(self.bands, steps, self.momentum, self.decay))


@dataclass(frozen=True, kw_only=True)
class TreeNoise(TakenBack):
    """Noise on the nodes of a binary tree over the steps (DP-FTRL): the price rests on no coin,
    only on how often a unit takes part; for `training.sampling: {kind: balls_in_bins}` or `{kind:
    cyclic_poisson}`."""

    kind: Literal["tree"] = "tree"

    made: ClassVar[type[Tree]] = Tree
    bands: ClassVar[int] = 1

    def sentence(self) -> str:
        """The noise, as the subject of a sentence."""
        return "Noise on a binary tree over the steps (DP-FTRL)"

    def remembered(self, steps: int) -> int:
        """An estimate for each bit of the number of steps."""
        return steps.bit_length()

    def build(self, steps: int, cycle: int = 1) -> Tree:
        """The noise for units that take part every `cycle` steps at most, uncalibrated."""
        return Tree(steps=steps, separation=cycle)


@dataclass(frozen=True, kw_only=True)
class BufferedNoise(TakenBack):
    """Noise of which each step takes back a part of all earlier ones', kept in a few buffers (BLT):
    the price rests on no coin, only on how often a unit takes part; for `training.sampling: {kind:
    balls_in_bins}` or `{kind: cyclic_poisson}`."""

    kind: Literal["blt"] = "blt"
    buffers: int = 4
    """What is kept of earlier noise: 4 bytes a parameter each; 2 to 4 are near the best."""
    momentum: float = 0.0
    """The optimizer's momentum, which the noise is shaped for; a wrong one costs accuracy only."""
    decay: float = 0.0
    """How much the weights forget a step: step size times weight decay; as `momentum`."""

    made: ClassVar[type[Buffered]] = Buffered
    bands: ClassVar[int] = 1

    def sentence(self) -> str:
        """The noise, as the subject of a sentence."""
        return "Noise of which each step takes back a part of all earlier ones' (BLT)"

    def remembered(self, steps: int) -> int:
        """The buffers."""
        return self.buffers

    def __post_init__(self) -> None:
        if not 1 <= self.buffers <= 8:
            raise BadArgument(f"buffers={self.buffers} must lie in 1 … 8")
        for name in ("momentum", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise BadArgument(f"{name}={getattr(self, name)} must lie in [0, 1)")

    def build(self, steps: int, cycle: int = 1) -> Buffered:
        """The noise for units that take part every `cycle` steps at most, with the buffers that are
        best for so many steps, uncalibrated."""
        weights, decays = buffered(self.buffers, steps, cycle, self.momentum, self.decay)
        return Buffered(weights=weights, decays=decays, steps=steps, separation=cycle)


@dataclass(frozen=True, kw_only=True)
class DistributedGaussianNoise:
    """Discrete Gaussian noise that each party adds to its own change inside a secure sum, so that
    neither the server nor any party knows the noise of the model; for `unit: client` with
    `federated_learning.gather: {kind: secure}`, whose `threshold` and `colluders` say how much of
    it is counted."""

    kind: Literal["distributed_gaussian"] = "distributed_gaussian"

    made: ClassVar[type[DistributedGaussian]] = DistributedGaussian
    bands: ClassVar[int] = 1
    correlated: ClassVar[bool] = False
    added: ClassVar[str] = "whole numbers, added by each party before its change is masked"
    rounding: ClassVar[str] = (
        "Noise is exact: changes are rounded to whole numbers no longer than the norm, and so is "
        "the noise. Nothing of a price rests on floating point."
    )

    def sentence(self) -> str:
        """The noise, as the subject of a sentence."""
        return "Discrete Gaussian noise in shares, one from each party inside the secure sum,"

    def remembered(self, steps: int) -> int:
        """0: tensors as large as the parameters that are kept from step to step."""
        return 0

    def unfit(self) -> str | None:
        """None: it is made on the processor."""
        return None

    def build(self, steps: int, cycle: int = 1) -> DistributedGaussian:
        """The noise, without a multiplier, and without the sums that it goes into."""
        return DistributedGaussian()


NoiseOption = GaussianNoise | BandedNoise | TreeNoise | BufferedNoise | DistributedGaussianNoise
"""Every noise a recipe can name."""

NOISES: tuple[type[NoiseOption], ...] = (
    GaussianNoise,
    BandedNoise,
    TreeNoise,
    BufferedNoise,
    DistributedGaussianNoise,
)
"""The same as a tuple; the laws run over what they build."""


BuiltNoise = Gaussian | Banded | Tree | Buffered | DistributedGaussian
"""What they build."""


def noise_of(facts: Mapping[str, Any], steps: int) -> BuiltNoise:
    """The noise that plan.json describes, of a run of `steps` steps, uncalibrated.

    Raises `FileDamaged` for a kind that is unknown, `KeyError` for a fact that is missing.
    """
    for option in NOISES:
        if option.kind == facts["kind"]:
            return option.made.of_facts(facts, steps)
    raise FileDamaged(
        f"plan.json names noise of kind {facts['kind']!r}, which this version does not know; "
        "read it with the version that wrote it"
    )


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The promise: whatever one unit holds changes the law of the model by epsilon and delta only.

    *Guarantee:* (epsilon, delta)-differential privacy of everything released, for the unit and the
    adjacency below (Dwork & Roth 2014, definition 2.4).
    """

    kind: Literal["differential_privacy"] = "differential_privacy"
    unit: Unit = "example"
    """Who is protected: a row (example), all rows of one person (group), a whole party (client)."""
    epsilon: float
    """How much one unit may change the odds of anything: by a factor of e to the epsilon."""
    delta: float
    """The probability with which epsilon may fail; choose it well below 1 / number of units."""
    adjacency: Adjacency = "add_or_remove"
    """Which data sets count as neighbours: one unit more or less, exchanged, or zeroed."""
    noise: NoiseOption = field(default_factory=GaussianNoise)
    """What hides a unit."""
    accountant: Literal["auto", "pld", "rdp"] = "auto"
    """How epsilon is computed; auto follows the rule of the ledger's grant."""
    rows_per_unit: int | None = None
    """The most rows that one unit may have; rows beyond it are left out by a keyed draw."""

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise BadArgument(
                f"epsilon={self.epsilon} must be > 0 and finite; 1 to 8 is usual, "
                "and smaller is more private; to train without privacy, leave the section out"
            )
        require.between(0, 1, delta=self.delta)
        require.at_least(1, rows_per_unit=self.rows_per_unit)
        if self.rows_per_unit is not None and self.unit != "group":
            raise BadArgument(
                f"rows_per_unit={self.rows_per_unit} needs unit=group, got unit={self.unit}"
            )

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""What was done, as a value: (sampling, noise, steps) -> `DpEvent`. The one place that knows how
each adjacency is told to a pricer.

*Convention.* Nacre's `GaussianDpEvent.noise_multiplier` is the deviation in units of the
*sensitivity under the adjacency of the charge* (bound for add-or-remove and zero-out, twice it for
replace-one), not in units of the norm of one value. Then the worst pair of neighbours is
N(0, z**2) against N(1, z**2) whatever the adjacency, and every pricer is asked its add-or-remove
question. Left to themselves they disagree: under replace-one dp-accounting's RDP ignores the
factor 2 and its PLD counts it (one step, z = 1, delta = 1e-5: 4.73 against 10.00).

| sampling | add-or-remove | zero-out | replace-one |
|---|---|---|---|
| full | N(0), N(1) | the same: a zeroed unit adds nothing to a sum | N(0), N(1) |
| Poisson(q) | N(0), (1-q) N(0) + q N(1) | the same | refused |
| fixed size, m of n | refused | refused | m of n without replacement of N(0), N(1) |
| shuffled | refused | N(0), N(1), once an epoch | the same |
| balls in bins | N(0), N(1), once a round of the bins | the same | the same |
| balls in bins, anew | b coordinates N(0); one of them, drawn, N(1) | the same | as balls in bins |

*Shuffled and balls in bins, why.* Who enters which step is drawn independently of the data, by
place. Given the draw, one unit is in at most one step of an epoch; the other steps of the epoch are
functions of what was released before, so an epoch is one Gaussian mechanism, and epochs compose. A
bound for every draw holds for their mixture (joint convexity). That the draw is secret is *not*
counted, but for bins that are thrown anew in every round: `binned.py` has that proof (not for a
unit that is exchanged, which shows at both ends). A shuffle's order is one of as many places as
there are units, so under add-or-remove, where their number differs, other units would move as well:
refused. Bins are thrown one by one, so a unit that comes or goes moves nobody.

*Fixed size, why* (the theorems: `fixed_size.py`, and `loss_distribution.Replaced`). A draw
without unit i is one with it where another unit took its place, so two sums of one draw size
differ by up to *two* bounds, even where i itself is only removed or zeroed. That is replace-one's
sensitivity, and replace-one alone is offered.

Cyclic Poisson draws (q within a group, `cycle` groups in turn) let a unit in at every `cycle`-th
step at most; bins that are fixed for the run are a cycle with q = 1. One event covers `span` steps:

| noise | cyclic draws | span |
|---|---|---|
| gaussian | Poisson(q) of N(0), N(1) | the cycle: the other groups' steps say nothing of a unit |
| banded, bands <= cycle | the same | the cycle |
| tree, blt | N(0), N(1), not amplified | the whole run |

*Banded, why* (Choquette-Choo et al. 2023, theorem 4). A unit's share of step t moves rows
t … t + bands - 1 of C times the sums, by the share times a column of C, whose length is 1 at most.
Its next turn is `cycle` >= bands steps later, so no row is moved by two turns. Given all earlier
rows, and so the sums of the other units, the rows of a turn are shifted by one vector of at most
one sensitivity with chance q, and not at all otherwise: one Poisson-sampled Gaussian. The coins of
the turns are independent of each other, so ceil(steps / cycle) turns compose; their order with
other mechanisms does not matter (concurrent composition, Lyu 2022). The unit's group is fixed
first; the bound is the same for every group.

*Tree and BLT, why.* The nodes, or C times the sums, are one Gaussian mechanism on the stream of
sums, whose sensitivity under turns at least `cycle` steps apart is in the deviation (`tree_reach`;
`length_of_turns`, with its proof). That coins fall is not counted: leaving turns out moves no node
and no row further.

*Noise in shares* is priced on full draws by `NoiseShares`: rho-zCDP a round, never as a Gaussian.

Every other pair of sampling and correlated noise is refused. Poisson under replace-one has the
worst pair (1-q) N(0) + q N(±1/2), which no event of dp-accounting's describes for both of its
pricers; it is refused rather than priced by another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacre.core.errors import UnsupportedEvent
from nacre.core.parts import Sampling
from nacre.core.types import Adjacency
from nacre.data.sampling import (
    AllUnits,
    BallsInBins,
    CyclicPoisson,
    FixedSize,
    Poisson,
    Shuffled,
)
from nacre.differential_privacy.leaves import (
    either_events,
    is_binned_gaussian,
    is_fixed_size_gaussian,
    leaves,
)
from nacre.differential_privacy.noise.correlated import Banded, Tree, WholeRun
from nacre.differential_privacy.noise.distributed import DistributedGaussian
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent


def event(
    sampling: Sampling,
    noise: object,  # a Noise; those without a rule here are refused
    steps: int,
    adjacency: Adjacency,
) -> DpEvent:
    """What `steps` steps reveal at most about one unit.

    Raises `UnsupportedEvent` for a (sampling, noise) pair without a proof, `ValueError` for a
    noise that is not calibrated or a negative number of steps.
    """
    import dp_accounting

    if steps < 0:
        raise ValueError(f"steps={steps} must be at least 0")
    if isinstance(noise, NoNoise):
        return dp_accounting.NonPrivateDpEvent()
    if not isinstance(noise, Gaussian | Banded | WholeRun | DistributedGaussian):
        raise UnsupportedEvent(
            f"the noise {type(noise).__name__} has no event, so its price is unknown; use "
            "`noise: {kind: gaussian}`"
        )
    require_pair(sampling, noise)
    require_neighbours(sampling, adjacency)
    if noise.multiplier is None:
        raise ValueError("multiplier=None: calibrate the mechanism before it is priced")
    if steps == 0:
        return dp_accounting.NoOpDpEvent()
    if isinstance(noise, WholeRun) and steps > noise.steps:
        what = "tree" if isinstance(noise, Tree) else "noise"
        raise ValueError(f"steps={steps} must be at most those of the {what}, {noise.steps}")
    if isinstance(noise, DistributedGaussian):
        step = noise.fitted(adjacency)[1].event()
    elif isinstance(noise, WholeRun):
        step = dp_accounting.GaussianDpEvent(noise.multiplier)
    else:
        step = _sampled(sampling, dp_accounting.GaussianDpEvent(noise.multiplier), adjacency)
    require_priced(step, adjacency)
    count = -(-steps // span(sampling, noise))
    return step if count == 1 else dp_accounting.SelfComposedDpEvent(step, count)


def span(sampling: Sampling, noise: object) -> int:
    """How many steps one event covers: in `n` steps there are `ceil(n / span)`, whatever comes."""
    if isinstance(noise, WholeRun):
        return noise.steps
    match sampling:
        case CyclicPoisson():
            return sampling.cycle
        case BallsInBins():
            return sampling.bins
        case Shuffled():
            return sampling.epoch
        case _:
            return 1


def require_pair(sampling: Sampling, noise: object) -> None:
    """Raises `UnsupportedEvent` for correlated noise, or noise in shares, on a draw that it is not
    proven for."""
    if isinstance(noise, DistributedGaussian) and not isinstance(sampling, AllUnits):
        raise UnsupportedEvent(
            f"{noise.kind} noise is priced for sums over all parties: those of a secure sum know "
            "who takes part, so a draw hides nobody; use `cohort: {kind: all}`"
        )
    if not isinstance(noise, Banded | WholeRun):
        return
    turns = sampling.separation
    cyclic = isinstance(sampling, CyclicPoisson | BallsInBins)
    if not cyclic or (isinstance(sampling, BallsInBins) and sampling.anew):
        raise UnsupportedEvent(
            f"{noise.kind} noise is proven for units that take turns, and these may enter steps "
            "that are close together, whose noise partly cancels; use `training.sampling: {kind: "
            "cyclic_poisson}` or `{kind: balls_in_bins}`, or `noise: {kind: gaussian}`"
        )
    if isinstance(noise, Banded) and noise.bands > turns:
        raise UnsupportedEvent(
            f"noise with bands={noise.bands} takes back noise of up to {noise.bands - 1} steps "
            f"before, and with cycle={turns} a unit enters more than one of them; use "
            f"`bands: {turns}` or fewer, or a longer cycle (more groups, or smaller batches)"
        )
    if isinstance(noise, WholeRun) and noise.separation > turns:
        what = "tree" if isinstance(noise, Tree) else "noise"
        raise UnsupportedEvent(
            f"the {what} is scaled for turns every {noise.separation} steps, and with "
            f"cycle={turns} a unit may enter more often; build it for this cycle"
        )


def require_neighbours(sampling: Sampling, adjacency: Adjacency) -> None:
    """Raises `UnsupportedEvent` where neighbouring data sets are drawn from in ways that differ by
    more than one unit's share."""
    match sampling, adjacency:
        case FixedSize(), "add_or_remove" | "zero_out":
            raise UnsupportedEvent(
                f"fixed-size draws under adjacency={adjacency} have no price here: where a unit is "
                "not drawn another one is, so sums differ by two units; use `adjacency: "
                "replace_one`, or `training.sampling: {kind: poisson}`"
            )
        case Shuffled(), "add_or_remove":
            raise UnsupportedEvent(
                "shuffled batches under adjacency=add_or_remove have no price here: one unit more "
                "is another order of all of them; use `adjacency: zero_out` or `replace_one`, or "
                "`training.sampling: {kind: poisson}` or `{kind: balls_in_bins}`"
            )
        case _:
            pass


def _sampled(sampling: Sampling, inner: DpEvent, adjacency: Adjacency) -> DpEvent:
    import dp_accounting

    from nacre.differential_privacy.event_types import BinnedDpEvent

    match sampling:
        case BallsInBins(bins=bins, anew=True) if bins > 1 and adjacency != "replace_one":
            return BinnedDpEvent(bins, inner)
        case AllUnits() | Shuffled() | BallsInBins():
            return inner
        case Poisson() | CyclicPoisson() if sampling.rate >= 1:
            return inner  # every coin falls on "in": nothing to amplify
        case Poisson() | CyclicPoisson():
            return dp_accounting.PoissonSampledDpEvent(sampling.rate, inner)
        case FixedSize(batch=batch, size=size):
            if batch >= size:
                return inner
            return dp_accounting.SampledWithoutReplacementDpEvent(size, batch, inner)
        case _:
            raise UnsupportedEvent(
                f"{type(sampling).__name__} sampling has no proven price; use "
                "`training.sampling: {kind: poisson}`"
            )


def require_priced(event: DpEvent, adjacency: Adjacency) -> None:
    """Raises `UnsupportedEvent` where the adjacency makes the event's price another one."""
    import dp_accounting

    kinds = [leaf for leaf, _ in leaves(event)]
    for leaf in kinds:
        if isinstance(leaf, dp_accounting.dp_event.RepeatAndSelectDpEvent):
            require_priced(leaf.event, adjacency)
        for part in either_events(leaf):
            require_priced(part, adjacency)
    sampled = any(isinstance(leaf, dp_accounting.PoissonSampledDpEvent) for leaf in kinds)
    fixed = any(is_fixed_size_gaussian(leaf) for leaf in kinds)
    if fixed and adjacency != "replace_one":
        raise UnsupportedEvent(
            f"draws of a fixed size have no price under adjacency={adjacency}; use "
            "`adjacency: replace_one`"
        )
    if adjacency == "replace_one" and any(is_binned_gaussian(leaf) for leaf in kinds):
        raise UnsupportedEvent(
            "bins that are thrown anew have no amplified price under adjacency=replace_one; "
            "charge the Gaussian steps alone, or use `adjacency: add_or_remove`"
        )
    if sampled and adjacency == "replace_one":
        raise UnsupportedEvent(
            "Poisson sampling under adjacency=replace_one has no price here; use `adjacency: "
            "add_or_remove` (which Poisson sampling is made for), or `training.sampling: {kind: "
            "fixed_size}`, `{kind: balls_in_bins}` or `{kind: full}`"
        )

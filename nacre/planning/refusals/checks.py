"""Every refusal that `nacre plan` can find before a row is read: one function, one sentence each.

Each check takes the facts of a plan and raises `Incompatible` (or a sibling) with the place in
the recipe, the reason and the remedy. `CHECKS` lists them; `nacre explain` prints their docs.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Callable

from nacre.core.errors import Refusal
from nacre.data.partition import ByColumn
from nacre.data.scaling import PublicScaling
from nacre.federated_learning import PlainGather
from nacre.models import FormerRun, repair
from nacre.planning.facts import RecipeFacts, continues, former_plan, public_stage
from nacre.planning.protection import IN_RUN, key_of_rows, protection_of, protections_of
from nacre.planning.refusals.attacks import (
    certificates_have_bounds,
    guards_have_public_rows,
    mart_has_classes,
    ramps_know_their_end,
)
from nacre.planning.refusals.clipping import (
    copies_are_of_images,
    moving_rules_see_every_step,
    norms_leave_room_for_noise,
    per_unit_clipping,
    sums_carry_the_rule,
)
from nacre.planning.refusals.columns import columns_are_in_the_files
from nacre.planning.refusals.draws import noise_fits_the_sampling, sampling_with_event
from nacre.planning.refusals.evaluation import (
    figures_fit_the_task,
    groups_are_declared,
    protected_figures_are_covered,
)
from nacre.planning.refusals.federation.drift import drift_terms_act
from nacre.planning.refusals.federation.faulty_parties import (
    centred_clipping_has_a_radius,
    parties_outvote_those_at_fault,
)
from nacre.planning.refusals.federation.personal import common_models_are_not_measured
from nacre.planning.refusals.federation.poisoned_twins import attackers_meet_a_federation
from nacre.planning.refusals.federation.secure_sums import secure_sums_hide_parties
from nacre.planning.refusals.federation.stacking import parties_can_be_stacked
from nacre.planning.refusals.federation.two_promises import two_promises_are_to_different_units
from nacre.planning.refusals.inputs import (
    balls_fit_the_features,
    model_reads_the_inputs,
    tokens_are_not_moved,
    tokens_are_those_of_the_base,
)
from nacre.planning.refusals.randomness import no_other_randomness
from nacre.planning.robustness import rule_of
from nacre.recipe.places import refuse
from nacre.training import pieces
from nacre.training.pieces import protects


def delta_below_size(facts: RecipeFacts) -> None:
    """A delta of 1 / size or more allows to publish a whole row."""
    recipe = facts.recipe
    federation = recipe.federated_learning
    for protection in protections_of(recipe):
        name, size = facts.sizes.most
        if protection.privacy.unit == "client" and federation is not None:
            name, size = "", len(federation.parties.names)
        delta = protection.privacy.delta
        if delta >= 1 / size:
            whose = f" of {name}" if name else ""
            refuse(
                recipe,
                f"{protection.key}.delta",
                f"{delta:g} is not below 1 / size = {1 / size:.3g} for the {size} units"
                f"{whose}, so publishing one of them whole would pass; use at most "
                f"{0.1 / size:.0e}",
            )


def batch_within_data(facts: RecipeFacts) -> None:
    """A step cannot expect more units than there are. A party whose rows nobody protects from the
    others takes all that it has where they are fewer."""
    unprotected = pieces.small_parties_take_all(facts.recipe)
    name, size = facts.sizes.most if unprotected else facts.sizes.least
    if facts.recipe.training.batch > size:
        whose = f"party {name} has" if name else "the data have"
        refuse(
            facts.recipe,
            "training.batch",
            f"{facts.recipe.training.batch} units are expected a step, but {whose} {size}; "
            f"use {size} or fewer",
        )


def unit_exists(facts: RecipeFacts) -> None:
    """Protecting groups needs a column that names them and a cap on their rows."""
    recipe, privacy = facts.recipe, facts.recipe.privacy_of_rows
    if privacy is None or privacy.unit != "group":
        return
    key = key_of_rows(recipe)
    if getattr(recipe.data, "unit", None) is None:
        refuse(
            recipe,
            f"{key}.unit",
            "group needs to know whose row is whose; name the column by `data: {unit: COLUMN}`",
        )
    if privacy.rows_per_unit is None:
        refuse(
            recipe,
            f"{key}.unit",
            "group needs a cap on the rows of one unit; declare "
            "`differential_privacy: {rows_per_unit: N}` (more rows are dropped at random)",
        )


def clients_are_many(facts: RecipeFacts) -> None:
    """Hiding a whole party among a few others costs all accuracy."""
    recipe = facts.recipe
    if protects(recipe) != "client":
        return
    federation = recipe.federated_learning
    if federation is None:
        refuse(
            recipe,
            "differential_privacy.unit",
            "client protects whole parties, but there is no `federated_learning` section; "
            "use `unit: example`",
        )
    expected = federation.expected()
    if expected < 50 and not federation.few_clients:
        refuse(
            recipe,
            "differential_privacy.unit",
            f"client hides each party among {expected:g} expected a round, so the noise is as "
            "large as the update itself; use `unit: example`, or say "
            "`federated_learning: {few_clients: true}` to go on",
        )
    if not isinstance(federation.gather, PlainGather):
        return
    aggregate = federation.gather.aggregate
    if not math.isfinite(aggregate.bound(1.0)):
        refuse(
            recipe,
            "federated_learning.gather",
            f"{aggregate.kind} of clipped changes is no bounded sum, so noise "
            "on it has no price; use `aggregate: {kind: mean}`, or, against parties at fault, "
            "`{kind: centred_clipping}`",
        )


def comparison_on_public_data(facts: RecipeFacts) -> None:
    """An unprotected twin trains on the same rows without any noise."""
    recipe = facts.recipe
    if "unprotected" in recipe.compare and not recipe.data.public_demonstration:
        refuse(
            recipe,
            "compare",
            "an unprotected twin would train on the same private rows with no noise at all; "
            "leave it out, or, only where the rows are public anyway, declare "
            "`data: {public_demonstration: true}`",
        )
    if "public_base" in recipe.compare and public_stage(recipe) is None and not continues(recipe):
        refuse(
            recipe,
            "compare",
            "public_base needs a base: add `fine_tuning: {pretrain: …}` or a former run's model",
        )


def public_rows_exist(facts: RecipeFacts) -> None:
    """Scaling, pre-training, stopping and FLTrust look at public rows, so there must be some."""
    recipe = facts.recipe
    if recipe.data.has_public:
        return
    federation, rule = recipe.federated_learning, rule_of(recipe)
    wanted = {
        "data.scaling": isinstance(recipe.data.scaling, PublicScaling),
        "fine_tuning.pretrain": public_stage(recipe) is not None,
        "federated_learning.stop": federation is not None and federation.stop is not None,
        "federated_learning.gather": rule is not None and rule.rooted,
    }
    for key, needed in wanted.items():
        if needed:
            refuse(
                recipe,
                key,
                "this looks at rows, so they must be public, and the recipe declares none; "
                "declare `data: {public: …}`, or leave this out",
            )


def private_runs_have_a_ledger(facts: RecipeFacts) -> None:
    """Epsilon that nobody writes down is spent again by the next run."""
    protection_of(facts.recipe)


def ledgers_outlive_runs(facts: RecipeFacts) -> None:
    """A ledger inside the run folder is forgotten with it, and the next run starts afresh."""
    recipe = facts.recipe
    if recipe.ledger is None or IN_RUN not in recipe.ledger.path:
        return
    if recipe.differential_privacy is not None and not recipe.data.public_demonstration:
        refuse(
            recipe,
            "ledger.path",
            "a ledger in the run folder gives every run on these rows a fresh budget; keep one "
            "beside the data, as `path: privacy.db`",
        )


def parties_are_real(facts: RecipeFacts) -> None:
    """Simulated parties are dealt by a permutation of all units, so one unit moves others."""
    recipe = facts.recipe
    federation = recipe.federated_learning
    if federation is None or not federation.parties.simulated:
        return
    if recipe.differential_privacy is not None and not recipe.data.public_demonstration:
        refuse(
            recipe,
            "federated_learning.parties",
            f"{federation.parties.kind} deals private rows to made-up parties, and adding one row "
            "would move others between them, which no epsilon covers; name the holders by "
            "`parties: {kind: column, column: NAME, sizes: {…}}`",
        )


def parties_with_accounts_are_named(facts: RecipeFacts) -> None:
    """A party that is charged by itself has an account, and that a name before rows are read."""
    recipe, federation = facts.recipe, facts.recipe.federated_learning
    privacy = recipe.privacy_of_rows
    if federation is None or federation.parties.named or privacy is None:
        return
    refuse(
        recipe,
        "federated_learning.parties",
        f"each party is charged for its own units of kind {privacy.unit}, and where a column "
        "names the parties their accounts would be known only once rows are read; declare them by "
        "`sizes: {NAME: UNITS, …}`, or protect whole parties (`unit: client`)",
    )


def parties_have_one_column(facts: RecipeFacts) -> None:
    """The data name their column of parties, and a federation by a column repeats it."""
    recipe, federation = facts.recipe, facts.recipe.federated_learning
    if federation is None or not isinstance(federation.parties, ByColumn):
        return
    column, data = federation.parties.column, getattr(recipe.data, "party", None)
    if data is not None and column != data:
        refuse(
            recipe,
            "federated_learning.parties.column",
            f"the parties are to come from {column!r}, and `data: {{party: {data}}}` says that "
            f"{data!r} names who holds a row; write the same column in both",
        )


def no_row_mixing(facts: RecipeFacts) -> None:
    """BatchNorm and its like make one row's gradient depend on another's."""
    recipe = facts.recipe
    if recipe.differential_privacy is not None or recipe.federated_learning is not None:
        try:
            repair.check(facts.model, facts.schema.shape, facts.schema.tokens)
        except Refusal as error:
            refuse(recipe, "model", str(error), type(error))


def base_is_covered(facts: RecipeFacts) -> None:
    """A base that saw private rows without noise leaks them, whatever is added later."""
    recipe = facts.recipe
    if recipe.differential_privacy is None or not isinstance(recipe.model, FormerRun):
        return
    former = former_plan(recipe, recipe.model)
    if not former.get("private") and not recipe.model.public:
        refuse(
            recipe,
            "model",
            f"the run {recipe.model.path} was trained without differential privacy, so what it "
            "learnt from its rows would leave with this model; use a private run, or, only where "
            "its rows are public, declare `public: true` under `model`",
        )


def something_trains(facts: RecipeFacts) -> None:
    """A model without a trainable weight cannot be trained."""
    if not any(True for _ in facts.model.parameters()):
        refuse(facts.recipe, "model", "it has no parameters, so nothing can be trained")


def audits_have_their_rows(facts: RecipeFacts) -> None:
    """Evasion needs test rows and a ball, membership rows that were not trained on, canaries
    canaries."""
    recipe, adversarial = facts.recipe, facts.recipe.adversarial_training
    trained_against = adversarial.ball if adversarial is not None else None
    for place, option in enumerate(recipe.audit):
        missing = option.lacks(recipe.data, trained_against)
        if missing is not None:
            refuse(recipe, f"audit[{place}]", missing)


def parties_are_one_process(facts: RecipeFacts) -> None:
    """The parties of a federation are asked by one process, which may have workers."""
    execution = facts.recipe.execution
    if facts.recipe.federated_learning is None and execution.workers is not None:
        refuse(
            facts.recipe,
            "execution.workers",
            "workers train the parties of a federation, and the recipe has none; leave it out, and "
            "start several processes by `torchrun` to share the steps of one run",
        )
    shared = execution.devices in ("replicated", "sharded")
    if facts.recipe.federated_learning is not None and (shared or execution.portions is not None):
        refuse(
            facts.recipe,
            "execution.devices" if shared else "execution.portions",
            "the parties of a federation are trained by one process, so there is no work to share "
            "among several; leave it out",
        )


def schedules_know_their_end(facts: RecipeFacts) -> None:
    """A party starts its local steps anew in every round, so no step of it is the last."""
    if facts.recipe.federated_learning is not None and facts.recipe.training.schedule is not None:
        refuse(
            facts.recipe,
            "training.schedule",
            "a schedule counts the steps of one run, and parties start theirs anew in each round; "
            "leave it out, and lower `federated_learning.optimizer.lr` instead",
        )


def averages_are_whole(facts: RecipeFacts) -> None:
    """The average keeps a second copy of all weights, which processes that share them have not."""
    recipe = facts.recipe
    if recipe.training.average is not None and recipe.execution.devices == "sharded":
        refuse(
            recipe,
            "training.average",
            "processes that share the weights have no whole copy to average; use "
            "`execution: {devices: replicated}`, or leave it out",
        )


CHECKS: tuple[Callable[[RecipeFacts], None], ...] = (
    two_promises_are_to_different_units,
    columns_are_in_the_files,
    per_unit_clipping,
    norms_leave_room_for_noise,
    sums_carry_the_rule,
    moving_rules_see_every_step,
    copies_are_of_images,
    batch_within_data,
    noise_fits_the_sampling,
    sampling_with_event,
    unit_exists,
    clients_are_many,
    secure_sums_hide_parties,
    delta_below_size,
    comparison_on_public_data,
    public_rows_exist,
    private_runs_have_a_ledger,
    ledgers_outlive_runs,
    parties_are_real,
    parties_have_one_column,
    parties_with_accounts_are_named,
    tokens_are_those_of_the_base,
    model_reads_the_inputs,
    tokens_are_not_moved,
    no_row_mixing,
    no_other_randomness,
    base_is_covered,
    something_trains,
    balls_fit_the_features,
    audits_have_their_rows,
    certificates_have_bounds,
    attackers_meet_a_federation,
    mart_has_classes,
    ramps_know_their_end,
    guards_have_public_rows,
    parties_are_one_process,
    parties_can_be_stacked,
    drift_terms_act,
    parties_outvote_those_at_fault,
    common_models_are_not_measured,
    centred_clipping_has_a_radius,
    schedules_know_their_end,
    averages_are_whole,
    figures_fit_the_task,
    groups_are_declared,
    protected_figures_are_covered,
)

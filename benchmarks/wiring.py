"""Wrong lines between the parts: where a plan becomes steps, charges, files and answers.

Each stands in one file and keeps a run going. The test beside it is the one that has to fail.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A line, what stands there instead, and the tests that have to notice."""

    what: str
    file: str
    line: str
    instead: str
    tests: str


KEYS = "tests/laws/test_keys.py"
NEIGHBOURS = "tests/laws/test_neighbours.py"
DOORS = "tests/laws/test_doors.py"
PLANNED = "tests/laws/test_planned.py"
RUNS = "tests/runs/test_run.py"
CHARGED = f"{RUNS}::test_a_complete_run_is_charged_and_its_key_is_gone"
NOTHING_ELSE = f"{NEIGHBOURS}::test_one_unit_moves_a_sum_by_its_bound_and_nothing_else"
OF_PARTIES = f"{NEIGHBOURS}::test_one_unit_of_a_party_moves_its_sums_and_nothing_else"
OF_SEARCHES = f"{NEIGHBOURS}::test_one_unit_moves_the_sums_and_counts_of_a_search_and_nothing_else"
OF_A_RUN = f"{KEYS}::test_the_key_of_a_run_stands_for_its_rows_its_recipe_and_its_code"
ALIKE = f"{KEYS}::test_nothing_that_two_runs_write_of_equal_rows_is_alike"
LOOPS = f"{KEYS}::test_no_two_loops_of_ones_own_draw_the_same_noise"
ENTERS = f"{KEYS}::test_what_enters_a_step_is_told_apart"
OF_NOISE = f"{KEYS}::test_the_key_of_the_noise_stands_for_its_sum_its_scale_and_what_it_remembers"
OF_A_ROUND = f"{KEYS}::test_the_round_of_a_party_is_keyed_by_the_whole_request"
APART = f"{KEYS}::test_parties_draw_and_keep_their_replies_under_keys_of_their_own"
TORCH = "tests/integrations/test_torch.py"
TUNE = "tests/runs/test_tune.py"
RELEASE = "tests/statistics/test_release.py"
STATISTICS = f"{DOORS}::test_one_unit_moves_the_numbers_of_a_query_by_what_is_paid_for_it"

WIRING = [
    # -- what a step is keyed by --
    Fault(
        "key: the clip norm is missing", "training/step.py",
        "parts = state.done, repr(state.clip), context,",
        "parts = state.done, context,",
        ENTERS,
    ),
    Fault(
        "key: the request is missing", "training/step.py",
        "parts = state.done, repr(state.clip), context,",
        "parts = state.done, repr(state.clip),",
        ENTERS,
    ),
    Fault(
        "key: the scale of the noise is missing", "training/step.py",
        "scale = repr((parts.noise.multiplier, parts.adjacency, total.bound))",
        'scale = ""',
        OF_NOISE,
    ),
    Fault(
        "key: what the noise remembers is missing", "training/step.py",
        "remembered = () if state.noise_state is None else (state.noise_state,)",
        "remembered = ()",
        OF_NOISE,
    ),
    Fault(
        "key: the rows of a run are missing", "runs/run.py",
        'child("run", plan.digest, held.hmac, facts["code"])',
        'child("run", plan.digest, facts["code"])',
        f"{OF_A_RUN}[train]",
    ),
    Fault(
        "key: the recipe of a run is missing", "runs/run.py",
        'child("run", plan.digest, held.hmac, facts["code"])',
        'child("run", held.hmac, facts["code"])',
        f"{OF_A_RUN}[train]",
    ),
    Fault(
        "key: the rows of a search are missing", "runs/tune.py",
        'child("run", plan.digest, held.hmac, facts["code"])',
        'child("run", plan.digest, facts["code"])',
        f"{OF_A_RUN}[tune]",
    ),
    Fault(
        "key: frozen weights are missing", "runs/loop.py",
        "planned=planned.outer, observe=watcher, context=fixed(state.model),",
        "planned=planned.outer, observe=watcher,",
        ALIKE,
    ),
    Fault(
        "key: all trials have one", "runs/tune.py",
        'self.source.child("trial", number)',
        'self.source.child("trial")',
        f"{KEYS}::test_each_trial_has_a_key_of_its_own",
    ),
    Fault(
        "key: all parties have one", "runs/workers/parties.py",
        'own = self._source.child("party", name)',
        'own = self._source.child("party")',
        APART,
    ),
    Fault(
        "key: replies lie under a known one", "runs/workers/parties.py",
        'key = None if store is None else source.secret("replies")',
        'key = None if store is None else bytes(32)',
        APART,
    ),
    Fault(
        "key: a party does not key a round by its request", "training/holders.py",
        "            context=entered,",
        '            context=b"",',
        OF_A_ROUND,
    ),
    Fault(
        "key: a party takes one round for another", "training/holders.py",
        'digest("train", round_number, tensors, self._fixed)',
        'digest("train", tensors, self._fixed)',
        OF_A_ROUND,
    ),
    Fault(
        "key: of the run, known to all", "core/run_folder.py",
        "write_bytes(building.run_key, os.urandom(32), mode=0o600)",
        "write_bytes(building.run_key, bytes(32), mode=0o600)",
        ALIKE,
    ),
    Fault(
        "key: of the rows, known to all", "runs/begin.py",
        "    return os.urandom(32).hex()",
        "    return bytes(32).hex()",
        ALIKE,
    ),
    Fault(
        "key: the HMAC of the rows has none", "runs/rows.py",
        'state = hmac.new(key, b"nacre rows", hashlib.sha256)',
        'state = hmac.new(b"nacre rows", digestmod=hashlib.sha256)',
        f"{KEYS}::test_the_hmac_of_the_rows_stands_for_the_rows_and_for_its_key",
    ),
    Fault(
        "key: the ledger's fingerprint has none", "ledger/recorded_rows.py",
        "    key = ledger.sketch_key()",
        "    key = bytes(32)",
        ALIKE,
    ),
    Fault(
        "key: a loop of one's own has a known one", "integrations/account.py",
        "    return os.urandom(32).hex()",
        "    return bytes(32).hex()",
        f"{LOOPS}[None]",
    ),
    Fault(
        "key: a loop of one's own draws by another than its own", "integrations/account.py",
        "    return _standing(Source(key), shared, folder, sharing, reserved)",
        "    return _standing(Source(bytes(32)), shared, folder, sharing, reserved)",
        f"{LOOPS}[run]",
    ),
    Fault(
        "key: of a loop of one's own, left behind", "integrations/account.py",
        "            self.folder.destroy_key()",
        "            pass",
        f"{TORCH}::test_an_ended_run_takes_no_step",
    ),
    # -- whose rows go where --
    Fault(
        "rows: scaling is fitted on private ones", "runs/rows.py",
        "fit_scaling(recipe.data.scaling, schema, cohorts.public)",
        "fit_scaling(recipe.data.scaling, schema, cohorts.private)",
        f"{NOTHING_ELSE}[add_or_remove-example]",
    ),
    Fault(
        "rows: the base learns from private ones", "runs/start.py",
        "choice.pretrain, model, held.public, keyed,",
        'choice.pretrain, model, held.private[""], keyed,',
        f"{NOTHING_ELSE}[add_or_remove-group]",
    ),
    Fault(
        "rows: early stopping looks at private ones", "runs/loop.py",
        "plan, around, _watched(plan, held), outcome,",
        "plan, around, next(iter(held.private.values())) if plan.federated else held.public,"
        " outcome,",
        f"{OF_PARTIES}[zero_out-group]",
    ),
    Fault(
        "rows: trials are compared on private ones for nothing", "runs/tune.py",
        "figures(model, task, held.public, [name])",
        'figures(model, task, held.private[""], [name])',
        f"{OF_SEARCHES}[public]",
    ),
    Fault(
        "rows: those held out are trained on", "runs/rows.py",
        "    rows = scaler.apply(cohorts.private, overwrite=bool(cohorts.cells))",
        "    rows = scaler.apply(cohorts.private + (cohorts.test or cohorts.private.take([])))",
        f"{NEIGHBOURS}::test_rows_that_are_not_trained_on_move_no_private_sum",
    ),
    Fault(
        "rows: a party trains a group as single ones", "training/holders.py",
        'held = units(recipe, rows, source, numbered_by="place" if plain else "name")',
        'held = Units(rows, "example", None, source.child("rows"))',
        f"{OF_PARTIES}[add_or_remove-group]",
    ),
    Fault(
        "rows: a private count is of rows where a person has many", "runs/tune.py",
        'privacy is not None and privacy.unit == "group")\n    # Keyed',
        "False)\n    # Keyed",
        f"{OF_SEARCHES}[private]",
    ),
    Fault(
        "rows: a count by which trials are compared has no noise", "runs/tune.py",
        "float(count + int(discrete_gaussian(1, score.deviation**2, own)[0]))",
        "float(count)",
        f"{TUNE}::test_a_private_count_has_the_stated_noise",
    ),
    Fault(
        "rows: others are taken for those of the run", "runs/begin.py",
        "    if hmac != held.hmac:",
        "    if not hmac:",
        f"{RUNS}::test_changed_data_are_refused_on_resume",
    ),
    Fault(
        "rows: how long work on private ones took is told", "runs/close.py",
        '"seconds": seconds if held.private_is_public else {},',
        '"seconds": seconds,',
        f"{RUNS}::test_how_long_private_work_took_stays_local",
    ),
    # -- what is charged, and when --
    Fault(
        "charge: no step of a run is journalled", "runs/levels/outermost.py",
        'charge = Agreed(devices.group, around.charge(""))',
        "charge = Agreed(devices.group, NoJournal())",
        CHARGED,
    ),
    Fault(
        "charge: no round of a party is journalled", "runs/workers/parties.py",
        "parties = [self._training(name, self._charge(name)) for name in stack]",
        'none = type("No", (), {"journal": print})(); '
        "parties = [self._training(name, none) for name in stack]",
        CHARGED,
    ),
    Fault(
        "charge: a party journals a round less", "training/holders.py",
        'self.charge.journal((round_number + 1) * steps, journalled.hex())',
        'self.charge.journal(max(1, round_number * steps), journalled.hex())',
        CHARGED,
    ),
    Fault(
        "charge: an entry does not stand for the sum", "training/fit.py",
        'self.step, source.digest("journal").hex()',
        'self.step, "journal"',
        "tests/training/test_fit.py::test_a_step_taken_again_over_another_sum_is_refused",
    ),
    Fault(
        "charge: a step is answered twice", "ledger/storage/writer.py",
        'if known and standing.entered.get(step, "") != line.entered:',
        "if known and standing.end is not None:",
        "tests/training/test_fit.py::test_a_step_taken_again_over_another_sum_is_refused",
    ),
    Fault(
        "charge: a round is answered twice", "federated_learning/party.py",
        "        if known != entered:",
        "        if not known:",
        "tests/federated_learning/test_party.py::test_another_request_under_a_used_number_is_refused",
    ),
    Fault(
        "charge: one step of a run is reserved", "differential_privacy/mechanism.py",
        "            steps=self.releases,\n            unit=self.unit,",
        "            steps=1,\n            unit=self.unit,",
        CHARGED,
    ),
    Fault(
        "charge: the column of the units is not bound", "planning/pricing.py",
        "rows_per_unit=privacy.rows_per_unit, column=protection.column",
        'rows_per_unit=privacy.rows_per_unit, column=""',
        ALIKE,
    ),
    Fault(
        "charge: rows are recorded against no account", "runs/reservations.py",
        "            record_rows(ledger, of_level, split)",
        "            pass",
        f"{RUNS}::test_the_same_rows_under_another_name_have_no_second_budget",
    ),
    Fault(
        "charge: one step of a loop of one's own is reserved", "integrations/account.py",
        "mechanism.request(name, rows_per_unit=cap",
        '__import__("dataclasses").replace(mechanism, steps=1).request(name, rows_per_unit=cap',
        f"{TORCH}::test_the_whole_run_is_reserved_before_its_first_step",
    ),
    Fault(
        "charge: rows of a loop of one's own have two accounts", "integrations/account.py",
        "        record_rows(ledger, {choice.dataset: rows})",
        "        pass",
        f"{TORCH}::test_the_same_rows_have_one_account",
    ),
    Fault(
        "charge: a search is charged once it has ended", "runs/tune.py",
        '            charge.journal(1, source.digest("search").hex())',
        "            pass",
        f"{TUNE}::test_the_whole_search_is_charged_before_its_first_trial",
    ),
    Fault(
        "charge: statistics are computed before it", "statistics/release.py",
        "            charge.journal(1)\n        answers",
        "            stack.callback(charge.journal, 1)\n        answers",
        f"{RELEASE}::test_answers_are_computed_once_they_are_charged[release]",
    ),
    Fault(
        "charge: records are noised before it", "statistics/release.py",
        "        charge.journal(1)\n        written",
        "        stack.callback(charge.journal, 1)\n        written",
        f"{RELEASE}::test_answers_are_computed_once_they_are_charged[records]",
    ),
    Fault(
        "charge: of several statistics the first is paid for", "statistics/release.py",
        "joint_event(same), unit=unit",
        "query_event(same[0]), unit=unit",
        f"{DOORS}::test_a_release_is_charged_for_each_of_its_answers",
    ),
    Fault(
        "charge: statistics of one column are paid as another's", "statistics/release.py",
        '            column=column or "",',
        '            column="",',
        f"{RELEASE}::test_units_of_another_column_are_refused",
    ),
    # -- what reaches a release --
    Fault(
        "statistics: all rows of a person count", "statistics/answers.py",
        "order[: query.rows_per_unit].tolist()",
        "order.tolist()",
        f"{STATISTICS}[count-0.0-who]",
    ),
    Fault(
        "statistics: a mean is noised as one number", "statistics/answers.py",
        "return 2 if query.size is None else 1",
        "return 1",
        f"{STATISTICS}[mean-0.0-None]",
    ),
    Fault(
        "statistics: of a person one row is paid for", "statistics/noisy_numbers.py",
        "dp.binary_search_param(measurement, query.rows_per_unit, share / parts)",
        "dp.binary_search_param(measurement, 1, share / parts)",
        f"{STATISTICS}[sum-0.0-who]",
    ),
    Fault(
        "wiring: no step of a loop of one's own is held against the plan",
        "integrations/steps.py",
        "self._held = HeldToPlan(self.standing.planned, self._parts",
        'self._held = HeldToPlan(replace(self.standing.planned, how="unprotected"), self._parts',
        f"{PLANNED}::test_an_adapter_is_held_against_what_it_declared",
    ),
    Fault(
        "wiring: a loop of one's own under replace-one is priced as removing",
        "integrations/declaration.py",
        "            adjacency=self.privacy.adjacency,\n            sampling=",
        '            adjacency="add_or_remove",\n            sampling=',
        f"{DOORS}::test_coins_have_no_price_under_replace_one",
    ),
    Fault(
        "wiring: an adaptive norm stands still in a loop of one's own", "integrations/steps.py",
        "        self.clip = after.clip",
        "        pass",
        f"{PLANNED}::test_a_loop_of_ones_own_leaves_a_record_that_can_be_checked",
    ),
    Fault(
        "wiring: weights moved elsewhere are taken", "integrations/steps.py",
        "if self._mark is not None and self._moved(self._mark):",
        "if self._mark is not None and not self._moved:",
        f"{TORCH}::test_nothing_but_a_step_may_move_the_weights",
    ),
    Fault(
        "wiring: the Trainer logs what nothing protects", "integrations/transformers.py",
        'super().log({**_released(logs), "epsilon": self.epsilon}, None)',
        'super().log({**logs, "epsilon": self.epsilon}, None)',
        "tests/integrations/test_transformers.py::"
        "test_epsilon_is_in_every_log_and_no_private_figure_is",
    ),
    Fault(
        "wiring: an adaptive norm begins again on resume", "runs/loop.py",
        '            "clip": state.clip.moved(),',
        '            "clip": {},',
        "tests/planning/test_clipping.py::test_a_resumed_adaptive_run_ends_in_the_same_bits",
    ),
    Fault(
        "wiring: an unprotected change passes for a private one", "federated_learning/gather.py",
        "if asked.private and isinstance(reply.how, Unprotected):",
        "if asked.private and reply.how is None:",
        "tests/federated_learning/test_gather.py::"
        "test_where_parties_promise_privacy_an_unprotected_change_is_refused",
    ),
]  # fmt: skip

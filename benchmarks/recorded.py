"""Wrong lines where a run is held to its plan: units, draws, adjacencies, noise and records."""

from __future__ import annotations

from wiring import DOORS, NEIGHBOURS, PLANNED, Fault

RECORDED = [
    Fault(
        "wiring: no step of a run is held against the plan", "runs/loop.py",
        "planned=planned.outer, observe=watcher",
        'planned=planned.over("nobody"), observe=watcher',
        f"{PLANNED}::test_a_wrong_line_of_a_run_is_stopped",
    ),
    Fault(
        "wiring: no step of a party is held against the plan", "runs/workers/parties.py",
        'own, charge, self._planned.over(name),',
        'own, charge, self._planned.over("nobody"),',
        f"{PLANNED}::test_a_wrong_line_of_a_run_is_stopped",
    ),
    Fault(
        "wiring: a group trains as single rows", "training/holders.py",
        '    if privacy is not None and privacy.unit == "group":',
        '    if privacy is not None and privacy.unit == "rows":',
        NEIGHBOURS,
    ),
    Fault(
        "wiring: replacing is noised as removing, over rows", "training/holders.py",
        "        adjacency=mechanism.adjacency,",
        '        adjacency="add_or_remove",',
        PLANNED,
    ),
    Fault(
        "wiring: replacing is noised as removing, over parties", "runs/levels/outermost.py",
        "        adjacency=outer.adjacency,",
        '        adjacency="add_or_remove",',
        PLANNED,
    ),
    Fault(
        "wiring: an adapter's noise is that of another adjacency", "integrations/steps.py",
        "            adjacency=mechanism.adjacency,",
        '            adjacency="replace_one",',
        f"{DOORS}::test_one_row_moves_a_sum_of_a_loop_of_ones_own_and_nothing_else",
    ),
    Fault(
        "wiring: the curve looks at private rows", "runs/loop.py",
        "plan, around, _watched(plan, held), outcome,",
        'plan, around, held.private.get(""), outcome,',
        NEIGHBOURS,
    ),
    Fault(
        "wiring: no release is held against the plan before it is journalled", "training/fit.py",
        "        self.held.before(self.step, total, self.noise, adjacency)",
        "        pass",
        PLANNED,
    ),
    Fault(
        "wiring: no release is held against the plan before it leaves", "training/fit.py",
        "            self.held.after(self.step, release)",
        "            pass",
        PLANNED,
    ),
    Fault(
        "wiring: the noise is not measured", "training/planned.py",
        "_ODDS = 40.0",
        "_ODDS = 1e9",
        PLANNED,
    ),
    Fault(
        "wiring: the plan takes replacing for removing", "training/planned.py",
        '{"replace_one": 2 * bound,',
        '{"replace_one": bound,',
        PLANNED,
    ),
    Fault(
        "wiring: units are not held against the plan", "training/planned.py",
        '        if self.how == "noised" and count != due:',
        '        if self.how == "noised" and count < 0:',
        PLANNED,
    ),
    Fault(
        "wiring: the draw is not held against the plan", "training/planned.py",
        "            _require_draw(planned.party[\"sampling\"], sampling)",
        "            pass",
        PLANNED,
    ),
    Fault(
        "record: the bound of a release is not written", "runs/released.py",
        'facts = {"deviation": how.deviation, "bound": how.bound}',
        'facts = {"deviation": how.deviation, "bound": None}',
        PLANNED,
    ),
    Fault(
        "record: a party does not say what its change was made of", "training/holders.py",
        "    return Inherited(sources, steps)",
        "    return Inherited(sources)",
        PLANNED,
    ),
    Fault(
        "record: missing lines are not found", "report/releases.py",
        "    if done is not None and taken != done:",
        "    if done is not None and taken > done:",
        PLANNED,
    ),
    Fault(
        "record: a wrong deviation is not found", "training/planned.py",
        "        if not _same(deviation, due):",
        "        if deviation < 0:",
        PLANNED,
    ),
    Fault(
        "record: a loop of one's own leaves none", "integrations/steps.py",
        "        self._group.on_rank_zero(lambda: self._record(number, release), None)",
        "        pass",
        f"{PLANNED}::test_a_loop_of_ones_own_leaves_a_record_that_can_be_checked",
    ),
    Fault(
        "record: the page of a run unlike its plan does not say so", "report/sections/headline.py",
        '    if released["count"] != done:',
        '    if released["count"] > done:',
        f"{PLANNED}::test_a_record_that_differs_from_the_plan_is_found",
    ),
    Fault(
        "statistics: noise is not held against its price", "statistics/release.py",
        "        require_due(query, said)",
        "        pass",
        f"{PLANNED}::test_statistics_that_are_not_what_was_paid_for_are_held_back",
    ),
    Fault(
        "statistics: the charge is not held against the answers", "statistics/paid.py",
        "    if charged != together:",
        "    if not charged:",
        f"{PLANNED}::test_statistics_that_are_not_what_was_paid_for_are_held_back",
    ),
]  # fmt: skip

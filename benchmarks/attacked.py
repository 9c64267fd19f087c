"""Wrong lines where rows are attacked: what an attack, a certificate and their report promise."""

from __future__ import annotations

from wiring import Fault

EARLY = "tests/adversarial_training/test_early_stop.py"
ROUNDED = "tests/adversarial_training/certificates/test_rounding.py"

ATTACKED = [
    Fault(
        "attack: rows that have stopped leave the batch under clipping", "training/pieces.py",
        "    return without_stopped_rows(built) if isinstance(clip(recipe), Unclipped) else built",
        "    return without_stopped_rows(built)",
        f"{EARLY}::test_rows_that_have_stopped_stay_in_the_batch_where_a_units_gradient_is_clipped",
    ),
    Fault(
        "attack: a broken point is believed as the attack has it",
        "adversarial_training/evaluation/survivors.py",
        "    points = region.project(points, asked.clean)",
        "    points = points.clone()",
        "tests/adversarial_training/test_efforts.py"
        "::test_a_stage_that_leaves_the_region_is_not_believed",
    ),
    Fault(
        "attack: a buffer that a model wrote stays written",
        "adversarial_training/evaluation/untouched.py",
        "        contents.put_back()",
        "        pass",
        "tests/adversarial_training/test_untouched.py",
    ),
    Fault(
        "certificate: the rounding of float32 is left out",
        "adversarial_training/certificates/options.py",
        "found[place, part] = least > rounding",
        "found[place, part] = least > 0",
        ROUNDED,
    ),
    Fault(
        "audit: private texts go to the terminal", "cli/audit.py",
        "    if not found.public:",
        "    if False:",
        "tests/runs/test_text_evasion.py"
        "::test_private_texts_are_nowhere_outside_the_local_folder",
    ),
    Fault(
        "audit: who reads the folder reads the attacked rows", "audit/model_security/batch_file.py",
        "_PRIVATE = 0o600",
        "_PRIVATE = 0o644",
        "tests/audit/test_batch.py",
    ),
    Fault(
        "audit: candidates of words are believed as the file has them",
        "audit/model_security/batch.py",
        "        other_candidates=_other_candidates(batch, model) if same else (),",
        "        other_candidates=(),",
        "tests/audit/test_text_batch.py"
        "::test_candidates_that_are_not_the_models_own_are_named",
    ),
    Fault(
        "audit: texts are answered in the order of their lengths", "audit/answers.py",
        "        return torch.cat(found)[order.argsort()]",
        "        return torch.cat(found)",
        "tests/audit/test_row_outputs.py",
    ),
]  # fmt: skip

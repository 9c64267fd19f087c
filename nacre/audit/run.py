"""Attack the model of a run as its recipe asks, and compare it with the same run unprotected."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nacre.audit.catalogue import AUDITS
from nacre.audit.comparison import FILE, group_rows, variant_entry
from nacre.audit.data_privacy.cohorts import one_of_each_group
from nacre.audit.federation.training import FOLDER, twins_of
from nacre.audit.finding import Finding
from nacre.audit.kept import BATCHES, KeptBatches, scored_again
from nacre.audit.model_security.batch import Reproduced
from nacre.audit.target import HeldCanaries, Target, TokenText
from nacre.core.errors import NacreError, RunError
from nacre.core.files import load_tensors, write_json
from nacre.core.random import Source
from nacre.core.rows import flatten
from nacre.core.types import Batch
from nacre.data import Text
from nacre.data.dataset import Rows
from nacre.data.partition import Counted, Dealt
from nacre.data.split import Test
from nacre.data.text import canaries
from nacre.data.text.tokens import of_description
from nacre.figures.intervals import CONFIDENCE
from nacre.figures.measured import GroupRows
from nacre.models import load
from nacre.recipe.audits import CanaryAudit, Evasion
from nacre.recipe.schema import Recipe
from nacre.runs.begin import trained_on
from nacre.runs.progress import Progress, Silent, stages
from nacre.runs.rows import Holdings
from nacre.runs.run import Run
from nacre.training import pieces


def audit_run(run: Run, observe: Progress | None = None) -> list[Finding]:
    """What every audit of the recipe found; also writes findings.json and comparison.json.

    The run folder gets what was computed on rows declared public. Where there is more, all of it
    goes to `local/`, with a few attacked rows for their holder, as does the adversarial batch of
    each evasion. Nothing is found or written where parties keep layers of their own
    (`local.personal`): the common model is then nobody's. Raises `RunError` where the rows are no
    longer those of the training; and what an audit refuses, once all others are found and written,
    since private rows may be the reason, and no file that others see may tell so.
    """
    watch, federation = observe or Silent(), run.recipe.federated_learning
    if federation is not None and federation.local.personal:
        watch.tell(
            "nothing was attacked or measured: the common model has untrained layers where each "
            f"party has its own; how good these are stands in {run.folder.personal}"
        )
        return []
    with stages(watch) as advance:
        held = trained_on(run.recipe, run.folder, advance)
    variants = _variants(run, held)
    batches = KeptBatches()
    shown = _shown(run.recipe, tuple(variants))
    refused: list[NacreError] = []
    found = {
        name: _attack(
            run.recipe, batches.of(_called(run.recipe, name), target), name, shown[name], watch,
            refused,
        )
        for name, target in variants.items()
    }  # fmt: skip
    findings, target = found["protected"], variants["protected"]
    public = [finding for finding in findings if finding.public]
    some_private = len(public) < len(findings)
    some_private |= bool(refused) and not (target.test_public and target.members_public)
    if some_private:
        _write_findings(run.folder.local, findings)
    if public or not some_private:
        _write_findings(run.path, public)
    batches.write(run.folder.local / BATCHES)
    shutil.rmtree(run.folder.local / FOLDER, ignore_errors=True)  # trained for these findings
    comparison = {"rows": len(held.test) if held.test else 0, "confidence": CONFIDENCE}
    groups = _groups(run.recipe, held)
    if some_private or not held.test_is_public:
        rows = [variant_entry(name, variants[name], found[name], groups) for name in variants]
        write_json(run.folder.local / FILE, comparison | {"variants": rows})
    if held.test_is_public:
        rows = [
            variant_entry(name, variants[name], [f for f in found[name] if f.public], groups)
            for name in variants
        ]
        write_json(run.path / FILE, comparison | {"variants": rows})
    if refused:
        raise refused[0]
    return findings


def rescored_run(run: Run) -> dict[str, Reproduced]:
    """What comes out when the adversarial batches of the run are scored again by its models: the
    accuracy under attack follows from the files alone. Reads no row; raises `RunError` where no
    evasion has left a batch, and for one that was found with other weights."""

    def model_of(name: str) -> nn.Module:
        for variant, file in _OTHERS.items():
            if name.startswith(f"{variant.replace(' ', '-')}-"):
                return _weights(run, file)
        return load(run.path, run.recipe.folder, code=run.recipe.code, own=run.recipe.model)

    found = scored_again(run.folder.local / BATCHES, model_of)
    others = [name for name, again in found.items() if not again.same_weights]
    if others:
        raise RunError(
            f"batch {others[0]!r} was found with other weights than those of {run.path}, so it "
            "says nothing of them; audit the run again"
        )
    return found


_OTHERS = {"unprotected": "unprotected.safetensors", "public base": "base.safetensors"}
"""The files in `state/` of what the recipe compares the model of the run with."""


def _groups(recipe: Recipe, held: Holdings) -> GroupRows:
    """The groups that the recipe declares, among the test rows."""
    names = recipe.evaluate.groups if recipe.evaluate is not None else ()
    if not names or held.test is None:
        return {}
    return group_rows(held.schema.columns, held.test.features, names)


def _write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    write_json(folder / "findings.json", {"findings": [f.to_json() for f in findings]})


def _shown(recipe: Recipe, names: Sequence[str]) -> dict[str, str]:
    """What a stage of progress says of each variant: nothing of a single one."""
    if len(names) < 2:
        return dict.fromkeys(names, "")
    return {name: f": {_called(recipe, name)}" for name in names}


def _called(recipe: Recipe, name: str) -> str:
    """What people read for a variant: `protected` only where the recipe has differential privacy,
    as in reports."""
    return "the model" if name == "protected" and recipe.differential_privacy is None else name


def _attack(
    recipe: Recipe,
    target: Target,
    name: str,
    shown: str,
    watch: Progress,
    refused: list[NacreError],  # gets what an audit raises; those after it go on
) -> list[Finding]:
    """What the recipe's audits find on one variant of the model."""
    found: list[Finding] = []
    for option in recipe.audit:
        if option.trains and name != "protected":
            continue
        try:
            with watch.stage(f"{option.kind}{shown}", None) as advance:
                seen = 0

                def tell(done: int, total: int, words: str = "") -> None:
                    nonlocal seen
                    advance(done - seen, words, total)
                    seen = done

                found.append(AUDITS[type(option)](target, option, tell))
        except NacreError as error:
            refused.append(error)
    return found


def _variants(run: Run, held: Holdings) -> dict[str, Target]:
    """The model of the run first, then those that the recipe compares it with."""
    recipe, state = run.recipe, run.folder.state
    base = _weights(run, "base.safetensors") if (state / "base.safetensors").exists() else None
    model = load(run.path, recipe.folder, code=recipe.code, own=recipe.model)
    protected = _target(run, held, model, (base,) if base else ())
    found = {"protected": protected}
    for name, file in _OTHERS.items():
        wanted = name.replace(" ", "_") in recipe.compare
        if wanted and (state / file).exists():
            # Nothing is promised about these; a base is no reference for itself.
            references = protected.references if name == "unprotected" else ()
            found[name] = replace(
                protected,
                model=_weights(run, file),
                references=references,
                claimed_epsilon=None,
                claimed_delta=None,
            )
    return found


def _weights(run: Run, file: str) -> nn.Module:
    """The recipe's model with the weights kept in state/."""
    model = run.recipe.build_model(run.recipe.schema)
    weights, _ = load_tensors(run.folder.state / file)
    model.load_state_dict(weights)
    return model.eval()


def _target(
    run: Run, held: Holdings, model: nn.Module, references: tuple[nn.Module, ...]
) -> Target:
    recipe = run.recipe
    privacy = recipe.privacy_of_rows
    claims = privacy is not None and privacy.unit == "example"
    test = _numbered(held.test) if held.test is not None else None
    source = Source(run.folder.key(run.folder.holder_key)).child("audit")
    members, outsiders = _cohorts(held, source, drawn := _drawn(recipe, held))
    return Target(
        model=model,
        task=pieces.task_of(held.schema),
        space=held.space,
        source=source,
        members=members,
        outsiders=outsiders,
        drawn=drawn,
        test=test,
        references=references,
        members_public=held.private_is_public,
        test_public=held.test_is_public,
        held=True,
        ball=recipe.adversarial_training.ball if recipe.adversarial_training else None,
        classes=held.schema.classes,
        text=_token_text(recipe, held),
        canaries=_canaries(recipe),
        federation=partial(twins_of, run, held, source) if recipe.federated_learning else None,
        claimed_epsilon=privacy.epsilon if claims and privacy is not None else None,
        claimed_delta=privacy.delta if claims and privacy is not None else None,
    )


def _token_text(recipe: Recipe, held: Holdings) -> TokenText | None:
    """How the rows read, where an audit replaces words of them."""
    asked = any(isinstance(option, Evasion) for option in recipe.audit)
    if not asked or held.tokenizer is None:
        return None
    tokenizer = of_description(held.tokenizer, {})
    return TokenText(names=tokenizer.names(), decode=tokenizer.decode)


def _canaries(recipe: Recipe) -> HeldCanaries | None:
    """Each canary of the recipe with others of its form, as rows."""
    data, privacy = recipe.data, recipe.privacy_of_rows
    asked = next((option for option in recipe.audit if isinstance(option, CanaryAudit)), None)
    if asked is None or not isinstance(data, Text) or data.canaries is None:
        return None
    option, encoder = data.canaries, data.encoder(recipe.folder)
    found = canaries.made(option, recipe.seed)
    batches: list[Batch] = []
    for canary in found:
        texts = canaries.others(option, recipe.seed, canary, asked.candidates)
        encoded = encoder.documents([canary.text(option), *texts])
        batches.append(_batch(Rows(encoded.features, encoded.label)))
    whole = privacy is not None and (
        (privacy.unit == "example" and option.repeats == 1)
        or (privacy.unit == "group" and data.unit is not None)
    )
    return HeldCanaries(
        inserted=tuple(canary.inserted for canary in found),
        batches=tuple(batches),
        candidates=asked.candidates,
        claimed=(privacy.epsilon, privacy.delta) if whole and privacy is not None else None,
    )


def _batch(rows: Rows) -> Batch:
    count = len(rows)
    return {
        "features": rows.features,
        "label": rows.label,
        "present": torch.ones(count, dtype=torch.bool),
        "unit": torch.arange(count),
    }


def _numbered(rows: Rows) -> Batch:
    """The batch of the rows with where each stands in its file."""
    return _batch(rows) if rows.place is None else {**_batch(rows), "place": rows.place}


def _drawn(recipe: Recipe, held: Holdings) -> Literal["row", "group", "apart"]:
    """What decided which rows the model was trained on; see `Target.drawn`."""
    holdout = recipe.data.holdout
    if isinstance(getattr(recipe.data, "test", None), Test):
        return "row"
    if holdout is None:
        return "apart"
    grouped = any(rows.group is not None for rows in _holders(held))
    return "group" if grouped and holdout.by == "unit" else "row"


def _holders(held: Holdings) -> Iterable[Rows]:
    """The private rows by holder; of parties that are counted all at once."""
    dealt = held.private
    if isinstance(dealt, Dealt) and isinstance(dealt.names, Counted):
        return [dealt.rows]
    return dealt.values()


def _cohorts(
    held: Holdings, source: Source, drawn: Literal["row", "group", "apart"]
) -> tuple[Batch, Batch | None]:
    """(members, outsiders): all private rows, and those like them that stayed out; one row of each
    group where groups went in whole. Canaries, which nobody's test rows are like, are no members.
    """
    parts = list(_holders(held))
    if held.canaries:
        parts[-1] = parts[-1].take(range(len(parts[-1]) - held.canaries))
    outside = held.outsiders if held.outsiders is not None else held.test
    if drawn == "group":
        parts = [
            one_of_each_group(rows, source.child("members", i)) for i, rows in enumerate(parts)
        ]
        if outside is not None:
            outside = one_of_each_group(outside, source.child("outsiders"))
    return _batch_of(parts), None if outside is None else _batch(outside)


def _batch_of(parts: Sequence[Rows]) -> Batch:
    features = torch.cat([rows.features for rows in parts])
    label = torch.cat([rows.label for rows in parts])
    return flatten(_batch(Rows(features, label)))

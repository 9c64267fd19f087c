"""Can the attack be believed? Probes of a few rows, and what each says against the figure.

What a cascade leaves standing proves little where its gradients say nothing. The probes are those
that Athalye, Carlini & Wagner 2018 (https://arxiv.org/abs/1802.00420, section 3.1), Carlini et al.
2019 (https://arxiv.org/abs/1902.06705, section 5) and the checks of Croce & Hein's AutoAttack ask
for. Rows that a probe breaks are reported and do not enter the figure: it is the share that the
cascade left standing, of all rows alike.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import Predict, ScoreOnly, Scorer, WhiteBox
from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.losses import cross_entropy, score_margin
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.climb import Climb
from nacre.adversarial_training.evaluation.stages.constrained import ConstrainedAPGD
from nacre.adversarial_training.evaluation.stages.square import Square
from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.region import Box, Region
from nacre.adversarial_training.threats.table_region import TableRegion
from nacre.audit.model_security.beside import (
    answers_from_memory,
    asked_otherwise,
    otherwise,
    points_within,
)
from nacre.audit.model_security.curve import RobustRows
from nacre.audit.model_security.surrogate import surrogate
from nacre.core.random import Source

ROWS = 128
"""The most rows that a probe looks at."""

SHARE = 0.02
"""Of the rows that a probe tries: from how many on it says something. One row alone says nothing:
no attack is so complete that another never finds a row more."""

BESIDE = 0.05
"""Of what the gradient broke: from how much on another way to break rows counts."""

FAR = 100.0
"""How far an unbounded move goes, in the model's units, where inputs have no range."""

FLAT = 1e-6
"""Share of the margin: a row whose gradient promises less than that for a move by 1 is flat."""


@dataclass(frozen=True, eq=False)
class Probed:
    """What the probes look at."""

    scorer: Scorer
    region: Any  # what the threat gives: balls around numbers, or substitutions of words
    found: RobustRows
    source: Source
    black_box: frozenset[str]  # names of the cascade's stages that use no gradient
    fresh: Predict | None = None  # a copy of the model that was asked next to nothing

    def some(self, index: Tensor) -> Inputs:
        """The first `ROWS` of the rows at `index`; their order is random already."""
        index = index[:ROWS]
        return replace(self.found.rows.take(index), place=torch.arange(len(index)))

    @property
    def right(self) -> Inputs:
        """Rows that were attacked."""
        return self.some((self.found.broken_at > 0).nonzero().squeeze(1))

    @property
    def standing(self) -> Inputs:
        """Rows that stand."""
        return self.some(self.found.standing)

    @property
    def by_gradient(self) -> int:
        """How many rows stages with a gradient broke."""
        stages = self.found.whole.stages
        return sum(stage.broke for stage in stages if stage.name not in self.black_box)

    def tells(self, broke: int, tried: int, before: int | None = None) -> bool:
        """Whether breaking `broke` of `tried` rows that stand says something, beside the rows that
        were broken `before`: those that a gradient broke, where it is not given."""
        every = broke / max(tried, 1) * len(self.found.standing)
        before = self.by_gradient if before is None else before
        return broke > max(1.0, SHARE * tried) and every > BESIDE * before


Sign = dict[str, Any]
"""`warning` (a sentence, or None) and the numbers behind it."""


def signs(probed: Probed) -> dict[str, Sign]:
    """What each probe of `PROBES` found; of those alone that say something of rows of a table where
    these are attacked."""
    left_out = NOT_OF_TABLES if isinstance(probed.region, TableRegion) else frozenset[str]()
    return {name: probe(probed) for name, probe in PROBES.items() if name not in left_out}


def doubts(found: dict[str, Sign]) -> list[str]:
    """What speaks against believing the figure, a sentence each; [] where nothing does."""
    return [sign["warning"] for sign in found.values() if sign["warning"]]


def _random(probed: Probed) -> Sign:
    """The same rows, asked twice."""
    rows = probed.right
    target = ScoreOnly(probed.scorer)
    one, two = (target.scores(rows.clean) for _ in range(2))
    apart = (one - two).abs().nan_to_num(0).flatten()
    size = one.abs().nan_to_num(0).flatten()
    differ = bool((apart > 1e-5 * size.clamp(min=1e-3)).any())
    said = (
        "the same input is answered differently each time: attack the mean over the model's "
        "randomness (expectation over transformations), or switch it off"
    )
    return {"warning": said if differ else None, "largest": float(apart.max()) if len(apart) else 0}


def _other_answers(probed: Probed) -> Sign:
    """The points that were found, and rows that stand, asked alone, turned and with gradients; and
    random ones, asked of a copy too that has not seen the attack."""
    at = probed.found.broken_at
    broken = (at.isfinite() & (at > 0)).nonzero().squeeze(1)
    index = torch.cat([broken, probed.found.standing])[:ROWS]
    found = asked_otherwise(probed.scorer.predict, probed.found.points[index])
    probed.scorer.queries.forwards += found.pop("asked")
    moved, noted = probed.right, 0
    if probed.fresh is not None and len(moved):
        points = points_within(probed.region, moved, probed.source.child("fresh"))
        noted = answers_from_memory(probed.scorer.predict, probed.fresh, points)
        probed.scorer.queries.forwards += 3 * len(moved)
    said = (
        f"{noted} of {len(moved)} points are answered otherwise by a copy of the model that was "
        "not asked before: the model remembers, and another attacker meets another model"
    )
    return {"warning": otherwise(found) or (said if noted else None), **found, "fresh": noted}


def _unconfirmed(probed: Probed) -> Sign:
    """Points that a stage called broken and that were not when they were scored once more, at all
    radii together. A point at the very edge may round to either side; more of them are a sign."""
    lost = probed.found.unconfirmed
    at = probed.found.broken_at
    return unconfirmed(lost, lost + int((at.isfinite() & (at > 0)).sum()))


def unconfirmed(lost: int, claimed: int) -> Sign:
    """What `lost` of the `claimed` broken points say."""
    said = (
        f"{_times(lost)} an attack called a point broken that did not break its row when it was "
        "scored once more beside others: the row counts as standing, and may not stand"
    )
    tells = lost > max(1.0, SHARE * claimed)
    return {"warning": said if tells else None, "rows": lost, "tried": claimed}


def unconfirmed_notes(sign: Sign) -> list[str]:
    """How many points were left out, where that alone says nothing against the figure."""
    if sign["warning"] or not sign["rows"]:
        return []
    return [
        f"{_times(sign['rows'])} a point that an attack called broken was not when it was scored "
        "once more, and was left out: rounding at the very edge"
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _softmax(probed: Probed) -> Sign:
    """Whether what is read as logits are probabilities, of which a single one is never below 0."""
    rows, scorer = probed.some(torch.arange(len(probed.found.rows))), probed.scorer
    if scorer.outputs == "probabilities":
        return {"warning": None}
    with torch.no_grad():
        raw = scorer.predict(rows.clean)
    scorer.queries.forwards += len(rows)
    raw = raw[:, None] if raw.dim() == 1 else raw
    inside = bool(((raw >= 0) & (raw <= 1)).all())
    sums = raw.sum(1)
    whole = len(rows) >= 8 if raw.shape[1] == 1 else bool(((sums - 1).abs() < 1e-3).all())
    said = (
        "the outputs are probabilities and were read as logits, whose gradients a softmax hides: "
        "give the scores before the softmax, or, of a model without a run, say `nacre audit "
        '--model … --outputs probabilities` (in Python `outputs="probabilities"`)'
    )
    return {"warning": said if inside and whole else None}


def _gradients(probed: Probed, rows: Inputs) -> tuple[Tensor, Tensor]:
    """(margins (R,), gradients (R, D) of the margin on entries that may move)."""

    def margin(scores: Tensor) -> Tensor:
        return score_margin(scores, rows.label, rows.aimed)

    _, margins, gradient = WhiteBox(probed.scorer).slopes(rows.clean, margin)
    return margins, (gradient * (probed.region.radii > 0)).nan_to_num(0).flatten(1)


def _vanishing(probed: Probed) -> Sign:
    """Rows at which no move promises to change the margin. The margin has a gradient where a
    confident softmax has none left."""
    rows = probed.right
    if not len(rows) or not bool((probed.region.radii > 0).any()):
        return {"warning": None, "rows": 0, "tried": len(rows)}
    margins, gradient = _gradients(probed, rows)
    flat = int((gradient.abs().sum(1) <= FLAT * margins.abs()).sum())
    said = f"the gradient vanishes at {flat} of {len(rows)} rows: it is masked, not absent"
    tells = flat > max(1.0, 0.1 * len(rows))
    return {"warning": said if tells else None, "rows": flat, "tried": len(rows)}


def _rising(probed: Probed) -> Sign:
    """Rows whose loss no short climb from the clean input raises, though it has a gradient."""
    rows = probed.right
    none: Sign = {"warning": None, "rows": 0, "tried": len(rows)}
    if not len(rows) or not bool((probed.region.radii > 0).any()):
        return none
    target, region = WhiteBox(probed.scorer), probed.region

    def margin(scores: Tensor) -> Tensor:
        return score_margin(scores, rows.label, rows.aimed)

    x, first, best = rows.clean, None, torch.full((len(rows),), -torch.inf)
    steep = torch.zeros(len(rows), dtype=torch.bool)
    low, high = region.legal(rows.clean)
    for step in (0.02, 0.1, 0.25, 0.25, 0.25):
        _, margins, gradient = target.slopes(x, margin)
        # An entry at the end of its range cannot follow: a sparse step would spend itself there.
        barred = ((x >= high) & (gradient > 0)) | ((x <= low) & (gradient < 0))
        gradient = gradient.masked_fill(barred, 0.0)
        if first is None:
            first = margins
            moves = (gradient * (region.radii > 0)).nan_to_num(0).flatten(1).abs().sum(1)
            steep = moves > FLAT * margins.abs()
        else:
            best = torch.maximum(best, margins)
        x = region.project(x + region.steepest(gradient, step), rows.clean)
    assert first is not None
    margins = score_margin(target.scores(x), rows.label, rows.aimed)
    stuck = int((steep & (torch.maximum(best, margins) <= first)).sum())
    said = (
        f"the loss does not rise along the gradient at {stuck} of {len(rows)} rows: the gradient "
        "is not that of the answers"
    )
    tells = stuck > max(1.0, 0.1 * len(rows))
    return {"warning": said if tells else None, "rows": stuck, "tried": len(rows)}


def _square(probed: Probed) -> Sign:
    """Rows that a search without gradients breaks of those that gradients left standing: by the
    cascade's own, or by a short one."""
    own = [stage for stage in probed.found.whole.stages if stage.name in probed.black_box]
    if own:
        broke, tried = sum(stage.broke for stage in own), own[0].tried
        standing = tried  # of all rows, so nothing is to be scaled
        tells = broke > max(1.0, SHARE * standing) and broke > BESIDE * probed.by_gradient
    else:
        broke, tried = _also(probed, Cascade([Square(queries=300)], ROWS), "square")
        tells = probed.tells(broke, tried)
    said = (
        f"Square, which sees no gradient, breaks {broke} of {tried} rows that gradients leave "
        "standing: they are masked"
    )
    return {"warning": said if tells else None, "rows": broke, "tried": tried}


def _also(probed: Probed, cascade: Cascade, name: str) -> tuple[int, int]:
    """(broken, tried): what further attacks break of the rows that stand."""
    rows = probed.standing
    if not len(rows):
        return 0, 0
    found = cascade(probed.scorer, probed.region, rows, probed.source.child(name))
    return len(rows) - len(found.standing), len(rows)


def _more(probed: Probed) -> Sign:
    """Rows that stand and that longer climbs from other starts break."""
    starts = (("cross_entropy", 150, 1), ("probability_margin", 100, 2))
    longer = Cascade(
        [
            ConstrainedAPGD(loss=loss, steps=steps, start=start, from_clean=False)
            if isinstance(probed.region, TableRegion)
            else AutoPGD(loss=loss, steps=steps, start=start)
            for loss, steps, start in starts
        ],
        ROWS,
    )
    broke, tried = _also(probed, longer, "longer")
    said = (
        f"more steps and restarts break {broke} of {tried} rows that stand: raise `effort`, or "
        "the search is not at its end"
    )
    return {"warning": said if probed.tells(broke, tried) else None, "rows": broke, "tried": tried}


def _unbounded(probed: Probed) -> Sign:
    """Rows that stand when each may be moved anywhere, or as far as `FAR`."""
    rows, region = probed.right, probed.region
    free = bool((region.radii > 0).all())
    if not len(rows) or not free or probed.found.rows.towards is not None:
        return {"warning": None, "rows": 0, "tried": 0}  # what may not move may decide the answer
    wide = Cascade(
        [
            *(Climb(steps=1, start=start) for start in range(5)),
            AutoPGD(loss="probability_margin", steps=20),
            AutoPGD(loss="cross_entropy", steps=20),
        ],
        ROWS,
    )
    everywhere = unbounded(region)
    found = wide(probed.scorer, everywhere, rows, probed.source.child("far"))
    stand = len(found.standing)
    known = bool(_changeable(probed, everywhere, rows)[found.standing].any())
    why = (
        "although other inputs there are answered otherwise: the attack does not see the model"
        if known
        else "and no input there is known that is answered otherwise: the model may give one "
        "answer to all, or the attack may not see it"
    )
    said = f"{stand} of {len(rows)} rows stand when an input may be moved anywhere, {why}"
    tells = stand > max(1.0, SHARE * len(rows))
    return {"warning": said if tells else None, "rows": stand, "tried": len(rows)}


def _changeable(probed: Probed, everywhere: Region, rows: Inputs) -> Tensor:
    """(R,) bool: whether a clean row or a random legal input is answered otherwise than the row."""
    stream = probed.source.child("known").stream()
    drawn = everywhere.start(rows.clean, stream.rows(rows.unit, everywhere.draws))
    with torch.no_grad():
        answers = probed.scorer(torch.cat([rows.clean, drawn])).argmax(1)
    return (answers[:, None] != rows.label).any(0)


def unbounded(region: Region) -> Region:
    """A region of the same kind that holds every legal input, or all within `FAR` of one."""
    reach = region.high - region.low
    reach = torch.where(reach.isfinite(), reach, torch.full_like(reach, FAR))
    size = prod(region.radii.shape)
    longest = 1.0 if isinstance(region, Box) else size if isinstance(region, Diamond) else size**0.5
    return replace(region, radii=torch.where(region.radii > 0, reach * longest, 0.0))


def _transfer(probed: Probed) -> Sign:
    """Rows that stand and that points found on a surrogate break."""
    rows = probed.standing
    if not len(rows):
        return {"warning": None, "rows": 0, "tried": 0}
    target, source = ScoreOnly(probed.scorer), probed.source.child("surrogate")
    taught = probed.some(torch.arange(len(probed.found.rows)))
    student = WhiteBox(Scorer(surrogate(target, probed.region, taught.clean, source)))

    def loss(scores: Tensor) -> Tensor:
        return cross_entropy(scores, rows.label, rows.aimed)

    x, broken = rows.clean, torch.zeros(len(rows), dtype=torch.bool)
    for _ in range(20):
        _, _, gradient = student.slopes(x, loss)
        x = probed.region.project(x + probed.region.steepest(gradient, 0.125), rows.clean)
        broken |= rows.broken(target.scores(x))
    broke = int(broken.sum())
    said = (
        f"points found on a surrogate break {broke} of {len(rows)} rows that the white box leaves "
        "standing: its gradients are worse than another model's"
    )
    tells = probed.tells(broke, len(rows))
    return {"warning": said if tells else None, "rows": broke, "tried": len(rows)}


PROBES: dict[str, Callable[[Probed], Sign]] = {
    "random_output": _random,
    "other_answers": _other_answers,
    "unconfirmed_points": _unconfirmed,
    "softmax_output": _softmax,
    "vanishing_gradient": _vanishing,
    "loss_not_rising": _rising,
    "square_beats_gradient": _square,
    "more_still_helps": _more,
    "unbounded_radius": _unbounded,
    "transfer_beats_white_box": _transfer,
}
"""What may speak against a figure, by its name in findings.json."""

NOT_OF_TABLES = frozenset({"loss_not_rising", "square_beats_gradient", "unbounded_radius"})
"""Probes that take small steps, windows or radii for granted. Among whole numbers and categories a
small step leads nowhere, and a search without gradients finds more although none is masked."""

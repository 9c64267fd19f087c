"""Word substitution: its floor, its budget, and its search against plain loops."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING, WRONG, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.listed import TEXT_STAGES
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.swap import WordSwap
from nacre.adversarial_training.text.word_search import WordSearch
from nacre.adversarial_training.text.words import TokenKinds, Words
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.random import Source
from tests.laws.zoo import snapshot

SOURCE = Source(bytes(32))
TOKENS = ["[CLS]", "[SEP]", ".", "##ly", "7", *(f"word{letter}" for letter in "abcdefghijklmno")]
VOCABULARY = TokenKinds.of(TOKENS)
FLOOR = 0.2


class Bag(nn.Module):
    """Scores of a text: the mean over its tokens, squashed, so that words do not just add up. Later
    places weigh more, so that the same word at two places is no tie, which rounding would break."""

    def __init__(self):
        super().__init__()
        self.tokens = len(TOKENS)
        self.table = nn.Embedding(len(TOKENS), 3)
        self.mix = nn.Linear(3, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, features):
        real = (features >= 0).unsqueeze(-1).to(self.table.weight.dtype)
        x = torch.tanh(2 * self.mix(self.table(features.clamp(min=0)))) * real
        x = x * (1 + torch.arange(x.shape[1]).unsqueeze(-1) / 20)
        return self.head(x.sum(1) / real.sum(1).clamp(min=1))


def _model():
    """Its scores are centred over random rows, so that all classes are answered."""
    torch.manual_seed(2)
    model = Bag().double()
    with torch.no_grad():
        model.head.bias -= model(torch.randint(5, len(TOKENS), (200, 7))).mean(0)
    return model


def _rows(model, count=30, towards=None):
    torch.manual_seed(5)
    clean = torch.randint(5, len(TOKENS), (count, 9))
    clean[:, 0], clean[:, 4], clean[:, 6] = 0, 2, 3  # a special token, a stop, a piece
    for number in range(count):
        clean[number, 9 - number % 4 :] = -1
    clean[0] = torch.tensor([0, 2, 1, -1, -1, -1, -1, -1, -1])  # no word at all
    label = model(clean).argmax(1)
    return Inputs(torch.arange(count), torch.arange(count), clean, label, towards)


def _region(model, rows, **changes):
    threat = Words(**{"share": 0.4, "similarity": FLOOR, "candidates": 4, **changes})
    return threat.region(model.table.weight, VOCABULARY, rows.clean)


def _found(model, rows, width=8, **changes):
    with untouched(model):
        region = _region(model, rows, **changes)
        return Cascade((WordSwap(),), width)(Scorer(model), region, rows, SOURCE)


def test_vocabularies_are_read_by_their_marks():
    pieces = TokenKinds.of(["[CLS]", "play", "##ing", "##9", ".", "unaffable", "don't", "3d"])
    assert pieces.whole.tolist() == [False, True, False, False, False, True, False, False]
    assert pieces.continues.tolist() == [False, False, True, True] + [False] * 4
    for mark in ("\u0120", "\u2581"):
        marked = TokenKinds.of([f"{mark}the", "re", f"{mark}7", "<s>", mark])
        assert marked.whole.tolist() == [True, False, False, False, False]
        assert marked.continues.tolist() == [False, True, False, False, False]


def test_a_word_in_several_pieces_is_left_alone():
    row = torch.tensor([[5, 6, 3, 7, -1]])
    assert VOCABULARY.words(row).tolist() == [[True, False, False, True, False]]


@pytest.mark.parametrize("floor", [-1.0, 0.2, 0.9, 1.0])
def test_no_candidate_lies_below_the_floor_and_none_is_missed(floor):
    model = _model()
    rows = _rows(model)
    region = _region(model, rows, similarity=floor, candidates=4)
    unit = nn.functional.normalize(model.table.weight.detach().float(), dim=1)
    for token in rows.clean[rows.clean >= 0].unique().tolist():
        seen = [t for t in region.near[token].tolist() if t >= 0]
        others = [t for t in range(len(TOKENS)) if t != token and VOCABULARY.whole[t]]
        cosine = {t: float(unit[token] @ unit[t]) for t in others}
        allowed = [t for t in others if cosine[t] >= floor] if VOCABULARY.whole[token] else []
        assert seen == sorted(allowed, key=lambda t: -cosine[t])[:4]


def test_what_comes_back_is_allowed_and_breaks_what_it_says():
    model = _model()
    rows, before = _rows(model), snapshot(model)
    found = _found(model, rows)
    assert snapshot(model) == before
    region = _region(model, rows)
    assert region.contains(found.points, rows.clean).all()
    assert torch.equal(model(found.points).argmax(1) != rows.label, found.by != STANDING)
    changed = (found.points != rows.clean).sum(1)
    words = VOCABULARY.words(rows.clean).sum(1)
    assert (changed <= torch.where(words > 0, (0.4 * words).long().clamp(min=1), 0)).all()
    assert 0 < (found.by >= 0).sum() < len(rows)
    assert found.by[0] in (STANDING, WRONG)


STAGES = {"greedy": WordSwap(), "random": WordSearch(queries=25)}
stages = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


def test_every_stage_of_texts_is_among_those_that_the_laws_run_over():
    assert {type(stage) for stage in STAGES.values()} == set(TEXT_STAGES)


@stages
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_every_row_that_is_asked_is_allowed(stage, share):
    """Not only what comes back: each query changes whole words alone, within the budget, to near
    words; special tokens, pieces, punctuation, numbers and padding are never touched."""
    model = _model()
    rows = _rows(model)
    region = _region(model, rows, share=share)
    words = VOCABULARY.words(rows.clean)
    assert not words[(rows.clean < 5) | (rows.clean == 4)].any()
    unit = nn.functional.normalize(model.table.weight.detach().float(), dim=1)
    target = stage.access(Scorer(model))
    state, steps = stage.begin(target, region, rows, SOURCE), 0
    changed, over = (torch.zeros(len(rows), dtype=torch.bool) for _ in range(2))
    while not bool(over.all()):
        tried = stage.advance(target, region, rows, state, SOURCE)
        state, steps = tried.state, steps + 1
        moved = (tried.points != rows.clean) & ~over[:, None]  # the queue asks no more of the rest
        assert not (moved & ~words).any()
        assert (moved.sum(1) <= region.budget(rows.clean)).all()
        cosine = (unit[tried.points.clamp(min=0)] * unit[rows.clean.clamp(min=0)]).sum(2)
        assert (cosine[moved] >= FLOOR - 1e-6).all()
        assert region.contains(tried.points, rows.clean)[~over].all()
        changed |= moved.any(1)
        over |= tried.ended
    assert steps > 5
    assert changed[region.choices(rows.clean)[:, :, 0].amax(1) >= 0].all()


def test_a_random_search_reaches_every_row_of_a_small_region():
    """Two words with two candidates each and a budget of one: five rows, all of them asked."""
    model = _model()
    clean = torch.tensor([[0, 5, 2, 6, 1, -1]])
    rows = Inputs(torch.arange(1), torch.arange(1), clean, torch.tensor([0]))
    region = _region(model, rows, similarity=-1.0, candidates=2, share=0.5)
    stage, seen = WordSearch(queries=200), set()
    target = stage.access(Scorer(lambda x: torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)))
    state = stage.begin(target, region, rows, SOURCE)
    for _ in range(200):
        tried = stage.advance(target, region, rows, state, SOURCE)
        state = tried.state
        seen.add(tuple(tried.points[0].tolist()))
    near = region.choices(clean)[0]
    single = {
        tuple(int(t) if at != place else int(token) for at, t in enumerate(clean[0]))
        for place in (1, 3)
        for token in near[place]
    }
    assert seen == single
    assert bool(tried.ended[0])


@stages
def test_any_width_and_order_gives_the_same_points(stage):
    model = _model()
    rows = _rows(model)
    with untouched(model):
        region = _region(model, rows)
        whole = Cascade((stage,), 30)(Scorer(model), region, rows, SOURCE)
        assert (whole.by >= 0).any()
        narrow = Cascade((stage,), 4)(Scorer(model), region, rows, SOURCE)
        turned = rows.take(torch.arange(29, -1, -1))
        turned = Inputs(torch.arange(30), turned.unit, turned.clean, turned.label)
        other = Cascade((stage,), 7)(Scorer(model), region, turned, SOURCE)
    assert torch.equal(narrow.points, whole.points)
    assert torch.equal(other.points.flip(0), whole.points)


@stages
def test_one_row_more_or_another_moves_no_other_row(stage):
    model = _model()
    rows = _rows(model)
    other = rows.clean.clone()
    other[3, 1] = 5 + (other[3, 1] - 4) % 15
    with untouched(model):
        region = _region(model, rows)
        one = Cascade((stage,), 8)(Scorer(model), region, rows, SOURCE)
        changed = Inputs(rows.place, rows.unit, other, rows.label)
        region = _region(model, changed)
        two = Cascade((stage,), 8)(Scorer(model), region, changed, SOURCE)
    rest = torch.arange(30) != 3
    assert torch.equal(one.points[rest], two.points[rest])
    assert torch.equal(one.by[rest], two.by[rest])


@stages
def test_a_model_is_as_it_was_after_a_search_and_after_one_that_fails(stage):
    model = _model().train()
    rows, before = _rows(model), snapshot(model)

    def failing(x, asked=[0]):  # noqa: B006 - counts over calls
        asked[0] += 1
        if asked[0] > 5:
            raise RuntimeError("lost")
        return model(x)

    region = _region(model, rows)
    for predict in (model, failing):
        try:
            with untouched(model):
                Cascade((stage,), 8)(Scorer(predict), region, rows, SOURCE)
        except Exception as error:  # the scorer words the failure anew
            assert "lost" in str(error)
        else:
            assert predict is model
        assert snapshot(model) == before


def test_greedy_is_the_slow_obvious_search():
    """Row by row with plain loops: the same points."""
    model = _model()
    rows = _rows(model)
    found, region = _found(model, rows), _region(model, rows)
    choices, budget = region.choices(rows.clean), region.budget(rows.clean)

    def margin(tokens, label):
        with torch.no_grad():
            scores = model(torch.tensor([tokens]))[0]
        return float(torch.cat([scores[:label], scores[label + 1 :]]).max() - scores[label])

    for row in range(len(rows)):
        clean, label = rows.clean[row].tolist(), int(rows.label[row])
        assert _greedy(clean, label, choices[row].tolist(), int(budget[row]), margin) == (
            found.points[row].tolist() if found.by[row] >= 0 else None
        )


def _greedy(clean, label, choices, budget, margin):
    """The tokens that break the row, or None."""
    places = [place for place, near in enumerate(choices) if near[0] >= 0]
    weight = {}
    for place in places:
        tried = [*clean[:place], choices[place][0], *clean[place + 1 :]]
        weight[place] = margin(tried, label)
        if weight[place] > 0:
            return tried
    now, top = clean, margin(clean, label)
    for place in sorted(places, key=lambda p: -weight[p]):
        if not budget:
            return None
        best = None
        for token in choices[place]:
            if token < 0:
                break
            tried = [*now[:place], token, *now[place + 1 :]]
            value = margin(tried, label)
            if value > 0:
                return tried
            if value > top:
                top, best = value, tried
        if best is not None:
            now, budget = best, budget - 1
    return None


def test_width_and_neighbours_change_nothing():
    model = _model()
    rows = _rows(model)
    whole = _found(model, rows, width=30)
    for width in (1, 7):
        assert torch.equal(_found(model, rows, width).points, whole.points)
    turned = rows.take(torch.arange(29, -1, -1))
    turned = Inputs(torch.arange(30), turned.unit, turned.clean, turned.label)
    assert torch.equal(_found(model, turned).points.flip(0), whole.points)


def test_a_class_that_is_aimed_at_is_reached_or_the_row_stands():
    model = _model()
    rows = _rows(model, towards=1)
    found = _found(model, rows, share=1.0)
    assert torch.equal(model(found.points).argmax(1) == 1, found.by != STANDING)


def test_more_words_break_more():
    model = _model()
    rows = _rows(model)
    few, many = (_found(model, rows, share=share).accuracy for share in (0.1, 1.0))
    assert many < few


def test_what_is_not_allowed_goes_back():
    model = _model()
    rows = _rows(model)
    region = _region(model, rows)
    clean = rows.clean[4:5]
    assert torch.equal(region.project(torch.zeros_like(clean), clean), clean)
    assert torch.equal(region.project(torch.full_like(clean, -1), clean), clean)
    everything = torch.where(
        region.choices(clean)[:, :, 0] >= 0, region.choices(clean)[:, :, 0], clean
    )
    assert torch.equal(region.project(everything, clean), clean)  # over its budget
    assert not region.contains(everything, clean).any()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"share": 0.0}, "share"), ({"share": 1.5}, "share"), ({"share": float("nan")}, "share"),
     ({"similarity": 1.2}, "cosine"), ({"similarity": float("nan")}, "cosine"),
     ({"candidates": 0}, "candidates")],
)  # fmt: skip
def test_threats_out_of_range_are_refused(wrong, said):
    with pytest.raises(BadArgument, match=said):
        Words(**wrong)


def test_a_table_that_is_smaller_than_the_vocabulary_is_refused():
    with pytest.raises(Incompatible, match="2 embeddings for 20 tokens"):
        Words().region(torch.zeros(2, 3), VOCABULARY, torch.zeros(1, 2, dtype=torch.int64))

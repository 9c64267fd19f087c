"""Answers that an attack remembers: what was asked once takes no pass, and nothing else changes."""

from dataclasses import dataclass

import pytest
import torch

from nacre.adversarial_training.evaluation import access
from nacre.adversarial_training.evaluation.access import RememberedScores, ScoreOnly, Scorer
from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.stages.listed import TEXT_STAGES
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.efforts import word_cascade
from nacre.adversarial_training.text.swap import WordSwap
from nacre.adversarial_training.text.word_search import WordSearch
from tests.adversarial_training.test_word_substitution import SOURCE, _model, _region, _rows


class Counted:
    """A model, and every row that went through it."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def __call__(self, x):
        self.asked += [tuple(row) for row in x.tolist()]
        return self.model(x)


def test_an_input_passes_once_and_has_the_scores_that_it_had():
    predict = Counted(_model())
    target, rows = RememberedScores(Scorer(predict)), _rows(_model()).clean
    plain = ScoreOnly(Scorer(_model())).scores(rows)
    distinct = set(map(tuple, rows.tolist()))
    first = target.scores(torch.cat([rows, rows]))
    assert len(predict.asked) == len(distinct) == target.queries.forwards
    assert torch.equal(first, torch.cat([plain, plain]))
    assert torch.equal(target.scores(rows.flip(0)), plain.flip(0))
    assert len(predict.asked) == len(distinct)
    assert target.scores(rows[:0]).shape == (0, 3)


def test_scores_that_are_no_numbers_are_remembered_as_they_are():
    odd = torch.tensor([[float("nan"), 0.1], [float("inf"), -0.0], [1e-45, 3.0]])
    target = RememberedScores(Scorer(lambda x: odd[x[:, 0]]))
    x = torch.tensor([[0], [1], [2]])
    for _ in range(2):
        assert torch.equal(target.scores(x).view(torch.int32), odd.view(torch.int32))


def test_the_memory_is_of_one_scorer_and_bounded(monkeypatch):
    monkeypatch.setattr(access, "REMEMBERED", 4)
    predict = Counted(_model())
    scorer, rows = Scorer(predict), _rows(_model()).clean[1:9]
    RememberedScores(scorer).scores(rows)
    assert len(scorer.remembered) == 4
    RememberedScores(scorer).scores(rows[4:])  # the last ones stay
    assert len(predict.asked) == 8
    RememberedScores(scorer).scores(rows[:1])
    RememberedScores(Scorer(predict)).scores(rows[4:])
    assert len(predict.asked) == 13


def test_what_is_asked_otherwise_is_asked_anew():
    predict = Counted(_model())
    scorer, rows = Scorer(predict), _rows(_model()).clean[1:3]
    for _ in range(2):
        ScoreOnly(scorer).scores(rows)
        scorer(rows)
    assert len(predict.asked) == 8 and not scorer.remembered
    RememberedScores(scorer).scores(rows)
    scorer(rows)
    assert len(predict.asked) == 12


@dataclass(frozen=True, kw_only=True)
class ForgetfulSwap(WordSwap):
    access = ScoreOnly


@dataclass(frozen=True, kw_only=True)
class ForgetfulSearch(WordSearch):
    access = ScoreOnly


STAGES = {"greedy": (WordSwap(), ForgetfulSwap()),
          "random": (WordSearch(queries=60), ForgetfulSearch(queries=60))}  # fmt: skip


def test_every_stage_of_texts_remembers():
    assert all(stage.access is RememberedScores for stage in TEXT_STAGES)
    assert {type(stage) for stage, _ in STAGES.values()} == set(TEXT_STAGES)


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_stage_finds_what_one_without_a_memory_finds(kind, share):
    model = _model()
    rows, found, asked = _rows(model), [], []
    for stage in STAGES[kind]:
        predict = Counted(model)
        with untouched(model):
            region = _region(model, rows, share=share)
            found.append(Cascade((stage,), 8)(Scorer(predict), region, rows, SOURCE))
        asked.append(predict.asked)
    one, other = found
    for name in ("points", "by", "steps", "margins"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.by >= 0).any() and (one.by < 0).any()
    assert set(asked[0]) == set(asked[1])
    again = len(rows) + int((one.by >= 0).sum())  # before the stage, and what it broke
    assert one.stages[0].forwards <= len(set(asked[0])) + again < len(asked[1])


def test_a_later_stage_asks_nothing_that_an_earlier_one_asked():
    model = _model()
    rows, predict = _rows(model), Counted(model)
    with untouched(model):
        region, scorer = _region(model, rows), Scorer(predict)
        first = Cascade((WordSearch(queries=40),), 8)(scorer, region, rows, SOURCE)
        before = len(predict.asked)
        second = Cascade((WordSearch(queries=40),), 8)(scorer, region, rows, SOURCE)
    assert torch.equal(first.points, second.points)
    assert len(predict.asked) - before == len(rows) + int((first.by >= 0).sum())


@pytest.mark.parametrize(("length", "width"), [(1, 256), (64, 256), (512, 32), (100_000, 1)])
def test_a_step_holds_fewer_rows_where_they_are_long(length, width):
    assert word_cascade("standard", length).width == width

"""The evasion audit by other words: what it counts, what it doubts, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Words
from nacre.audit.model_security.evasion import evasion
from nacre.audit.model_security.words import ANYTHING, WORD_PROBES, text_changes
from nacre.audit.target import Target, TokenText
from nacre.core.errors import DataError, Incompatible
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification
from nacre.recipe.audits import Evasion, WhenNarrow
from tests.adversarial_training.test_word_substitution import TOKENS, VOCABULARY, _model, _rows
from tests.laws.zoo import snapshot

THREAT = Words(share=0.6, similarity=-1.0, candidates=3)
TEXT = TokenText(
    names=tuple("" if name.startswith("[") else name for name in TOKENS),
    decode=lambda tokens: " ".join(TOKENS[t] for t in tokens if not TOKENS[t].startswith("[")),
)


def _target(model=None, count=60, **rest):
    model = _model().float() if model is None else model
    rows = _rows(_model(), count)
    batch = {
        "features": rows.clean, "label": rows.label, "unit": rows.unit,
        "present": torch.ones(count, dtype=torch.bool),
    }  # fmt: skip
    settings = {
        "task": Classification(3), "space": FeatureSpace((9,)), "source": Source(bytes(32)),
        "test": batch, "test_public": True, "text": TEXT, "classes": ("no", "maybe", "yes"),
    }  # fmt: skip
    return Target(model=model, **{**settings, **rest})


def _evasion(target, **changes):
    return evasion(target, Evasion(**{"ball": THREAT, "effort": "quick", **changes}))


def test_what_is_said_of_each_row_holds_when_it_is_asked_again():
    target = _target()
    before = snapshot(target.model)
    found = _evasion(target)
    assert snapshot(target.model) == before
    details, rows = found.details, target.test
    assert found.value == 1 - len(details["each"]) / len(rows["label"])
    assert 0 < len(details["each"]) < len(rows["label"])
    assert found.low < found.value < found.high
    values = [point["value"] for point in details["curve"]]
    assert values == sorted(values, reverse=True) and values[0] == 1.0
    assert len(set(values)) > 2
    assert [point["radius"] for point in details["curve"]] == pytest.approx(
        [0.0, 0.15, 0.3, 0.45, 0.6]
    )
    for text in details["texts"]:
        clean = [TOKENS.index(word) for part in text["words"] for word in part["text"].split()]
        moved = [
            TOKENS.index(word)
            for part in text["words"]
            for word in (part["now"] or part["text"]).split()
        ]
        changed = sum(part["now"] is not None for part in text["words"])
        row = torch.tensor([[0, *clean]])  # the decoder leaves the special token out
        allowed = int(text["share"] * 0.6 * int(VOCABULARY.words(row).sum()) + 1e-9)
        assert 1 <= changed <= max(1, allowed)
        for tokens, said in ((clean, "before"), (moved, "after")):
            answered = target.model(torch.tensor([[0, *tokens]])).argmax(1)
            assert target.classes[int(answered)] == text[said]


def test_a_smaller_budget_stands_for_what_an_attack_with_it_finds():
    """The curve is read from one greedy search; searches with the smaller budgets find the same."""
    target = _target()
    curve = _evasion(target).details["curve"]
    for point in curve[1:]:
        alone = _evasion(target, ball=replace(THREAT, share=point["radius"]))
        assert alone.value == pytest.approx(point["value"])


def test_rows_are_attacked_towards_a_class_and_until_the_interval_is_narrow():
    aimed = _evasion(_target(), towards="yes")
    assert aimed.details["towards"] == "yes"
    assert "turned into 'yes'" in aimed.measure
    assert all(text["after"] == "yes" for text in aimed.details["texts"])
    early = _evasion(_target(count=400), stop=WhenNarrow(interval=0.35))
    assert early.details["stop"] == {"interval": 0.35, "early": True}
    assert early.details["rows_tested"] < 400


def test_a_random_search_breaks_more_and_says_how_many():
    quick, standard = _evasion(_target()), _evasion(_target(), effort="standard")
    stages = standard.details["stages"]
    assert [stage["name"] for stage in stages] == ["word substitution", "word search, 100 queries"]
    assert stages[0]["broke"] == quick.details["stages"][0]["broke"]
    assert stages[1]["tried"] == stages[0]["tried"] - stages[0]["broke"]
    assert standard.value <= quick.value


def test_probes_that_need_a_slope_are_named_and_left_out():
    found = _evasion(_target())
    assert set(found.details["signs"]) == {
        "random_output", "other_answers", "unconfirmed_points", "softmax_output", "few_neighbours",
        "more_still_helps", "unbounded_words",
    }  # fmt: skip
    (said,) = [note for note in found.details["notes"] if "left out" in note]
    for name in ("vanishing_gradient", "loss_not_rising", "square_beats_gradient",
                 "transfer_beats_white_box"):  # fmt: skip
        assert name in said
    assert any("need not mean the same" in note for note in found.details["notes"])


def test_a_floor_that_leaves_nothing_to_try_is_no_evidence():
    found = _evasion(_target(), ball=replace(THREAT, similarity=1.0))
    assert found.value == found.details["clean"]["value"]
    assert found.verdict == "not evidence"
    assert any("lower the floor" in text for text in found.details["warnings"])


class Shy(nn.Module):
    """Answers a text that it is asked for the first time like the known one that it resembles."""

    def __init__(self, known):
        super().__init__()
        self.body, self.known, self.asked = _model().float(), known, set()

    def forward(self, x):
        own = self.body(x)
        alike = (x[:, None] == self.known[None]).sum(2).argmax(1)
        new = torch.tensor([tuple(row) not in self.asked for row in x.tolist()], dtype=torch.bool)
        self.asked.update(map(tuple, x.tolist()))
        return torch.where(new[:, None], self.body(self.known[alike]), own)


def test_a_model_that_answers_otherwise_when_asked_again_is_no_evidence():
    """What the attack remembers are first answers; the longer search asks for second ones."""
    found = _evasion(_target(Shy(_rows(_model(), 60).clean)), effort="standard")
    seen = found.details["signs"]["more_still_helps"]
    assert seen["rows"] > seen["tried"] / 3 and seen["warning"] in found.details["warnings"]


class Mindful(nn.Module):
    """Notes the texts that it is asked first, and answers those that resemble one like it."""

    def __init__(self):
        super().__init__()
        self.body, self.seen = _model().float(), None

    def forward(self, x):
        if self.seen is None and len(x) > 2:
            self.seen = x.clone()
        if self.seen is None:
            return self.body(x)
        return self.body(self.seen[(x[:, None] == self.seen[None]).sum(2).argmax(1)])


def test_a_model_that_remembers_the_texts_it_was_asked_is_no_evidence():
    plain = _evasion(_target())
    assert plain.details["signs"]["other_answers"]["fresh"] == 0
    found = _evasion(_target(Mindful()))
    assert found.value > plain.value and found.verdict == "not evidence"
    assert any("was not asked before" in said for said in found.details["warnings"])


class Deaf(nn.Module):
    """Answers by the length of a text alone."""

    def __init__(self):
        super().__init__()
        self.tokens = len(TOKENS)
        self.table = nn.Embedding(len(TOKENS), 3)

    def forward(self, features):
        length = (features >= 0).sum(1)
        looked_up = 0 * self.table(features.clamp(min=0)).sum((1, 2))
        return torch.stack([looked_up, length - 7.5, looked_up - 1], 1)


def test_a_model_that_does_not_read_the_words_is_found_out():
    model = Deaf()
    target = _target(model)
    label = model(target.test["features"]).argmax(1)
    found = _evasion(replace(target, test={**target.test, "label": label}))
    assert found.value == 1.0
    assert found.verdict == "not evidence"
    assert any("does not answer by the words" in text for text in found.details["warnings"])
    healthy = _evasion(_target())
    assert not any("does not answer" in text for text in healthy.details["warnings"])


def test_a_row_that_lost_its_answer_is_asked_with_no_more_words(monkeypatch):
    spent = []

    def counted(probed, probe=WORD_PROBES["unbounded_words"]):
        before = probed.scorer.queries.forwards
        sign = probe(probed)
        spent.append((probed.scorer.queries.forwards - before, sign["rows"], sign["tried"]))
        return sign

    monkeypatch.setitem(WORD_PROBES, "unbounded_words", counted)
    model = Deaf()
    target = _target(model)
    label = model(target.test["features"]).argmax(1)
    _evasion(replace(target, test={**target.test, "label": label}))
    _evasion(_target())
    (all_asked, kept, tried), (some_asked, few, others) = spent
    assert all_asked == ANYTHING * tried and kept == tried
    assert few < others
    assert others + (ANYTHING - 1) * few <= some_asked <= ANYTHING * others - (others - few)


def test_private_texts_are_not_shown():
    found = _evasion(_target(test_public=False))
    assert not found.public
    assert found.details["texts"] == []
    assert "word" not in str(found.details["each"])


def test_what_cannot_be_attacked_by_words_is_refused():
    with pytest.raises(Incompatible, match="needs rows of tokens and the tokenizer"):
        _evasion(_target(text=None))
    nothing = _target(text=replace(TEXT, names=("7",) * len(TOKENS)))
    with pytest.raises(DataError, match="no test row holds a word"):
        _evasion(nothing)


def test_a_text_is_told_in_its_order_with_each_changed_word_by_itself():
    clean = torch.tensor([0, 5, 6, 2, 7, 8, 1, -1])
    moved = torch.tensor([0, 9, 10, 2, 7, 11, 1, -1])
    assert text_changes(TEXT, clean, moved) == [
        {"text": "worda", "now": "worde"},
        {"text": "wordb", "now": "wordf"},
        {"text": ". wordc", "now": None},
        {"text": "wordd", "now": "wordg"},
    ]

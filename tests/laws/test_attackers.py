"""What each attacker of a federation sends is what its paper defines; nothing else is touched."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import norm as normal

from nacre.core.errors import BadArgument, Incompatible
from nacre.core.random import Source
from nacre.core.types import Unprotected
from nacre.data.dataset import Rows
from nacre.federated_learning import InProcess, Reply, RoundRequest
from nacre.federated_learning.attackers import (
    ATTACKERS,
    ALittleIsEnough,
    AttackerOption,
    GaussianLie,
    Infiltrated,
    InnerProduct,
    LabelFlip,
    MinMax,
    ModelReplacement,
    PixelBackdoor,
    Seen,
    SignFlip,
    infiltrated_rows,
)

SOURCE = Source(bytes(32))
MADE = [
    LabelFlip(classes=10),
    PixelBackdoor(target=7, value=2.5),
    SignFlip(factor=3.0),
    GaussianLie(deviation=0.3),
    ALittleIsEnough(),
    InnerProduct(factor=0.5),
    MinMax(),
    ModelReplacement(backdoor=PixelBackdoor(target=7)),
]
attackers = pytest.mark.parametrize("attacker", MADE, ids=lambda each: each.kind)


def _changes(count, seed=0, size=6):
    stream = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, size + 1, generator=stream)
    return [{"a": row[:-1].reshape(2, -1), "b": row[-1:]} for row in rows]


def _matrix(changes):
    flat = (torch.cat([each[n].double().reshape(-1) for n in sorted(each)]) for each in changes)
    return torch.stack(list(flat)).numpy()


def _seen(attacker, bad=2, others=5, seed=0):
    drawn = _changes(bad + others, seed)
    honest = drawn[bad:] if attacker.omniscient else []
    return Seen(own=drawn[:bad], honest=honest, others=others, source=SOURCE)


def _rows(count=40, shape=(1, 6, 5)):
    stream = torch.Generator().manual_seed(1)
    features = torch.rand(count, *shape, generator=stream)
    return Rows(features, torch.randint(0, 10, (count,), generator=stream))


def test_every_attacker_is_among_them():
    assert {type(each) for each in MADE} == set(ATTACKERS) == set(get_args(AttackerOption))
    assert len({each.kind for each in MADE}) == len({each.sentence() for each in MADE}) == len(MADE)


@attackers
def test_each_party_at_fault_sends_a_finite_change_of_the_right_form(attacker):
    seen = _seen(attacker)
    sent = attacker.changes(seen)
    assert len(sent) == len(seen.own)
    for lie, own in zip(sent, seen.own, strict=True):
        assert [(n, v.shape, v.dtype) for n, v in lie.items()] == [
            (n, v.shape, v.dtype) for n, v in own.items()
        ]
        assert all(bool(torch.isfinite(value).all()) for value in lie.values())


@attackers
def test_neither_rows_nor_changes_are_touched_where_they_lie(attacker):
    seen, rows = _seen(attacker), _rows()
    features, label, own = rows.features.clone(), rows.label.clone(), _matrix(seen.own)
    attacker.changes(seen)
    assert len(attacker.rows(rows, SOURCE)) == len(rows)
    assert torch.equal(rows.features, features) and torch.equal(rows.label, label)
    assert np.array_equal(_matrix(seen.own), own)


@attackers
def test_an_attacker_of_rows_sends_what_it_trained_and_one_of_changes_trains_as_agreed(attacker):
    rows, seen = _rows(), _seen(attacker)
    changed = attacker.rows(rows, SOURCE)
    same_rows = torch.equal(changed.features, rows.features)
    same_rows = same_rows and torch.equal(changed.label, rows.label)
    same_changes = np.array_equal(_matrix(attacker.changes(seen)), _matrix(seen.own))
    of_rows = isinstance(attacker, LabelFlip | PixelBackdoor | ModelReplacement)
    assert same_rows != of_rows
    assert same_changes == isinstance(attacker, LabelFlip | PixelBackdoor)


@attackers
def test_the_same_round_is_attacked_alike(attacker):
    one, again = (_matrix(attacker.changes(_seen(attacker))) for _ in range(2))
    assert np.array_equal(one, again)


def test_labels_are_turned_around():
    rows = _rows()
    assert torch.equal(LabelFlip(classes=10).rows(rows, SOURCE).label, 9 - rows.label)


def test_a_square_is_stamped_on_a_share_of_the_images_and_they_have_the_target():
    rows, attacker = _rows(), PixelBackdoor(target=7, size=2, value=2.5, share=0.25)
    changed = attacker.rows(rows, SOURCE)
    stamped = (changed.features[:, :, -2:, -2:] == 2.5).flatten(1).all(1)
    assert int(stamped.sum()) == 10
    assert torch.equal(changed.label[stamped], torch.full((10,), 7))
    assert torch.equal(changed.label[~stamped], rows.label[~stamped])
    assert torch.equal(changed.features[~stamped], rows.features[~stamped])
    untouched = torch.ones(6, 5, dtype=torch.bool)
    untouched[-2:, -2:] = False
    assert torch.equal(changed.features[..., untouched], rows.features[..., untouched])
    assert torch.equal(attacker.stamped(rows.features)[stamped], changed.features[stamped])


def test_what_has_no_classes_or_no_sides_is_refused():
    numbers = Rows(torch.rand(4, 3), torch.rand(4))
    for attacker in (LabelFlip(classes=2), PixelBackdoor()):
        with pytest.raises(Incompatible, match="no classes"):
            attacker.rows(numbers, SOURCE)
    for shape in ((3,), (2, 9)):
        with pytest.raises(Incompatible, match="a row has shape"):
            PixelBackdoor(size=3).rows(_rows(shape=shape), SOURCE)


def test_signs_are_flipped():
    attacker = SignFlip(factor=3.0)
    seen = _seen(attacker)
    assert np.allclose(_matrix(attacker.changes(seen)), -3 * _matrix(seen.own))


def test_noise_has_its_deviation_and_each_party_its_own():
    attacker = GaussianLie(deviation=0.3)
    own = _changes(2, size=39_999 + 1)
    sent = attacker.changes(Seen(own=own, honest=[], others=3, source=SOURCE))
    first, second = _matrix(sent)
    assert first.std() == pytest.approx(0.3, rel=0.02) and abs(first.mean()) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    other = Seen(own=own, honest=[], others=3, source=SOURCE.child("another round"))
    assert not np.array_equal(_matrix(attacker.changes(other))[0], first)


@pytest.mark.parametrize(("cohort", "bad"), [(25, 5), (50, 12), (10, 2), (7, 1)])
def test_a_little_is_the_quantile_of_the_supporters_that_are_needed(cohort, bad):
    needed = math.floor(cohort / 2 + 1) - bad
    share = (cohort - bad - needed) / (cohort - bad)
    expected = max(0.0, float(normal.ppf(share)))
    assert ALittleIsEnough().deviations(cohort, bad) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("z", [None, 1.5])
def test_a_little_less_than_the_mean_in_each_coordinate(z):
    attacker = ALittleIsEnough(z=z)
    seen = _seen(attacker, bad=3, others=8)
    honest = _matrix(seen.honest)
    expected = honest.mean(0) - attacker.deviations(11, 3) * honest.std(0)
    for row in _matrix(attacker.changes(seen)):
        assert np.allclose(row, expected, atol=1e-6)


def test_those_who_outnumber_the_honest_need_no_little():
    assert ALittleIsEnough().deviations(4, 4) == 0.0
    assert ALittleIsEnough().deviations(9, 6) == 0.0


def test_the_inner_product_with_the_honest_mean_is_negative_by_the_factor():
    attacker = InnerProduct(factor=0.5)
    seen = _seen(attacker)
    mean = _matrix(seen.honest).mean(0)
    for row in _matrix(attacker.changes(seen)):
        assert np.allclose(row, -0.5 * mean, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_min_max_is_as_far_as_honest_changes_are_apart_and_no_further(seed):
    attacker = MinMax()
    seen = _seen(attacker, others=6, seed=seed)
    honest, lie = _matrix(seen.honest), _matrix(attacker.changes(seen))[0]
    apart = max(np.linalg.norm(a - b) for a in honest for b in honest)
    farthest = max(np.linalg.norm(lie - row) for row in honest)
    assert farthest == pytest.approx(apart, rel=1e-4)
    off = lie - honest.mean(0)
    way = -honest.std(0)
    assert off @ way == pytest.approx(np.linalg.norm(off) * np.linalg.norm(way), rel=1e-4)


def test_min_max_of_equal_changes_is_that_change():
    same = [_changes(1)[0]] * 3
    sent = MinMax().changes(Seen(own=same[:1], honest=same, others=3, source=SOURCE))
    assert np.allclose(_matrix(sent), _matrix(same[:1]))


def test_a_replaced_model_survives_the_mean():
    """Where honest parties have converged the mean is the attacker's own change."""
    attacker = ModelReplacement()
    own = _changes(2)
    sent = _matrix(attacker.changes(Seen(own=own, honest=[], others=6, source=SOURCE)))
    assert np.allclose(sent.sum(0) / 8, _matrix(own).mean(0), atol=1e-5)
    boosted = ModelReplacement(boost=3.0)
    sent = _matrix(boosted.changes(Seen(own=own, honest=[], others=6, source=SOURCE)))
    assert np.allclose(sent, 3 * _matrix(own), atol=1e-5)


def test_an_attacker_that_sees_nobody_takes_its_own_for_the_honest():
    own = _changes(4)
    seen = Seen(own=own, honest=[], others=0, source=SOURCE)
    sent = _matrix(InnerProduct(factor=1.0).changes(seen))
    assert np.allclose(sent, -_matrix(own).mean(0), atol=1e-6)


# In a federation


FREE = Unprotected("a test")


def _answering(name, change):
    def handle(request):
        asked = RoundRequest.from_bytes(request)
        return Reply(asked.kind, asked.round, name, change, FREE).to_bytes()

    return handle


def _wire():
    names = ["a", "b", "c", "d"]
    own = dict(zip(names, _changes(4), strict=True))
    return InProcess({name: _answering(name, change) for name, change in own.items()}), own


def _asked(transport, names="abcd", number=0, kind="train"):
    request = RoundRequest(kind, number, "ab", _changes(1)[0]).to_bytes()
    replies = transport.ask(dict.fromkeys(names, request))
    return {name: Reply.from_bytes(data) for name, data in replies.items()}


def test_those_at_fault_answer_with_lies_and_the_others_as_before():
    wire, own = _wire()
    bad = Infiltrated(wire, ["b", "d"], InnerProduct(factor=2.0), SOURCE)
    assert bad.parties == wire.parties
    replies = _asked(bad)
    honest = _matrix([own["a"], own["c"]]).mean(0)
    for name, reply in replies.items():
        sent = _matrix([reply.tensors])[0]
        expected = -2 * honest if name in "bd" else _matrix([own[name]])[0]
        assert np.allclose(sent, expected, atol=1e-5)
        assert (reply.party, reply.round, reply.how) == (name, 0, FREE)


def test_an_attacker_that_sees_nothing_is_given_the_number_of_others_alone():
    seen = []

    class Watching(SignFlip):
        def changes(self, given):
            seen.append((len(given.own), list(given.honest), given.others, given.cohort))
            return super().changes(given)

    wire, _ = _wire()
    _asked(Infiltrated(wire, ["b"], Watching(), SOURCE), names="abc")
    assert seen == [(1, [], 2, 3)]


def test_a_cohort_without_those_at_fault_and_evaluations_pass_through():
    wire, own = _wire()
    bad = Infiltrated(wire, ["b"], SignFlip(), SOURCE)
    for replies in (_asked(bad, names="ac"), _asked(bad, kind="evaluate")):
        for name, reply in replies.items():
            assert np.array_equal(_matrix([reply.tensors]), _matrix([own[name]]))


@pytest.mark.parametrize("encoding", ["int8", "sparse"])
def test_a_lie_is_written_as_it_is_where_honest_changes_are_compressed(encoding):
    change = {"a": torch.tensor([[1.0, 0.0], [-3.0, 0.0]]), "b": torch.tensor([2.0])}

    def answering(name):
        return lambda data: Reply("train", 0, name, change, FREE, encoding).to_bytes()

    wire = InProcess({name: answering(name) for name in "abc"})
    request = RoundRequest("train", 0, "ab", change).to_bytes()
    for attacker in (GaussianLie(), MinMax(), SignFlip(factor=0.3)):
        replies = Infiltrated(wire, ["b"], attacker, SOURCE).ask(dict.fromkeys("abc", request))
        read = {name: Reply.from_bytes(data, change) for name, data in replies.items()}
        assert [read[name].encoding for name in "abc"] == [encoding, "float32", encoding]
        assert all(torch.equal(read["a"].tensors[n], value) for n, value in change.items())
    assert torch.equal(read["b"].tensors["b"], torch.tensor([2.0]) * -0.3)


def test_rounds_are_attacked_with_other_noise():
    wire, _ = _wire()
    bad = Infiltrated(wire, ["b"], GaussianLie(), SOURCE)
    first, again, later = (_asked(bad, number=number)["b"].tensors for number in (0, 0, 1))
    assert np.array_equal(_matrix([first]), _matrix([again]))
    assert not np.allclose(_matrix([first]), _matrix([later]))


def test_only_a_party_can_be_at_fault():
    with pytest.raises(BadArgument, match=r"\['z'\] are no parties; there are a, b, c, d"):
        Infiltrated(_wire()[0], ["z"], SignFlip(), SOURCE)


def test_labels_are_turned_around_among_a_number_that_somebody_says():
    with pytest.raises(Incompatible, match=r"say among how many \(`classes: N`\)"):
        LabelFlip().rows(_rows(), SOURCE)


def test_only_the_rows_of_those_at_fault_change():
    held = {"a": _rows(), "b": _rows()}
    found = infiltrated_rows(held, ["b"], LabelFlip(classes=10), SOURCE)
    assert found["a"] is held["a"]
    assert torch.equal(found["b"].label, 9 - held["b"].label)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LabelFlip(classes=1), "classes=1 must be at least 2"),
        (lambda: PixelBackdoor(size=0), "size=0 must be at least 1"),
        (lambda: PixelBackdoor(share=0.0), "share=0.0 must be > 0"),
        (lambda: SignFlip(factor=math.nan), "factor=nan must be > 0"),
        (lambda: GaussianLie(deviation=-1.0), "deviation=-1.0 must be > 0"),
        (lambda: ALittleIsEnough(z=0.0), "z=0.0 must be > 0"),
        (lambda: ModelReplacement(boost=0.0), "boost=0.0 must be > 0"),
    ],
)
def test_numbers_that_make_no_attack_are_refused(make, sentence):
    with pytest.raises(BadArgument, match=sentence):
        make()

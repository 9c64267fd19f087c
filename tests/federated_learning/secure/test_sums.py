"""The secure sum is the plain sum on the grid, whoever drops out at whatever stage."""

import itertools

import pytest
import torch

from nacre.core.errors import PartyError
from nacre.federated_learning.across.kept import KeptReplies
from nacre.federated_learning.secure import wire
from nacre.gradient_clipping import PerLayer, Unclipped
from tests.federated_learning.secure.rounds import LIKE, Federation, unclipped

SETUP = (wire.ADVERTISE, wire.SHARE)
STAGES = (wire.MASK, wire.SIGN, wire.UNMASK)


def same(total, want):
    return all(torch.equal(total.total[name], want[name]) for name in want)


def _few(names, threshold):
    most = len(names) - threshold
    return [set(some) for n in range(most + 1) for some in itertools.combinations(names, n)]


def test_every_choice_of_dropouts_at_two_stages_gives_the_sum_over_those_who_answered():
    """Down to the threshold: each pair of sets that together leave enough, at the masked change and
    at the two stages after it."""
    checked = 0
    names = Federation(5, 3, colluders=0).names
    for first in _few(names, 3):
        for then in _few([n for n in names if n not in first], 3 + len(first)):
            for stage in STAGES[1:] if then else (wire.SIGN,):
                made = Federation(5, 3, rounds=1, colluders=0)
                made.wire.gone[wire.MASK], made.wire.gone[stage] = first, then - first
                if len(first | then) > 2:
                    continue
                total = made.round()
                assert same(total, made.expected(set(names) - first))
                assert total.local.dropped == len(first)
                checked += 1
    assert checked == 36


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("clip", [None, Unclipped(), PerLayer(norm=0.5)])
def test_rules_and_bits(bits, clip):
    made = Federation(4, 3, bits=bits, clip=clip)
    for number, gone in enumerate([set(), {"p002"}, {"p000"}]):
        made.wire.gone[wire.MASK] = gone
        total = made.round(number)
        assert same(total, made.expected(set(made.names) - gone, number))
        assert total.bound == made.clip.bound(len(made.clip.groups(list(LIKE))))


def test_a_reply_that_comes_late_counts_as_none():
    made = Federation(5, 4)
    made.wire.late[wire.MASK] = {"p003"}
    assert same(made.round(), made.expected(set(made.names) - {"p003"}))


def test_the_sum_is_near_that_of_the_changes():
    made = unclipped(count=4, threshold=3, reach=5.0)
    total = made.round().total
    for name in total:
        exact = -sum(made.changed(party, 0)[name].double() for party in made.names)
        assert (total[name] - exact).abs().max() < 4 * made.grid.step + 1e-6


def test_keys_are_exchanged_once_and_a_round_takes_two_asks_or_three():
    made = Federation(5, 4)
    for number, gone in enumerate([set(), {"p001"}, set()]):
        made.wire.gone[wire.MASK] = gone
        made.round(number)
    kinds = [[len(made.wire.asks(kind)) for kind in (*SETUP, wire.CONFIRM)]]
    assert kinds == [[5, 5, 5]]
    assert not made.wire.asks(wire.REVEAL)
    assert [len(made.wire.asks(kind)) for kind in STAGES] == [14, 4, 14]


@pytest.mark.parametrize("stage", [*SETUP, wire.CONFIRM])
def test_a_party_that_is_away_while_keys_are_exchanged_takes_no_part(stage):
    made = Federation(5, 4)
    made.wire.gone[stage] = {"p002"}
    gone = {"p002"}
    assert same(made.round(0), made.expected(set(made.names) - gone, 0))
    made.wire.gone.clear()
    if stage == wire.CONFIRM:  # it shared secrets already, so it is back in the next round
        gone = set()
    assert same(made.round(1), made.expected(set(made.names) - gone, 1))


@pytest.mark.parametrize("stage", [*SETUP, *STAGES])
def test_below_the_threshold_no_sum_is_opened(stage):
    made = Federation(5, 4)
    if stage == wire.SIGN:
        made.wire.gone[wire.MASK] = {"p004"}
        made.wire.gone[stage] = {"p000"}
    else:
        made.wire.gone[stage] = {"p000", "p001"}
    with pytest.raises(PartyError, match="no sum is opened"):
        made.round()


def test_as_many_neighbours_as_the_graph_takes():
    """Above 50 parties the graph is sparse; dropouts at every stage."""
    made = Federation(60, 50, rounds=2)
    assert made.round(0).local.dropped == 0
    session = made.gather._session
    assert not session.members.complete
    assert len(made.wire.asks(wire.REVEAL)) == 60
    made.wire.gone[wire.MASK] = set(made.names[:5])
    made.wire.gone[wire.SIGN] = set(made.names[5:7])
    made.wire.gone[wire.UNMASK] = set(made.names[7:9])
    assert same(made.round(1), made.expected(made.names[5:], 1))


@pytest.mark.parametrize("stage", [wire.REVEAL, wire.SHARE])
def test_a_sparse_graph_is_drawn_anew_without_those_who_stop_answering(stage):
    made = Federation(55, 45, rounds=1)
    made.wire.gone[stage] = {"p007"}
    assert same(made.round(), made.expected(set(made.names) - {"p007"}))
    assert made.gather._session.members.epoch == 1


def test_only_all_parties_are_summed():
    made = Federation(4, 3)
    made.names = made.names[:3]
    with pytest.raises(PartyError, match="cohort"):
        made.round()


def test_a_change_that_is_not_finite_is_no_change_where_parties_are_protected():
    made = Federation(4, 3, rounds=1)
    made.changed = lambda name, number: {
        n: t * (float("nan") if name == "p001" else 1.0)
        for n, t in Federation.changed(made, name, number).items()
    }
    total = made.round()
    others = [made.encoded(name) for name in made.names if name != "p001"]
    assert (
        made.grid.decoded(sum(others)).astype("f4")
        == torch.cat([total.total[n].reshape(-1) for n in sorted(total.total)]).numpy()
    ).all()
    made = unclipped(count=4, threshold=3, rounds=1)
    made.changed = lambda name, number: {
        n: t * float("inf") for n, t in Federation.changed(made, name, number).items()
    }
    with pytest.raises(PartyError, match="not finite"):
        made.round()


def test_unprotected_changes_count_as_none_where_they_have_to_be_private():
    made = unclipped(count=4, threshold=3, rounds=1)
    with pytest.raises(PartyError, match="promises privacy"):
        made.round(private=True)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_message_takes_the_bytes_of_its_bits(bits):
    made = Federation(5, 4, bits=bits)
    made.round()
    sizes = {
        len(data) for way, kind, _, data in made.wire.seen if (way, kind) == ("reply", wire.MASK)
    }
    assert max(sizes) <= 17 * bits // 8 + 32 * 2 + 1000


def test_a_resumed_run_gets_the_same_bytes_and_nobody_trains_twice(tmp_path):
    made = Federation(5, 4, store=tmp_path)
    made.wire.gone[wire.MASK] = {"p002"}
    first = made.round(0)
    before, trained = list(made.wire.seen), list(made.trained)
    made.wire.seen.clear()
    made.restart()
    assert same(made.round(0), first.total)
    assert made.wire.seen == before
    assert made.trained == trained
    made.wire.gone.clear()
    assert same(made.round(1), made.expected(made.names, 1))


@pytest.mark.parametrize("stage", [*SETUP, wire.CONFIRM, *STAGES])
def test_a_server_that_dies_at_a_stage_continues(stage, tmp_path):
    made = Federation(5, 4, store=tmp_path)
    made.wire.gone[wire.MASK] = {"p002"}

    def die(way, kind, name, data):
        if (way, kind, name) == ("reply", stage, "p003"):
            raise KeyboardInterrupt
        return data

    made.wire.change = die
    with pytest.raises(KeyboardInterrupt):
        made.round(0)
    made.wire.change = None
    made.restart()
    assert same(made.round(0), made.expected(set(made.names) - {"p002"}))
    assert len(made.trained) == 4


def test_a_server_goes_on_with_those_who_exchanged_keys(tmp_path):
    """A party that was absent then answers now; the others would refuse keys with it among them."""
    made = Federation(5, 4, rounds=6, store=tmp_path / "parties")
    wire_of_all, absent = made.wire, {"p004"}
    kept = [tmp_path / "kept", bytes(32)]
    made.wire = KeptReplies(wire_of_all, *kept, asks=4)
    wire_of_all.gone[wire.ADVERTISE] = absent
    for number in range(3):
        made.round(number)
    made.wire = wire_of_all
    made.restart()
    wire_of_all.gone.clear()
    made.wire = KeptReplies(wire_of_all, *kept, asks=4)
    assert same(made.round(2), made.expected(set(made.names) - absent, 2))
    assert same(made.round(3), made.expected(set(made.names) - absent, 3))
    assert len(made.trained) == 4 * 4


def test_what_a_party_keeps_is_encrypted(tmp_path):
    made = Federation(5, 4, store=tmp_path)
    made.round(0)
    member = made.party("p001")._member
    secret = member._keys_of(0).secret("self", 0).to_bytes(32, "big")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "p001").iterdir())
    for private in (secret, member._secret, b"secure.mask", b"epoch"):
        assert private not in kept
    assert "secret" in repr(member)
    assert member._secret.hex() not in repr(member)

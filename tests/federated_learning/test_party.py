"""A party answers each step once, whatever crashes and whatever is asked."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from nacre.core.errors import BudgetExceeded, FileDamaged, NacreError, PartyError
from nacre.core.types import Noised, Release, Unprotected
from nacre.federated_learning import Party, Reply, RoundRequest
from nacre.federated_learning.answers import Stored

KEY = bytes(range(32))
LIKE = {"w": torch.zeros(2), "b": torch.zeros(())}


class Trainer:
    """Releases a fresh random change each time: a second computation shows."""

    def __init__(self):
        self.asked = []

    def __call__(self, weights, number):
        self.asked.append(number)
        change = {name: torch.randn(value.shape) for name, value in weights.items()}
        return Release(change, Noised(0.5))


def party(train=None, **options):
    stored = {} if options.get("store") is None else {"key": KEY}
    options = {"recipe": "ab", "rounds": 3, "like": LIKE, **stored, **options}
    return Party("east", train or Trainer(), **options)


def request(number=0, value=1.0, kind="train", recipe="ab"):
    weights = {name: torch.full_like(t, value) for name, t in LIKE.items()}
    return RoundRequest(kind, number, recipe, weights).to_bytes()


def test_the_reply_holds_the_release():
    train = Trainer()
    reply = Reply.from_bytes(party(train).handle(request(2)))
    assert (reply.kind, reply.round, reply.party, reply.how) == ("train", 2, "east", Noised(0.5))
    assert {n: t.shape for n, t in reply.tensors.items()} == {n: t.shape for n, t in LIKE.items()}
    assert train.asked == [2]


@pytest.mark.parametrize("stored", [True, False])
def test_the_identical_request_gets_the_same_bytes_and_trains_once(stored, tmp_path):
    train = Trainer()
    east = party(train, store=tmp_path / "east" if stored else None)
    first = east.handle(request(0))
    assert east.handle(request(0)) == first
    assert east.handle(request(1)) != first
    assert train.asked == [0, 1]


@pytest.mark.parametrize("stored", [True, False])
def test_another_request_under_a_used_number_is_refused(stored, tmp_path):
    train = Trainer()
    east = party(train, store=tmp_path if stored else None)
    first = east.handle(request(0, 1.0))
    with pytest.raises(PartyError, match="answered for other weights"):
        east.handle(request(0, 1.0000001))
    assert train.asked == [0]
    assert east.handle(request(0, 1.0)) == first


def test_a_party_that_died_before_its_reply_left_sends_the_stored_bytes(tmp_path, monkeypatch):
    """The store is on disk, then the process is gone: the next one answers with these bytes."""
    train, sent = Trainer(), []
    put = Stored.put

    def dies(self, step, request, reply):
        put(self, step, request, reply)
        sent.append(reply)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stored, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        party(train, store=tmp_path).handle(request(1))
    monkeypatch.undo()
    again = party(train, store=tmp_path)
    assert again.handle(request(1)) == sent[0]
    assert train.asked == [1]
    with pytest.raises(PartyError, match="answered for other weights"):
        again.handle(request(1, 2.0))


KILLED = """
import os, signal, sys
from pathlib import Path
from nacre.core.types import Noised, Release
from nacre.federated_learning.answers import Stored
from tests.federated_learning.test_party import LIKE, party, request

put = Stored.put
def dies(self, *answer):
    put(self, *answer)
    os.kill(os.getpid(), signal.SIGKILL)
Stored.put = dies
party(lambda w, n: Release(LIKE, Noised(0.25)), store=Path(sys.argv[1])).handle(request(0))
"""


@pytest.mark.slow
def test_a_party_killed_before_its_reply_left_sends_the_stored_bytes(tmp_path):
    """The same by a real death: kill -9 between the rename and the reply."""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    train = Trainer()
    reply = Reply.from_bytes(party(train, store=tmp_path).handle(request(0)))
    assert reply.how == Noised(0.25)
    assert train.asked == []


def test_a_party_that_died_before_the_store_released_nothing(tmp_path, monkeypatch):
    train = Trainer()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NacreError, match="No space left"):
        party(train, store=tmp_path).handle(request(0))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    east = party(train, store=tmp_path)
    assert east.handle(request(0, 2.0)) == east.handle(request(0, 2.0))
    assert train.asked == [0, 0]


@pytest.mark.parametrize("cut", [0, 40, 70])
def test_a_damaged_answer_is_never_given_anew(cut, tmp_path):
    train = Trainer()
    party(train, store=tmp_path).handle(request(0))
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data[:cut] if cut else data)
    with pytest.raises(FileDamaged, match="once answered"):
        party(train, store=tmp_path).handle(request(0))
    assert train.asked == [0]


def test_what_is_stored_shows_nothing_of_the_reply(tmp_path):
    """Under privacy of whole parties it is a raw change."""
    east = party(store=tmp_path)
    reply = east.handle(request(0))
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    assert reply not in data and b"__metadata__" not in data and b"nacre" not in data
    assert not any(t.numpy().tobytes() in data for t in Reply.from_bytes(reply).tensors.values())
    assert party(store=tmp_path).handle(request(0)) == reply
    with pytest.raises(FileDamaged, match="once answered"):
        party(store=tmp_path, key=bytes(32)).handle(request(0))
    file.rename(tmp_path / "train-0000000001.answer")  # another step's
    with pytest.raises(FileDamaged, match="once answered"):
        party(store=tmp_path).handle(request(1))


def test_a_key_and_a_folder_are_given_together(tmp_path):
    for options in ({"store": tmp_path, "key": None}, {"key": KEY}):
        with pytest.raises(ValueError, match="together"):
            party(**options)


def test_answers_are_for_the_owner_alone(tmp_path):
    party(store=tmp_path).handle(request(0))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_two_requests_at_once_get_one_answer():
    train, replies, refusals = Trainer(), [], []
    started = threading.Barrier(4)
    east = party(train)

    def ask(value):
        started.wait()
        try:
            replies.append(east.handle(request(0, value)))
        except PartyError:
            refusals.append(value)

    threads = [threading.Thread(target=ask, args=(value,)) for value in (1.0, 2.0, 3.0, 4.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(replies), len(refusals), train.asked) == (1, 3, [0])


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (request(recipe="cd"), "another recipe"),
        (request(3), "3 rounds were agreed"),
        (request(4, kind="evaluate"), "3 rounds were agreed"),
        (request(kind="evaluate"), "no rows that it may score"),
        (
            RoundRequest("train", 0, "ab", {"w": torch.zeros(2)}).to_bytes(),
            "not those of the model",
        ),
        (RoundRequest("train", 0, "ab", {**LIKE, "w": torch.zeros(3)}).to_bytes(), "has shape"),
        (b"hello", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_row_is_touched(asked, sentence):
    train = Trainer()
    with pytest.raises(PartyError, match=sentence):
        party(train).handle(asked)
    assert train.asked == []


def test_evaluation_is_answered_once_as_well(tmp_path):
    asked = []

    def evaluate(weights):
        asked.append(weights)
        return Release({"accuracy": torch.tensor(0.75)}, Unprotected("the rows are public"))

    east = party(evaluate=evaluate, store=tmp_path)
    first = east.handle(request(3, kind="evaluate"))
    assert east.handle(request(3, kind="evaluate")) == first
    assert Reply.from_bytes(first).tensors == {"accuracy": torch.tensor(0.75)}
    assert len(asked) == 1
    with pytest.raises(PartyError, match="refuses to evaluate in round 3"):
        east.handle(request(3, 2.0, kind="evaluate"))
    east.handle(request(2))  # the numbers of trainings are their own


def test_what_training_raises_goes_through_and_the_step_stays_open(tmp_path):
    def refuse(weights, number):
        raise BudgetExceeded("the grant is spent")

    with pytest.raises(BudgetExceeded):
        party(refuse, store=tmp_path).handle(request(0))
    assert list(tmp_path.glob("train-*")) == []


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_round_that_failed_is_tried_again_with_the_same_weights_alone(stored, kind, tmp_path):
    """Else each refusal is a bit about rows or noise, and the server may ask for any number."""
    fails, asked = [True], []

    def compute(weights, number=0):
        asked.append(float(weights["b"]))
        if fails[0]:
            raise ValueError("a row did this")
        return Release(weights, Noised(0.5))

    def made():
        return party(compute, evaluate=compute, store=tmp_path if stored else None)

    east = made()
    with pytest.raises(ValueError, match="a row did this"):
        east.handle(request(0, 1.0, kind))
    east = made() if stored else east
    with pytest.raises(PartyError, match="could not answer this round for other weights"):
        east.handle(request(0, 2.0, kind))
    with pytest.raises(ValueError, match="a row did this"):
        east.handle(request(0, 1.0, kind))
    fails[0] = False
    east.handle(request(0, 1.0, kind))
    east.handle(request(1, 2.0, kind))
    assert asked == [1.0, 1.0, 1.0, 2.0]

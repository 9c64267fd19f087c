"""Micro-batches of rows of alike width: the same sum, and shares that no other unit moves."""

import pytest
import torch

from nacre.adversarial_training import Standard
from nacre.core import rows
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract
from nacre.data.dataset import Rows
from nacre.data.units import Units
from nacre.gradient_clipping import BookKeeping, Flat, Looped
from nacre.models import Classification
from nacre.models.stock.pretrained import Pretrained, pretrained
from tests.models.transformer_folders import TOKENS, folder_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
KEY = Source(bytes(32))
CLIP = Flat(norm=0.5)
WIDTH = 24  # steps of 8 tokens


@pytest.fixture
def model(tmp_path):
    folder_of("Bert", tmp_path)
    built = pretrained(Pretrained(name="bert", dropout=0.3), 3, tmp_path)
    return built.double().train()


def held(*, grouped):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 24, 9, 1, 16, 8, 17, 12, 2, 23])
    features = torch.randint(TOKENS, (10, WIDTH), generator=generator)
    features[torch.arange(WIDTH) >= lengths[:, None]] = -1
    label = torch.randint(3, (10,), generator=generator)
    people = tuple(f"p{i // 2}" for i in range(10)) if grouped else None
    all_rows = Rows(features, label, people)
    return Units(all_rows, "group" if grouped else "example", 2 if grouped else None, KEY)


def learned(kind, model, units):
    """A sum that knows the model, for as many totals as a test takes."""
    sums = kind(Standard(Classification(3)))
    whole = units.batch(torch.arange(len(units)))
    with torch.random.fork_rng():
        sums.learn(model, rows.select(whole, slice(3)), KEY)
    return sums


def total(sums, model, units, indices, size=None):
    result = None
    for some in units.micro(indices, size):
        more = sums(model, some, CLIP, KEY)
        result = more if result is None else result + more
    return result.total


@pytest.mark.parametrize("grouped", [False, True])
def test_no_batch_is_wider_than_its_longest_unit_needs(grouped):
    units = held(grouped=grouped)
    seen = []
    for batch in units.micro(torch.arange(len(units)), 3):
        longest = int((batch["features"] >= 0).sum(-1).max())
        assert longest <= batch["features"].shape[-1] < longest + 8
        assert len(batch["unit"]) <= 3
        seen += batch["unit"].tolist()
    assert sorted(seen) == sorted(units.numbers(torch.arange(len(units))).tolist())


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", [Looped, BookKeeping])
def test_a_unit_has_the_same_share_in_whatever_company(model, kind, grouped):
    """Dropout is on: were a batch as wide as its longest row, masks would move with company."""
    units = held(grouped=grouped)
    everyone = torch.arange(len(units))
    sums = learned(kind, model, units)
    together = total(sums, model, units, everyone)
    alone = [total(sums, model, units, one) for one in everyone.split(1)]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(t[name] for t in alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [Looped, BookKeeping])
def test_taking_a_unit_away_moves_the_sum_by_at_most_the_bound(model, kind):
    units = held(grouped=False)
    everyone = torch.arange(len(units))
    sums = learned(kind, model, units)
    whole = total(sums, model, units, everyone)
    for gone in range(len(units)):
        less = total(sums, model, units, everyone[everyone != gone])
        assert norm(subtract(whole, less)) <= CLIP.norm * (1 + 1e-9)


def test_numbers_come_in_one_batch():
    units = Units(Rows(torch.ones(5, 4), torch.zeros(5, dtype=torch.int64)), "example", None, KEY)
    assert [len(batch["unit"]) for batch in units.micro(torch.arange(5), None)] == [5]
    assert list(units.micro(torch.arange(0), None)) == []


def test_labels_by_position_are_narrowed_with_their_tokens():
    features = torch.tensor([[5] * 3 + [-1] * 21])
    units = Units(Rows(features, features.masked_fill(features < 0, -100)), "example", None, KEY)
    (batch,) = units.micro(torch.arange(1), None)
    assert batch["features"].shape == batch["label"].shape == (1, 8)


def test_absent_rows_of_a_group_hold_padding():
    features = torch.tensor([[5, 6], [7, -1], [8, 9]])
    held_rows = Rows(features, torch.tensor([1, 2, 0]), ("a", "a", "b"))
    units = Units(held_rows, "group", 2, KEY)
    (batch,) = units.micro(torch.tensor([1]), None)
    assert batch["features"].tolist() == [[[8, 9], [-1, -1]]]
    assert batch["label"].tolist() == [[0, 0]]

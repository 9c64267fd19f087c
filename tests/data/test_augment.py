import pytest
import torch
from torch.nn import functional

from nacre.core import rows
from nacre.core.random import Source
from nacre.data.augment import Copies
from tests.laws.zoo import MLP, ZOO

SOURCE = Source(bytes(32))
IMAGES, GROUPS = (a for a in ZOO if len(a.shape) == 3)
BOTH = Copies(count=5, flip=True, shift=2)
BESIDE = Copies(count=3, shift=1, noise=0.5, include_original=True)


def _possible(image, option):
    """Every copy that an image may have, by padding and cropping."""
    height, width = image.shape[1:]
    reach = option.shift
    padded = functional.pad(image[None], [reach] * 4, mode="replicate")[0]
    crops = [
        padded[:, y : y + height, x : x + width]
        for y in range(2 * reach + 1)
        for x in range(2 * reach + 1)
    ]
    return torch.stack(crops + ([crop.flip(2) for crop in crops] if option.flip else []))


@pytest.mark.parametrize("option", [BOTH, Copies(count=3, flip=True), Copies(count=3, shift=3)])
def test_a_copy_is_its_own_image_flipped_and_shifted(option):
    batch = IMAGES.batch(4)
    copied = option.apply(batch, SOURCE)
    assert copied["features"].shape == (4, option.count, 1, 4, 4)
    assert copied["rows"].shape == copied["label"].shape == (4, option.count)
    assert copied["rows"].all()
    for image, label, copies, labels in zip(
        batch["features"], batch["label"], copied["features"], copied["label"], strict=True
    ):
        possible = _possible(image, option)
        assert all(bool((copy == possible).flatten(1).all(1).any()) for copy in copies)
        assert (labels == label).all()
    assert torch.equal(copied["unit"], batch["unit"])
    assert torch.equal(copied["present"], batch["present"])


def test_every_copy_comes_up_as_often():
    """2 x 9 = 18 copies, 9000 draws: 500 each, deviation 22; six of them fail once in 3e7 times."""
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    batch = {
        "features": image.expand(900, 1, 4, 4),
        "label": torch.zeros(900, dtype=torch.int64),
        "present": torch.ones(900, dtype=torch.bool),
        "unit": torch.arange(900),
    }
    option = Copies(count=10, flip=True, shift=1)
    copies = option.apply(batch, SOURCE)["features"].reshape(9000, -1)
    counts = [int((copies == one.reshape(-1)).all(1).sum()) for one in _possible(image[0], option)]
    assert sum(counts) == 9000
    assert all(abs(count - 500) < 6 * 22 for count in counts)


@pytest.mark.parametrize("option", [BOTH, BESIDE], ids=["copies", "beside the row"])
@pytest.mark.parametrize("animal", [IMAGES, GROUPS], ids=["rows", "groups"])
def test_a_unit_has_the_same_copies_in_any_company(animal, option):
    batch = animal.batch(6)
    together = option.apply(batch, SOURCE)
    for index in ([3], [5, 0, 3], [1, 2, 3, 4]):
        some = option.apply(rows.select(batch, torch.tensor(index)), SOURCE)
        for name, value in some.items():
            assert torch.equal(value, together[name][index])
    moved = option.apply(batch | {"unit": batch["unit"] + 100}, SOURCE)
    assert not torch.equal(moved["features"], together["features"])
    other = option.apply(batch, SOURCE.child("another step"))
    assert not torch.equal(other["features"], together["features"])


def test_each_row_of_a_group_has_its_copies_and_padding_stays_padding():
    batch = GROUPS.batch(6)  # two rows a unit at most
    copied = BOTH.apply(batch, SOURCE)
    assert copied["features"].shape == (6, 10, 1, 4, 4)
    assert torch.equal(copied["rows"], batch["rows"].repeat_interleave(5, 1))
    assert torch.equal(copied["label"], batch["label"].repeat_interleave(5, 1))
    for unit, place in ((2, 0), (2, 1), (5, 1)):
        possible = _possible(batch["features"][unit, place], BOTH)
        copies = copied["features"][unit, 5 * place : 5 * place + 5]
        assert all(bool((copy == possible).flatten(1).all(1).any()) for copy in copies)


def test_an_empty_batch_has_no_copies():
    copied = BOTH.apply(IMAGES.batch(0), SOURCE)
    assert copied["features"].shape == (0, 5, 1, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0, "flip": True}, "count=0"),
        ({"count": 257, "flip": True}, "count=257"),
        ({"count": 2, "shift": -1}, "shift=-1"),
        ({"count": 2}, "all the same"),
        ({"count": 1, "noise": 1.0, "include_original": True}, "the row alone as it is"),
    ],
)
def test_options_that_make_no_copies_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Copies(**wrong)


def test_rows_that_are_no_images_have_no_copies():
    assert BOTH.problem((3, 8, 8)) is None
    assert "(6,)" in BOTH.problem(MLP.shape)
    assert "at most 3" in Copies(count=2, shift=4).problem((1, 4, 8))


NOISY = Copies(count=6, noise=0.5)


@pytest.mark.parametrize("architecture", ZOO[:3], ids=lambda a: a.name)
def test_noise_moves_the_entries_of_any_row_of_numbers(architecture):
    batch = architecture.batch(5)
    if not batch["features"].is_floating_point():
        pytest.skip("noise moves numbers")
    copied = NOISY.apply(batch, SOURCE)
    assert NOISY.problem(architecture.shape) is None and NOISY.subject == "row"
    assert copied["features"].dtype == batch["features"].dtype
    assert copied["label"].shape[:2] == copied["features"].shape[:2]


@pytest.mark.parametrize("animal", [IMAGES, GROUPS], ids=["rows", "groups"])
def test_the_first_copy_is_the_row_and_the_others_are_drawn(animal):
    batch = animal.batch(6)
    copied = BESIDE.apply(batch, SOURCE)
    features = batch["features"] if animal is GROUPS else batch["features"][:, None]
    found = copied["features"].unflatten(1, (features.shape[1], 3))
    assert torch.equal(found[:, :, 0], features)
    moved = (found[:, :, 1:] != features[:, :, None]).flatten(3).any(3)
    assert moved.all()
    assert not torch.equal(found[:, :, 1], found[:, :, 2])
    drawn = Copies(count=2, shift=1, noise=0.5).apply(batch, SOURCE)
    assert torch.equal(found[:, :, 1:].flatten(1, 2), drawn["features"])


def test_noise_is_normal_and_as_wide_as_declared():
    """54,000 normals of deviation 0.5: their deviation lies within 0.5 +- 0.007 but once in 1e5."""
    batch = {
        "features": torch.full((900, 10), 3.0),
        "label": torch.zeros(900, dtype=torch.int64),
        "present": torch.ones(900, dtype=torch.bool),
        "unit": torch.arange(900),
    }
    moved = NOISY.apply(batch, SOURCE)["features"] - 3.0
    assert abs(float(moved.std()) - 0.5) < 0.007
    assert abs(float(moved.mean())) < 0.01
    assert abs(float((moved.abs() < 0.5).double().mean()) - 0.6827) < 0.009


def test_the_noise_of_a_unit_is_its_own():
    batch = {
        "features": torch.zeros(4, 3),
        "label": torch.zeros(4, dtype=torch.int64),
        "present": torch.ones(4, dtype=torch.bool),
        "unit": torch.tensor([7, 8, 9, 7]),
    }
    whole = NOISY.apply(batch, SOURCE)["features"]
    alone = NOISY.apply({name: value[1:2] for name, value in batch.items()}, SOURCE)["features"]
    assert torch.equal(alone[0], whole[1])
    assert torch.equal(whole[0], whole[3]) and not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0, 0], whole[0, 1])

import pytest
import torch

from nacre.adversarial_training.threats.patches import Sets, Windows


def _uniform(rows, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("share", "side"), [(0.8, 8), (0.2, 4), (1e-4, 1), (1.0, 8)])
def test_a_window_is_a_square_of_the_share_inside_the_image(share, side):
    windows = Windows(2, 8, 10)
    uniform = _uniform(900, windows.draws)
    shares = torch.full((900,), share, dtype=torch.float64)
    patch, signs = windows.pick(windows.placed(uniform, shares, 1))
    grid = patch.reshape(900, 8, 10)
    assert (grid.sum((1, 2)) == side * side).all()
    assert (grid.any(1).sum(1) == side).all()
    assert (grid.any(2).sum(1) == side).all()
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    # Every place is reached.
    assert grid.any(0).all()


@pytest.mark.parametrize("side", [3, 4, 5, 9])
def test_a_relief_is_a_hill_and_a_valley_of_nested_squares(side):
    windows = Windows(1, side, side)
    uniform = torch.tensor([[0.5, 0.5, 0.9, 0.9]], dtype=torch.float64)  # upright, sign +
    whole = torch.ones(1, dtype=torch.float64)
    _, relief = windows.relief(windows.placed(uniform, whole, 3))
    relief = relief.reshape(side, side)
    expected = torch.zeros(side, side, dtype=torch.float64)
    for first, length, sign in ((0, side // 2, 1), (side // 2, side - side // 2, -1)):
        down, across = length // 2, side // 2
        for c in range(max(down, across) + 1):
            top, left = max(down - c, 0), max(across - c, 0)
            part = expected[first : first + length]
            part[top : down + c + 1, left : across + c + 1] += sign / (c + 1) ** 2
    assert torch.allclose(relief, expected)
    turned = torch.tensor([[0.5, 0.5, 0.1, 0.9]], dtype=torch.float64)
    _, lying = windows.relief(windows.placed(turned, whole, 3))
    assert torch.allclose(lying.reshape(side, side), expected.mT)


def test_sets_hold_the_share_of_the_free_entries_and_no_fixed_one():
    free = torch.tensor([True, False, True, True, True])
    sets = Sets(free)
    uniform = _uniform(4000, sets.draws)
    patch, signs = sets.pick(sets.placed(uniform, torch.full((4000,), 0.5, dtype=torch.float64), 3))
    assert (patch.sum((1, 2)) == 2).all()
    assert not patch[:, 0, 1].any()
    # Each free entry is drawn as often, and its sign is a fair coin.
    assert patch.float().mean((0, 1))[free].tolist() == pytest.approx([0.5] * 4, abs=0.04)
    assert abs(signs[:, 0][patch[:, 0]].mean()) < 0.05


def test_no_free_entry_gives_no_patch():
    sets = Sets(torch.zeros(3, dtype=torch.bool))
    patch, _ = sets.pick(sets.placed(_uniform(2, 3), torch.ones(2, dtype=torch.float64), 1))
    assert not patch.any()


def test_a_window_is_never_larger_than_the_image():
    windows = Windows(1, 2, 5)
    placed = windows.placed(_uniform(50, windows.draws), torch.ones(50, dtype=torch.float64), 3)
    assert (windows.pick(placed)[0].sum((1, 2)) == 4).all()


@pytest.mark.parametrize("found", [Windows(3, 7, 5), Windows(1, 4, 9), Sets(torch.ones(35) > 0)])
@pytest.mark.parametrize("times", [1, 4])
def test_painting_takes_the_patch_from_the_edge_of_its_sign_and_nothing_else(found, times):
    rows, entries = 30, 36 if found == Windows(1, 4, 9) else 35
    inputs = torch.randn(rows, found.channels, entries)
    edges = torch.randn(rows, 2, found.channels, entries)
    shares = 0.9 * _uniform(rows * times, 1).squeeze(1) ** 2  # windows of many sizes together
    placed = found.placed(_uniform(rows * times, found.draws, 1), shares, 1)
    before = inputs.clone()
    painted = found.painted(inputs, edges, placed)
    assert torch.equal(inputs, before)
    patch, signs = found.pick(placed)
    row = torch.arange(rows * times) // times
    edge = torch.where(signs > 0, edges[row, 1], edges[row, 0])
    assert torch.equal(painted, torch.where(patch, edge, inputs[row]))

import pytest
import torch
from torch import nn

from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.models.repair import check, repaired


class By(nn.Module):
    """A module that is one function of its inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Counting(nn.Module):
    """Counts the rows it has seen."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += len(x)
        return x


def next_row(x):
    return torch.cat([x[:-1] + x[1:], x[-1:]])


def previous_row(x):
    return torch.cat([x[:1], x[1:] + x[:-1]])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm1d(4), "'BatchNorm1d' .* use GroupNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), r"layer '1' \(BatchNorm1d\)"),
        (nn.BatchNorm1d(4).eval(), "use GroupNorm"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "set `track_running_stats=False`"),
        (nn.LazyLinear(3), "has no weights before its first batch"),
        (nn.Linear(4, 4, dtype=torch.complex64), "'weight' is complex"),
        (By(lambda x: x - x.mean(0)), "mixes rows"),
        (By(next_row), "mixes rows"),
        (By(previous_row), "mixes rows"),
        (By(lambda x: x / len(x)), "answers a row differently when it stands alone"),
        (By(lambda x: x[:1]), "returns 1 rows for 4"),
        (Counting(), "'seen' changes in a forward pass"),
    ],
)
def test_what_mixes_or_remembers_rows_is_refused(module, message):
    with pytest.raises(UnsupportedLayer, match=message):
        check(module, (4,))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(5, 2), r"does not take inputs of shape \(4,\)"),
        (By(lambda x: x / 0), "infinite numbers or NaN"),
    ],
)
def test_what_does_not_answer_is_refused(module, message):
    with pytest.raises(Incompatible, match=message):
        check(module, (4,))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.LayerNorm(4)),
        nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2).eval())),
    ],
)
def test_a_good_model_passes_and_is_left_as_it_was(module):
    modes = [part.training for part in module.modules()]
    state = torch.random.get_rng_state()
    check(module, (4,))
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for p in module.parameters())


class Centred(nn.Module):
    """Rows mix before a head that starts at zero."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(x - x.mean(0))


def test_a_head_that_starts_at_zero_hides_no_mixing():
    model = Centred()
    with pytest.raises(UnsupportedLayer):
        check(model, (3,))
    assert not model.head.weight.any() and not model.head.bias.any()


def test_a_refused_model_is_left_as_it_was():
    module = Counting()
    with pytest.raises(UnsupportedLayer):
        check(module, (4,))
    assert module.seen == 0


def test_a_network_with_batch_norm_is_repaired():
    shared = nn.BatchNorm2d(12)
    network = nn.Sequential(
        nn.Conv2d(1, 12, 3), shared, shared, nn.InstanceNorm2d(12, track_running_stats=True)
    )
    mended = repaired(network)
    check(mended, (1, 8, 8))
    assert isinstance(network[1], nn.BatchNorm2d)
    assert isinstance(mended[1], nn.GroupNorm) and mended[1] is mended[2]
    assert mended[1].num_groups == 3
    assert torch.equal(mended[1].weight, shared.weight)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (8, 2), (64, 16), (256, 32)])
def test_groups_hold_four_channels_or_more(channels, groups):
    assert repaired(nn.BatchNorm1d(channels)).num_groups == groups


def test_what_has_no_scale_gets_none():
    assert repaired(nn.BatchNorm1d(4, affine=False).eval()).weight is None

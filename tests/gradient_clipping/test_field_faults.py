"""Models from the field that broke the tape: each kind is exact, or refused before it leaks."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Looped, choose_sum
from tests.laws.networks import Computed, Objective
from tests.laws.zoo import distance

SOURCE = Source(bytes(range(32)))


def _case(function, shape=(4, 5, 8), **parts):
    torch.manual_seed(0)
    model = Computed(function, **parts).train()
    batch = {"x": torch.randn(*shape, generator=torch.Generator().manual_seed(1))}
    batch |= {"present": torch.ones(len(batch["x"]), dtype=torch.bool)}
    batch |= {"unit": torch.arange(len(batch["x"]))}
    return model, batch, Objective(lambda m, b: m(b["x"]).square().flatten(1).sum(1))


def _weight(*shape):
    return nn.Parameter(torch.randn(shape) * 0.3)


def _biased(s, x):
    heads = s.enter(x).unflatten(2, (2, 4)).transpose(1, 2)
    return functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=s.w)


SAVING = {
    "attention with a learnt bias": (_biased, (1, 2, 5, 5)),
    "power": (lambda s, x: (s.enter(x).abs() + 0.5) ** s.w, (8,)),
    "hypot": (lambda s, x: torch.hypot(s.enter(x), s.w), (8,)),
    "cdist": (lambda s, x: torch.cdist(s.enter(x), s.w), (3, 8)),
}


@pytest.mark.parametrize("name", SAVING)
@pytest.mark.parametrize("kind", [BookKeeping, Ghost])
def test_an_operation_that_saves_its_own_output_is_exact(kind, name):
    function, shape = SAVING[name]
    model, batch, objective = _case(function, enter=nn.Linear(8, 8), w=_weight(*shape))
    expected = Looped(objective)(model, batch, Flat(norm=5.0), SOURCE).total
    found = kind(objective)(model, batch, Flat(norm=5.0), SOURCE).total
    assert distance(found, expected) <= 1e-5 * norm(expected)


def _filtered(s, x):
    spectrum = torch.fft.rfft(s.enter(x).mT) * torch.view_as_complex(s.w)
    return torch.fft.irfft(spectrum, n=5)


def _state_space(s, x):
    poles = torch.complex(-s.w[..., 0].exp(), torch.arange(4.0).expand(8, 4))
    steps = (poles[..., None] * torch.arange(5)).exp()
    kernel = torch.einsum("hn,hnl->hl", torch.view_as_complex(s.w), steps).real
    spectrum = torch.fft.rfft(s.enter(x).mT, n=10) * torch.fft.rfft(kernel, n=10)
    return torch.fft.irfft(spectrum, n=10)[..., :5]


COMPLEX = {
    "filter": (_filtered, (8, 3, 2)),
    "state space": (_state_space, (8, 4, 2)),
    "product": (lambda s, x: torch.view_as_real(s.enter(x) * torch.view_as_complex(s.w)), (8, 2)),
    "matrix": (
        lambda s, x: (s.enter(x).to(torch.cfloat) @ torch.view_as_complex(s.w)).imag,
        (8, 3, 2),
    ),
    "cast": (lambda s, x: (s.enter(x) * 1j * s.w.to(torch.cfloat)).abs(), (8,)),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("kind", [BookKeeping, Ghost])
def test_complex_numbers_are_exact(kind, name):
    function, shape = COMPLEX[name]
    model, batch, objective = _case(function, enter=nn.Linear(8, 8), w=_weight(*shape))
    expected = Looped(objective)(model, batch, Flat(norm=1.0), SOURCE)
    found = kind(objective, verify="never")(model, batch, Flat(norm=1.0), SOURCE)
    assert distance(found.total, expected.total) <= 1e-5 * norm(expected.total)
    assert torch.allclose(found.local.norms, expected.local.norms, rtol=1e-4)


def _marking(s, x):
    hidden = x[:, None]
    hidden.requires_grad = True
    return s.head(s.mix(hidden).relu().mean(2))


def test_a_model_that_marks_its_input_goes_by_the_tape():
    parts = {"mix": nn.Conv1d(1, 4, 3), "head": nn.Linear(4, 3)}
    model, batch, objective = _case(_marking, (4, 20), **parts)
    chosen, _ = choose_sum(
        "auto", model=model, objective=objective, clip=Flat(norm=1.0), sample=batch
    )
    assert isinstance(chosen, BookKeeping)


@pytest.mark.filterwarnings("ignore:Initializing zero-element:UserWarning")
def test_a_layer_of_no_width_goes_by_the_tape():
    model, batch, _ = _case(
        lambda s, x: x, (4, 5), head=nn.AdaptiveLogSoftmaxWithLoss(5, 20, [4, 9])
    )
    objective = Objective(lambda m, b: m.head.log_prob(b["x"]).sin().sum(1))
    expected = Looped(objective)(model, batch, Flat(norm=1.0), SOURCE).total
    found = BookKeeping(objective)(model, batch, Flat(norm=1.0), SOURCE).total
    assert distance(found, expected) <= 1e-5 * norm(expected)


@pytest.mark.parametrize("kind", [BookKeeping, Looped])
def test_sparse_gradients_are_those_of_a_dense_table(kind):
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model, batch, objective = _case(
            lambda s, x: s.head(s.table(x).mean(1)),
            (4, 5),
            table=nn.Embedding(12, 6, sparse=sparse),
            head=nn.Linear(6, 3),
        )
        batch["x"] = torch.arange(20).reshape(4, 5) % 12
        found.append(kind(objective)(model, batch, Flat(norm=1.0), SOURCE).total)
    assert distance(found[0], found[1]) <= 1e-6 * norm(found[0])


@pytest.mark.parametrize("kind", [BookKeeping, Ghost, Looped])
@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_a_lookup_that_rescales_its_table_is_refused_before_it_writes(kind, layer):
    def forward(s, x):
        found = s.table(x)
        return s.head(found if layer is nn.EmbeddingBag else found.mean(1))

    parts = {"table": layer(12, 6, max_norm=0.1), "head": nn.Linear(6, 3)}
    model, batch, objective = _case(forward, (4, 5), **parts)
    batch["x"] = torch.arange(20).reshape(4, 5) % 12
    before = model.table.weight.detach().clone()
    with pytest.raises(UnsupportedLayer, match="max_norm"):
        kind(objective)(model, batch, Flat(norm=1.0), SOURCE)
    assert torch.equal(before, model.table.weight.detach())


@pytest.mark.parametrize("kind", [BookKeeping, Looped])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_forward_pass_that_writes_into_a_weight_is_refused(kind, frozen):
    def forward(s, x):
        with torch.no_grad():
            s.w.copy_(torch.maximum(s.w, x.amax((0, 1))))
        return s.head(x)

    parts = {"w": nn.Parameter(torch.zeros(8), requires_grad=not frozen), "head": nn.Linear(8, 3)}
    model, batch, objective = _case(forward, **parts)
    with pytest.raises(UnsupportedLayer, match="writes into the weight 'w'"):
        kind(objective)(model, batch, Flat(norm=1.0), SOURCE)

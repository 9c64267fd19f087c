"""What a forward pass moves: power iterations are taken once a step, everything else is refused,
and a layer that is held still is none of it."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as older_spectral_norm

from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import detached, trainable
from nacre.gradient_clipping import Flat
from nacre.models import spectral
from nacre.planning.plan import plan
from nacre.runs.run import train
from nacre.training.step import State, entering
from tests.integrations.declared import cross_entropy, private, same, sgd, table
from tests.training.tiny import CENTRAL, FEDERATED, recipe

NORMS = {"parametrization": parametrizations.spectral_norm, "older": older_spectral_norm}


def _normed(norm):
    torch.manual_seed(3)
    return nn.Sequential(norm(nn.Linear(4, 8)), nn.Tanh(), norm(nn.Linear(8, 2)))


def _sizes(model):
    """The largest singular value of each layer, as it is in evaluation mode."""
    model.eval()(torch.zeros(1, 4))
    return [float(torch.linalg.matrix_norm(model[i].weight.detach(), 2)) for i in (0, 2)]


@pytest.mark.parametrize("form", NORMS)
def test_a_spectral_norm_stays_what_it_is_while_private_steps_move_the_weight(tmp_path, form):
    model = _normed(NORMS[form])
    before = {name: vector.clone() for name, vector in spectral.vectors(model).items()}
    weights = detached(trainable(model))
    with private(tmp_path, model, torch.optim.SGD(model.parameters(), lr=1.0), steps=40) as run:
        list(run)
        run.finish()
    assert len(before) == 4
    assert all(not torch.equal(v, before[n]) for n, v in spectral.vectors(model).items())
    after = detached(trainable(model))
    assert max(float((value - weights[n]).norm()) for n, value in after.items()) > 1
    assert all(abs(size - 1) < 0.1 for size in _sizes(model))


@pytest.mark.parametrize("form", NORMS)
def test_a_resumed_run_goes_on_with_the_vectors_that_it_had(tmp_path, known_key, form):
    def run(place, *, stop):
        model = _normed(NORMS[form])
        place.mkdir()
        with private(place, model, folder=place / "run") as first:
            for step in first:
                if step == 3 and stop:
                    first.save()
                    break
        if stop:
            model = _normed(NORMS[form])
            with private(place, model, folder=place / "run", resume=True) as rest:
                assert rest.done == 3
                list(rest)
        return model

    one, two = run(tmp_path / "a", stop=True), run(tmp_path / "b", stop=False)
    assert same(trainable(one), trainable(two))
    assert same(spectral.vectors(one), spectral.vectors(two))


def test_the_vectors_enter_the_digest_of_a_step():
    model = _normed(parametrizations.spectral_norm)
    state = State(model, sgd(model), Flat(norm=1.0))
    before = entering(state, Source(bytes(32)))
    spectral.advance(model)
    assert entering(state, Source(bytes(32))) != before


def test_a_layer_held_in_evaluation_mode_is_not_advanced():
    model = _normed(parametrizations.spectral_norm)
    model[0].eval()
    for weight in trainable(model).values():
        weight.data.normal_()
    before = {name: vector.clone() for name, vector in spectral.vectors(model).items()}
    spectral.advance(model)
    after = spectral.vectors(model)
    assert {n[0] for n, vector in after.items() if not torch.equal(vector, before[n])} == {"2"}


def test_a_weight_under_two_parametrizations_is_iterated_as_it_enters():
    layer = parametrizations.weight_norm(nn.Linear(4, 8))
    parametrizations.spectral_norm(layer)
    spectral.advance(layer, 50)
    assert abs(float(torch.linalg.matrix_norm(layer.eval().weight.detach(), 2)) - 1) < 1e-3


class Writes(nn.Module):
    """Keeps what rows hold where the power iteration has its vector; the same in every pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.on = parametrizations.spectral_norm(nn.Linear(4, 2)), False
        self.alias = (self.inner.parametrizations.weight[0]._v,)

    def forward(self, x):
        if self.on:
            self.alias[0].data.copy_(table().tensors[0].amax(0))
        return self.inner(x)


def test_vectors_that_follow_from_rows_stop_the_step(tmp_path):
    model = Writes()
    with private(tmp_path, model, gradients="looped") as run:  # the tape's check comes first
        run.step()
        model.on = True
        # Which of two checks comes first depends on the weights, which are random.
        said = "_v' moved within a step|when other units come before it"
        with pytest.raises(UnsupportedLayer, match=said):
            run.step()


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_weight_norm_is_trained(tmp_path, norm):
    model = nn.Sequential(norm(nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 2))
    before = detached(trainable(model))
    with private(tmp_path, model) as run:
        list(run)
        run.finish()
    assert len(before) == 5 and all(
        not torch.equal(before[n], p) for n, p in trainable(model).items()
    )


class Codebook(nn.Module):
    """A vector quantiser whose entries follow its inputs."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 2)
        self.register_buffer("entries", torch.randn(3, 4))

    def forward(self, x):
        nearest = torch.cdist(x, self.entries).argmin(1)
        if self.training:
            for i in range(3):
                mine = x[nearest == i].detach()
                if len(mine):
                    self.entries[i].lerp_(mine.mean(0), 0.1)
        return self.out(x + self.entries[nearest])


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 2)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes = self.passes + 1  # another tensor of the same name
        return self.out(x) * (1 + 0.1 * self.passes)


class OfRows(Counter):
    def forward(self, x):
        self.passes += x.detach().sum()
        return self.out(x)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Codebook, "'entries' changes in a forward pass, so it keeps a trace of the rows"),
        (OfRows, "'passes' changes in a forward pass, so it keeps a trace of the rows"),
        (Counter, "'passes' changes in a forward pass, whatever the rows .* would stand still"),
    ],
)
def test_a_buffer_that_a_pass_moves_is_refused_with_the_reason(tmp_path, model, told):
    made = model()
    before = {name: buffer.clone() for name, buffer in made.named_buffers()}
    with pytest.raises(UnsupportedLayer, match=told):
        private(tmp_path, made)
    assert same(before, dict(made.named_buffers()))


class SeenBefore(nn.Module):
    """Once switched on it computes with the row of the pass before."""

    def __init__(self):
        super().__init__()
        self.out, self.seen, self.on = nn.Linear(4, 2), torch.zeros(4), False

    def forward(self, x):
        before, self.seen = self.seen, x.detach().mean(0)
        return self.out(x - before) if self.on else self.out(x)


@pytest.mark.parametrize("begun", [0, 1])
def test_what_a_loop_over_rows_keeps_from_one_to_the_next_stops_the_step(tmp_path, begun):
    model = SeenBefore()
    with private(tmp_path, model, gradients="looped") as run:
        for _ in range(begun):
            run.step()
        model.on = True
        with pytest.raises(UnsupportedLayer, match="keeps what it saw from one pass to the next"):
            run.step()


# -- BatchNorm that is held still --------------------------------------------------------------


class Held(nn.Module):
    """BatchNorm in evaluation mode whatever the model's mode is."""

    def __init__(self, affine):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.norm, self.out = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2.0)
        self.norm.requires_grad_(affine)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.out(self.norm(self.first(x)).relu())


@pytest.mark.parametrize("affine", [False, True], ids=["frozen", "affine"])
@pytest.mark.parametrize("gradients", ["auto", "looped"])
def test_a_batch_norm_held_in_evaluation_mode_is_exact(tmp_path, affine, gradients):
    from nacre.integrations import trial
    from nacre.integrations.examples import batch_of

    model, (x, y) = Held(affine), table(8).tensors
    batch = batch_of({"features": x, "label": y}, torch.arange(8), torch.device("cpu"))
    losses = lambda m, b: cross_entropy(m, b["features"], b["label"])  # noqa: E731
    wide = Flat(norm=1e6)
    sums = trial.tried(model, losses, wide, batch, gradients)
    found = sums(model.train(), batch, wide, Source(bytes(32))).total
    loss = cross_entropy(model, x, y).sum()
    expected = torch.autograd.grad(loss, list(trainable(model).values()))
    for name, gradient in zip(trainable(model), expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
    with private(tmp_path, model, sgd(model) if affine else _of_trainable(model)) as run:
        list(run)
        run.finish()


def _of_trainable(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)


def test_a_batch_norm_that_a_step_would_put_into_training_mode_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    model[1].eval()
    with pytest.raises(UnsupportedLayer, match=r"GroupNorm.* or hold the layer in evaluation mode"):
        private(tmp_path, model)


def test_a_batch_norm_without_statistics_is_refused_in_any_mode(tmp_path):
    model = Held(True)
    model.norm = nn.BatchNorm1d(6, track_running_stats=False)
    with pytest.raises(UnsupportedLayer, match="normalises by the other rows"):
        private(tmp_path, model)


CODE = """
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def make():
    return nn.Sequential(spectral_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3))
"""


@pytest.mark.parametrize("text", [CENTRAL, FEDERATED], ids=["central", "federated"])
def test_a_recipe_trains_a_spectral_norm(tmp_path, text):
    (tmp_path / "normed.py").write_text(CODE)
    model = {"kind": "python", "call": "normed:make"}
    train(plan(recipe(tmp_path, text, model=model)), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


# -- which weights move ------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "what"), [(False, "thawed"), (True, "frozen")])
def test_a_layer_whose_requires_grad_is_set_within_a_run_is_named(tmp_path, first, what):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(first)
    optimizer = _of_trainable(model)
    with private(tmp_path, model, optimizer) as run:
        run.step()
        model[0].requires_grad_(not first)
        if not first:
            optimizer.add_param_group({"params": list(model[0].parameters())})
        with pytest.raises(Incompatible, match=f"'0.bias' was {what} .*`requires_grad` before a"):
            run.step()


class Experts(nn.Module):
    """Each row goes to one expert of many."""

    def __init__(self, idle=False):
        super().__init__()
        torch.manual_seed(4)
        self.gate = nn.Linear(4, 6, bias=False)
        axes = torch.eye(4)[:3]
        self.gate.weight.data.copy_(torch.cat([axes, -axes]))
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))
        self.out = nn.Linear(4, 2)
        self.idle = nn.Linear(4, 4) if idle else None

    def forward(self, x):
        weight, to = self.gate(x).softmax(1).max(1)
        found = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = torch.where(to == i)[0]
            if len(rows):
                found = found.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return self.out(found)


def test_experts_that_no_row_of_the_sample_reaches_are_looked_for_among_more_rows(tmp_path):
    with private(tmp_path, Experts(), steps=2) as run:
        assert list(run) == [1, 2]


def test_a_weight_that_no_row_reaches_is_named(tmp_path):
    told = r"losses of 256 made-up rows do not depend on the trainable weight 'idle.weight' and 1"
    with pytest.raises(Incompatible, match=f"{told} more.* larger `sample`"):
        private(tmp_path, Experts(idle=True))

"""A loop of one's own: the product's steps, and no way around them."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nacre.core.errors import (
    BudgetExceeded,
    Incompatible,
    LedgerError,
    RunError,
)
from nacre.core.tensors import detached, trainable
from nacre.data.dataset import Rows
from nacre.data.sampling import Poisson
from nacre.data.units import Units
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.differential_privacy.options import Privacy
from nacre.gradient_clipping import Flat, Looped
from nacre.integrations.declaration import Promise
from nacre.integrations.examples import Examples
from nacre.integrations.fetching import Fetcher
from nacre.integrations.trial import OwnLoss
from nacre.planning.plan import plan
from nacre.recipe.sections import GrantOption, LedgerChoice
from nacre.training.fit import NoJournal, fit
from nacre.training.holders import fixed
from nacre.training.planned import NOTHING
from nacre.training.step import Parts, State
from tests.integrations.declared import (
    SIZE,
    Sequences,
    book,
    cross_entropy,
    linear,
    own_step,
    private,
    promised,
    same,
    sgd,
    source,
    stepped,
    table,
)
from tests.training.tiny import CENTRAL, recipe

# -- the same steps ----------------------------------------------------------------------------


def test_a_loop_of_ones_own_takes_the_steps_of_the_product(tmp_path, known_key):
    """The same key, rows, mechanism and optimizer give the same weights, bit for bit."""
    model = linear()
    with private(tmp_path, model, gradients="looped", microbatch=7, folder=tmp_path / "run") as run:
        assert list(run) == [1, 2, 3, 4, 5, 6]
    mechanism = Promise(**stepped(tmp_path)).mechanism()
    features, label = table().tensors
    other = linear()
    objective = OwnLoss(lambda model, b: cross_entropy(model, b["features"], b["label"]))
    parts = Parts(
        sampling=Poisson(30.0, SIZE),
        sums=lambda number: Looped(objective),
        noise=Gaussian(multiplier=mechanism.noise.multiplier),
        adjacency="add_or_remove",
        microbatch=7,
    )
    state = State(other.train(), sgd(other), Flat(norm=1.0))
    units = Units(Rows(features, label), "example", None, source())
    fit(
        state,
        units,
        parts,
        until=6,
        source=source(),
        charge=NoJournal(),
        planned=NOTHING,
        context=fixed(other),
    )
    assert same(trainable(model), trainable(other))


def test_epsilon_and_noise_are_those_of_a_recipe_with_the_same_numbers(tmp_path):
    holder = plan(recipe(tmp_path, CENTRAL)).levels[0]
    training = CENTRAL["training"]
    changed = {"size": 120, "batch": training["batch"], "steps": training["steps"]}
    choice = LedgerChoice(
        path=str(tmp_path / "privacy.db"),
        dataset="rows",
        grant=GrantOption(epsilon=8, delta=1e-4, rule="pld"),
    )
    with private(tmp_path, ledger=choice, **changed) as run:
        assert run.epsilon() == 0
        for _ in run:
            assert 0 < run.epsilon() <= 8
        assert run.epsilon() == holder.price.epsilon
    assert Promise(**stepped(tmp_path, ledger=choice, **changed)).mechanism() == holder.mechanism


@pytest.mark.filterwarnings("ignore:READ 1 rows")
def test_an_empty_draw_is_a_step_like_any_other(tmp_path):
    """Most draws from a single row hold nothing; noise moves the weights still."""
    model = linear()
    with private(tmp_path, model, dataset=table(1), batch=1) as run:
        before = detached(trainable(model))
        run.step()
        assert not same(before, trainable(model))


def test_dropout_and_random_augmentation_stay_the_rows_own(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return SIZE

        def __getitem__(self, index):
            features, label = table()[index]
            return features + 0.1 * torch.randn(4), label

    with private(tmp_path, model, dataset=Noisy(), steps=2) as run:
        assert list(run) == [1, 2]


def test_what_a_row_draws_does_not_hang_on_the_others():
    class Noisy:
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            return torch.rand(3)

    def fetched(count, step):
        units = Examples(Fetcher(Noisy(count)), _stacked, torch.device("cpu"), source().child(step))
        return next(units.micro(torch.arange(count), None))

    state = torch.get_rng_state()
    few, many, later = fetched(3, 1), fetched(4, 1), fetched(4, 2)
    assert torch.equal(few["features"], many["features"][:3])
    assert torch.equal(few["unit"], many["unit"][:3]) and len(set(many["unit"].tolist())) == 4
    assert not torch.equal(many["features"], later["features"])
    assert torch.equal(state, torch.get_rng_state())


def _stacked(items):
    return {"features": torch.stack(list(items))}


# -- order -------------------------------------------------------------------------------------


def _own_backward(model, optimizer):
    cross_entropy(model, *table().tensors).mean().backward()


def _other_weights(model, optimizer):
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})


def _frozen_weights(model, optimizer):
    with torch.no_grad():
        model[0].weight.add_(1)


@pytest.mark.parametrize(
    ("around", "told"),
    [
        (own_step, r"something else .* has moved"),
        (_own_backward, r"has put gradients on"),
        (_other_weights, r"something else .* has moved"),
        (_frozen_weights, r"something else .* has moved"),
    ],
)
@pytest.mark.parametrize("steps", [0, 2])
def test_nothing_but_a_step_may_move_the_weights(tmp_path, around, told, steps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    optimizer = sgd(model[1])
    with private(tmp_path, model, optimizer, folder=tmp_path / "run") as run:
        for _ in range(steps):
            run.step()
        around(model, optimizer)
        for use in (run.step, run.save, run.finish):
            with pytest.raises(Incompatible, match=told):
                use()
    assert book(tmp_path).runs[0].journalled == steps


def test_a_step_beyond_the_reserved_ones_is_refused(tmp_path):
    with private(tmp_path, steps=2) as run:
        assert list(run) == [1, 2] and list(run) == []
        with pytest.raises(RunError, match="all 2 steps"):
            run.step()


def test_an_ended_run_takes_no_step(tmp_path):
    run = private(tmp_path, folder=tmp_path / "run")
    run.step()
    spent = run.finish()
    assert 0 < spent < 8
    assert not (tmp_path / "run" / "local" / "run.key").exists()
    with pytest.raises(RunError, match="has ended"):
        run.step()
    with pytest.raises(RunError, match="has ended"):
        private(tmp_path, folder=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="a run that has ended"):
        private(tmp_path, folder=tmp_path / "run")


# -- the account -------------------------------------------------------------------------------


def test_the_whole_run_is_reserved_before_its_first_step(tmp_path):
    with private(tmp_path) as run:
        (standing,) = book(tmp_path).runs
        assert (standing.steps, standing.journalled, standing.end) == (6, 0, None)
        with pytest.raises(BudgetExceeded):
            private(tmp_path, folder=tmp_path / "second")
        assert not (tmp_path / "second").exists()
        run.step()
        assert book(tmp_path).runs[0].journalled == 1
        run.finish()
    assert book(tmp_path).runs[0].end == "settled"
    assert book(tmp_path).grants[0].reserved == 0  # the steps not taken came back


def test_a_run_without_a_folder_is_settled_when_it_is_left(tmp_path):
    """Nobody could go on with it, and its reservation would be held for ever."""
    with pytest.raises(KeyError), private(tmp_path) as run:
        run.step()
        raise KeyError
    run.close()  # once more does nothing
    assert (book(tmp_path).runs[0].journalled, book(tmp_path).runs[0].end) == (1, "abandoned")
    assert book(tmp_path).grants[0].reserved == 0
    with private(tmp_path, folder=tmp_path / "run", privacy=Privacy(epsilon=2, delta=1e-4)):
        pass
    assert book(tmp_path).runs[1].end is None


def test_the_same_rows_have_one_account(tmp_path):
    private(tmp_path).close()
    other = LedgerChoice(
        path=str(tmp_path / "privacy.db"),
        dataset="others",
        grant=GrantOption(epsilon=8, delta=1e-4),
    )
    with pytest.raises(LedgerError, match="charged to account 'rows' already"):
        private(tmp_path, ledger=other)
    flipped = TensorDataset(*(tensor.flip(0) for tensor in table().tensors))
    with pytest.raises(LedgerError, match="charged to account 'rows' already"):
        private(tmp_path, ledger=other, dataset=flipped)


def test_without_a_grant_nothing_begins(tmp_path):
    choice = LedgerChoice(path=str(tmp_path / "none.db"), dataset="rows")
    with pytest.raises(LedgerError):
        private(tmp_path, ledger=choice, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tokens_are_tried_on_rows_that_are_given(tmp_path):
    rows = TensorDataset(torch.randint(9, (SIZE, 3)), torch.randint(2, (SIZE,)))
    sample = (torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([0, 1]))
    with private(tmp_path, Sequences(), dataset=rows, sample=sample) as run:
        assert run.step() == 1


def test_the_price_is_that_of_the_declared_mechanism(tmp_path):
    """The declared size decides, whatever the data hold: the same noise for a tenth of the rows."""
    mechanism = Promise(**promised(tmp_path), batch=30, steps=6).mechanism()
    plain = Mechanism(
        unit="example",
        sampling=Poisson(30.0, SIZE),
        clip=Flat(norm=1.0),
        noise=Gaussian(),
        steps=6,
    )
    assert mechanism == plain.calibrated(Budget(epsilon=8, delta=1e-4), "rdp")
    with pytest.warns(UserWarning, match="READ 12 rows to train on, DECLARED 120 .`size`"):
        few = private(tmp_path, dataset=table(12))
    with few as run:
        event = dataclasses.replace(mechanism).event(1)
        assert run.step() == 1
        standing = book(tmp_path).runs[0]
    assert standing.steps == 6 and event == mechanism.event(1)


def test_a_size_that_is_far_from_the_owners_at_hand_is_told(tmp_path):
    """Owners are the units, so their number is what `size` declares; nothing is written of it."""
    people = [row % 40 for row in range(SIZE)]
    privacy = Privacy(epsilon=8, delta=1e-4, unit="group", rows_per_unit=3)
    with (
        pytest.warns(UserWarning, match="READ 40 values of 'person' to train on, DECLARED 120"),
        private(tmp_path, privacy=privacy, groups=people, column="person", folder=tmp_path / "r"),
    ):
        pass
    kept = [file for file in (tmp_path / "r").rglob("*") if file.is_file()]
    assert kept and not any(b"READ" in file.read_bytes() for file in kept)

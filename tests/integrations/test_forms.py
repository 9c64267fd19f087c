"""What people pass in another form is refused in one sentence, and what their code raises is told
as theirs."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import DataCollatorForSeq2Seq, T5Config, T5ForConditionalGeneration

from nacre.core.errors import BadArgument, CallFailed, DataError, Incompatible, NacreError
from nacre.models import task_for
from nacre.models.scoring import scored
from tests.integrations.declared import cross_entropy, linear, private, promised, sgd, table
from tests.integrations.texts import WORDS, bert, sentences, tokenizer, trainer

X, Y = table().tensors


def _each(model, features, label):
    return cross_entropy(model, features, label)


LOSSES = {
    "a tuple": (lambda m, x, y: (_each(m, x, y), {}), r"a tuple \(Tensor, dict\)"),
    "a list": (lambda m, x, y: list(_each(m, x, y)), r"a list \(Tensor"),
    "a dict": (lambda m, x, y: {"loss": _each(m, x, y)}, "a dict with 'loss'"),
    "nothing": (lambda m, x, y: None, "came as nothing.* add `return`"),
    "an array": (lambda m, x, y: _each(m, x, y).detach().numpy(), "of type ndarray"),
    "a number": (lambda m, x, y: float(_each(m, x, y).mean()), "of type float"),
    "a mean": (lambda m, x, y: _each(m, x, y).mean(), r"shape \(\), and each row"),
    "a column": (lambda m, x, y: _each(m, x, y)[:, None], r"shape \(4, 1\), and each row"),
    "all classes": (lambda m, x, y: m(x).square(), r"shape \(4, 2\), and each row"),
    "whole numbers": (lambda m, x, y: (m(x).argmax(1) != y).long(), "has no gradient"),
    "without a graph": (lambda m, x, y: _each(m, x, y).detach(), "depend on no trainable weight"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_another_form_is_refused_with_the_form_that_is_needed(tmp_path, name):
    losses, told = LOSSES[name]
    with pytest.raises(Incompatible, match=told):
        private(tmp_path, losses=losses)
    assert not (tmp_path / "privacy.db").exists()


ARGUMENTS = {
    "losses": [nn.CrossEntropyLoss(), nn.CrossEntropyLoss, functional.cross_entropy, 1.0, None,
               lambda x, y: x],
    "clip": [1.0, None, "flat", {"norm": 1.0}, type("Flat", (), {"factors": 0})],
    "privacy": [{"epsilon": 8, "delta": 1e-4}, None, 8.0],
    "ledger": ["privacy.db", None, {"path": "privacy.db"}],
    "size": [None, 120.0, "120", True, 0, -3, torch.tensor(120)],
    "batch": [None, 0.25],
    "steps": [None, 1.5],
    "microbatch": [0, 2.5],
    "gradients": ["fast", None],
    "folder": [3, object()],
    "model": [lambda x: x, "bert"],
    "optimizer": [torch.optim.SGD, "sgd", [0.1]],
    "sample": [3, torch.zeros(4, 4), ([[1.0]], [0])],
    "dataset": [DataLoader(table()), (X, Y), {"x": X}, pd.DataFrame(X.numpy())],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in ARGUMENTS.items() for value in values],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_an_argument_of_another_form_is_refused_by_its_name(tmp_path, name, value):
    given = {"optimizer": sgd(linear())} if name == "model" else {}
    with pytest.raises(NacreError, match=name) as caught:
        private(tmp_path, **{**given, name: value})
    assert isinstance(caught.value, BadArgument | DataError)
    assert not (tmp_path / "privacy.db").exists()


# -- what their code raises --------------------------------------------------------------------


class Failing(Dataset):
    def __init__(self, error, after=0):
        self.error, self.left = error, after

    def __len__(self):
        return len(Y)

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return X[index], Y[index]


class Breaks(nn.Module):
    """Raises at the k-th forward pass."""

    def __init__(self, error, after):
        super().__init__()
        self.linear, self.error, self.left = nn.Linear(4, 2), error, after

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.linear(x)


THEIRS = r"{} raised ZeroDivisionError: mine at .*test_forms\.py:\d+, in {}"


def test_a_failing_data_set_is_told_as_theirs(tmp_path):
    with pytest.raises(CallFailed, match=THEIRS.format("the data set", "__getitem__")):
        private(tmp_path, dataset=Failing(ZeroDivisionError("mine")))
    assert not (tmp_path / "privacy.db").exists()


def test_a_data_set_that_fails_in_a_step_is_told_as_theirs(tmp_path):
    dataset = Failing(ZeroDivisionError("mine"), after=1000)
    with (
        private(tmp_path, dataset=dataset, steps=60) as run,
        pytest.raises(CallFailed, match=THEIRS.format("the data set", "__getitem__")) as caught,
    ):
        list(run)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_failing_model_is_told_as_theirs(tmp_path):
    told = r"made-up rows \(ZeroDivisionError: mine at .*test_forms\.py:\d+, in forward\)"
    with pytest.raises(Incompatible, match=told):
        private(tmp_path, Breaks(ZeroDivisionError("mine"), 0))


@pytest.mark.parametrize("gradients", ["bookkeeping", "looped"])
def test_a_model_that_fails_in_a_step_is_told_as_theirs(tmp_path, gradients):
    model = Breaks(ZeroDivisionError("mine"), 10_000)
    with private(tmp_path, model, gradients=gradients) as run:
        run.step()
        model.left = 0
        with pytest.raises(CallFailed, match=THEIRS.format("the model or its loss", "forward")):
            run.step()


class FailingSGD(torch.optim.SGD):
    def step(self, closure=None):
        raise ZeroDivisionError("mine")


def test_a_failing_optimizer_is_told_as_theirs(tmp_path):
    model = linear()
    with (
        private(tmp_path, model, FailingSGD(model.parameters(), lr=1.0)) as run,
        pytest.raises(CallFailed, match=THEIRS.format("the optimizer", "step")),
    ):
        run.step()


def test_a_model_that_fails_where_rows_are_judged_is_told_as_theirs():
    model = Breaks(ZeroDivisionError("mine"), 0)
    with pytest.raises(CallFailed, match=THEIRS.format("the model", "forward")):
        scored(model, task_for("classification", 2), X, Y)


def test_a_loss_that_changes_its_form_in_a_step_is_refused(tmp_path):
    told = {"form": lambda each: each}

    def losses(model, features, label):
        return told["form"](cross_entropy(model, features, label))

    with private(tmp_path, losses=losses) as run:
        run.step()
        told["form"] = lambda each: (each, {})
        with pytest.raises(Incompatible, match=r"a tuple \(Tensor, dict\)"):
            run.step()


@pytest.mark.parametrize("where", ["data set", "model", "loss"])
def test_an_interrupt_passes(tmp_path, where):
    def losses(model, features, label):
        raise KeyboardInterrupt

    given = {
        "data set": {"dataset": Failing(KeyboardInterrupt())},
        "model": {"model": Breaks(KeyboardInterrupt(), 0)},
        "loss": {"losses": losses},
    }
    with pytest.raises(KeyboardInterrupt):
        private(tmp_path, **given[where])


def test_rows_that_cannot_be_put_together_are_told(tmp_path):
    rows = [(X[i], Y[i]) for i in range(60)] + [(X[i][:3], Y[i]) for i in range(60)]
    with private(tmp_path, dataset=rows) as run, pytest.raises(DataError, match="put together"):
        list(run)


# -- the Trainer -------------------------------------------------------------------------------


class Plain(nn.Module):
    """No model of Transformers: no config, no loss, several inputs."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(WORDS, 8), nn.Linear(12, 2)

    def forward(self, input_ids, table, labels=None):
        outputs = self.out(torch.cat([self.words(input_ids).mean(1), table], 1))
        return {"scores": outputs}


def _plain_rows(count):
    draw = np.random.default_rng(0)
    return [
        {"input_ids": draw.integers(1, WORDS, 5), "table": draw.normal(size=4).astype("f4"),
         "labels": i % 2}
        for i in range(count)
    ]  # fmt: skip


def _plain_losses(model, inputs):
    scores = model(inputs["input_ids"], inputs["table"])["scores"]
    return functional.cross_entropy(scores, inputs["labels"], reduction="none")


_PLAIN = {
    "train_dataset": _plain_rows(120),
    "data_collator": lambda rows: torch.utils.data.default_collate(list(rows)),
    "arguments": {"max_steps": 2, "remove_unused_columns": False},
}


def test_a_plain_module_is_trained_by_a_loss_of_ones_own(tmp_path):
    run = trainer(tmp_path, Plain(), losses=_plain_losses, sample=_plain_rows(4), **_PLAIN)
    assert run.train().global_step == 2


def test_a_plain_module_without_a_loss_is_refused(tmp_path):
    with pytest.raises(Incompatible, match=r"a dict with 'scores', .* give `losses\("):
        trainer(tmp_path, Plain(), sample=_plain_rows(4), **_PLAIN).train()
    with pytest.raises(Incompatible, match=r"Plain has no `config`.* give `sample`"):
        trainer(tmp_path, Plain(), losses=_plain_losses, **_PLAIN).train()


def test_a_decoder_gets_its_inputs_from_the_labels(tmp_path):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=WORDS, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    rows = [{**row, "labels": row["input_ids"][:3]} for row in sentences(kind="lm")]
    run = trainer(
        tmp_path, T5ForConditionalGeneration(config), train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer()), arguments={"max_steps": 1},
    )  # fmt: skip
    assert run.train().global_step == 1


def _as_list(rows):
    return list(rows)


def _none(rows):
    return None


def _failing(rows):
    raise ZeroDivisionError("mine")


def _stacked(rows):
    return {
        "input_ids": torch.tensor([row["input_ids"] for row in rows]),
        "labels": torch.tensor([row.get("label", row.get("labels")) for row in rows]),
    }


def _rolled(rows):
    """Tokens of two rows in one."""
    batch = _stacked(rows)
    batch["input_ids"][:, :2] = batch["input_ids"].roll(1, 0)[:, :2]
    return batch


def _mixed_up(rows):
    batch = _stacked(rows)
    order = torch.randperm(len(rows))
    batch["input_ids"][:, :2] = batch["input_ids"][order][:, :2]
    return batch


def _centred(rows):
    batch = _stacked(rows)
    return {**batch, "input_ids": (batch["input_ids"] - batch["input_ids"].min(0).values) % WORDS}


@pytest.mark.parametrize(
    ("collator", "error", "told"),
    [
        (_as_list, DataError, r"made a list \(dict"),
        (_none, DataError, "made nothing of 4 rows"),
        (_failing, CallFailed, THEIRS.format("the collate function", "_failing")),
        (_rolled, Incompatible, "another 'input_ids' of a row when other rows"),
        (_centred, Incompatible, "another 'input_ids' of a row when other rows"),
        (_mixed_up, Incompatible, "draws random numbers by a row's place"),
    ],
)
def test_a_collator_of_another_form_or_one_that_mixes_is_refused(tmp_path, collator, error, told):
    run = trainer(
        tmp_path, train_dataset=sentences(equal=True), sample=sentences(4, equal=True),
        data_collator=collator, arguments={"remove_unused_columns": False},
    )  # fmt: skip
    with pytest.raises(error, match=told):
        run.train()
    assert not (tmp_path / "privacy.db").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("losses", nn.CrossEntropyLoss()), ("losses", lambda inputs: 0), ("clip", 1.0),
        ("privacy", {"epsilon": 8}), ("ledger", "privacy.db"), ("size", None),
        ("sample", {"input_ids": [1]}), ("data_collator", 3), ("train_dataset", {"a": 1}),
        ("gradients", "fast"),
    ],
)  # fmt: skip
def test_an_argument_of_the_trainer_of_another_form_is_refused_by_its_name(tmp_path, name, value):
    with pytest.raises(BadArgument, match=name):
        trainer(tmp_path, **{name: value})


def test_arguments_that_are_missing_are_refused(tmp_path):
    from nacre.integrations.transformers import PrivateTrainer

    with pytest.raises(BadArgument, match="`args` is of type NoneType"):
        PrivateTrainer(bert(), None, train_dataset=sentences(), **promised(tmp_path))


def test_rows_without_names_are_told(tmp_path):
    with pytest.raises(DataError, match="a row of train_dataset is a tuple"):
        trainer(tmp_path, train_dataset=table()).train()

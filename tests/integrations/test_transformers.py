"""The Trainer's loop with private steps: stock models, collators, arguments and checkpoints."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.utils.data import TensorDataset
from transformers import (
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from nacre.core.errors import BudgetExceeded, Incompatible, LedgerError, RunError, UnsupportedLayer
from nacre.core.tensors import detached, trainable
from nacre.gradient_clipping import Adaptive
from nacre.integrations.declaration import Promise
from tests.integrations.declared import SIZE, book, private, promised, same
from tests.integrations.texts import (
    bert,
    bert_of_tokens,
    gpt,
    sentences,
    tokenizer,
    trainer,
)

pytestmark = pytest.mark.slow


class Unplugged(TrainerCallback):
    """Dies at the end of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Seen(TrainerCallback):
    """All that was logged."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))


class WritingForward(TrainerCallback):
    """From the second step on the forward pass writes what it sees into a weight."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        bias = model.classifier.bias

        def write(layer, arguments):
            bias.data.add_(arguments[0].detach().mean())

        model.classifier.register_forward_pre_hook(write)


def test_a_weight_that_a_forward_pass_writes_is_not_released(tmp_path):
    model = bert()
    private_trainer = trainer(tmp_path, model, callbacks=[WritingForward()])
    with pytest.raises(Incompatible, match=r"'classifier\.bias' was written into within a step"):
        private_trainer.train()


# -- the same steps ----------------------------------------------------------------------------


def _plain_loss(model, features, label):
    logits = model(input_ids=features, attention_mask=torch.ones_like(features)).logits
    return functional.cross_entropy(logits, label, reduction="none")


def test_the_trainer_takes_the_steps_of_a_plain_loop(tmp_path, known_key):
    """The same key, rows and optimizer give the same weights, bit for bit."""
    rows = sentences(equal=True)
    model, other = bert(), bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    trainer(tmp_path, model, train_dataset=rows, optimizers=(optimizer, schedule)).train()
    features = torch.tensor([row["input_ids"] for row in rows])
    label = torch.tensor([row["label"] for row in rows])
    plain = torch.optim.SGD(other.parameters(), lr=0.5)
    again = torch.optim.lr_scheduler.LambdaLR(plain, lambda step: 1 / (1 + step))
    place = tmp_path / "plain"
    place.mkdir()
    with private(
        place, other, plain, TensorDataset(features, label), _plain_loss,
        steps=4, batch=30, microbatch=10, sample=(features[:4], label[:4]), folder=place / "run",
    ) as run:  # fmt: skip
        for _ in run:
            again.step()
    assert same(trainable(model), trainable(other))


def test_epsilon_is_in_every_log_and_no_private_figure_is(tmp_path):
    seen = Seen()
    run = trainer(
        tmp_path,
        callbacks=[seen],
        eval_dataset=sentences(20),
        arguments={"eval_strategy": "steps", "eval_steps": 2},
    )
    output = run.train()
    logs = [log for log in seen.logs if "learning_rate" in log]
    assert [set(log) for log in logs] == [{"learning_rate", "epoch", "epsilon"}] * 4
    spent = [log["epsilon"] for log in logs]
    assert spent == sorted(spent) and 0 < spent[0] < spent[-1] <= 8
    mechanism = Promise(**promised(tmp_path), batch=30, steps=4).mechanism()
    assert spent[-1] == mechanism.price(1e-4, "rdp").epsilon == run.epsilon
    evaluated = [log for log in seen.logs if "eval_loss" in log]
    assert len(evaluated) == 2 and all(log["epsilon"] > 0 for log in evaluated)
    known = {"learning_rate", "epoch", "epsilon", "step"}
    for log in [*seen.logs, *run.state.log_history]:
        assert all(name in known or name.startswith("eval_") for name in log)
    assert math.isnan(output.training_loss) and output.metrics == {"epsilon": spent[-1]}
    assert run.state.total_flos == 0


def test_the_declared_batch_is_what_the_arguments_make_of_it(tmp_path):
    """An epoch is as many steps as the declared rows make, each over all accumulated parts."""
    run = trainer(tmp_path, arguments={"max_steps": -1, "num_train_epochs": 1.5})
    assert run.train().global_step == 6  # 12 places, 3 to a step, one epoch and a half
    (standing,) = book(tmp_path).runs
    assert (standing.steps, standing.journalled, standing.end) == (6, 6, "settled")
    assert "0.25" in standing.event  # 30 of 120 rows a step


@pytest.mark.parametrize("drop", [True, False])
def test_steps_are_counted_as_the_trainer_counts_them(tmp_path, drop):
    arguments = {
        "max_steps": -1,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 50,
        "gradient_accumulation_steps": 2,
        "dataloader_drop_last": drop,
    }
    run = trainer(tmp_path, arguments=arguments)
    run.train()
    assert run.state.max_steps == run.state.global_step == book(tmp_path).runs[0].steps


# -- models and collators ----------------------------------------------------------------------


def _lora():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    return peft.get_peft_model(bert(), config)


_WORDS = DataCollatorForTokenClassification(tokenizer())
_NEXT = DataCollatorForLanguageModeling(tokenizer(), mlm=False)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
@pytest.mark.parametrize(
    ("model", "rows", "collator"),
    [
        (lambda: bert(num_labels=1, dropout=0.0), "floats", None),
        (bert_of_tokens, "tokens", _WORDS),
        (gpt, "lm", _NEXT),
        (_lora, "label", None),
    ],
    ids=["regression", "tokens", "causal", "lora"],
)
def test_stock_models_and_collators(tmp_path, model, rows, collator):
    data = sentences(kind="label" if rows == "floats" else rows)
    if rows == "floats":
        data = [{**row, "label": float(row["label"])} for row in data]
    moved = model()
    before = detached(trainable(moved))
    run = trainer(
        tmp_path, moved, train_dataset=data, data_collator=collator, arguments={"max_steps": 2}
    )
    assert run.train().global_step == 2
    assert all(not torch.equal(before[name], p) for name, p in trainable(moved).items())


def test_labels_of_several_classes_and_rows_that_are_not_padded(tmp_path):
    classes = [{**row, "label": [1.0, 0.0, 1.0]} for row in sentences(equal=True)]
    model = bert(num_labels=3, problem_type="multi_label_classification")
    run = trainer(
        tmp_path, model, train_dataset=classes, data_collator=default_data_collator,
        arguments={"max_steps": 1},
    )  # fmt: skip
    assert run.train().global_step == 1


def test_a_loss_of_ones_own(tmp_path):
    def halved(model, inputs):
        label = inputs.pop("labels")
        logits = model(**inputs).logits
        return 0.5 * functional.cross_entropy(logits, label, reduction="none")

    run = trainer(tmp_path, losses=halved, sample=sentences(4), arguments={"max_steps": 1})
    assert run.train().global_step == 1


# -- the end, and what comes before it ---------------------------------------------------------


def test_the_model_is_saved_and_the_key_is_gone(tmp_path):
    model = bert()
    run = trainer(tmp_path, model)
    run.train()
    assert not (tmp_path / "out" / "private" / "local" / "run.key").exists()
    run.save_model(str(tmp_path / "model"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert same(trainable(model), trainable(again))
    with pytest.raises(RunError, match="a run that has ended"):
        run.train()
    with pytest.raises(BudgetExceeded):
        trainer(tmp_path, arguments={"output_dir": str(tmp_path / "second")}).train()
    assert not (tmp_path / "second" / "private").exists()


_SAVING = {"save_strategy": "steps", "save_steps": 2}


class Writing(TrainerCallback):
    """Writes into a frozen weight at the end of a step, past autograd."""

    def __init__(self, frozen):
        self.frozen = frozen

    def on_step_end(self, args, state, control, **kwargs):
        self.frozen.data.add_(1.0)


def test_a_checkpoint_holds_no_frozen_weight_that_was_written_into(tmp_path):
    model = bert()
    frozen = model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    run = trainer(tmp_path, model, callbacks=[Writing(frozen)], arguments=_SAVING)
    with pytest.raises(Incompatible, match=r"word_embeddings\.weight' was written"):
        run.train()
    assert not list((tmp_path / "out").glob("checkpoint-*/*.safetensors"))


@pytest.mark.parametrize("kind", ["label", "lm"])
def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path, known_key, kind):
    def made(place, callbacks=()):
        place.mkdir(exist_ok=True)
        collator = _NEXT if kind == "lm" else None
        model = gpt() if kind == "lm" else bert()
        run = trainer(
            place, model, train_dataset=sentences(kind=kind), data_collator=collator,
            callbacks=list(callbacks), arguments=_SAVING,
        )  # fmt: skip
        return model, run

    undisturbed, run = made(tmp_path / "a")
    run.train()
    _, run = made(tmp_path / "b", [Unplugged(3)])
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert book(tmp_path / "b").runs[0].end is None
    resumed, run = made(tmp_path / "b")
    assert run.train(resume_from_checkpoint=True).global_step == 4
    assert same(trainable(undisturbed), trainable(resumed))
    assert book(tmp_path / "b").runs[0].end == "settled"


def test_a_run_that_is_begun_again_has_to_begin_alike(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, callbacks=[Unplugged(1)]).train()
    other = [{**row, "label": 1 - row["label"]} for row in sentences()]
    with pytest.raises(LedgerError, match=r"step 1 .* was taken before"):
        trainer(tmp_path, train_dataset=other).train()
    assert trainer(tmp_path).train().global_step == 4


def test_weights_that_something_else_moves_are_refused(tmp_path):
    class Meddling(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            with torch.no_grad():
                next(model.parameters()).add_(1)

    with pytest.raises(Incompatible, match="something else"):
        trainer(tmp_path, callbacks=[Meddling()]).train()


def test_the_best_model_on_public_rows_may_be_put_back(tmp_path):
    arguments = {
        **_SAVING,
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    }
    model = bert()
    run = trainer(tmp_path, model, eval_dataset=sentences(20), arguments=arguments)
    run.train()
    best = load_file(f"{run.state.best_model_checkpoint}/model.safetensors")
    assert same({name: best[name] for name in trainable(model)}, trainable(model))


def test_checkpoints_hold_no_private_figure(tmp_path):
    trainer(tmp_path, arguments=_SAVING).train()
    state = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    assert all(
        set(log) == {"learning_rate", "epoch", "epsilon", "step"} for log in state["log_history"]
    )
    assert (state["total_flos"], state["num_input_tokens_seen"]) == (0, 0)


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refused",
    [
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "sequential"},
        {"label_smoothing_factor": 0.1},
        {"bf16": True},
        {"neftune_noise_alpha": 5.0},
        {"activation_checkpointing": True},
        {"auto_find_batch_size": True},
        {"include_num_input_tokens_seen": "all"},
        {"push_to_hub": True},
    ],
    ids=lambda refused: next(iter(refused)),
)
def test_arguments_that_would_break_the_promise_are_refused(tmp_path, refused):
    with pytest.raises(Incompatible, match=next(iter(refused))):
        trainer(tmp_path, arguments=refused)
    assert not (tmp_path / "privacy.db").exists()


@pytest.mark.parametrize(
    ("several", "told"),
    [("world_size", "takes one process, and 2 were started"), ("n_gpu", "CUDA_VISIBLE_DEVICES=0")],
)
def test_several_processes_are_refused_with_what_takes_them(tmp_path, monkeypatch, several, told):
    """Every process says how many there are; which started them does not matter."""
    monkeypatch.setattr(TrainingArguments, several, property(lambda self: 2))
    with pytest.raises(Incompatible, match=told) as refused:
        trainer(tmp_path)
    assert "torchrun --nproc_per_node N -m nacre train" in str(refused.value)
    assert "nacre.integrations.torch.Private" in str(refused.value)
    assert not (tmp_path / "privacy.db").exists()


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"data_collator": DataCollatorForLanguageModeling(tokenizer()), "model": BertForMaskedLM},
         Incompatible, "draws random numbers"),
        ({"data_collator": DataCollatorWithFlattening(return_tensors="pt"), "model": gpt},
         Exception, "pack none together|collated as"),
        ({"data_collator": DataCollatorForLanguageModeling(tokenizer("left"), mlm=False),
          "model": gpt}, UnsupportedLayer, "padding on the left"),
        ({"losses": lambda model, inputs: model(**inputs).loss}, Incompatible, "one loss a row"),
        ({"train_dataset": [{"input_ids": [1, 2], "attention_mask": [1, 1]}] * SIZE},
         Incompatible, "no `labels`"),
    ],
    ids=["masking", "packing", "left", "mean", "labels"],
)  # fmt: skip
def test_what_the_trial_finds_is_refused(tmp_path, changed, error, told):
    model = changed.pop("model", None)
    if model is not None:
        changed = {"train_dataset": sentences(kind="lm"), **changed}
        model = bert(model) if model is BertForMaskedLM else model()
    with pytest.raises(error, match=told):
        trainer(tmp_path, model, **changed).train()
    assert not (tmp_path / "privacy.db").exists()


def test_another_loss_than_the_models_own_is_told(tmp_path):
    class Doubled(type(bert())):
        def forward(self, input_ids=None, attention_mask=None, labels=None):
            outputs = super().forward(input_ids, attention_mask, labels=labels)
            if outputs.loss is not None:
                outputs.loss = 2 * outputs.loss
            return outputs

    with pytest.raises(Incompatible, match="the model's own loss"):
        trainer(tmp_path, bert(Doubled)).train()


def test_private_rows_are_not_evaluated_on_and_searches_are_refused(tmp_path):
    rows = sentences()
    with pytest.raises(Incompatible, match="public rows"):
        trainer(tmp_path, train_dataset=rows, eval_dataset=rows)
    with pytest.raises(Incompatible, match="moves from step to step"):
        trainer(tmp_path, clip=Adaptive(norm=1.0))
    with pytest.raises(Incompatible, match="a run of its own"):
        trainer(tmp_path).train(trial={"learning_rate": 1})
    with pytest.raises(Incompatible, match="inside `train` only"):
        trainer(tmp_path).training_step(bert(), {})

"""Stock transformers behind one tensor: the answers of their own classes, from files and back."""

import json
import sys

import pytest
import torch

from nacre.core.errors import Incompatible, Refusal
from nacre.core.files import load_tensors, save_tensors
from nacre.models import FormerRun, Pretrained, build, load, random_inputs, repair, save, saved
from tests.models.transformer_folders import FAMILIES, TOKENS, T, folder_of

families = pytest.mark.parametrize("family", FAMILIES)
tasks = pytest.mark.parametrize("task", ["classification", "token_classification", "causal_lm"])


def made(folder, task="classification", outputs=3, seed=0, **fields):
    return build(Pretrained(name=folder.name, task=task, **fields), (T,), outputs, seed,
                 folder.parent)  # fmt: skip


def has(family, task):
    return task != "causal_lm" or family not in ("Bert", "Roberta", "DistilBert")


@families
@tasks
def test_the_logits_are_those_of_the_stock_class(family, task, tmp_path):
    if not has(family, task):
        pytest.skip("an encoder is no causal language model")
    model = made(folder_of(family, tmp_path), task, TOKENS if task == "causal_lm" else 3).eval()
    rows = random_inputs((T,), TOKENS, 4)
    rows[rows == (model.network.config.pad_token_id or 0)] = 5
    answers = model(rows)
    for row, answer in zip(rows, answers, strict=True):
        real = row[row >= 0][None]
        if task == "classification" and hasattr(model.network, "score"):
            expected = model.network.score(model.network.base_model(real).last_hidden_state[:, -1])
        else:
            expected = model.network(input_ids=real).logits
        if task != "classification":
            answer = answer[: real.shape[1]]
        assert torch.allclose(answer, expected[0], atol=1e-5)


@families
def test_rows_do_not_mix_and_a_batch_that_is_one_fits(family, tmp_path):
    model = made(folder_of(family, tmp_path))
    repair.check(model, (T,), TOKENS)


def test_a_row_without_tokens_has_finite_logits(tmp_path):
    for family in FAMILIES:
        model = made(folder_of(family, tmp_path)).eval()
        assert bool(torch.isfinite(model(torch.full((2, T), -1))).all())


@families
def test_the_weights_of_a_folder_are_loaded_and_those_of_the_head_are_new(family, tmp_path):
    folder = folder_of(family, tmp_path)
    one, other = made(folder, seed=1), made(folder, seed=2)
    heads = tuple(one.new_head())
    assert heads
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]) != (
            name.startswith(heads) and name.endswith("weight")
        ), name


def test_from_scratch_and_a_folder_without_weights_take_the_seed(tmp_path):
    folder = folder_of("Bert", tmp_path)
    name = "network.bert.encoder.layer.0.output.dense.weight"
    one, same, other = (
        made(folder, seed=s, from_scratch=True).state_dict()[name] for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    (folder / "model.safetensors").unlink()
    assert torch.equal(made(folder, seed=1).state_dict()[name], one)


def test_weights_as_pickles_are_refused(tmp_path):
    folder = folder_of("Bert", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Refusal, match=r"a pickle, which runs code.*save_pretrained"):
        made(folder)


def test_a_base_with_weights_missing_is_refused(tmp_path):
    folder = folder_of("Bert", tmp_path)
    weights, _ = load_tensors(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_tensors(folder / "model.safetensors", weights, {"format": "pt"})
    with pytest.raises(Refusal, match=r"lacks the weights 'bert"):
        made(folder)


def test_loading_says_nothing_and_leaves_the_log_as_it_was(tmp_path, capfd):
    import transformers

    folder = folder_of("Bert", tmp_path)
    capfd.readouterr()
    level = transformers.logging.get_verbosity()
    made(folder)
    assert capfd.readouterr() == ("", "")
    assert transformers.logging.get_verbosity() == level


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    folder = folder_of("Bert", tmp_path)
    (folder / "own.py").write_text("raise SystemExit('ran')")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refusal, match="cannot be loaded as classification"):
        made(folder)


def test_without_transformers_the_remedy_is_said(tmp_path, monkeypatch):
    folder = folder_of("Bert", tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Refusal, match=r"pip install 'nacre\[text\]'"):
        made(folder)


def test_a_task_that_the_architecture_does_not_have_is_refused(tmp_path):
    with pytest.raises(Refusal, match="cannot be loaded as causal_lm"):
        made(folder_of("DistilBert", tmp_path), "causal_lm", TOKENS)


def test_a_vocabulary_larger_than_the_models_is_refused(tmp_path):
    model = made(folder_of("Bert", tmp_path))
    with pytest.raises(Incompatible, match="does not take inputs"):
        repair.check(model, (T,), 10 * TOKENS)


def test_rows_longer_than_the_model_reads_are_refused(tmp_path):
    option = Pretrained(name=folder_of("Bert", tmp_path).name)
    with pytest.raises(Refusal, match="knows 32 positions and a row has 1000 tokens"):
        build(option, (1000,), 3, 0, tmp_path)


def test_every_dropout_rate_can_be_set(tmp_path):
    model = made(folder_of("GPT2", tmp_path), dropout=0.0).train()
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
    rows = random_inputs((T,), TOKENS, 3)
    assert torch.equal(model(rows), model(rows))


@pytest.mark.diagonal
@families
@tasks
def test_a_finished_run_loads_without_the_folder(family, task, tmp_path):
    if not has(family, task):
        pytest.skip("an encoder is no causal language model")
    folder, run = folder_of(family, tmp_path), tmp_path / "run"
    run.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    outputs = TOKENS if task == "causal_lm" else 3
    model = made(folder, task, outputs, seed=3).eval()
    option = Pretrained(name=folder.name, task=task)
    save(model, option, run, shape=(T,), outputs=outputs, task=task, scaler=None, folder=tmp_path)
    for file in folder.iterdir():
        file.unlink()
    rows = random_inputs((T,), TOKENS, 3)
    assert torch.equal(load(run)(rows), model(rows))
    assert load(run).files == {"tokenizer.json": "{}"}
    assert saved(run).task == task
    again = build(FormerRun(path="run"), (T,), outputs, 0, tmp_path).eval()
    assert torch.equal(again(rows), model(rows))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"name": ""}, "name='' must name"), ({"name": "a", "dropout": 1.0}, "dropout=1.0 must be")],
)
def test_values_that_make_no_sense_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pretrained(**fields)


def test_images_are_read_as_pixels(tmp_path):
    folder = folder_of("ViT", tmp_path)
    model = build(Pretrained(name=folder.name), (1, 8, 8), 3, 0, tmp_path)
    images = random_inputs((1, 8, 8), None, 2)
    assert torch.equal(model.eval()(images), model.network(pixel_values=images).logits)
    repair.check(model, (1, 8, 8))


def test_a_padding_token_below_zero_is_none(tmp_path):
    folder = folder_of("Llama", tmp_path)
    model = made(folder, "causal_lm", TOKENS).eval()
    rows = random_inputs((T,), TOKENS, 4)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"pad_token_id": -1}))
    other = made(folder, "causal_lm", TOKENS).eval()
    rows[:, -2:] = -1
    answers = model(rows)[:, :-2], other(rows)[:, :-2]
    assert torch.equal(*answers)


def test_a_file_of_the_tokenizer_that_is_no_text(tmp_path):
    folder = folder_of("Bert", tmp_path)
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match=r"tokenizer\.json cannot be read \(it is not UTF-8 text\)"):
        made(folder)

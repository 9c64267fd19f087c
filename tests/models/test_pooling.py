"""A text is read as its base was trained to be read: pooled by hand and by the model the same."""

import json

import pytest
import torch
import transformers

from nacre.core.errors import Incompatible, Refusal
from nacre.core.files import load_tensors
from nacre.fine_tuning import LoRA
from nacre.fine_tuning.export import export
from nacre.models import Pretrained, build, load, random_inputs, repair, save
from nacre.models.stock.pooling import SAID_IN
from tests.models.transformer_folders import TOKENS, T, folder_of

ENCODERS = ("Bert", "Roberta", "DistilBert")


def made(folder, **fields):
    return build(Pretrained(name=folder.name, **fields), (T,), 3, 0, folder.parent).eval()


def says(folder, *modes):
    (folder / SAID_IN).parent.mkdir()
    told = {"word_embedding_dimension": 16, "pooling_mode_max_tokens": False}
    (folder / SAID_IN).write_text(json.dumps(told | {f"pooling_mode_{m}": True for m in modes}))


def with_a_head(model):
    """The model with a head that answers: at zero it says nothing of what it reads."""
    with torch.no_grad():
        model.network.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        model.network.head.bias.fill_(0.5)
    return model


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", ENCODERS)
def test_answers_are_a_linear_head_over_the_pooled_states(family, pooling, tmp_path):
    folder = folder_of(family, tmp_path)
    model = made(folder, pooling=pooling)
    rows = random_inputs((T,), TOKENS, 4)
    rows[rows == 1] = 5  # what RoBERTa counts no position for
    rows[0, 3:] = -1
    assert not model(rows).any()  # from zero
    base = transformers.AutoModel.from_pretrained(folder).eval()
    head = with_a_head(model).network.head
    for row, answer in zip(rows, model(rows), strict=True):
        states = base(input_ids=row[row >= 0][None]).last_hidden_state[0]
        read = states.mean(0) if pooling == "mean" else states[0]
        assert torch.allclose(answer, head(read), atol=1e-5)


def test_the_pooler_answers_where_there_is_one(tmp_path):
    folder = folder_of("Bert", tmp_path)
    model = with_a_head(made(folder, pooling="pooler"))
    rows = random_inputs((T,), TOKENS, 2).clamp(min=0)
    base = transformers.AutoModel.from_pretrained(folder).eval()
    read = base(input_ids=rows).pooler_output
    assert torch.allclose(model(rows), model.network.head(read), atol=1e-6)
    with pytest.raises(Refusal, match=r"has no pooler; use `pooling: mean` or `cls`"):
        made(folder_of("DistilBert", tmp_path), pooling="pooler")


def test_no_weight_is_left_that_no_answer_depends_on(tmp_path):
    folder = folder_of("Bert", tmp_path)
    for pooling in ("mean", "cls", "pooler"):
        model = with_a_head(made(folder, pooling=pooling))
        model(random_inputs((T,), TOKENS, 2)).square().sum().backward()
        unused = [name for name, p in model.named_parameters() if p.grad is None]
        assert not unused, pooling
        repair.check(model, (T,), TOKENS)


@pytest.mark.parametrize(
    ("said", "read"), [("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", None)]
)
def test_a_base_is_read_as_it_was_trained(said, read, tmp_path):
    folder = folder_of("Bert", tmp_path)
    assert not hasattr(made(folder).network, "pooling")
    says(folder, said)
    model = made(folder)
    assert getattr(model.network, "pooling", None) == read
    assert hasattr(made(folder, pooling="stock").network, "classifier")
    sentence = Pretrained(name=folder.name).sentence(tmp_path)
    assert ("read by the" in sentence) is (read is not None)
    assert made(folder, task="token_classification").task == "token_classification"


@pytest.mark.parametrize("modes", [("max_tokens",), ("mean_tokens", "cls_token"), ()])
def test_a_way_that_is_not_offered_is_refused(modes, tmp_path):
    folder = folder_of("Bert", tmp_path)
    says(folder, *modes)
    with pytest.raises(Refusal, match=r"pools by .*name one of `pooling: mean`"):
        made(folder)
    assert made(folder, pooling="mean").network.pooling == "mean"
    (folder / SAID_IN).write_text("[]")
    with pytest.raises(Refusal, match="is not what sentence-transformers writes"):
        made(folder)


def test_what_cannot_be_pooled_is_refused(tmp_path):
    with pytest.raises(ValueError, match="leave it out for causal_lm"):
        Pretrained(name="a", task="causal_lm", pooling="mean")
    with pytest.raises(Refusal, match="is for models of text"):
        folder = folder_of("ViT", tmp_path)
        build(Pretrained(name=folder.name, pooling="mean"), (1, 8, 8), 3, 0, tmp_path)


def test_a_finished_model_loads_and_is_handed_over_as_sentence_transformers_has_it(tmp_path):
    folder, run, into = folder_of("Bert", tmp_path), tmp_path / "run", tmp_path / "out"
    run.mkdir()
    into.mkdir()
    model = with_a_head(made(folder, pooling="mean"))
    option = Pretrained(name=folder.name, pooling="mean")
    save(model, option, run, shape=(T,), outputs=3, task="classification", scaler=None,
         folder=tmp_path)  # fmt: skip
    for file in folder.iterdir():
        file.unlink()
    rows = random_inputs((T,), TOKENS, 3).clamp(min=0)
    assert torch.equal(load(run)(rows), model(rows))
    export(model, into)
    base = transformers.AutoModel.from_pretrained(into).eval()
    read = base(input_ids=rows).last_hidden_state.mean(1)
    head, _ = load_tensors(into / "2_Dense" / "model.safetensors")
    assert torch.allclose(
        read @ head["linear.weight"].T + head["linear.bias"], model(rows), atol=1e-5
    )
    kinds = [module["type"].rpartition(".")[2] for module in read_json(into / "modules.json")]
    assert kinds == ["Transformer", "Pooling", "Dense"]
    (into / "model.json").write_bytes((run / "model.json").read_bytes())
    assert torch.equal(load(into)(rows), model(rows))


def test_adapters_of_a_pooled_base_are_handed_over_merged_alone(tmp_path):
    model = LoRA(rank=2).prepare(made(folder_of("Bert", tmp_path), pooling="mean"), 0)
    moved = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {"network.head.weight", "network.head.bias"} < moved
    (tmp_path / "into").mkdir()
    with pytest.raises(Incompatible, match=r"PEFT has no form.*use form 'merged'"):
        export(model, tmp_path / "into", "adapter")
    assert not any((tmp_path / "into").iterdir())


def read_json(path):
    return json.loads(path.read_text())

"""Models that leave their run: read by transformers and PEFT, with tokenizer and classes."""

import json
import shutil

import peft
import pytest
import tokenizers
import torch
import transformers

from nacre.core.errors import FileDamaged, Incompatible, RunError
from nacre.core.files import load_tensors, save_tensors
from nacre.models import load
from nacre.planning.plan import plan
from nacre.prediction.predictor import load_model
from nacre.runs.handover import hand_over
from nacre.runs.run import train
from tests.data.tokenizer_folders import encoder
from tests.models.transformer_folders import folder_of
from tests.runs.test_text_runs import LABELLED, LANGUAGE
from tests.training.tiny import StopAfter, Stopped, recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = torch.tensor([[2, 4, 6, 3], [2, 5, 6, 3]])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run of adapters on a tiny BERT, beside it."""
    folder = tmp_path_factory.mktemp("handover")
    encoder(folder_of("Bert", folder))
    rows = [
        {"text": " ".join([label, *(("a", "b")[n >> bit & 1] for bit in range(5))]), "label": label}
        for n in range(25)
        for label in ("good", "bad")
    ]
    (folder / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train(plan(recipe(folder, LABELLED)), folder / "run")
    return folder


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def test_a_tuned_model_is_one_of_transformers(place, tmp_path):
    hand_over(place / "run", tmp_path / "m")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert tokenizer("good film")["input_ids"] == [2, 4, 6, 3]
    with torch.no_grad():
        torch.testing.assert_close(logits(model), load(place / "run")(IDS))


def test_a_run_an_export_and_a_copy_elsewhere_predict_bit_for_bit_the_same(place, tmp_path):
    """Also once the run and the base that it was tuned from are gone."""
    frame = {"text": ["good a b a", "bad b b b", "a b"]}
    whole = tmp_path / "whole"
    shutil.copytree(place, whole)
    own = load_model(whole / "run").predict_proba(frame)
    hand_over(whole / "run", tmp_path / "m")
    shutil.rmtree(whole)
    assert (load_model(tmp_path / "m").predict_proba(frame) == own).all()
    (tmp_path / "elsewhere").mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(tmp_path / "m" / name, tmp_path / "elsewhere")
    assert (load_model(tmp_path / "elsewhere").predict_proba(frame) == own).all()


def test_adapters_go_beside_their_base(place, tmp_path):
    hand_over(place / "run", tmp_path / "a", "adapter")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(place / "bert")
    before = logits(base)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "a")
    assert not torch.allclose(logits(model), before)
    with torch.no_grad():
        torch.testing.assert_close(logits(model), load(place / "run")(IDS))


def test_a_language_model_goes_with_the_pieces_that_it_reads(tmp_path):
    (tmp_path / "public.txt").write_text("the cat sat on the mat\n" * 30)
    (tmp_path / "private.txt").write_text("".join(f"note {i} of mine\n" for i in range(40)))
    train(plan(recipe(tmp_path, LANGUAGE)), tmp_path / "run")
    into = tmp_path / "out"
    assert hand_over(tmp_path / "run", into) == [
        "model.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    pieces = tokenizers.Tokenizer.from_file(str(into / "tokenizer.json"))
    rows = torch.tensor([pieces.encode("the cat").ids])
    with torch.no_grad():
        torch.testing.assert_close(load(into)(rows), load(tmp_path / "run")(rows))


def test_what_cannot_be_handed_over_writes_nothing(place, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(RunError, match="not an empty folder"):
        hand_over(place / "run", tmp_path / "full")
    with pytest.raises(RunError, match=r"into a folder .* name one, as .*/model$"):
        hand_over(place / "run", tmp_path / "model.onnx", "onnx")
    with pytest.raises(Stopped):
        train(plan(recipe(place, LABELLED, ledger__path="other.db")), tmp_path / "open",
              observe=StopAfter(5))  # fmt: skip
    with pytest.raises(RunError, match="not complete"):
        hand_over(tmp_path / "open", tmp_path / "out")
    changes = {"fine_tuning": {"kind": "bias"}, "ledger__path": "third.db"}
    train(plan(recipe(place, LABELLED, **changes)), tmp_path / "bias")
    with pytest.raises(Incompatible, match=r"trained no adapters .*`--form merged`"):
        hand_over(tmp_path / "bias", tmp_path / "out", "adapter")
    changes = {"model__pooling": "mean", "training__steps": 1, "ledger__path": "fourth.db"}
    train(plan(recipe(place, LABELLED, **changes)), tmp_path / "pooled")
    with pytest.raises(Incompatible, match=r"PEFT has no form .*`pooling: stock`"):
        hand_over(tmp_path / "pooled", tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_ended_holds_the_base_once(place, tmp_path):
    """In its model. Beside it stand adapters and head alone, and no checkpoint."""
    run = place / "run"
    assert [path.name for path in (run / "state").iterdir()] == ["adapters.safetensors"]
    kept, _ = load_tensors(run / "state" / "adapters.safetensors")
    assert all(".lora_" in name or "classifier" in name for name in kept), list(kept)
    tensors = [load_tensors(path)[0].items() for path in run.rglob("*.safetensors")]
    frozen = "network.bert.embeddings.word_embeddings.weight"
    assert [name for file in tensors for name, _ in file].count(frozen) == 1


def test_adapters_are_those_of_the_averaged_model(place, tmp_path):
    changes = {"training__average": {"decay": 0.5}, "ledger__path": "sixth.db"}
    train(plan(recipe(place, LABELLED, **changes)), tmp_path / "run")
    hand_over(tmp_path / "run", tmp_path / "a", "adapter")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(place / "bert")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "a")
    with torch.no_grad():
        torch.testing.assert_close(logits(model), load(tmp_path / "run")(IDS))


def test_adapters_on_a_base_that_has_changed_stay(place, tmp_path):
    weights = place / "bert" / "model.safetensors"
    before = weights.read_bytes()
    tensors, facts = load_tensors(weights)
    name = next(name for name in tensors if name.endswith("key.weight"))
    try:
        save_tensors(weights, tensors | {name: tensors[name] + 1}, facts)
        with pytest.raises(FileDamaged, match=r"base, pretrained bert.*, do not give the model of"):
            hand_over(place / "run", tmp_path / "a", "adapter")
        hand_over(place / "run", tmp_path / "m")
    finally:
        weights.write_bytes(before)


def test_adapters_that_do_not_give_the_model_stay(place, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    tensors, _ = load_tensors(copy / "model.safetensors")
    name = next(name for name in tensors if name.endswith("query.weight"))
    tensors[name] += 1
    save_tensors(copy / "model.safetensors", tensors)
    with pytest.raises(FileDamaged, match="do not give the model of the run"):
        hand_over(copy, tmp_path / "out", "adapter")
    (copy / "state" / "adapters.safetensors").unlink()
    with pytest.raises(FileDamaged, match="is gone, and what was trained beside the base"):
        hand_over(copy, tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()

"""A model as an object: from a run folder, an export or a copy, with the same predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import nacre
from nacre.core.errors import BadArgument, DataError, FileDamaged, Refusal, RunError
from nacre.models import Code, PythonModel, build, save
from nacre.planning.plan import plan
from nacre.prediction.predictor import Predictor
from nacre.prediction.signature import read_signature, signature_of
from nacre.prediction.texts import token_rows
from nacre.recipe.load import load_recipe
from nacre.runs.handover import hand_over
from tests.prediction.conftest import TEXT, other
from tests.training.tiny import StopAfter, Stopped, recipe

FRAME = pd.DataFrame(
    {"age": [50, 20, None], "ward": ["east", "3", "west"], "pulse": ["70", 300, 60]}, dtype=object
)
ROWS: dict[str, Any] = {
    "table": FRAME,
    "images": np.random.default_rng(1).integers(0, 17, (5, 1, 8, 8)),
    "text": ["good film", "bad film a b c", "unknown words"],
    "language": ["note 1 of mine", "q"],
}


@pytest.mark.parametrize("kind", ROWS)
def test_run_export_and_copy_predict_the_same(kind: str, place: Path, tmp_path: Path) -> None:
    hand_over(place / kind, tmp_path / "export")
    shutil.copytree(tmp_path / "export", tmp_path / "far" / "away")
    shutil.copytree(place / kind, tmp_path / "copy", ignore=shutil.ignore_patterns("local"))
    found = []
    for folder in (place / kind, tmp_path / "export", tmp_path / "far/away", tmp_path / "copy"):
        model = nacre.load_model(folder)
        assert not model.module.training
        shares = model.predict_proba(ROWS[kind]) if kind != "language" else np.zeros(0)
        found.append((repr(model.predict(ROWS[kind])), shares.tobytes()))
    assert len(set(found)) == 1


def test_the_signature_says_what_the_recipe_declares(place: Path) -> None:
    model = nacre.load_model(place / "table")
    declared = signature_of(load_recipe(place / "table/recipe.yaml").data)
    assert model.signature == declared
    assert [column.name for column in declared.columns] == ["age", "pulse", "ward"]
    assert declared.columns[2].categories == ("east", "west", "3")
    assert (declared.target, declared.unit, declared.dropped) == ("ill", "person", ("name",))
    assert (declared.on_missing, declared.on_out_of_range) == ("drop", "clamp")
    assert dict(declared.versions)["nacre"] == nacre.__version__
    for kind in ROWS:
        signature = nacre.load_model(place / kind).signature
        again = json.loads(json.dumps(signature.to_json()))
        assert read_signature(again, "model.json") == signature


def test_rows_are_treated_as_the_run_says(place: Path) -> None:
    model = nacre.load_model(place / "table")
    labels, shares = model.predict(FRAME), model.predict_proba(FRAME)
    assert set(labels[:2]) <= {"no", "yes"} and labels[2] is None
    np.testing.assert_allclose(shares[:2].sum(1), 1, rtol=1e-6)
    assert np.isnan(shares[2]).all()
    moved = FRAME.head(2).assign(pulse=["70", 220])
    assert model.predict_proba(moved).tobytes() == shares[:2].tobytes()
    columns = {name: list(FRAME[name][:2]) for name in reversed(list(FRAME))}
    assert model.predict_proba(columns | {"more": [1, 2]}).tobytes() == shares[:2].tobytes()
    with torch.no_grad():
        inputs = torch.tensor([[(50 - 60) / 60, (70 - 125) / 95, 1, 0, 0]])
        torch.testing.assert_close(
            model.module(inputs).softmax(1)[0], torch.from_numpy(shares[0]), rtol=1e-5, atol=1e-6
        )


def test_what_a_frame_lacks_is_refused(place: Path) -> None:
    table, images, text = (nacre.load_model(place / kind) for kind in ("table", "images", "text"))
    with pytest.raises(DataError, match=r"the frame has no column 'pulse' and 1 more"):
        table.predict({"age": [1]})
    with pytest.raises(DataError, match=r"column 'ward': 'north': it is none of east, west, 3"):
        table.predict(FRAME.assign(ward="north"))
    with pytest.raises(BadArgument, match=r"reads the columns age, pulse, ward, and ndarray has"):
        table.predict(np.zeros((2, 5)))
    with pytest.raises(BadArgument, match="different numbers of rows"):
        table.predict({"age": [1], "ward": ["3", "3"], "pulse": [50]})
    with pytest.raises(BadArgument, match="holds no rows"):
        table.predict(FRAME.head(0))
    with pytest.raises(DataError, match=r"shape \(3,\) where \(1, 8, 8\) is declared"):
        images.predict(np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"the array: a feature is outside \[0.0, 16.0\] in row 1"):
        images.predict(torch.full((1, 8, 8), 17))
    with pytest.raises(BadArgument, match=r"arrays of shape \(N, 1, 8, 8\), and DataFrame"):
        images.predict(FRAME)
    with pytest.raises(BadArgument, match="str has no columns"):
        text.predict("good film")
    with pytest.raises(DataError, match=r"column 'text': there is no text in row 2; fill them"):
        text.predict(["good", " "])
    with pytest.raises(DataError, match="half a character"):
        text.predict(["good \ud800"])
    with pytest.raises(BadArgument, match="a causal_lm alone writes text"):
        text.generate("good")


def test_text_is_scored_in_any_company(place: Path) -> None:
    model = nacre.load_model(place / "text")
    both = model.predict_proba(ROWS["text"])
    alone = np.concatenate([model.predict_proba([text]) for text in ROWS["text"]])
    np.testing.assert_allclose(both, alone, rtol=1e-5)
    named = model.predict_proba({"text": ROWS["text"], "label": ["x"] * 3})
    assert named.tobytes() == both.tobytes()


def test_a_language_model_scores_and_writes(place: Path) -> None:
    model = nacre.load_model(place / "language")
    scores = model.predict(["note 1 of mine", "zzz"])
    tokens = torch.tensor([[*b"zzz", 256]])
    with torch.no_grad():
        logits = model.module(tokens).log_softmax(-1)
    expected = logits[0, torch.arange(3), tokens[0, 1:]].mean()
    assert scores[1] == pytest.approx(float(expected), rel=1e-5)
    before = torch.random.get_rng_state()
    one, same, two = (model.generate("note", tokens=30, seed=seed) for seed in (1, 1, 2))
    assert one == same != two
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.generate("n" * 60, tokens=2, temperature=0) is not None
    with pytest.raises(BadArgument, match="probabilities are for classification"):
        model.predict_proba(["a"])
    for wrong in ({"tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}):
        with pytest.raises(BadArgument):
            model.generate("a", **wrong)
    with pytest.raises(BadArgument, match="holds no token"):
        model.generate("")


def test_words_have_tags_and_numbers_come_from_text(place: Path, tmp_path: Path) -> None:
    data = TEXT["data"] | {"task": "token_classification", "classes": ["O", "THING"]}
    base = other(TEXT, data, TEXT["model"] | {"task": "token_classification"})
    made = recipe(place, base)
    save(
        made.build_model(made.schema), made.model, tmp_path, shape=(12,), outputs=2,
        task="token_classification", scaler=None, folder=place,
        tokenizer=_described(made.data, place), signature=signature_of(made.data).to_json(),
    )  # fmt: skip
    model = nacre.load_model(tmp_path)
    found = model.predict([["good", "film"], ["a"] * 20, ["very", "bad"]])
    assert [len(row) for row in found] == [2, 20, 2]
    assert set(found[0]) <= {"O", "THING"} and found[1][10:] == [None] * 10
    with pytest.raises(DataError, match="there are no words"):
        model.predict({"text": ["no list"]})


def _described(data: Any, folder: Path) -> Any:
    from nacre.data.text import tokens

    return tokens.described(data.tokenized(folder))


def test_an_export_is_still_one_of_transformers(place: Path, tmp_path: Path) -> None:
    files = hand_over(place / "text", tmp_path / "m")
    assert {"model.json", "config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        logits = network.eval()(**tokenizer("good film", return_tensors="pt")).logits
    shares = nacre.load_model(tmp_path / "m").predict_proba(["good film"])
    torch.testing.assert_close(logits.softmax(1), torch.from_numpy(shares))


def test_format_1_is_read_with_the_recipe_of_its_run(place: Path, tmp_path: Path) -> None:
    old = shutil.copytree(place / "table", tmp_path / "old")
    facts = json.loads((old / "model.json").read_text())
    del facts["signature"]
    (old / "model.json").write_text(json.dumps(facts | {"format": 1}))
    whole = nacre.load_model(place / "table")
    assert nacre.load_model(old).signature == whole.signature
    assert repr(nacre.load_model(old).predict(FRAME)) == repr(whole.predict(FRAME))
    (old / "recipe.yaml").rename(old / "kept")
    with pytest.raises(RunError, match=r"put the recipe.yaml of its run beside it"):
        nacre.load_model(old)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "guessing"}, "'guessing' is none of"),
        ({"shape": [4]}, r"fill 5 inputs and its shape is \(4,\)"),
        ({"classes": "no"}, "'no' should be a list"),
        ({"on_missing": "guess"}, "none of refuse, drop"),
        ({"target": 3}, "3 should be text"),
        ({"columns": [{"name": "age", "kind": "number"}]}, "'categories' is missing"),
        ({"columns": [], "array": None}, "neither columns nor an array nor text"),
        ({"low": True}, "True should be a finite number"),
    ],
)
def test_a_signature_that_lies_is_refused(
    change: dict[str, Any], says: str, place: Path, tmp_path: Path
) -> None:
    facts = json.loads((place / "table/model.json").read_text())
    facts["signature"] |= change
    (tmp_path / "model.json").write_text(json.dumps(facts))
    with pytest.raises(FileDamaged, match=says) as refusal:
        nacre.load_model(tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_an_open_run_and_code_of_others_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no finished model"):
        nacre.load_model(tmp_path)
    shutil.copy(place / "people.csv", tmp_path)
    base = load_recipe(place / "table/recipe.yaml", folder=tmp_path)
    with pytest.raises(Stopped):
        nacre.train(plan(base), tmp_path / "open", observe=StopAfter(1))
    with pytest.raises(RunError, match=r"is not complete: it is open; continue it"):
        nacre.load_model(tmp_path / "open")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Linear(5, 2)\n"
    )
    option = PythonModel(call="mine:net")
    folder = tmp_path / "code"
    folder.mkdir()
    shutil.copy(tmp_path / "mine.py", folder)
    net = build(option, (5,), 2, 0, folder)
    save(
        net, option, folder, shape=(5,), outputs=2, task="classification", scaler=None,
        folder=folder, signature=signature_of(base.data).to_json(),
    )  # fmt: skip
    with pytest.raises(Refusal, match=r"--trust-code.*Code\(runs=True\)"):
        nacre.load_model(folder)
    assert isinstance(nacre.load_model(folder, code=Code(runs=True)), Predictor)


@pytest.mark.parametrize("cased", [False, True])
def test_text_becomes_the_tokens_that_training_read(
    cased: bool, place: Path, tmp_path: Path
) -> None:
    """Also where tokenizer_config.json says otherwise than tokenizer.json, as of case."""
    shutil.copytree(place / "bert", tmp_path / "bert")
    config = tmp_path / "bert/tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"do_lower_case": not cased}))
    texts = [" Good film ", "BAD very [SEP] dogs", "a b c " * 9]
    frame = pd.DataFrame({"text": texts, "label": ["good", "bad", "good"]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    made = recipe(tmp_path, TEXT, data__path="rows.csv")
    trained = made.data.read(tmp_path, 0, bytes(32))
    save(
        made.build_model(made.schema), made.model, tmp_path, shape=(12,), outputs=2,
        task="classification", scaler=None, folder=tmp_path, tokenizer=trained.tokenizer,
        signature=signature_of(made.data).to_json(),
    )  # fmt: skip
    model = nacre.load_model(tmp_path)
    assert model._tokenizer is not None
    rows, faults = token_rows({"text": texts}, model.signature, model._tokenizer, True)
    assert not faults and torch.equal(rows.features, trained.private.features)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.concat([FRAME, FRAME[["age"]]], axis=1), "'age' twice"),
        (FRAME.iloc[1].to_dict(), "'age' is a single value"),
    ],
)
def test_a_frame_of_another_form_is_a_sentence(place: Path, frame: Any, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        nacre.load_model(place / "table").predict(frame)

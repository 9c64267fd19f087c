"""Texts for a model without a recipe: read as its run reads them, and attacked as its run is."""

import csv
import json

import pytest
from click.testing import CliRunner

from nacre.audit.declared import declared_by
from nacre.cli.main import cli
from nacre.core.errors import Incompatible
from nacre.models.callables import Code
from tests.data.tokenizer_folders import encoder
from tests.models.transformer_folders import folder_of
from tests.runs.test_text_evasion import OWN as BAG
from tests.runs.test_text_evasion import TEXT, reviews
from tests.training.tiny import changed, text

TEXT = changed(TEXT, {"data.holdout": None, "data.size": 100, "data.test": {"path": "test.jsonl"}})
THREAT = "nacre: 1\nthreat: {kind: words, similarity: -1.0, share: 0.5, candidates: 6}\n"
NAIVE = """
from torch import nn

class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(40, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.table(x).mean(1))

def bag():
    return Bag()
"""
OWN = """
import nacre

def bert():
    return nacre.load_model("run").module
"""


def _written(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def nacre(*words):
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    return found


def _tested():
    """Texts of both classes, and one without a word twice, called good and called bad: whatever the
    weights, one of the two is answered right, and no attack can change it."""
    return [*reviews(40, start=100), *({"text": "] ]", "label": each} for each in ("bad", "good"))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of reviews whose class is one of their words, what was exported of it, and a threat."""
    folder = tmp_path_factory.mktemp("reviews")
    encoder(folder_of("Bert", folder))
    _written(folder / "reviews.jsonl", reviews(100))
    _written(folder / "test.jsonl", _tested())
    (folder / "recipe.yaml").write_text(text(TEXT))
    (folder / "threat.yaml").write_text(THREAT)
    (folder / "own.py").write_text(OWN)
    nacre("run", folder / "recipe.yaml", "--into", folder / "run")
    nacre("export", folder / "run", folder / "saved")
    return folder


def _found(output):
    (found,) = json.loads((output / "findings.json").read_text())["findings"]
    return found


@pytest.mark.parametrize("form", ["run", "saved", "function"])
def test_a_model_is_attacked_on_texts_as_its_run_is(place, tmp_path, monkeypatch, form):
    with (tmp_path / "test.csv").open("w", newline="") as file:
        lines = csv.DictWriter(file, ["label", "text"])
        lines.writeheader()
        lines.writerows(_tested())
    monkeypatch.chdir(place)
    asked = ["--data", tmp_path / "test.csv", "--threat", "threat.yaml", "--effort", "quick"]
    if form == "function":
        rows = [{**row, "label": int(row["label"] == "good")} for row in _tested()]
        asked[1] = _written(tmp_path / "numbered.jsonl", rows)
        asked += ["--tokenizer", "run", "--length", 12]
    model = {"run": "run", "saved": "saved", "function": "own:bert"}[form]
    nacre("audit", "--model", model, *asked, "--output", tmp_path / "attack", "--public")
    found, own = _found(tmp_path / "attack"), _found(place / "run")
    assert 0 < found["value"] < found["details"]["clean"]["value"]
    assert found["value"] == own["value"]
    for name in ("curve", "ball", "rows_tested", "clean"):
        assert found["details"][name] == own["details"][name], name
    rows = [(one["row"], one["steps"], one["share"]) for one in found["details"]["each"]]
    assert rows == [(one["row"], one["steps"], one["share"]) for one in own["details"]["each"]]
    assert "<del>" in (tmp_path / "attack" / "report.html").read_text()
    asked = ["audit", "--model", model, "--output", tmp_path / "attack", "--rescore", "--json"]
    (again,) = json.loads(nacre(*asked).stdout)["rescored"].values()
    assert again["holds"] and again["value"] == found["value"] and again["same_weights"]


def test_without_a_threat_words_are_replaced_by_the_defaults(place, tmp_path):
    rows = [*reviews(6), {"text": "a film", "label": "good"}]
    data = _written(tmp_path / "rows.jsonl", rows)
    nacre("audit", "--model", place / "run", "--data", data, "--output", tmp_path / "attack")
    found = _found(tmp_path / "attack")
    assert found["details"]["ball"]["kind"] == "words"
    assert found["details"]["ball"]["radius"] == 0.2
    assert not found["public"] and found["details"]["texts"] == []
    assert "film" not in (tmp_path / "attack" / "findings.json").read_text()


def test_rows_without_a_text_are_left_out_as_in_training(place):
    declared = declared_by(place / "run")
    rows = [*reviews(3), {"text": None, "label": "bad"}, *reviews(2)]
    file = _written(place / "holes.jsonl", rows)
    with pytest.raises(Exception, match=r"holes\.jsonl column 'text': there is no text in row 4"):
        declared.read(file, None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--radius", 0.1), "their tokens have no distance; replace words instead"),
        (("--rows", "raw"), "--rows raw is for rows of numbers"),
        (("--tokenizer", "run"), "--tokenizer is for `module:function`"),
        (("--norm", "l2"), "--norm says nothing without --radius"),
        (("--text", "said"), "--text says nothing without --tokenizer"),
        (("--label", "stars"), "has no column 'stars' with the right answers"),
        (("--data", "other.jsonl"), "other.jsonl has no column 'text'"),
        (("--data", "wrong.jsonl"), "'label': 'fine': it is none of bad, good in row 1"),
        (("--data", "rows.npz"), "rows.npz is no table"),
        (("--data", "nowhere.csv"), "nowhere.csv cannot be read"),
        (("--towards", "fine"), "'fine'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value)),
)
def test_what_no_attack_on_texts_reads_is_refused(place, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(place)
    _written(place / "other.jsonl", [{"said": "a film", "label": "good"}])
    _written(place / "wrong.jsonl", [{"text": "a film", "label": "fine"}])
    (place / "rows.npz").write_bytes(b"PK")
    asked = ["audit", "--model", "run", "--data", "test.jsonl", "--output", tmp_path / "attack"]
    found = CliRunner().invoke(cli, [str(word) for word in [*asked, *more]])
    assert found.exit_code != 0 and said in " ".join(found.output.split()), found.output
    assert "Traceback" not in found.output and not (tmp_path / "attack").exists()


def test_a_function_that_reads_texts_needs_numbers_of_classes(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    asked = [
        "audit",
        "--model",
        "own:bert",
        "--data",
        "test.jsonl",
        "--output",
        tmp_path / "attack",
    ]
    (place / "rows.csv").write_text("a,label\n1,0\n")
    (place / "naive.py").write_text(NAIVE)
    rows = [{**row, "label": int(row["label"] == "good")} for row in reviews(8)]
    _written(place / "numbered.jsonl", rows)
    _written(place / "other.jsonl", [{"said": "a film", "label": 1}])
    numbered = ["--tokenizer", "run", "--length", 12, "--data", "numbered.jsonl"]
    _written(place / "huge.jsonl", [{"text": "a", "label": n} for n in (0, 1e30)])
    for more, said in (
        (["--tokenizer", "run"], "'bad' in row 1 is no number of a class"),
        (["--tokenizer", "run", "--data", "huge.jsonl"], "1e+30 in row 2 is no number of a class"),
        (["--tokenizer", "nowhere"], "there is no folder"),
        (["--tokenizer", "run", "--length", "0"], "--length 0 must be at least 1"),
        ([], "give --tokenizer for texts"),
        (["--tokenizer", "run", "--data", "other.jsonl"], "name the column of texts by --text"),
        ([*numbered, "--length", 99], "by --length no more tokens than it reads"),
        ([*numbered, "--range", 0, 1], "--range is for numbers, and the model reads texts"),
        ([*numbered, "--model", "naive:bag"], "give what reads them `x.clamp(min=0)` and the mask"),
        (["--data", "rows.csv"], "--model needs --radius or --threat"),
    ):
        found = CliRunner().invoke(cli, [str(word) for word in [*asked, *more]])
        assert found.exit_code != 0 and said in " ".join(found.output.split()), found.output


def test_a_model_of_bytes_is_refused(tmp_path):
    _written(tmp_path / "reviews.jsonl", reviews(60))
    (tmp_path / "own.py").write_text(BAG)
    changes = {
        "model": {"kind": "python", "call": "own:bag", "arguments": {"tokens": 257}}, "audit": None,
        "data__tokenizer": {"kind": "bytes"}, "data__test": None, "training__steps": 2,
        "data__size": 60,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(text(TEXT, **changes))
    nacre("run", tmp_path / "recipe.yaml", "--into", tmp_path / "run")
    with pytest.raises(Incompatible, match="reads single bytes"):
        declared_by(tmp_path / "run", Code(runs=True))

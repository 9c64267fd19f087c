"""Words of whole runs replaced, by `nacre run` and `nacre audit`: what is found, shown and kept."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from nacre.audit.bounds import clopper_pearson
from nacre.audit.model_security.batch import IN_FILE, reproduced
from nacre.audit.model_security.batch_file import load_batch, save_batch
from nacre.audit.run import audit_run
from nacre.cli.main import cli
from nacre.core.errors import Incompatible, RecipeError
from nacre.core.files import load_tensors
from nacre.models import load
from nacre.models.callables import Code
from nacre.planning.plan import plan
from nacre.runs.run import open_run, train
from tests.data.tokenizer_folders import encoder
from tests.models.transformer_folders import folder_of
from tests.training.tiny import CENTRAL, recipe, text

WORDS = {"kind": "words", "similarity": -1.0, "share": 0.5, "candidates": 6}
EVASION = {"kind": "evasion", "ball": WORDS, "effort": "quick"}
TEXT = {
    "nacre": 1,
    "name": "tiny",
    "data": {
        "kind": "text", "path": "reviews.jsonl", "text": "text", "label": "label",
        "classes": ["bad", "good"], "length": 12, "size": 60, "public_demonstration": True,
        "holdout": {"share": 0.4, "by": "row"},
    },
    "model": {"kind": "pretrained", "name": "bert", "dropout": 0.0},
    # After 60 steps the margin of every text is above 6, whatever the key; after 25 one run in a
    # hundred has learnt nothing, and no word of it can be replaced.
    "training": {"steps": 60, "batch": 30, "optimizer": {"kind": "adam", "lr": 0.01}},
    "audit": [EVASION],
}  # fmt: skip
LORA = {"kind": "lora", "rank": 4, "alpha": 8}


@pytest.fixture
def place(tmp_path):
    """Reviews whose class is one of their words, and a random encoder with a tokenizer."""
    return _reviews(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of such reviews, for the tests that ask for nothing else of it."""
    return _run(_reviews(tmp_path_factory.mktemp("reviews")))


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run, which a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


def reviews(count, start=0):
    """Made-up texts whose class is one of their words."""
    for i in range(start, start + count):
        word = ("bad", "good")[i % 2]
        said = [["a", "b", "c", "film"][(i // k) % 4] for k in (2, 3, 5)]
        yield {"text": " ".join([*said[: i % 3 + 1], word, "]", *said[i % 2 :]]), "label": word}


def _reviews(folder):
    encoder(folder_of("Bert", folder))
    rows = "".join(json.dumps(row) + "\n" for row in reviews(100))
    (folder / "reviews.jsonl").write_text(rows)
    (folder / "own.py").write_text(OWN)
    return folder


OWN = """
import torch
from torch import nn

class Bag(nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens
        self.table = nn.Embedding(tokens, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, features):
        real = (features >= 0).unsqueeze(-1).float()
        return self.head((self.table(features.long().clamp(min=0)) * real).sum(1))

def bag(tokens):
    return Bag(tokens)
"""


def _nacre(*words):
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    return found.output


def _run(place, **changes):
    (place / "recipe.yaml").write_text(text(TEXT, **changes))
    _nacre("run", place / "recipe.yaml", "--into", place / "run")
    return place / "run"


def _finding(file):
    (found,) = json.loads(file.read_text())["findings"]
    return found


def _answers(run, texts):
    """What the run's model says of these texts, encoded anew."""
    opened = open_run(run)
    model = load(run)
    encoded = opened.recipe.data.encoder(opened.recipe.folder).texts(texts)
    return [("bad", "good")[i] for i in model(encoded.features).argmax(1).tolist()]


@pytest.mark.parametrize("tuned", [None, LORA], ids=["full", "lora"])
def test_a_run_replaces_words_and_its_report_shows_them(request, tuned):
    if tuned is None:
        run = request.getfixturevalue("trained")
    else:
        run = _run(request.getfixturevalue("place"), fine_tuning=tuned)
    found = _finding(run / "findings.json")
    details = found["details"]
    values = [point["value"] for point in details["curve"]]
    assert values == sorted(values, reverse=True)
    count = details["rows_tested"]
    low, high = clopper_pearson(round(values[-1] * count), count, 0.95)
    assert (found["low"], found["value"], found["high"]) == (low, values[-1], high)
    assert values[-1] < values[0]
    assert [stage["name"] for stage in details["stages"]] == ["word substitution"]
    assert details["stages"][0]["tried"] == round(values[0] * count)
    assert details["stages"][0]["backwards"] == 0
    assert any("transfer_beats_white_box" in note for note in details["notes"])
    shown = details["texts"]
    assert shown
    page = (run / "report.html").read_text()
    for row in shown:
        clean = " ".join(part["text"] for part in row["words"])
        moved = " ".join(part["now"] or part["text"] for part in row["words"])
        assert _answers(run, [clean, moved]) == [row["before"], row["after"]]
        assert row["label"] == row["before"] != row["after"]
        swapped = [(part["text"], part["now"]) for part in row["words"] if part["now"] is not None]
        words = [word for word in clean.split() if word.isalpha()]
        assert 1 <= len(swapped) <= max(1, len(words) // 2)
        for before, after in swapped:
            assert before != after and before.isalpha() and after.isalpha()
            assert f"<del>{before}</del> <ins>{after}</ins>" in page
    assert "up to 50" in page


def test_an_audit_of_the_run_finds_the_same_and_leaves_its_model(copied):
    run = copied
    first, (before, _) = (
        (run / "findings.json").read_text(),
        load_tensors(run / "model.safetensors"),
    )
    _nacre("audit", run)
    assert (run / "findings.json").read_text() == first
    after, _ = load_tensors(run / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_the_batch_of_a_run_gives_its_figure_and_tells_a_forged_point(request, effort):
    if effort == EVASION["effort"]:
        run = request.getfixturevalue("copied")
    else:
        asked = [{**EVASION, "effort": effort}]
        run = _run(request.getfixturevalue("place"), audit=asked)
    found, kept = _finding(run / "findings.json"), run / "local" / "attacks"
    said = json.loads(_nacre("audit", run, "--rescore", "--json"))["rescored"]["the-model-1"]
    assert said == {
        "rows": found["details"]["rows_tested"], "reported": found["value"],
        "value": found["value"], "same_weights": True, "row_numbers": IN_FILE,
        "outside": [], "changed": [],
        "other_candidates": [], "holds": True,
    }  # fmt: skip
    assert {file.stat().st_mode & 0o777 for file in kept.iterdir()} == {0o600}
    facts = json.loads((kept / "the-model-1.json").read_text())
    told = {json.dumps(row["words"]) for row in facts["broken"]}
    assert {json.dumps(text["words"]) for text in found["details"]["texts"]} <= told
    batch = load_batch(kept, "the-model-1")
    assert reproduced(batch, load(run)).value == found["value"]
    broken = int((batch.stage >= 0).nonzero()[0])
    attacked = batch.attacked.clone()
    attacked[broken] = torch.where(attacked[broken] >= 0, attacked[broken, 1], -1)
    save_batch(replace(batch, attacked=attacked), kept, "the-model-1")
    again = CliRunner().invoke(cli, ["audit", str(run), "--rescore"])
    assert again.exit_code == 1, again.output
    row = int(batch.place[broken])
    assert f"the threat does not allow the points of row {row}" in again.output.replace("\n", " ")


def test_private_texts_are_nowhere_outside_the_local_folder(place):
    run = _run(place, data__public_demonstration=None)
    found = _finding(run / "local" / "findings.json")
    assert not found["public"] and found["details"]["stages"][0]["tried"] > 0
    assert found["details"]["texts"]  # for their holder
    assert "<del>" in (run / "local" / "report.html").read_text()
    assert _finding_or_none(run / "findings.json") is None
    page = (run / "report.html").read_text()
    assert "<del>" not in page and "film" not in page
    said = _nacre("audit", run, "--json")
    assert '"texts": []' in said and "film" not in said


def _finding_or_none(file):
    return _finding(file) if file.exists() and json.loads(file.read_text())["findings"] else None


def test_a_plain_evasion_takes_words_and_a_random_search_follows(place):
    _run(place, audit=["evasion"])
    found = _finding(place / "run" / "findings.json")
    assert found["details"]["ball"] == {
        "kind": "words", "radius": 0.2, "unit": "share of words", "similarity": 0.5,
        "candidates": 8,
    }  # fmt: skip
    names = [stage["name"] for stage in found["details"]["stages"]]
    assert names == ["word substitution", "word search, 100 queries"]


def _own(tokens):
    return {"kind": "python", "call": "own:bag", "arguments": {"tokens": tokens}}


def test_a_model_of_ones_own_is_read_by_pieces_of_public_text(place):
    """Padding is left as the model is given it, for nothing says that it is masked."""
    (place / "public.jsonl").write_text((place / "reviews.jsonl").read_text())
    asked = recipe(
        place, TEXT, model=_own(300), data__tokenizer={"kind": "bpe", "vocabulary": 300},
        data__public={"path": "public.jsonl"}, data__length=24,
    )  # fmt: skip
    run = train(plan(asked), place / "own")
    (found,) = audit_run(open_run(run.path, code=Code(runs=True)))
    assert found.details["stages"][0]["tried"] > 0
    for row in found.details["texts"]:
        for part in row["words"]:
            assert part["now"] is None or (part["text"] + part["now"]).isalpha()


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"audit": [{"kind": "evasion", "ball": {"radius": 0.1}}]}, "audit[0].ball",
         "tokens have no distance; use `ball: {kind: words}`"),
        ({"audit": [{**EVASION, "steps": 3}]}, "audit[0].steps", "without one; leave it"),
        ({"audit": ["membership", {**EVASION, "restarts": 3}]}, "audit[1].restarts", "leave it"),
        ({"audit": [{"kind": "certificate", "ball": {"kind": "l2", "radius": 1.0}}]}, "audit[0]",
         "leave it out for text"),
        ({"data__tokenizer": {"kind": "bytes"}, "model": _own(257)}, "audit[0]",
         "single bytes"),
        ({"data__task": "regression", "data__classes": None, "model__task": "regression"},
         "audit[0]", "the task is regression"),
    ],
)  # fmt: skip
def test_what_no_word_can_be_replaced_in_is_refused_at_its_line(place, changes, key, said):
    asked = recipe(place, TEXT, **changes)
    with pytest.raises(Incompatible) as refusal:
        plan(asked)
    line = asked.where(key)[1]
    assert str(refusal.value).startswith(f"tiny.yaml:{line} `{key}`: ")
    assert said in str(refusal.value)


def test_words_are_refused_where_rows_are_numbers(tmp_path):
    asked = recipe(tmp_path, CENTRAL, audit=[EVASION])
    with pytest.raises(Incompatible, match=r"tiny.yaml:\d+ `audit\[0\].ball`: .* rows are numbers"):
        plan(asked)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"similarity": 2.0}, "similarity=2.0 must lie from -1 to 1: it is a cosine"),
     ({"share": 0.0}, "share=0.0"), ({"most": 3}, "most")],
)  # fmt: skip
def test_options_of_words_out_of_range_are_refused_at_their_line(tmp_path, wrong, said):
    with pytest.raises(RecipeError, match=r"tiny.yaml:\d+") as refusal:
        recipe(tmp_path, TEXT, audit=[{**EVASION, "ball": {**WORDS, **wrong}}])
    assert said in str(refusal.value)

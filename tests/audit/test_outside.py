"""A model without a run of ours, through the public door."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from nacre.adversarial_training.text.words import Words
from nacre.adversarial_training.threats.ball import Ball
from nacre.audit.outside import LabelledRows, audit_model, legal_range, outside_model, read_labelled
from nacre.cli.audit import command
from nacre.core.errors import BadArgument, DataError, FileDamaged, Incompatible, Refusal
from nacre.recipe.audits import Evasion

WEIGHTS = [1.5, -0.5, 0.25, 2.0]
CODE = """
import torch
from torch import nn
def bare():
    return nn.Linear(4, 2)
def sure():
    class Sure(nn.Module):
        def forward(self, x):
            return torch.stack([0 * x[:, 0], 0 * x[:, 0] + 1], 1)
    return Sure()
def answer():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a model's code, its weights and rows."""
    monkeypatch.chdir(tmp_path)
    name = f"outside_{tmp_path.name}"  # no two tests import one module
    (tmp_path / f"{name}.py").write_text(CODE)
    weights = torch.stack([torch.zeros(4), torch.tensor(WEIGHTS)])
    save_file({"weight": weights, "bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    numbers = np.random.default_rng(0)
    features = numbers.normal(size=(120, 4)).astype(np.float32)
    label = (features @ np.array(WEIGHTS) > 0).astype(np.int64)
    np.savez(tmp_path / "rows.npz", features=features, label=label)
    lines = ["a,b,right,c,d"]
    lines += [",".join(map(str, [*x[:2], y, *x[2:]])) for x, y in zip(features, label, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return name, features, label


def test_a_function_with_weights_is_attacked_and_reported(folder):
    name, features, _ = folder
    arguments = ["--model", f"{name}:bare", "--weights", "model.safetensors", "--radius", "0.2"]
    arguments += ["--effort", "quick", "--json"]
    found = {}
    for rows, more in (("rows.npz", []), ("rows.csv", ["--label", "right", "--public"])):
        run = CliRunner().invoke(command, [*arguments, "--data", rows, "-o", rows + ".out", *more])
        assert run.exit_code == 0, run.output
        (found[rows],) = json.loads(run.stdout)["findings"]
    margin = np.abs(features @ np.array(WEIGHTS))
    assert found["rows.npz"]["value"] == (margin > 0.2 * sum(map(abs, WEIGHTS))).mean()
    assert found["rows.csv"]["value"] == found["rows.npz"]["value"]
    assert not found["rows.npz"]["public"] and not found["rows.npz"]["details"]["rows"]
    assert found["rows.csv"]["details"]["rows"][0]["changes"][0]["feature"] in "abcd"
    kept = json.loads(Path("rows.csv.out/findings.json").read_text())
    assert kept["findings"] == [found["rows.csv"]]
    page = Path("rows.csv.out/report.html").read_text()
    assert "APGD-CE" in page and "Accuracy by radius" in page and "What an attack looks" in page
    assert "not for others" not in page.lower()


def test_the_terminal_says_the_clean_accuracy_and_why_a_figure_is_no_evidence(folder):
    name, _, label = folder
    arguments = ["--model", f"{name}:sure", "--data", "rows.npz", "--radius", "0.05"]
    run = CliRunner().invoke(command, [*arguments, "--effort", "quick", "--public"])
    assert run.exit_code == 0, run.output
    said = " ".join(run.stdout.replace("│", " ").split())
    assert "before any attack" in said and f"{label.mean():.3f}" in said
    below = [line for line in run.stderr.splitlines() if "not evidence" in line]
    assert any("`nacre audit --model … --outputs probabilities`" in line for line in below)
    page = Path("attack/report.html").read_text()
    assert "Accuracy under attack is no evidence of robustness: the outputs are prob" in page
    assert page.count("the outputs are probabilities and were read as logits") == 2


def test_the_model_is_left_as_it_was(folder):
    name, _, _ = folder
    model = outside_model(f"{name}:bare").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = read_labelled(Path("rows.npz"))
    state = torch.random.get_rng_state()
    option = Evasion(ball=Ball(radius=0.1), effort="quick")
    one, two = (audit_model(model, rows, option) for _ in range(2))
    assert one == two and torch.equal(state, torch.random.get_rng_state())
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a RUN, or a model"),
        (["--model", "x:y"], "needs --data, and --radius or --threat"),
        (["run", "--model", "x:y"], "name a RUN, or a model"),
    ],
)
def test_what_the_verb_needs(arguments, words):
    run = CliRunner().invoke(command, arguments)
    assert run.exit_code == 2 and words in run.output


def test_models_that_are_none(folder, tmp_path):
    name, _, _ = folder
    for given, kind, words in (
        ("nowhere", BadArgument, "is no folder"),
        (f"{name}:answer", Refusal, "returned int"),
        (f"{name}:missing", Refusal, "missing"),
    ):
        with pytest.raises(kind, match=words):
            outside_model(given)
    save_file({"weight": torch.zeros(2, 5)}, tmp_path / "other.safetensors")
    with pytest.raises(FileDamaged, match="does not fit"):
        outside_model(f"{name}:bare", tmp_path / "other.safetensors")
    with pytest.raises(BadArgument, match="holds its own weights"):
        outside_model(str(tmp_path), tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("rows.txt", "x", "neither .npz nor .csv"),
        ("rows.csv", "a,b\n1,2\n", "no column 'label'"),
        ("rows.csv", "a,label\n1\n", "line 2: 1 cells"),
        ("rows.csv", "a,label\n1,1\nx,1\n", "line 3, column 'a': 'x' is no number; write categ"),
        ("rows.csv", "a,label\n,1\n", "line 2, column 'a': '' is no number; fill it"),
        ("rows.csv", "a,label\n1,ill\n", "'ill' is no number; number the classes from 0"),
        ("rows.csv", "a;label\n1;1\n", r"it has 'a;label'\).*separate columns by commas"),
        ("rows.csv", b"\xe9,label\n1,1\n", "save it as CSV in UTF-8"),
        ("rows.csv", "a,label\n1,0.5\n", "whole numbers"),
        ("rows.csv", "a,label\nnan,1\n", "no finite numbers"),
        ("rows.csv", "a,label\n", "are no rows"),
        ("rows.csv", "", "no column"),
    ],
)
def test_rows_that_are_none(tmp_path, file, text, words):
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words):
        read_labelled(tmp_path / file)


def test_an_npz_without_rows_and_a_file_that_is_not_there(tmp_path):
    np.savez(tmp_path / "rows.npz", other=np.zeros(3), label=np.zeros(3))
    with pytest.raises(DataError, match="name the rows `features` or `x`"):
        read_labelled(tmp_path / "rows.npz")
    with pytest.raises(DataError, match="does not exist"):
        read_labelled(tmp_path / "gone.npz")


def test_the_legal_range():
    def pictures(largest):
        return LabelledRows(torch.linspace(0, largest, 32).reshape(2, 1, 4, 4), torch.zeros(2))

    assert legal_range(pictures(1), None) == (0, 1)
    assert legal_range(pictures(255), (0, 255)) == (0, 255)
    assert legal_range(LabelledRows(torch.tensor([[7.0]]), torch.zeros(1)), None)[1] == np.inf
    with pytest.raises(DataError, match="--range 0 255"):
        legal_range(pictures(255), None)
    with pytest.raises(DataError, match="outside --range 0 1"):
        legal_range(pictures(255), (0, 1))
    with pytest.raises(BadArgument, match="below the second"):
        legal_range(pictures(1), (1, 1))


def test_a_single_probability_is_one_of_two_classes(folder):
    _, features, label = folder
    model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([WEIGHTS]))
        model[0].bias.zero_()
    rows = LabelledRows(torch.from_numpy(features), torch.from_numpy(label))
    option = Evasion(ball=Ball(radius=0.2), effort="quick")
    found = audit_model(model, rows, option, outputs="probabilities")
    margin = np.abs(features @ np.array(WEIGHTS))
    assert found.value == (margin > 0.2 * sum(map(abs, WEIGHTS))).mean()
    blind = audit_model(model, rows, option)
    assert blind.verdict == "not evidence"
    assert any("probabilities" in said for said in blind.details["warnings"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_scores_of_any_floating_type_are_attacked(folder, dtype):
    class Cast(nn.Linear):
        def forward(self, x):
            return super().forward(x).to(dtype)

    name, features, label = folder
    model = Cast(4, 2)
    model.load_state_dict(outside_model(f"{name}:bare", Path("model.safetensors")).state_dict())
    rows = LabelledRows(torch.from_numpy(features), torch.from_numpy(label))
    found = audit_model(model, rows, Evasion(ball=Ball(radius=0.2), effort="standard"))
    margin = np.abs(features @ np.array(WEIGHTS))
    assert found.value == pytest.approx((margin > 0.2 * sum(map(abs, WEIGHTS))).mean(), abs=0.02)


def test_words_in_rows_of_numbers_are_refused():
    torch.manual_seed(0)
    model, features = nn.Linear(3, 2), torch.rand(8, 3)
    rows = LabelledRows(features, model(features).argmax(1))
    with pytest.raises(Incompatible, match="these rows have none"):
        audit_model(model, rows, Evasion(ball=Words()))

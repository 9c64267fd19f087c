"""What an auditor meets with others' models: each fault is one sentence, and nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.core.errors import NacreError

CODE = """
import torch
from torch import nn
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.calls = nn.Linear(4, 3), 0
    def forward(self, x):
        return self.layer(x)
class Raises(Base):
    def forward(self, x):
        self.calls += 1
        if self.calls > 9:
            raise RuntimeError("out of order")
        return self.layer(x)
class Stopped(Base):
    def forward(self, x):
        self.calls += 1
        if self.calls > 9:
            raise KeyboardInterrupt
        return self.layer(x)
class Tuple(Base):
    def forward(self, x):
        return (self.layer(x),)
class Labels(Base):
    def forward(self, x):
        return self.layer(x).argmax(1)
class Shape(Base):
    def forward(self, x):
        return self.layer(x)[None]
class Others(nn.Linear):
    def __init__(self):
        super().__init__(7, 3)
class Mixes(Base):
    def forward(self, x):
        return self.layer(x - x.mean(0))
class Writes(Base):
    def forward(self, x):
        x.data.mul_(0.5)
        return self.layer(x)
class Exits(Base):
    def forward(self, x):
        raise SystemExit(0)
def ends():
    raise SystemExit(0)
class Single(nn.Linear):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(4, 1)
    def forward(self, x):
        return super().forward(x).sigmoid().squeeze(1)
def doubled():
    return nn.Linear(4, 3).double()
def nowhere():
    return nn.Linear(4, 3).to("meta")
class Half(Base):
    def forward(self, x):
        return self.layer(x).half()
class Double(Base):
    def __init__(self):
        super().__init__()
        self.double()
    def forward(self, x):
        return self.layer(x.double())
class Nothing(Base):
    def forward(self, x):
        return self.layer(x) * torch.nan
class Random(Base):
    def forward(self, x):
        return self.layer(x) + torch.randn(len(x), 3)
class Soft(Base):
    def forward(self, x):
        return self.layer(x).softmax(1)
class Numbers(nn.Linear):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(4, 1)
"""


@pytest.fixture
def audit(tmp_path, monkeypatch):
    """Attacks `module:NAME` on rows that `Base` answers rightly."""
    monkeypatch.chdir(tmp_path)
    module = f"faults_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CODE)
    held = {}
    exec(CODE, held)
    features = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    with torch.no_grad():
        label = held["Base"]()(torch.from_numpy(features)).argmax(1).numpy()
    np.savez(tmp_path / "rows.npz", features=features, label=label)

    def run(name, *more):
        words = ["audit", "--model", f"{module}:{name}", "--effort", "quick", *more]
        if "--rescore" not in more:
            words += ["--data", "rows.npz", "--radius", "0.1"]
        else:
            words.remove("--effort")
            words.remove("quick")
        return CliRunner().invoke(cli, [str(word) for word in words])

    return run


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("Raises", 1, "the model raised RuntimeError: out of order"),
        ("Tuple", 2, "the model put out tuple where an attack reads scores"),
        ("Labels", 2, "the model put out torch.int64 where an attack reads scores"),
        ("Shape", 2, "the model put out shape=(1, 1, 3) for 1 rows"),
        ("Others", 2, "the model does not take rows of shape (4,)"),
        ("Mixes", 2, "answers a row otherwise when another stands beside it"),
        ("Writes", 2, "the model writes into the rows that it is given"),
        ("Exits", 2, "the model does not take rows of shape (4,) (SystemExit: 0 at"),
        ("ends", 2, "failed with SystemExit: 0 at"),
        ("doubled", 2, "its weights are torch.float64, and rows torch.float32: give it as"),
        ("nowhere", 2, "the model lies on the device 'meta', so it has no weights"),
        ("Stopped", 130, "interrupted; nothing was written"),
    ],
)
def test_a_model_that_cannot_be_attacked_is_one_sentence(audit, name, code, words):
    run = audit(name)
    assert run.exit_code == code and words in run.output, run.output
    assert "fault of nacre" not in run.output and not Path("attack").exists()


def test_an_interrupt_leaves_the_findings_of_before(audit):
    assert audit("Base").exit_code == 0
    before = {file.name: file.read_bytes() for file in Path("attack").iterdir()}
    assert sorted(before) == [
        "batch.json", "batch.safetensors", "findings.json", "report.html",
    ]  # fmt: skip
    for name in ("Stopped", "Raises"):
        assert audit(name).exit_code != 0
        assert {file.name: file.read_bytes() for file in Path("attack").iterdir()} == before


@pytest.mark.parametrize("name", ["Half", "Double"])
def test_scores_of_another_precision_are_read(audit, name):
    assert audit(name).exit_code == 0
    assert audit(name, "--rescore").exit_code == 0


def test_a_single_score_without_a_dimension_of_its_own_is_read(audit):
    rows = dict(np.load("rows.npz"))
    np.savez("rows.npz", features=rows["features"], label=rows["label"] > 0)
    run = audit("Single", "--outputs", "probabilities")
    assert run.exit_code == 0, run.output
    assert audit("Single", "--rescore").exit_code == 0


def test_weights_that_are_no_file_and_complex_numbers_are_refused(audit):
    run = audit("Single", "--weights", "none.safetensors")
    assert run.exit_code == 2 and "--weights none.safetensors is no file" in run.output
    rows = dict(np.load("rows.npz"))
    np.savez("rows.npz", features=rows["features"] + 1j, label=rows["label"])
    run = audit("Single")
    assert run.exit_code == 2 and "'features' holds complex numbers" in run.output


def test_findings_never_stand_without_their_batch(audit, monkeypatch):
    def full(*_):
        raise NacreError("the disk is full")

    monkeypatch.setattr("nacre.audit.model_security.batch_file.save_batch", full)
    assert audit("Base").exit_code == 1
    assert not list(Path("attack").iterdir())


def test_a_model_that_is_misspelt_is_named_before_its_rows_are_read(audit):
    words = ["audit", "--model", "nomodel", "--data", "nowhere.csv", "--radius", "0.1"]
    run = CliRunner().invoke(cli, words)
    assert run.exit_code == 2 and "--model 'nomodel' is no folder" in run.output, run.output


def test_reasons_stand_on_the_terminal(audit):
    for name, words in (
        ("Nothing", "the scores of 12 of 12 rows are no finite numbers"),
        ("Random", "not evidence: the same input is answered differently each time"),
        ("Soft", "not evidence: the outputs are probabilities"),
    ):
        run = audit(name, "--json")
        assert run.exit_code == 0 and words in run.stderr, (name, run.stderr)
        (finding,) = json.loads(run.stdout)["findings"]
        assert (finding["verdict"] == "not evidence") == (name != "Nothing")
    assert audit("Random").exit_code == 0
    again = audit("Random", "--rescore")
    assert again.exit_code == 1 and "the same weights answer row" in again.output


def test_what_has_no_place_is_refused_before_anything_runs(audit, tmp_path):
    run = audit("Stopped", "-o", "rows.npz")
    assert run.exit_code == 2 and "is no folder that can be written to" in run.output
    run = audit("Stopped", "--rows", "raw")
    assert run.exit_code == 2 and "does not say how raw rows are scaled" in run.output
    for words, said in (
        (["run", "--data", "rows.npz"], "--data goes with --model"),
        (["run", "--rescore", "--effort", "full"], "--effort says nothing beside --rescore"),
        (
            ["--model", "x:y", "--rescore", "--radius", "1"],
            "--radius says nothing beside --rescore",
        ),
    ):
        run = CliRunner().invoke(cli, ["audit", *words])
        assert run.exit_code == 2 and said in run.output, run.output
    np.savez("rows.npz", features=np.zeros((2, 4)))
    run = audit("Base")
    assert run.exit_code == 2 and "no array 'label'" in run.output and "--label" in run.output

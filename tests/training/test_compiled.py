"""`execution.compile`: tried on made-up rows, taken where it pays, the same numbers either way."""

import json
import os
import shutil
import time

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

from nacre.adversarial_training import Standard
from nacre.core.errors import NacreError
from nacre.core.files import load_tensors
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract
from nacre.gradient_clipping import BookKeeping, Unclipped, Whole
from nacre.models import task_for
from nacre.planning.plan import plan
from nacre.runs import loop
from nacre.runs.run import train
from nacre.training import pieces
from nacre.training.compiled import (
    CompileVerdict,
    compile_verdict,
    compiled,
    is_compiled,
    tried,
    unfit,
)
from tests.forks import served
from tests.training.tiny import CENTRAL, FEDERATED, StopAfter, Stopped, changed, recipe

# PyTorch's compiler, when it is loaded, warns of PyTorch's own older one.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

PLAIN = changed(
    CENTRAL,
    {
        "differential_privacy": None,
        "ledger": None,
        "gradient_clipping": None,
        "execution": {"compile": True},
    },
)
STANDARD = Standard(task_for("classification", 3))


def _batch(units):
    return {
        "features": torch.randn(units, 4),
        "label": torch.randint(3, (units,)),
        "present": torch.ones(units, dtype=torch.bool),
        "unit": torch.arange(units),
    }


def _network(share=0.0):
    """Of few kernels: the C++ compiler takes four seconds for each."""
    return nn.Sequential(nn.Linear(4, 3, bias=False), nn.Dropout(share))


def test_sums_of_any_size_agree_with_the_plain_ones_dropout_included():
    model, plain = _network(0.5), Whole(STANDARD)
    fast = compiled(plain, model, _batch(16), Unclipped())
    for units in (16, 7, 1, 40):
        batch = _batch(units)
        totals = []
        for sums in (plain, fast):
            torch.manual_seed(units)
            totals.append(sums(model, batch, Unclipped(), Source(bytes(32))).total)
        assert norm(subtract(*totals)) <= 1e-5 * norm(totals[0])


def test_a_trial_leaves_random_numbers_weights_and_gradients_alone():
    model, batch = _network(), _batch(16)
    weights = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    verdict = tried(Whole(STANDARD), model, batch, Unclipped(), steps=1)
    assert torch.equal(torch.rand(3), expected)
    assert not verdict.taken  # one step never pays for compiling
    assert "ms a step plain" in verdict.why
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


class _Slow(nn.Module):
    """A model that dawdles wherever the compiler has not removed that."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        if not torch.compiler.is_compiling():
            time.sleep(0.1)
        return self.layer(x)


def test_a_compiled_model_that_is_faster_is_taken():
    verdict = tried(Whole(STANDARD), _Slow(), _batch(16), Unclipped(), steps=10**9)
    assert verdict.taken, verdict.why
    assert verdict.why.endswith("a step plain: taken")


class _Otherwise(nn.Module):
    """A model that computes something else once it is compiled."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.layer(x) * (2 if torch.compiler.is_compiling() else 1)


def test_a_compiled_model_with_another_sum_is_not_taken():
    verdict = tried(Whole(STANDARD), _Otherwise(), _batch(16), Unclipped(), steps=10**9)
    assert not verdict.taken
    assert "the sum is off" in verdict.why


@pytest.mark.parametrize(
    ("plain", "fast", "compiling", "steps", "taken", "why"),
    [
        (0.010, 0.0121, 1.0, 10**6, False, "12.1 ms against 10.0 ms a step plain: not taken"),
        (0.010, 0.0099, 1.0, 10**6, False, "9.9 ms against 10.0 ms a step plain: not taken"),
        (0.010, 0.005, 60.0, 1000, False, "compiling takes 60.0 s, more than 1000 steps save"),
        (0.010, 0.005, 4.0, 1000, True, "5.0 ms against 10.0 ms a step plain: taken"),
    ],
)
def test_it_is_taken_where_it_saves_more_than_it_costs(plain, fast, compiling, steps, taken, why):
    verdict = compile_verdict(plain, fast, compiling, steps)
    assert verdict.taken is taken
    assert why in verdict.why


@pytest.mark.parametrize(
    ("base", "changes", "reason"),
    [
        (CENTRAL, {}, "has to round as it did"),
        (FEDERATED, {"differential_privacy": None, "ledger": None}, "each party"),
        (CENTRAL, {"differential_privacy": None, "ledger": None}, "clip units"),
    ],
)
def test_the_plan_says_why_it_is_not_tried(tmp_path, base, changes, reason):
    asked = changed(base, changes | {"execution": {"compile": True}})
    planned = plan(recipe(tmp_path, asked))
    estimated = planned.estimate
    without = plan(recipe(tmp_path, changed(base, changes)))
    assert planned.levels == without.levels
    assert "not compiled: " in estimated.why
    assert reason in estimated.why
    assert not estimated.compiled


def test_nothing_says_anything_of_it_where_nobody_asked(tmp_path):
    estimated = plan(recipe(tmp_path, PLAIN, execution=None)).estimate
    assert "compile" not in estimated.why


def test_a_taped_sum_is_never_compiled(tmp_path):
    assert "hides them" in str(unfit(recipe(tmp_path, PLAIN), BookKeeping(STANDARD)))
    assert not is_compiled(BookKeeping(STANDARD))


@pytest.mark.parametrize("taken", [True, False])
def test_a_run_goes_on_as_it_was_started(tmp_path, monkeypatch, taken):
    """Whatever the trial would say on resume: the choice is the one that the run began with."""
    monkeypatch.setattr(
        pieces.compiled, "tried", lambda *_: CompileVerdict(taken, "compiled: so it is")
    )
    planned = plan(recipe(tmp_path, PLAIN))
    assert planned.estimate.compiled is taken
    used = []

    def noting(state, units, parts, *args, **more):
        used.append(is_compiled(parts.sums(0)))
        return real(state, units, parts, *args, **more)

    real = loop.fit
    monkeypatch.setattr(loop, "fit", noting)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(3))
    monkeypatch.setattr(pieces.compiled, "tried", lambda *_: CompileVerdict(not taken, "otherwise"))
    train(plan(planned.recipe, resume=tmp_path / "run"), tmp_path / "run", resume=True)
    assert used == [taken, taken]


def test_a_resumed_compiled_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(
        pieces.compiled, "tried", lambda *_: CompileVerdict(True, "compiled: so it is")
    )
    planned = plan(recipe(tmp_path, PLAIN))

    def copying(*args, **more):
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    real = loop.fit
    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(3))
    for name in ("run", "copy"):
        train(plan(planned.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    first, second = (
        load_tensors(tmp_path / name / "model.safetensors")[0] for name in ("run", "copy")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def _without_a_compiler(folder):
    """What is said in a process whose C++ compiler is not there."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
    inductor.cpp.cxx = (None, str(folder / "none"))
    told = [tried(Whole(STANDARD), _Otherwise(), _batch(16), Unclipped(), 10**9).why]
    try:
        compiled(Whole(STANDARD), _Otherwise(), _batch(16), Unclipped())
    except NacreError as error:
        told.append(str(error))
    (folder / "told.json").write_text(json.dumps(told))


def test_a_compiler_that_fails_is_a_sentence(tmp_path):
    process = served().Process(target=_without_a_compiler, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    trial, run = json.loads((tmp_path / "told.json").read_text())
    assert trial.startswith("not compiled, since torch.compile failed on the model (")
    assert run.startswith("torch.compile failed on the model (")
    assert "Traceback" not in trial + run

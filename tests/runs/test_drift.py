"""FedProx, SCAFFOLD and compression in whole runs: the papers' loops, and a run that is resumed."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.files import load_tensors
from nacre.core.random import Source
from nacre.federated_learning.local.kept import OnDisk
from nacre.planning.plan import plan
from nacre.planning.words import techniques
from nacre.runs import loop
from nacre.runs.run import train
from nacre.training.holders import Workplace
from tests.planning.test_clipping import CLIENT
from tests.training.tiny import FEDERATED, StopAfter, Stopped, changed, recipe

pytestmark = pytest.mark.slow

LR, ROUNDS, STEPS = 0.2, 5, 3
PLAIN = changed(
    FEDERATED,
    {
        "differential_privacy": None,
        "ledger": None,
        "gradient_clipping": None,
        "federated_learning.parties": {
            "kind": "dirichlet", "names": ["a", "b", "c"], "alpha": 0.3,
        },
        "federated_learning.rounds": ROUNDS,
        "federated_learning.local.steps": STEPS,
        "training": {
            "batch": 40, "checkpoint": 2, "sampling": {"kind": "full"},
            "optimizer": {"kind": "sgd", "lr": LR},
        },
    },
)  # fmt: skip


class Heard:
    """Which rows each party has, the model that it was given, and which rounds it answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, Any] = {}
        self.answered: dict[int, list[str]] = {}
        self.model: nn.Module | None = None
        begun, training = Workplace.__init__, Workplace.training

        def begin(place: Workplace, setting: Any, model: nn.Module) -> None:
            self.model = copy.deepcopy(model)
            begun(place, setting, model)

        def of_party(place: Workplace, *given: Any) -> Any:
            memory, answer = given[-1], training(place, *given)
            name = memory._folder.name if isinstance(memory, OnDisk) else str(id(memory))
            self.rows[name] = given[1]

            def train(tensors: Any, number: int) -> Any:
                self.answered.setdefault(number, []).append(name)
                return answer(tensors, number)

            return train

        monkeypatch.setattr(Workplace, "__init__", begin)
        monkeypatch.setattr(Workplace, "training", of_party)


def _slow(heard: Heard, proximal: float, controls: bool, expected: float) -> nn.Module:
    """Karimireddy et al. 2020, algorithm 1 with option II, and Li et al. 2020, one party at a time.

    The server's control moves by the *declared* share of the parties, and sums are divided by the
    declared number."""
    assert heard.model is not None
    model = copy.deepcopy(heard.model).train()
    weights = dict(model.named_parameters())
    zeros = {name: torch.zeros_like(w) for name, w in weights.items()}
    common, own = zeros, {name: zeros for name in heard.rows}
    for number in range(ROUNDS):
        changes = []
        for name in heard.answered.get(number, []):
            party = copy.deepcopy(model)
            moving, rows = dict(party.named_parameters()), heard.rows[name]
            for _ in range(STEPS):
                party.zero_grad()
                nn.functional.cross_entropy(party(rows.features), rows.label).backward()
                with torch.no_grad():
                    for key, w in moving.items():
                        assert w.grad is not None
                        pull = proximal * (w - weights[key])
                        term = common[key] - own[name][key] if controls else 0
                        w -= LR * (w.grad + pull + term)
            change = {key: (moving[key] - weights[key]).detach() for key in weights}
            own[name] = {
                key: own[name][key] - common[key] - change[key] / (STEPS * LR) for key in weights
            }
            changes.append(change)
        mean = {k: sum((c[k] for c in changes), zeros[k]) / expected for k in weights}
        share = expected / 3
        common = {k: (1 - share) * common[k] - share * mean[k] / (STEPS * LR) for k in weights}
        with torch.no_grad():
            for key, w in weights.items():
                w += mean[key]
    return model


@pytest.mark.parametrize(
    ("local", "cohort"),
    [
        ({"proximal": 0.7}, {"kind": "all"}),
        ({"controls": True}, {"kind": "all"}),
        ({"controls": True}, {"kind": "poisson", "expected": 2}),
        ({"controls": True, "proximal": 0.7}, {"kind": "all"}),
    ],
)
def test_a_run_is_the_papers_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: dict[str, Any], cohort: dict[str, Any]
) -> None:
    heard = Heard(monkeypatch)
    base = changed(PLAIN, {"federated_learning.cohort": cohort})
    for key, value in local.items():
        base = changed(base, {f"federated_learning.local.{key}": value})
    run = train(plan(recipe(tmp_path, base)), tmp_path / "run")
    found, _ = load_tensors(run.path / "model.safetensors")
    expected = float(cohort.get("expected", 3))
    slow = _slow(heard, local.get("proximal", 0.0), bool(local.get("controls")), expected)
    far = _slow(heard, 0.0, False, expected)
    for name, value in slow.state_dict().items():
        assert torch.allclose(found[name], value, atol=2e-5), name
    assert any(not torch.allclose(found[n], v, atol=1e-3) for n, v in far.state_dict().items())


DRIFT: dict[str, Any] = {
    "federated_learning.local": {"steps": 2, "controls": True, "proximal": 0.1},
    "federated_learning.rounds": 5,
    "ledger.path": "{run}/privacy.db",
}
TOP, EIGHT = {"kind": "top_k", "share": 0.3}, {"kind": "eight_bits", "error_feedback": True}


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("compression", [TOP, EIGHT], ids=["top_k", "eight_bits"])
@pytest.mark.parametrize("base", [FEDERATED, CLIENT], ids=["example", "client"])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Any, compression: Any, steps: int
) -> None:
    """The copy is made before the first round: it is what an undisturbed run would have been."""
    base = changed(base, DRIFT | {"federated_learning.compression": compression})
    planned = plan(recipe(tmp_path, base))
    real = loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    (folder, _) = (
        path for path in (tmp_path / "run" / "local" / "parties").iterdir() if path.is_dir()
    )
    kept = sorted(folder.glob("*.kept"))
    assert 1 <= len(kept) <= 2
    for name in ("run", "copy"):
        train(plan(planned.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    one, two = (load_tensors(tmp_path / n / "model.safetensors")[0] for n in ("run", "copy"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    lines = [(tmp_path / n / "released.jsonl").read_text() for n in ("run", "copy")]
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 5
    if base["differential_privacy"].get("unit") != "client":  # the right of each change is heard
        assert all(json.loads(line)["parties"] for line in lines[0].splitlines())
    assert not list((tmp_path / "run").rglob("*.kept")), "what parties remember ends with the run"


def test_a_round_cut_off_before_its_reply_begins_with_what_it_began_with(tmp_path: Path) -> None:
    memory = OnDisk(tmp_path, bytes(32))
    assert memory.before(0) == {} and memory.before(7) == {}
    memory.keep(2, {"w": torch.tensor([2.0])})
    memory.keep(4, {"w": torch.tensor([4.0])})  # and the process died before its reply was stored
    assert memory.before(4)["w"].item() == 2.0
    memory.keep(4, {"w": torch.tensor([4.5])})
    again = OnDisk(tmp_path, bytes(32))
    assert again.before(9)["w"].item() == 4.5 and "secret" in repr(again)
    assert b"w" not in next(tmp_path.iterdir()).read_bytes()[:8]


def test_what_a_party_remembers_is_not_taken_from_another_file(tmp_path: Path) -> None:
    from nacre.core.errors import FileDamaged, PartyError

    memory = OnDisk(tmp_path, bytes(32))
    memory.keep(1, {"w": torch.ones(1)})
    memory.keep(2, {"w": torch.ones(1)})
    with pytest.raises(PartyError, match="resume the run from its own checkpoint"):
        memory.before(1)
    one, two = sorted(tmp_path.iterdir())
    two.write_bytes(one.read_bytes())
    with pytest.raises(FileDamaged, match="put the file back"):
        memory.before(3)
    two.write_bytes(b"")
    with pytest.raises(FileDamaged):
        memory.before(3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"federated_learning.local": {"steps": 1, "proximal": 0.1}}, "take more local steps"),
        (
            {"federated_learning.local": {"steps": 2, "controls": True},
             "training.optimizer": {"kind": "adam"}},
            "only plain SGD allows",
        ),
        (
            {"federated_learning.local": {"steps": 2, "controls": True},
             "training.optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}},
            "only plain SGD allows",
        ),
        ({"federated_learning.local": {"steps": 2, "proximal": -1}}, "at least 0"),
        ({"federated_learning.compression": {"kind": "top_k", "share": 1.5}}, "at most 1"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_or_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    from nacre.core.errors import RecipeError

    with pytest.raises((Incompatible, RecipeError), match=words):
        plan(recipe(tmp_path, changed(FEDERATED, changes)))


def test_the_plan_says_what_parties_do(tmp_path: Path) -> None:
    base = changed(FEDERATED, DRIFT | {"federated_learning.compression": TOP})
    said = techniques(recipe(tmp_path, base))["federated_learning"]
    assert said is not None
    for words in ("FedProx with mu 0.1 and SCAFFOLD", "largest 30 % of entries"):
        assert words in said


def test_a_party_keeps_nothing_where_nothing_is_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnDisk, "keep", lambda *_: pytest.fail("nothing is remembered"))
    train(plan(recipe(tmp_path, FEDERATED)), tmp_path / "run")


def test_compression_is_keyed_by_what_enters_the_round() -> None:
    """Two rounds with one change draw other coins, and a round that is repeated the same."""
    from nacre.federated_learning.local.compression import EightBits

    change, root = {"w": torch.linspace(0, 1, 50)}, Source(bytes(32))
    one, two, again = (
        EightBits().compressed(change, root.child("compression", entered))["w"]
        for entered in (b"1", b"2", b"1")
    )
    assert torch.equal(one, again) and not torch.equal(one, two)

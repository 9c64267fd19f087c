"""Layers that stay with the parties: the plain loop of the papers, runs that are resumed, what is
sent and noised, and what is refused because the common model is nobody's."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nacre.audit.run import audit_run
from nacre.core.errors import Incompatible, RecipeError
from nacre.core.files import load_tensors, read_json
from nacre.core.random import Source
from nacre.federated_learning import Federation
from nacre.federated_learning.local.between_rounds import personal_of
from nacre.models import saved
from nacre.planning.plan import plan
from nacre.planning.words import techniques
from nacre.prediction.predict_file import predict_file
from nacre.runs import loop
from nacre.runs.evaluation.personal import folder_name
from nacre.runs.handover import hand_over
from nacre.runs.run import Run, finish, train
from nacre.training.local.personal import fix_personal, personal_names, shared_weights
from tests.planning.test_clipping import CLIENT
from tests.runs.test_drift import LR, PLAIN, ROUNDS, STEPS, TOP, Heard
from tests.training.tiny import FEDERATED, StopAfter, Stopped, changed, patients, recipe

pytestmark = pytest.mark.slow

MODEL = """
from torch import nn

def made():
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
"""
NORMED = changed(PLAIN, {"model": {"kind": "python", "call": "ours:made"}})
ANY_COHORT = {"kind": "poisson", "expected": 2}


def _ran(folder: Path, base: dict[str, Any]) -> Run:
    folder.mkdir(exist_ok=True)
    (folder / "ours.py").write_text(MODEL)
    return train(plan(recipe(folder, base)), folder / "run")


def _homes(run: Path) -> dict[str, dict[str, Tensor]]:
    """Each party's model, by its name."""
    return {
        path.parent.name: load_tensors(path)[0]
        for path in sorted((run / "local" / "personal").glob("*/model.safetensors"))
    }


def _slow(
    heard: Heard, personal: set[str], expected: float, proximal: float, controls: bool
) -> dict[str, nn.Module]:
    """FedPer's algorithms 1 and 2, one party at a time: "" -> the common model, whose personal
    layers nobody moves, and each memory -> its party's."""
    assert heard.model is not None
    model = copy.deepcopy(heard.model).train()
    weights = dict(model.named_parameters())
    common = {k: torch.zeros_like(w) for k, w in weights.items() if k not in personal}
    control = {name: dict(common) for name in heard.rows}
    own: dict[str, dict[str, Tensor]] = {}
    for number in range(ROUNDS):
        total = {key: torch.zeros_like(w) for key, w in weights.items() if key not in personal}
        for name in heard.answered.get(number, []):
            party, rows = copy.deepcopy(model), heard.rows[name]
            party.load_state_dict(own.get(name, {}), strict=False)
            for _ in range(STEPS):
                party.zero_grad()
                nn.functional.cross_entropy(party(rows.features), rows.label).backward()
                with torch.no_grad():
                    for key, w in party.named_parameters():
                        assert w.grad is not None
                        step = w.grad.clone()
                        if key not in personal:
                            step += proximal * (w - weights[key])
                            step += common[key] - control[name][key] if controls else 0
                        w -= LR * step
            after = {key: w.detach().clone() for key, w in party.named_parameters()}
            own[name] = {key: after[key] for key in personal}
            for key in total:
                change = after[key] - weights[key].detach()
                total[key] += change
                control[name][key] = control[name][key] - common[key] - change / (STEPS * LR)
        share = expected / 3
        for key, value in total.items():
            common[key] = (1 - share) * common[key] - share * value / expected / (STEPS * LR)
            with torch.no_grad():
                weights[key].add_(value / expected)
    found = {"": model}
    for name, layers in own.items():
        found[name] = copy.deepcopy(model)
        found[name].load_state_dict(layers, strict=False)
    return found


@pytest.mark.parametrize(
    ("local", "cohort", "personal"),
    [
        ({"personal": ["head"]}, {"kind": "all"}, {"3.weight", "3.bias"}),
        ({"personal": ["norms"]}, {"kind": "all"}, {"1.weight", "1.bias"}),
        ({"personal": ["norms", "3.b*"]}, ANY_COHORT, {"1.weight", "1.bias", "3.bias"}),
        ({"personal": ["0"], "proximal": 0.7}, {"kind": "all"}, {"0.weight", "0.bias"}),
        ({"personal": ["head"], "controls": True}, ANY_COHORT, {"3.weight", "3.bias"}),
    ],
)
def test_a_run_is_the_papers_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: dict[str, Any],
    cohort: dict[str, Any], personal: set[str],
) -> None:  # fmt: skip
    heard = Heard(monkeypatch)
    base = changed(NORMED, {"federated_learning.cohort": cohort})
    for key, value in local.items():
        base = changed(base, {f"federated_learning.local.{key}": value})
    run = _ran(tmp_path, base)
    expected = float(cohort.get("expected", 3))
    proximal, controls = local.get("proximal", 0.0), bool(local.get("controls"))
    slow = _slow(heard, personal, expected, proximal, controls)
    found, homes = load_tensors(run.path / "model.safetensors")[0], _homes(run.path)
    begun = heard.model
    assert begun is not None
    for name, value in slow.pop("").state_dict().items():
        assert torch.allclose(found[name], value, atol=2e-5), name
        assert torch.equal(found[name], begun.state_dict()[name]) == (name in personal), name
    assert len(homes) == len(slow) == len(heard.rows)
    for model in slow.values():  # which memory is whose is a secret of the run
        state = model.state_dict()
        assert any(
            all(torch.allclose(home[n], v, atol=2e-5) for n, v in state.items())
            for home in homes.values()
        )
    own = [
        torch.cat([home[name].flatten() for name in sorted(personal)]) for home in homes.values()
    ]
    assert all(not torch.allclose(one, own[0], atol=1e-3) for one in own[1:])
    assert saved(run.path).personal == tuple(n for n in begun.state_dict() if n in personal)
    assert saved(run.path / "local" / "personal" / "a").personal == ()


def test_only_shared_weights_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests, replies, sums and the server's optimizer have no entry of a party's own layer."""
    seen: list[set[str]] = []
    real = Federation.__call__

    def summing(self: Federation, *given: Any) -> Any:
        total = real(self, *given)
        seen.append(set(total.total))
        return total

    monkeypatch.setattr(Federation, "__call__", summing)
    run = _ran(tmp_path, changed(NORMED, {"federated_learning.local.personal": ["head"]}))
    assert seen == [{"0.weight", "0.bias", "1.weight", "1.bias"}] * ROUNDS
    assert read_json(run.path / "outcome.json")["curve"] == [], "nobody's model has no figure"
    assert not list((run.path / "local").glob("parties")), "what is kept in a run ends with it"


OWN: dict[str, Any] = {
    "federated_learning.local": {"steps": 2, "personal": ["head"]},
    "federated_learning.rounds": 5,
    "ledger.path": "{run}/privacy.db",
}


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"federated_learning.local.controls": True, "federated_learning.compression": TOP},
        {"federated_learning.gather": {"kind": "secure", "threshold": 2, "colluders": 0}},
    ],
    ids=["alone", "remembering more", "in secure sums"],
)
@pytest.mark.parametrize("base", [FEDERATED, CLIENT], ids=["example", "client"])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Any, more: Any, steps: int
) -> None:
    """Each party's own model too, which lies in `local/` alone."""
    base = changed(changed(base, OWN), more)
    planned = plan(recipe(tmp_path, base))
    real = loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    for name in ("run", "copy"):
        train(plan(planned.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    lines = [(tmp_path / n / "released.jsonl").read_text() for n in ("run", "copy")]
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 5
    one, two = _homes(tmp_path / "run"), _homes(tmp_path / "copy")
    assert list(one) == list(two) == ["a", "b"]
    common = load_tensors(tmp_path / "run" / "model.safetensors")[0]
    for name, state in one.items():
        assert all(torch.equal(value, two[name][key]) for key, value in state.items())
        for key, value in state.items():
            assert torch.equal(value, common[key]) == (not key.startswith("head.")), key


def test_own_layers_are_clipped_and_noised_with_the_shared_ones(tmp_path: Path) -> None:
    """Under `unit: example` no gradient moves them, only noised sums: with much noise they move
    by about what the noise of the planned deviation does, as the shared ones do."""
    base = changed(
        FEDERATED,
        OWN | {"differential_privacy.epsilon": 0.02, "federated_learning.rounds": 1,
               "federated_learning.local.steps": 1},
    )  # fmt: skip
    run = _ran(tmp_path, base)
    planned = read_json(run.path / "plan.json")["parties"][0]
    deviation = (
        planned["noise"]["multiplier"] * planned["clip"]["norm"] / planned["sampling"]["expected"]
    )
    begun = load_tensors(run.path / "model.safetensors")[0]  # its head is as it was
    lr = 0.2
    for home in _homes(run.path).values():
        names = [n for n in begun if not torch.equal(begun[n], home[n])]
        moved = torch.cat([(home[n] - begun[n]).flatten() for n in names])
        assert names and 0.4 < float(moved.std()) / (lr * deviation) < 2.5


def test_a_run_that_is_finished_early_leaves_the_parties_their_models(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, changed(FEDERATED, OWN)))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(3))
    finish(tmp_path / "run")
    assert list(_homes(tmp_path / "run")) == ["a", "b"]


def _table(folder: Path) -> dict[str, Any]:
    """A recipe over patients of two hospitals, some of them held out."""
    from tests.training.tiny import TABLE

    patients(folder / "patients.csv", people=60)
    return changed(
        TABLE,
        {
            "data.drop": [],
            "data.party": "hospital",
            "data.size": 70,
            "data.holdout": {"share": 0.5},  # a fifth would leave a hospital out once in 400 runs
            "differential_privacy": None, "gradient_clipping": None, "ledger": None,
            "training": {"batch": 20, "checkpoint": 2, "optimizer": {"kind": "sgd", "lr": 0.2}},
            "federated_learning": {
                "parties": {
                    "kind": "column", "column": "hospital", "sizes": {"north": 36, "south": 36},
                },
                "rounds": 3,
                "local": {"steps": 3, "personal": ["head"]},
            },
        },
    )  # fmt: skip


def test_figures_are_of_each_partys_own_rows_and_stay_local(tmp_path: Path) -> None:
    """A party's model answers for a file by itself, and the common one says what it lacks."""
    run = train(plan(recipe(tmp_path, _table(tmp_path))), tmp_path / "run")
    figures = read_json(run.path / "local" / "personal" / "figures.json")["parties"]
    assert list(figures) == ["north", "south"]
    test = run.recipe.data.read(
        tmp_path, run.recipe.seed, (run.path / "local" / "holder.key").read_bytes()
    ).test
    assert test is not None and test.party is not None
    for name, found in figures.items():
        assert found["rows"] == test.party.count(name) > 0
        assert 0 <= found["accuracy"] <= 1 and found["folder"] == name
    outside = [p for p in run.path.rglob("*") if p.is_file() and "local" not in p.parts]
    assert not any(str(figures["north"]["loss"]).encode() in p.read_bytes() for p in outside)
    told: list[str] = []
    for place, lines in ((run.path / "local" / "personal" / "north", 0), (run.path, 1)):
        into = tmp_path / "answers.csv"
        predict_file(place, tmp_path / "patients.csv", into, doubts=told.append)
        assert into.exists() and len(told) == lines
    assert "nobody has trained" in told[0] and "local/personal/PARTY" in told[0]


def test_the_common_model_is_neither_audited_nor_a_graph(tmp_path: Path) -> None:
    run = train(plan(recipe(tmp_path, _table(tmp_path))), tmp_path / "run")
    assert audit_run(run) == []
    assert not (run.path / "comparison.json").exists() and not list(run.path.rglob("findings.json"))
    with pytest.raises(Incompatible, match="the model of a party"):
        hand_over(run.path, tmp_path / "graph", "onnx")
    files = hand_over(run.path, tmp_path / "merged")
    assert "model.safetensors" in files and saved(tmp_path / "merged").personal


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"federated_learning.local.personal": ["nose"]}, "no weight or module 'nose'"),
        ({"federated_learning.local.personal": ["norms"]}, "no layer that normalises"),
        ({"federated_learning.local.personal": ["*"]}, "nothing would be shared"),
        ({"federated_learning.local.personal": ["head", "head"]}, "must be different names"),
        ({"federated_learning.local.personal": [""]}, "none empty"),
        (
            {"federated_learning.local.personal": ["hidden0"], "fine_tuning": {"kind": "head"}},
            "training does not move",
        ),
        ({"audit": [{"kind": "membership"}]}, "nobody has trained what stays"),
        ({"compare": ["unprotected"]}, "nobody has trained what stays"),
        (
            {"federated_learning.stop": {"patience": 1},
             "data": {"kind": "builtin", "name": "iris", "size": 90, "public_demonstration": True,
                      "test": {"share": 0.2}, "public": {"share": 0.2}}},
            "nobody has trained what stays",
        ),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    base = changed(FEDERATED, {"federated_learning.local.personal": ["head"]})
    with pytest.raises((Incompatible, RecipeError), match=words):
        plan(recipe(tmp_path, changed(base, changes)))


def test_the_plan_says_what_stays(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, changed(CLIENT, OWN)))
    said = techniques(planned.recipe)["federated_learning"]
    assert said is not None and "layers of its own (head), never sent" in said
    uncovered = " ".join(planned.to_json()["not_covered"])
    assert "made of its rows without noise, and never leaves it" in uncovered
    noised = " ".join(plan(recipe(tmp_path, changed(FEDERATED, OWN))).to_json()["not_covered"])
    assert "measured at the party" in noised and "without noise, and never" not in noised


def test_names_are_those_of_the_weights_that_training_moves() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    assert personal_names((), model) == ()
    assert personal_names(["?.bias"], model) == ("0.bias", "1.bias", "2.bias")
    assert personal_names(["head"], model) == ("2.weight", "2.bias")
    model[2].weight = model[0].weight  # one tensor of two names
    assert personal_names(["2"], model) == ("0.weight", "2.bias")
    assert set(shared_weights(model, ["0.weight"])) == {"0.bias", "1.weight", "1.bias", "2.bias"}
    fix_personal(model, ["0.weight"])
    with pytest.raises(Incompatible, match="does not move"):
        personal_names(["0.weight"], model)
    with pytest.raises(Incompatible, match="no last linear layer"):
        personal_names(["head"], nn.Sequential(nn.Conv1d(1, 1, 1)))


def test_a_diverged_own_layer_is_the_one_of_the_round_before(tmp_path: Path) -> None:
    from nacre.federated_learning.local.between_rounds import BetweenRounds
    from nacre.federated_learning.local.kept import InMemory

    option = recipe(tmp_path, changed(FEDERATED, OWN)).federated_learning
    assert option is not None
    between = BetweenRounds(option, 0.2, InMemory(), Source(bytes(32)))
    one, inf = {"h": torch.ones(1)}, {"h": torch.tensor([torch.inf])}
    change = {"w": torch.ones(1)}
    for number, (own, sent) in enumerate(
        [(one, change), (inf, change), ({"h": 2 * one["h"]}, inf)]
    ):
        before = between.before({"w": torch.zeros(1)}, number)
        between.keep(number, before.sent(sent, own, b"")[1])
    assert personal_of(between.memory.before(9)) == one


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "n" * 300, "", "north\0", "é" * 150])
def test_a_party_of_any_name_has_a_folder(name: str) -> None:
    assert folder_name(name).startswith("party ") and folder_name("north ward.2") == "north ward.2"
    assert len({folder_name(name), folder_name(name + "x")}) == 2


def test_released_lines_are_those_of_shared_weights(tmp_path: Path) -> None:
    """The price is that of the same recipe without layers of its own: nothing more is released."""
    plain = changed(CLIENT, {k: v for k, v in OWN.items() if k != "federated_learning.local"})
    one = plan(recipe(tmp_path, changed(plain, {"federated_learning.local.steps": 2})))
    two = plan(recipe(tmp_path, changed(CLIENT, OWN)))
    assert one.levels[0].mechanism.event() == two.levels[0].mechanism.event()
    run = train(two, tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "released.jsonl").read_text().splitlines()]
    assert len(lines) == 5

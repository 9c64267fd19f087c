"""The adversarial batch that an evasion leaves: its figures follow from the file alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.relations import LinearRelation
from nacre.adversarial_training.threats.table import ColumnMove, TableThreat
from nacre.audit.kept import KeptBatches, scored_again
from nacre.audit.model_security.batch import AdversarialBatch, reproduced
from nacre.audit.model_security.batch_file import load_batch, save_batch
from nacre.audit.model_security.evasion import evasion
from nacre.cli.main import cli
from nacre.core.errors import FileDamaged, Incompatible, RunError
from nacre.core.files import load_tensors, write_json
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification, Regression
from nacre.recipe.audits import Evasion

CODE = """
import torch
from torch import nn
def bare():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a model's code and rows; the module's name."""
    monkeypatch.chdir(tmp_path)
    name = f"batch_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    numbers = np.random.default_rng(0)
    features = numbers.normal(size=(100, 6)).astype(np.float32)
    found = {}
    exec(CODE, found)
    with torch.no_grad():
        label = found["bare"]()(torch.from_numpy(features)).argmax(1).numpy()
    label[:9] = (label[:9] + 1) % 3  # wrong from the start
    np.savez(tmp_path / "rows.npz", features=features, label=label)
    return name


def nacre(*arguments):
    run = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return run.exit_code, run


def attacked(name, *more):
    code, run = nacre("audit", "--model", f"{name}:bare", "--data", "rows.npz", "--radius", "0.1",
                      "--effort", "quick", "--json", *more)  # fmt: skip
    assert code == 0, run.output
    (finding,) = json.loads(run.stdout)["findings"]
    return finding


@pytest.mark.parametrize(
    "more",
    [[], ["--norm", "l2"], ["--towards", "1"], ["--interval", "0.5"]],
    ids=["linf", "l2", "towards", "interval"],
)
def test_the_reported_accuracy_follows_from_the_file(folder, more):
    finding = attacked(folder, *more)
    assert 0 < finding["value"] < 1
    code, run = nacre("audit", "--model", f"{folder}:bare", "--rescore", "--json")
    assert code == 0, run.output
    again = json.loads(run.stdout)["rescored"]["batch"]
    assert again["value"] == again["reported"] == finding["value"]
    assert again["holds"] and again["same_weights"] and again["rows"] == finding["details"][
        "rows_tested"
    ]  # fmt: skip


def test_anyone_can_score_the_file_without_us(folder):
    finding = attacked(folder)
    tensors, _ = load_tensors(Path("attack/batch.safetensors"))
    facts = json.loads(Path("attack/batch.json").read_text())
    with np.load("rows.npz") as opened:
        clean = dict(opened)
    place = tensors["place"]
    assert torch.equal(tensors["clean"], torch.from_numpy(clean["features"])[place])
    assert torch.equal(tensors["label"], torch.from_numpy(clean["label"])[place])
    assert float((tensors["attacked"] - tensors["clean"]).abs().max()) <= 0.1 * (1 + 1e-5)
    made = {}
    exec(CODE, made)
    with torch.no_grad():
        scores = made["bare"]()(tensors["attacked"])
    assert (scores.argmax(1) == tensors["label"]).double().mean() == finding["value"]
    best = scores.gather(1, tensors["label"][:, None]).squeeze(1)
    other = scores.scatter(1, tensors["label"][:, None], -torch.inf).amax(1)
    assert torch.allclose(tensors["margin"], other - best, atol=1e-5)
    broken = facts["broken"]
    assert len(broken) == round((facts["rows"]) * (finding["details"]["clean"]["value"] - finding[
        "value"
    ]))  # fmt: skip
    each = {entry["row"]: entry for entry in finding["details"]["each"]}
    for row in broken:
        told = each[row["row"]]
        assert row["stage"] == finding["details"]["stages"][told["stage"]]["name"]
        assert (row["step"], row["share"]) == (told["steps"], told["share"])
        assert row["margin"] > 0 and row["label"] != row["answer"]
    assert Path("attack/batch.safetensors").stat().st_mode & 0o777 == 0o600
    assert Path("attack/batch.json").stat().st_mode & 0o777 == 0o600


def test_other_weights_are_said_and_other_points_refused(folder, tmp_path):
    attacked(folder)
    module = {}
    exec(CODE, module)
    batch = load_batch(Path("attack"), "batch")
    model = module["bare"]()
    with torch.no_grad():
        model[2].bias += torch.tensor([0.0, 3.0, 0.0])
    other = reproduced(batch, model)
    assert not other.same_weights and other.changed and not other.holds and not other.refuted
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    code, run = nacre(
        "audit", "--model", f"{folder}:bare", "--weights", "other.safetensors", "--rescore"
    )
    assert code == 0 and "others" in run.output and "yes" not in run.output
    assert "was found with other weights" in run.stderr

    forged = AdversarialBatch(**{**vars(batch), "attacked": batch.clean + 0.2})
    save_batch(forged, Path("attack"), "batch")
    code, run = nacre("audit", "--model", f"{folder}:bare", "--rescore")
    assert code == 1 and "the threat does not allow the points of rows 0, 1, 2, 3, 4" in run.output


def test_a_higher_accuracy_does_not_hold_under_another_name_of_the_weights(folder):
    attacked(folder)
    batch = load_batch(Path("attack"), "batch")
    fallen = batch.stage >= 0
    forged = replace(
        batch,
        share=batch.share.masked_fill(fallen, torch.inf),
        stage=batch.stage.masked_fill(fallen, -1),
        value=batch.value + float(fallen.double().mean()),
    )
    for weights, code in ((batch.weights, 1), ("0" * 64, 0)):
        save_batch(replace(forged, weights=weights), Path("attack"), "batch")
        words = ["audit", "--model", f"{folder}:bare", "--rescore", "--json"]
        run = CliRunner().invoke(cli, words)
        (said,) = json.loads(run.stdout)["rescored"].values()
        assert run.exit_code == code and not said["holds"] and said["value"] < said["reported"]


def test_files_that_do_not_belong_together(folder):
    attacked(folder)
    first = Path("attack/batch.safetensors").read_bytes()
    batch = load_batch(Path("attack"), "batch")
    other = AdversarialBatch(**{**vars(batch), "threat": Ball(kind="l2", radius=0.1)})
    save_batch(other, Path("attack"), "batch")
    Path("attack/batch.safetensors").write_bytes(b"not" + first)
    with pytest.raises(FileDamaged, match="is not the one that it was written with"):
        load_batch(Path("attack"), "batch")
    facts = json.loads(Path("attack/batch.json").read_text())
    save_batch(batch, Path("attack"), "batch")
    for wrong in (
        {"format": 3}, {"rows": 7}, {"task": "causal_lm"}, {"outputs": "words"},
        {"threat": {"kind": "linf", "radius": -1}}, {"threat": {"kind": "sphere"}}, {"names": 3},
    ):  # fmt: skip
        right = json.loads(Path("attack/batch.json").read_text())
        write_json(Path("attack/batch.json"), {**right, **wrong})
        code, run = nacre("audit", "--model", f"{folder}:bare", "--rescore")
        assert code == 1 and "is not what nacre writes" in run.output, (wrong, run.output)
        write_json(Path("attack/batch.json"), right)
    assert facts["threat"]["kind"] == "l2"
    Path("attack/batch.safetensors").unlink()
    code, run = nacre("audit", "--model", f"{folder}:bare", "--rescore")
    assert code == 2 and "holds no adversarial batch" in run.output
    with pytest.raises(FileDamaged, match="cannot be read"):
        load_batch(Path("attack"), "batch")
    shutil.rmtree("attack")
    with pytest.raises(RunError, match="holds no adversarial batch"):
        load_batch(Path("attack"), "batch")


def test_rows_that_no_attack_leaves_behind(folder):
    attacked(folder)
    batch, place = load_batch(Path("attack"), "batch"), Path("attack/batch.json")
    stands = int(batch.share.isinf().nonzero()[0])
    for wrong in (
        {"value": 0.99}, {"width": 0}, {"place": batch.place - 1},
        {"place": batch.place.clamp(max=50)}, {"label": batch.label.float()},
        {"label": batch.label - 1}, {"stage": batch.stage - 3},
        {"share": batch.share.index_fill(0, torch.tensor([stands]), 0.5)},
    ):  # fmt: skip
        save_batch(replace(batch, **wrong), Path("attack"), "batch")
        with pytest.raises(FileDamaged, match="is not what nacre writes"):
            load_batch(Path("attack"), "batch")
    save_batch(batch, Path("attack"), "batch")
    write_json(place, {**json.loads(place.read_text()), "width": -1})
    code, run = nacre("audit", "--model", f"{folder}:bare", "--rescore")
    assert code == 1 and "or a step of none" in " ".join(run.output.split())


def test_files_of_format_1_are_read(folder):
    finding = attacked(folder)
    facts = json.loads(Path("attack/batch.json").read_text())
    assert facts["format"] == 2
    write_json(Path("attack/batch.json"), {**facts, "format": 1})
    code, run = nacre("audit", "--model", f"{folder}:bare", "--rescore", "--json")
    assert code == 0, run.output
    assert json.loads(run.stdout)["rescored"]["batch"]["value"] == finding["value"]


def kept(target, option):
    batches = []
    finding = evasion(type(target)(**{**vars(target), "keep": batches.append}), option)
    (batch,) = batches
    return finding, batch


def test_rows_of_a_table_keep_their_units_and_their_threat(target, rows, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    space = FeatureSpace(
        (6,),
        ("age", "debt", "income", "sex=f", "sex=m", "other"),
        scale=torch.tensor([10.0, 100, 100, 1, 1, 1]),
        offset=torch.tensor([50.0, 1000, 2000, 0, 0, 0]),
        low=torch.full((6,), -4.0),
        high=torch.full((6,), 4.0),
        categorical=("sex=f", "sex=m"),
        choices=("sex",),
    )
    test = rows(40, 1)
    test["features"][:, 3] = (test["features"][:, 3] > 0).float()
    test["features"][:, 4] = 1 - test["features"][:, 3]
    test["features"].clamp_(-3, 3)
    with torch.no_grad():
        test["label"] = model(test["features"]).argmax(1)
    threat = TableThreat(
        columns={"debt": ColumnMove(reach=600, integer=True, cost=1), "sex": ColumnMove(cost=10)},
        relations=(LinearRelation(terms={"debt": 1, "income": -1}, at_most=5000),),
        budget=610,
    )
    asked = target(model, space=space, test=test)
    finding, batch = kept(asked, Evasion(ball=threat, effort="quick", steps=5))
    assert finding.value < finding.details["clean"]["value"] == 1
    save_batch(batch, tmp_path, "batch")
    again = load_batch(tmp_path, "batch")
    assert again.threat == threat and again.space.names == space.names
    assert reproduced(again, model).value == finding.value and reproduced(again, model).holds
    tensors, _ = load_tensors(tmp_path / "batch.safetensors")
    fallen = again.stage >= 0
    debt = tensors["attacked_raw"][fallen, 1]
    moved = again.attacked[fallen, 1] != again.clean[fallen, 1]
    assert torch.equal(debt[moved], debt[moved].round()) or (debt[moved] - debt[moved].round()
        ).abs().max() < 1e-3  # fmt: skip
    assert torch.allclose(debt, again.attacked[fallen, 1].double() * 100 + 1000)


def test_models_that_answer_numbers(target, rows, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(6, 1)
    test = rows(80, 2)
    with torch.no_grad():
        test["label"] = model(test["features"]).squeeze(1) + 0.3
    asked = target(model, task=Regression(), test=test)
    finding, batch = kept(asked, Evasion(ball=Ball(radius=0.2), effort="quick"))
    assert finding.value < 1
    save_batch(batch, tmp_path, "batch")
    again = load_batch(tmp_path, "batch")
    assert reproduced(again, model).value == finding.value
    assert torch.allclose(batch.margin[batch.stage >= 0] > 0.5, torch.tensor(True))


def test_each_evasion_of_each_variant_has_a_batch_of_its_own(target, rows, linear, tmp_path):
    batches = KeptBatches()
    option = Evasion(ball=Ball(radius=0.1), effort="quick", steps=2)
    model = linear([1.0, 2, 0, 0, 0, 0])
    plain = target(model, test=rows(20, 3))
    for variant in ("protected", "public base"):
        asked = batches.of(variant, plain)
        for _ in range(2):
            evasion(asked, option)
    folder = tmp_path / "attacks"
    batches.write(folder)
    names = ["protected-1", "protected-2", "public-base-1", "public-base-2"]
    found = scored_again(folder, lambda name: model)
    assert sorted(found) == names and all(again.holds for again in found.values())
    fewer = KeptBatches()
    evasion(fewer.of("protected", plain), option)
    fewer.write(folder)
    assert sorted(scored_again(folder, lambda name: model)) == ["protected-1"]
    assert sorted(file.name for file in folder.iterdir()) == [
        "protected-1.json", "protected-1.safetensors",
    ]  # fmt: skip


def test_a_model_of_other_classes_is_refused(target, rows, linear):
    test = rows(12, 4)
    plain = target(
        nn.Linear(6, 3), task=Classification(3), test={**test, "label": test["unit"] % 3}
    )
    _, batch = kept(plain, Evasion(ball=Ball(radius=0.1), effort="quick"))
    with pytest.raises(Incompatible, match="scores 2 classes and the batch has rows of class 2"):
        reproduced(batch, linear([1.0] * 6))
    with pytest.raises(Incompatible, match="does not take rows of shape"):
        reproduced(batch, nn.Linear(5, 3))

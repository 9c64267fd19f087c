"""Each verb does what it says, for people and as JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result

from nacre.adversarial_training.evaluation.known import KNOWN
from nacre.adversarial_training.objectives.refused import REFUSED
from nacre.models import load as model_of
from nacre.recipe.load import load_recipe
from tests.cli.conftest import TINY, Nacre, document

pytestmark = pytest.mark.slow


def test_init_writes_a_recipe_that_loads_and_never_replaces_one(
    nacre: Nacre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nacre("init").exit_code == 0
    assert load_recipe(Path("recipe.yaml")).name == "first-table"
    again = nacre("init", "image")
    assert again.exit_code == 2 and "recipe.yaml exists" in again.stderr
    other = nacre("init", "image", "-o", "other.yaml", "--json")
    assert document(other) == {"recipe": "other.yaml"}
    assert load_recipe(Path("other.yaml")).name == "first-images"
    assert "put reviews.jsonl and base/ beside it" in nacre("init", "text", "-o", "t.yaml").output
    assert "there is no folder" in nacre("init", "-o", "no/such/place.yaml").stderr


def test_plan_reads_nothing_and_says_what_would_run(nacre: Nacre, recipe: Path) -> None:
    planned = document(nacre("plan", recipe, "--json"))
    assert planned["name"] == "tiny"
    assert planned["parties"][0]["epsilon"] <= 8
    people = nacre("plan", recipe)
    assert people.exit_code == 0 and "plan of tiny" in people.stdout
    assert [path.name for path in recipe.parent.iterdir()] == ["tiny.yaml"]


def test_a_refused_plan_has_file_line_and_exit_code_2(nacre: Nacre, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("kind: flat, norm", "kind: by_norm, norm"))
    refused = nacre("plan", recipe, "--json")
    assert refused.exit_code == 2
    assert document(refused)["error"].startswith(f"{recipe}:5 `gradient_clipping`")
    recipe.write_text(recipe.read_text().replace("norm: 1.0", "nrom: 1.0"))
    assert "did you mean `norm`?" in nacre("plan", recipe).stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("delta: 1e-3, adjacency: replace_one", "6 `differential_privacy`: Poisson sampling under"),
        ("delta: 1e-300", "6 `differential_privacy.epsilon`: no amount of noise"),
    ],
)
def test_noise_without_a_price_has_a_line(
    nacre: Nacre, recipe: Path, given: str, says: str
) -> None:
    text = TINY.replace("delta: 1e-3}\ntraining", f"{given}}}\ntraining")
    recipe.write_text(
        text.replace("epsilon: 8", "epsilon: 1e-300" if "300" in given else "epsilon: 8")
    )
    refused = nacre("plan", recipe)
    assert refused.exit_code == 2 and f"{recipe}:{says}" in refused.stderr


def test_a_plan_shows_what_the_multiplier_multiplies(nacre: Nacre, recipe: Path) -> None:
    assert " x 1 │" in nacre("plan", recipe).stdout
    replaced = "delta: 1e-3, adjacency: replace_one}\ntraining: {sampling: {kind: full}, "
    recipe.write_text(TINY.replace("delta: 1e-3}\ntraining: {", replaced))
    planned = nacre("plan", recipe).stdout
    assert "noise x sensitivity" in planned and " x 2 │" in planned


def test_a_grant_that_is_too_small_has_exit_code_3(nacre: Nacre, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("epsilon: 9", "epsilon: 1.5"))
    result = nacre("run", recipe, "--into", recipe.parent / "run")
    assert result.exit_code == 3
    assert not (recipe.parent / "run").exists()


def test_run_does_everything(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.exit_code == 0, result.stderr
    assert document(result)["name"] == "tiny"
    assert "steps: started" in result.stderr and "steps: done in" in result.stderr
    assert (folder / "report.html").exists()


def test_an_existing_run_folder_is_refused_with_a_way_on(
    nacre: Nacre, finished: tuple[Path, Result]
) -> None:
    folder, _ = finished
    for verb in ("run", "train"):
        result = nacre(verb, folder.with_name("tiny.yaml"), "--into", folder)
        assert result.exit_code == 2
        assert "exists" in result.stderr and "--into" in result.stderr


def test_resuming_a_finished_run_gives_the_same_table(
    nacre: Nacre, finished: tuple[Path, Result]
) -> None:
    folder, _ = finished
    result = nacre("run", folder.with_name("tiny.yaml"), "--into", folder, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "membership advantage" in result.stdout


def test_audit_and_report_of_a_run(nacre: Nacre, finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    findings = document(nacre("audit", folder, "--json"))["findings"]
    assert [finding["audit"] for finding in findings] == ["membership"]
    assert "membership" in nacre("audit", folder).stdout
    page = folder.with_name("page [1].html")
    assert nacre("report", folder, "-o", page).stdout == f"wrote {page}\n"
    said = document(nacre("report", folder, "--json"))
    assert said == {"report": str(folder / "report.html"), "local_report": None}
    assert page.exists()


def test_a_model_is_handed_over(
    nacre: Nacre, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    folder, into = finished[0], tmp_path / "model"
    told = document(nacre("export", folder, into, "--json"))
    expected = ["README.md", "model.json", "model.safetensors"]
    assert told["files"] == expected == sorted(os.listdir(into))
    states = [model_of(place).state_dict() for place in (folder, into)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    again = nacre("export", folder, into)
    assert again.exit_code == 2
    assert "name another one" in again.stderr
    other = nacre("export", folder, tmp_path / "adapter", "--form", "adapter")
    assert other.exit_code == 2
    assert "trained no adapters" in other.stderr
    assert not (tmp_path / "adapter").exists()


def test_verbs_on_what_is_no_run_are_refused(nacre: Nacre, tmp_path: Path) -> None:
    for verb in ("audit", "report", "finish", "abandon", "export"):
        more = (tmp_path / "out",) if verb == "export" else ()
        result = nacre(verb, tmp_path, *more)
        assert result.exit_code == 2, verb
        assert str(tmp_path) in result.stderr


class Stopped:
    """A watcher during whose second part somebody presses Ctrl-C."""

    def stage(self, name: str, total: int | None) -> Stopped:
        return self

    def __enter__(self) -> Stopped:
        self.parts = 0
        return self

    def __exit__(self, *_: object) -> None: ...

    def __call__(self, count: int = 1, note: str = "", total: int | None = None) -> None:
        self.parts += count
        if self.parts == 2:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(
    nacre: Nacre, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Result]:
    """(the folder of an open run, what the interrupted command said)."""
    text = recipe.read_text().replace("batch: 30", "batch: 30, checkpoint: 1")
    recipe.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr("nacre.cli.progress.watcher", Stopped)
        return tmp_path / "run", nacre("train", recipe, "--into", tmp_path / "run", "--json")


def test_ctrl_c_says_how_to_go_on(
    nacre: Nacre, recipe: Path, interrupted: tuple[Path, Result]
) -> None:
    folder, result = interrupted
    assert result.exit_code == 130
    command = f"nacre train {recipe} --into {folder} --resume"
    assert document(result) == {
        "error": f"interrupted; continue with `{command}`",
        "exit_code": 130,
    }
    on = nacre("train", recipe, "--into", folder, "--resume")
    assert on.exit_code == 0, on.stderr
    assert on.stdout.startswith("trained 3 of 3 steps (completed)")
    assert "next: nacre audit" in on.stdout


def test_an_open_run_can_be_finished(nacre: Nacre, interrupted: tuple[Path, Result]) -> None:
    folder, _ = interrupted
    ended = nacre("finish", folder, "--json")
    assert ended.exit_code == 0, ended.stderr
    said = document(ended)
    assert (said["run"], said["ended"], said["outcome"]["done"]) == (str(folder), "finished", 2)
    assert (folder / "model.safetensors").exists()


def test_an_open_run_can_be_abandoned(
    nacre: Nacre, recipe: Path, interrupted: tuple[Path, Result]
) -> None:
    folder, _ = interrupted
    ended = nacre("abandon", folder)
    assert ended.exit_code == 0, ended.stderr
    assert "its key is gone" in ended.stdout
    assert nacre("train", recipe, "--into", folder, "--resume").exit_code == 2


def test_ctrl_c_before_anything_happened(
    nacre: Nacre, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nacre.runs.run.train", stop)
    result = nacre("run", recipe, "--into", recipe.parent / "run")
    assert result.exit_code == 130
    assert "before anything was released or charged" in result.stderr


def test_init_says_what_it_wrote_and_what_is_in_its_way(nacre: Nacre, tmp_path: Path) -> None:
    told = nacre("init", "image", "-o", tmp_path / "nowhere" / "x.yaml")
    assert told.exit_code == 2 and "there is no folder" in told.stderr
    for kind, key in (("queries", "queries"), ("table", "recipe")):
        file = tmp_path / f"{kind}.yaml"
        assert document(nacre("init", kind, "-o", file, "--json")) == {key: str(file)}


def test_explain(nacre: Nacre) -> None:
    assert "factor of e" in nacre("explain", "differential_privacy.epsilon").stdout
    assert "(kind: sgd)" in nacre("explain", "training.optimizer.lr").stdout
    assert "default [64]" in nacre("explain", "model.hidden").stdout
    refusal = document(nacre("explain", "per_unit_clipping", "--json"))
    assert refusal["keys"] == [] and "bound" in refusal["refusals"]["per_unit_clipping"]
    everything = document(nacre("explain", "--json"))
    assert len(everything["keys"]) > 100 and len(everything["refusals"]) > 10
    assert everything["refusals"].keys() >= REFUSED.keys()
    assert everything["attacks"].keys() == KNOWN.keys()
    unknown = nacre("explain", "model.hiden")
    assert unknown.exit_code == 2 and "did you mean `model.hidden`?" in unknown.stderr


def test_a_real_process(recipe: Path) -> None:
    words = [sys.executable, "-m", "nacre", "plan", str(recipe), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{") and done.stderr == ""


SEARCH = (
    TINY.replace("size: 120,", "size: 90, public: {share: 0.2},")
    + """\
tune:
  trials: 2
  over:
    training.optimizer.lr: [0.1, 0.5]
"""
)


def test_a_search_keeps_its_best_and_shows_no_other(nacre: Nacre, tmp_path: Path) -> None:
    path, into = tmp_path / "search.yaml", tmp_path / "run"
    path.write_text(SEARCH)
    assert nacre("train", path, "--into", into).exit_code == 2
    found = nacre("tune", path, "--into", into, "--json")
    assert found.exit_code == 0
    chosen = document(found)["outcome"]["search"]["chosen"]
    assert chosen["training.optimizer.lr"] in (0.1, 0.5)
    assert "trial" not in found.stderr.replace("it would tell of the trials", "")
    again = nacre("tune", path, "--into", into, "--resume")
    assert again.exit_code == 0 and f"lr: {chosen['training.optimizer.lr']}" in again.stdout
    refused = nacre("tune", path, "--into", into)
    assert refused.exit_code == 2 and "--resume" in refused.stderr
    assert nacre("audit", into).exit_code == 0
    assert nacre("report", into).exit_code == 0
    wrong = nacre("explain", "tune.over")
    assert "each with the values to draw from" in " ".join(wrong.stdout.split())


def test_a_wrong_value_of_a_search_is_told_by_its_line(nacre: Nacre, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH.replace("[0.1, 0.5]", "[0.1, fast]"))
    result = nacre("plan", path)
    assert result.exit_code == 2
    assert f"{path}:13 `tune.over.training.optimizer.lr`: with" in result.stderr
    assert "must be a number, not the text 'fast'" in result.stderr

"""`nacre runs`: every state that a folder can be in is one line, and nothing private is in it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.cli.main import ELSEWHERE, VERBS
from nacre.cli.runs import beside_each_other
from nacre.report.sections.numbers import epsilon_text
from nacre.report.summary import summary_json
from nacre.runs.listing.entry import answers_entry, run_entry
from nacre.runs.listing.figures import NOT_SHOWN
from nacre.runs.listing.search import runs_under
from tests.cli.conftest import Nacre, document
from tests.report import sample


def run(folder: Path, **other: Any) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return sample.write(folder, **other)


def unfinished(folder: Path, *, key: bool, **other: Any) -> Path:
    made = run(folder, outcome=None, comparison=None, findings=None, **other)
    if key:
        (made / "local" / "run.key").write_bytes(bytes(32))
    return made


def own_loop(folder: Path) -> Path:
    """As `nacre.integrations` writes it."""
    own = {"private": True, "rounds": 20, "techniques": {"federated_learning": None}}
    plan = own | {"parties": [sample.party("all rows", 105, 2.0)]}
    made = run(folder, plan=plan, outcome={"done": 20, "planned": 20}, recipe=None)
    for name in ("findings", "comparison", "ledger", "model"):
        (made / f"{name}.json").unlink()
    return made


def answers(file: Path) -> Path:
    one = {"name": "rows", "epsilon": 0.2, "delta": 0.0}
    facts = {"run": "x", "account": "clinic", "answers": [one, one | {"epsilon": 0.11}]}
    file.write_text(json.dumps(facts, indent=2))
    return file


def test_each_state_is_one_line(tmp_path: Path, nacre: Nacre) -> None:
    there = tmp_path / "runs"
    run(there / "finished")
    run(there / "early", outcome=sample.outcome() | {"done": 5, "stopped": "finished"})
    unfinished(there / "open", key=True)
    unfinished(there / "started", key=True, released=None)
    unfinished(there / "abandoned", key=False)
    shutil.rmtree(unfinished(there / "shared", key=True) / "local")
    run(there / "bare", plan=sample.unprotected_plan())
    search = {"over": {}, "trials": 5.0, "shape": 1.0, "score": "accuracy", "chosen": None}
    unfinished(there / "search", key=True, plan=sample.plan() | {"search": search})
    own_loop(there / "own")
    answers(there / "answers.json")
    (there / "other.json").write_text("{}")
    (there / "cut").mkdir()
    (run(there / "torn") / "plan.json").write_text('{"name": ')
    run(there / "gone", plan=None)
    run(there / "twisted", plan=sample.plan() | {"parties": [{}]})
    (there / "terraform").mkdir()
    (there / "terraform" / "plan.json").write_text('{"resources": []}')
    run(there / "terraform" / "below")

    said = nacre("runs", tmp_path)
    assert said.exit_code == 0, said.stderr
    lines = {line.split()[0].removeprefix(f"{there}/"): line for line in said.stdout.splitlines()}
    lines = {name: " ".join(line.split()) for name, line in lines.items()}
    for name, words in {
        "finished": "clinic 2026-03-02 09:14 train finished, 20 rounds 4.00 0.0001 accuracy",
        "early": "finished at round 5 of 20",
        "open": "open at round 20 of 20",
        "started": "open at round 0 of 20",
        "abandoned": "abandoned at round 20 of 20",
        "shared": "open or abandoned at round 20 of 20",
        "bare": "unbounded",
        "search": "tune open 4.00",
        "own": "own loop finished, 20 steps",
        "answers.json": "release 2 answers",
        "torn": "damaged: plan.json is damaged (not JSON)",
        "gone": "damaged: it holds no plan.json",
        "twisted": "damaged: plan.json is not what Nacre writes",
        "terraform": "foreign: its plan.json is none of Nacre's",
        "terraform/below": "finished, 20 rounds",
    }.items():
        assert words in lines.pop(name), name
    assert list(lines) == ["run"]
    listed = {
        Path(one["path"]).name: one for one in document(nacre("runs", there, "--json"))["runs"]
    }
    assert listed["answers.json"]["epsilon"] == pytest.approx(0.31)
    assert listed["search"]["done"] is None  # would tell of the trials
    assert listed["torn"]["epsilon"] is None and listed["torn"]["figure"] is None


def test_the_figures_are_those_of_the_report(tmp_path: Path) -> None:
    made = run(tmp_path / "run")
    reported, entry = summary_json(made), run_entry(made)
    assert entry.figures.first is not None
    name, found = entry.figures.first
    assert {name: {"value": found.value, "low": found.low, "high": found.high}} == {
        "accuracy": reported["accuracy"]
    }
    under_attack = entry.figures.found["accuracy under attack"]
    assert under_attack.value == reported["attacked_accuracy"]["value"]
    assert entry.epsilon == max(party["epsilon"] for party in reported["parties"])


def test_epsilon_is_rounded_up_as_elsewhere(tmp_path: Path, nacre: Nacre) -> None:
    plan = sample.plan() | {"parties": [sample.party("all rows", 105, 3.9711)]}
    made = run(tmp_path / "run", plan=plan)
    assert f"  {epsilon_text(3.9711)}  " in nacre("runs", made).stdout
    assert epsilon_text(3.9711) == "3.98"


def test_figures_on_private_rows_are_never_numbers(
    tmp_path: Path,
    nacre: Nacre,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither from `local/`, which is not read, nor from a file in which they do not belong."""
    made = run(tmp_path / "private", findings=None, comparison=None)
    (made / "local" / "findings.json").write_text(json.dumps({"findings": [sample.evasion()]}))
    (made / "local" / "comparison.json").write_text(json.dumps(sample.comparison()))
    astray = {"findings": [sample.evasion() | {"public": False}]}
    run(tmp_path / "astray", findings=astray, comparison=None)
    opened: list[str] = []
    plainly = os.open

    def watched(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(str(path))
        return plainly(path, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    for entry in runs_under(tmp_path, 4).found:
        assert entry.figures.first is None and entry.figures.missing == NOT_SHOWN
    assert opened and not [path for path in opened if "/local" in path]
    said = nacre("runs", tmp_path).stdout
    assert said.count("not shown") == 2 and "%" not in said
    beside = nacre("runs", tmp_path / "private", tmp_path / "astray").stdout
    assert "not shown" in beside and "94.7%" not in beside and "83.3%" not in beside


def test_the_size_leaves_local_out(tmp_path: Path) -> None:
    """What an open search keeps there would tell of its trials."""
    made = run(tmp_path / "run")
    before = run_entry(made).size
    (made / "local" / "trials").mkdir()
    (made / "local" / "trials" / "1").write_bytes(bytes(100_000))
    assert run_entry(made).size == before
    (made / "state").mkdir()
    (made / "state" / "base.safetensors").write_bytes(bytes(1000))
    assert run_entry(made).size == before + 1000


def test_what_the_system_does_not_show_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights of a folder bind everybody but root, who runs tests too."""
    run(tmp_path / "run")
    (tmp_path / "theirs").mkdir()
    plainly = os.scandir

    def refused(path: Any) -> Any:
        if Path(path).name == "theirs":
            raise PermissionError(13, "Permission denied")
        return plainly(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = runs_under(tmp_path, 4).found
    assert [(one.path.name, one.state, one.reason) for one in found] == [
        ("run", "finished", ""),
        ("theirs", "closed", "permission denied"),
    ]


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    made = run(tmp_path / "elsewhere" / "run")
    here = tmp_path / "here"
    here.mkdir()
    (here / "link").symlink_to(made)
    (here / "round").symlink_to(here)
    assert runs_under(here, 4).found == []
    (here / "piped").mkdir()
    os.mkfifo(here / "piped" / "plan.json")
    (here / "linked").mkdir()
    (here / "linked" / "plan.json").symlink_to(made / "plan.json")
    assert {one.path.name: one.reason for one in runs_under(here, 4).found} == {
        "piped": "plan.json is no file",
        "linked": "plan.json cannot be read (it is a link)",
    }


@pytest.mark.parametrize("key", [*sample.plan(), "parties.epsilon", "parties.delta"])
@pytest.mark.parametrize("value", [None, "x", -1, 1e400, [], {}, [[]], True])
def test_no_plan_ends_a_listing(tmp_path: Path, key: str, value: Any) -> None:
    plan: dict[str, Any] = copy.deepcopy(sample.plan())
    outer, _, inner = key.partition(".")
    if inner:
        plan[outer][0][inner] = value
    else:
        plan[outer] = value
    entry = run_entry(run(tmp_path / "run", plan=plan))
    assert entry.epsilon is None or entry.epsilon >= 0


@pytest.mark.parametrize("name", ["outcome", "findings", "comparison"])
@pytest.mark.parametrize("text", ["", "[]", "{", '{"findings": [{}], "variants": [1]}', "\x00"])
def test_no_file_ends_a_listing(tmp_path: Path, name: str, text: str) -> None:
    made = run(tmp_path / "run")
    (made / f"{name}.json").write_text(text)
    entry = run_entry(made)
    assert entry.state == ("damaged" if name == "outcome" else "finished")
    assert answers_entry(made / f"{name}.json") is None


def test_a_torn_last_line_was_not_written(tmp_path: Path) -> None:
    made = unfinished(tmp_path / "run", key=True)
    with (made / "released.jsonl").open("a") as file:
        file.write('{"step": 21, "how"')
    assert run_entry(made).done == 20
    (made / "released.jsonl").write_text("no release\n")
    assert run_entry(made).reason == "the last line of released.jsonl is no release"


def test_of_a_thousand_folders_few_files_are_read_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "runs" / "0")
    for number in range(1, 1000):
        folder = tmp_path / "runs" / str(number)
        (folder / "local").mkdir(parents=True)
        for file in first.glob("*.*"):
            os.link(file, folder / file.name)
    read, real = Counter[str](), os.open

    def counted(path: Any, *more: Any, **named: Any) -> int:
        read[os.fspath(path)] += 1
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", counted)
    assert len(runs_under(tmp_path, 4).found) == 1000
    assert max(read.values()) == 1 and 1000 <= len(read) <= 8000, len(read)


def test_what_lies_deeper_is_said(tmp_path: Path, nacre: Nacre) -> None:
    run(tmp_path / "a" / "b" / "run")
    near = nacre("runs", tmp_path, "--depth", 1)
    assert "no runs in" in near.stdout and "`--depth 5` does" in near.stderr
    assert "a/b/run" in nacre("runs", tmp_path, "--depth", 3).stdout


def test_two_runs_side_by_side(tmp_path: Path, nacre: Nacre) -> None:
    one = run(tmp_path / "one")
    recipe = sample.RECIPE.replace("norm: 0.5", "norm: 0.7").replace(
        'path: "{run}/privacy.db"', 'path: "postgresql://me:secret@host/db"'
    )
    plan = sample.plan()
    plan["parties"][0]["clip"]["norm"] = 0.7
    other = run(tmp_path / "other", recipe=recipe, plan=plan, comparison=None, findings=None)
    found = document(nacre("runs", one, other, "--json"))
    assert found == document(nacre("runs", "--compare", one, other, "--json"))
    assert found["recipe"] == [
        {"key": "gradient_clipping.norm", "values": ["0.5", "0.7"]},
        {"key": "ledger.path", "values": ["{run}/privacy.db", "postgresql://…@host/db"]},
    ]
    assert {"key": "clip.norm, east", "values": ["0.5", "0.7"]} in found["privacy"]
    assert {"key": "epsilon", "values": ["4.00", "4.00"]} in found["privacy"]
    figures = {row["key"]: row["values"] for row in found["figures"]}
    assert figures["accuracy"] == ["94.7% (92.2% to 97.2%)", "not measured"]
    people = nacre("runs", one, other).stdout
    assert "gradient_clipping.norm" in people and "seed" not in people
    for words, says in (
        ((one, tmp_path), "holds no run that can be read (it holds no plan.json and no run)"),
        (("--compare", one), "`--compare` needs two runs"),
        ((tmp_path / "absent",), "absent does not exist"),
        ((one / "recipe.yaml",), "is no file of answers"),
    ):
        refused = nacre("runs", *words)
        assert refused.exit_code == 2 and says in refused.stderr


def test_two_runs_side_by_side_fit_the_page(tmp_path: Path, nacre: Nacre) -> None:
    many = ", ".join(f"{{kind: membership, rows: {100 + number}}}" for number in range(15))
    recipe = sample.RECIPE.replace('path: "{run}/privacy.db"', f"path: {'b' * 200}")
    one = run(tmp_path / "one", recipe=re.sub(r"audit: .*", f"audit: [{many}]", sample.RECIPE))
    said = nacre("runs", one, run(tmp_path / "other", recipe=recipe))
    assert said.exit_code == 0, said.stderr
    assert max(map(len, said.stdout.splitlines())) <= 100
    assert "b" * 200 in "".join(said.stdout.split())  # the cell beside it has one line
    for number in range(15):
        assert str(100 + number) in said.stdout


CELLS = tuple(st.text(letters, max_size=90) for letters in ("ab ", "cd ", "ef "))


@given(
    rows=st.lists(st.tuples(*CELLS) | st.tuples(*CELLS[:2]), max_size=4),
    whole=st.tuples(*CELLS),
    width=st.integers(20, 200),
)
def test_cells_go_on_below_themselves_and_nothing_is_lost(
    rows: list[tuple[str, ...]], whole: tuple[str, ...], width: int
) -> None:
    rows = [whole, *rows]
    lines = beside_each_other(rows, width).split("\n")
    assert max(map(len, lines)) <= max(width, 22)
    assert len(beside_each_other(rows, None).split("\n")) == len(rows)
    for text in ("\n".join(lines), beside_each_other(rows, None)):
        for line in text.split("\n"):
            assert re.fullmatch("[ab ]*[cd ]*[ef ]*", line)
        for place, letters in enumerate(("ab", "cd", "ef")):
            kept = [sign for sign in text if sign in letters]
            said = "".join(row[place] for row in rows if place < len(row))
            assert "".join(kept) == said.replace(" ", "")


def on_a_terminal(width: int, *words: object) -> list[str]:
    """The lines that `nacre` writes to a terminal of this many columns."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-m", "nacre", *map(str, words)], stdout=theirs, env=environment
    ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    assert process.returncode == 0
    return said.decode().splitlines()


def test_a_list_of_runs_fits_the_terminal(tmp_path: Path, nacre: Nacre) -> None:
    there = Path(os.path.relpath(tmp_path, Path.cwd()))
    run(tmp_path / "a-run-with-a-longish-name")
    (run(tmp_path / "torn") / "plan.json").write_text('{"name": ')
    plain = nacre("runs", there).stdout
    assert max(map(len, plain.splitlines())) > 100 and plain.count("\n") == 3
    wide, narrow = on_a_terminal(300, "runs", there), on_a_terminal(80, "runs", there)
    assert wide == plain.splitlines()
    assert max(map(len, narrow)) <= 80
    for word in ("2026-03-02", "finished,", "accuracy", "epsilon", "0.0001"):
        assert any(re.search(rf"(^| ){re.escape(word)}( |$)", line) for line in narrow), word


@pytest.mark.parametrize("verb", ELSEWHERE)
def test_a_verb_of_other_programs_leads_to_ours(nacre: Nacre, verb: str) -> None:
    said = nacre(verb, "one", "other")
    assert said.exit_code == 2
    assert f"there is no verb {verb!r}; {ELSEWHERE[verb]}" in said.stderr
    named = re.findall(r"`nacre (\w+)", ELSEWHERE[verb])
    assert named and set(named) <= VERBS.keys()


def test_names_cannot_write_to_the_terminal(tmp_path: Path, nacre: Nacre) -> None:
    run(tmp_path / "\x1b[31mred\n", plan=sample.plan() | {"name": "\x1b[2J\nclear"})
    made = tmp_path / os.fsdecode(b"odd\xff")
    run(made)
    for words in ((), ("--json",)):
        said = nacre("runs", tmp_path, *words)
        assert said.exit_code == 0 and "\x1b" not in said.stdout


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two")
    probe = (
        "import sys\nfrom nacre.cli.main import cli\n"
        f"for words in (['runs', {str(tmp_path)!r}], ['runs', 'one', 'two']):\n"
        "    try: cli(words)\n    except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'pydantic_core'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, cwd=tmp_path)

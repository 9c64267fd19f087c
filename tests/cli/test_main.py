"""The frame around the verbs: help, errors as one sentence, exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from nacre.cli import main
from nacre.core.errors import BudgetExceeded, LedgerError, NacreError, Refusal
from tests.cli.conftest import TINY, Nacre

pytestmark = pytest.mark.slow

PYTHON = [sys.executable, "-m", "nacre"]


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys\nfrom nacre.cli.main import cli\n"
        "try: cli(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic_core', 'yaml', 'rich', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True)


@pytest.mark.parametrize("verb", main.VERBS)
def test_the_short_help_of_each_verb_is_its_own(nacre: Nacre, verb: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), verb)
    assert command is not None and command.short_help == main.VERBS[verb]
    for name in getattr(command, "commands", {"": None}):
        words = [verb, name] if name else [verb]
        result = nacre(*words, "--help")
        assert result.exit_code == 0
        assert "--json" in result.stdout and "--debug" in result.stdout


def test_help_version_and_nothing_at_all(nacre: Nacre) -> None:
    assert nacre("--help").stdout == nacre("-h").stdout
    assert nacre("--version").stdout.startswith("nacre 0.")
    assert "Usage: nacre" in nacre().stderr


def test_wrong_words_are_refused_in_one_sentence(nacre: Nacre) -> None:
    for words, says in (
        (["trian"], "there is no verb 'trian'; did you mean train?"),
        (["xyzzy"], "use one of init, plan"),
        (["train", "r.yaml"], "Missing option '--into'"),
        (["init", "sound"], "'sound' is not one of"),
        (["plan", "r.yaml", "--jsn"], "Did you mean '--json'?"),
    ):
        result = nacre(*words)
        assert result.exit_code == 2
        assert says in result.stderr and "--help`" in result.stderr
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("nacre: ")
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (NacreError("it failed"), 1, "it failed"),
        (Refusal("not sound"), 2, "not sound"),
        (LedgerError("torn"), 2, "torn"),
        (BudgetExceeded("too much"), 3, "too much"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left", "runs/x"),
            1,
            "runs/x: the disk is full; make room",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "x: Permission denied"),
        (OSError("odd"), 1, "odd"),
        (MemoryError(), 1, "lower `execution.microbatch`"),
        (click.ClickException("no"), 1, "no"),
        (RuntimeError("two\nlines"), 1, "unexpected RuntimeError: two lines; this is a fault"),
    ],
)
def test_every_error_is_a_sentence_and_a_code(
    nacre: Nacre, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("nacre.recipe.load.load_recipe", fail)
    result = nacre("plan", "r.yaml")
    assert result.exit_code == code and result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("nacre: ") and says in line
    told = json.loads(nacre("plan", "r.yaml", "--json").stdout)
    assert told == {"error": line.removeprefix("nacre: "), "exit_code": code}


def test_a_traceback_is_shown_to_those_who_ask(
    nacre: Nacre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("here")

    monkeypatch.setattr("nacre.recipe.load.load_recipe", fail)
    assert "Traceback" not in nacre("plan", "r.yaml").stderr
    assert "Traceback" in nacre("plan", "r.yaml", "--debug").stderr
    assert "Traceback" in nacre("--debug", "plan", "r.yaml").stderr
    monkeypatch.setenv("NACRE_DEBUG", "0")
    assert "Traceback" not in nacre("plan", "r.yaml").stderr
    monkeypatch.setenv("NACRE_DEBUG", "1")
    assert "Traceback" in nacre("plan", "r.yaml").stderr


def test_a_recipe_s_faults_are_told_at_once(nacre: Nacre, recipe: Path) -> None:
    recipe.write_text(TINY.replace("norm: 1.0", "norm: 0").replace("steps: 3", "stebs: 3"))
    result = nacre("plan", recipe, "--json")
    first, second = result.stderr.splitlines()
    assert "`gradient_clipping.norm`" in first and "did you mean `steps`?" in second
    told = json.loads(result.stdout)
    assert told["exit_code"] == result.exit_code == 2
    assert [told["error"], *told["others"]] == [
        line.removeprefix("nacre: ") for line in (first, second)
    ]


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen([*PYTHON, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert said == b""


def test_a_full_disk_is_a_sentence() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        process = subprocess.run([*PYTHON, "--help"], stdout=full, stderr=subprocess.PIPE)
    assert process.returncode == 1
    assert b"Traceback" not in process.stderr and b"disk is full" in process.stderr


def test_the_entry_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nacre", "plan", "absent.yaml"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("nacre: absent.yaml: cannot be read")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(nacre: Nacre, shell: str) -> None:
    result = nacre("completion", shell)
    assert result.exit_code == 0 and "_NACRE_COMPLETE" in result.stdout
    assert json.loads(nacre("completion", shell, "--json").stdout)["shell"] == shell


@pytest.mark.parametrize(
    ("begun", "offers"),
    [
        ("diff", ["differential_privacy"]),
        ("differential_privacy.e", ["differential_privacy.epsilon"]),
        ("data.columns.NAME.lo", ["data.columns.NAME.low"]),
        ("per_unit_cl", ["per_unit_clipping"]),
        ("autoat", ["autoattack"]),
        ("fgsm_p", ["fgsm_pco", "fgsm_pgi"]),
        ("nothing_begins_so", []),
    ],
)
def test_keys_kinds_and_refusals_complete(begun: str, offers: list[str]) -> None:
    complete = BashComplete(main.cli, {}, "nacre", "_NACRE_COMPLETE")
    assert [item.value for item in complete.get_completions(["explain"], begun)] == offers


def test_verbs_complete(tmp_path: Path) -> None:
    environment = {**os.environ, "_NACRE_COMPLETE": "bash_complete", "COMP_WORDS": "nacre le"}
    done = subprocess.run(
        PYTHON, env={**environment, "COMP_CWORD": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "plain,ledger"

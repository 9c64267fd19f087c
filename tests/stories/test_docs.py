"""What the documents say runs, exists and is complete.

Blocks of a page run in order, in one folder that holds the recipes (shortened, so that commands
run in seconds as they are written). Marked-up text means:

- ```python: is executed; `print(…)  # words` has to print these words,
- ```yaml NAME: is saved under that name,
- ```console: each `$ command` is run, and each line below it has to stand in its output, in order;
  `$ echo $?` below a command says that it fails, and how. An indented command is run too.

`…` in expected words stands for anything.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import nacre
from nacre.cli.main import VERBS, cli
from nacre.planning.plan import plan
from nacre.recipe.explain import explain
from nacre.recipe.load import load_recipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
DEEPER = [ROOT / "tests" / "README.md", *sorted((ROOT / "docs").glob("*/*.md"))]
PAGES = [*FRONT, *sorted((ROOT / "docs").glob("*.md")), *DEEPER]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

FENCE = r"^```(?P<language>\w*) ?(?P<name>\S*)\n(?P<block>.*?)^```$"
COMMAND = r"^ {4}(?P<command>(?:make|pip|nacre|python) [^\n]*?)(?: +#[^\n]*)?$"
STEP = re.compile(f"{FENCE}|{COMMAND}", re.DOTALL | re.MULTILINE)
FENCED = re.compile(FENCE, re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:make|nacre|python) [^`]+)`(?!`)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")

SHORTER = (
    (r"\brounds: \d+", "rounds: 2"),
    (r"\bsteps: \d{2,}", "steps: 4"),
    (r"(?m)^audit: .*", "audit: [membership, {kind: evasion, effort: quick}]"),
)


def shorter(text: str) -> str:
    """A recipe of the same form that runs in a few seconds."""
    for pattern, instead in SHORTER:
        text = re.sub(pattern, instead, text)
    return text


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader."""
    (tmp_path / "recipes").mkdir()
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        (tmp_path / "recipes" / recipe.name).write_text(shorter(recipe.read_text()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- what a page asks its reader to do ---------------------------------------------------------


def steps(text: str) -> Iterator[tuple[str, str, str, int]]:
    """(language, name, content, line) of each block and indented command, in order."""
    for found in STEP.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["command"]:
            yield "console", "", f"$ {found['command']}\n", line
        else:
            yield found["language"], found["name"], found["block"], line


def commands(block: str) -> Iterator[tuple[str, list[str], int]]:
    """(command, lines that it prints, exit code) of a console block."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    lines = [part.splitlines() for part in parts]
    for (command, *shown), after in zip(lines, [*lines[1:], [""]], strict=True):
        if command != "echo $?":
            yield command, shown, int(after[1]) if after[0] == "echo $?" else 0


def expect(shown: list[str], output: str) -> None:
    """The lines stand in the output, in this order."""
    rest = iter(output.splitlines())
    for line in shown:
        pattern = re.compile(".*".join(map(re.escape, line.strip().split("…"))))
        assert any(pattern.fullmatch(candidate.strip()) for candidate in rest), (
            f"{line!r} is not printed, or not in this order:\n{output}"
        )


def run_python(code: str, names: dict[str, Any], page: Path, line: int) -> None:
    """Executes a block; a traceback names the page's own line."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile("\n" * line + code, str(page), "exec", dont_inherit=True), names)
    expect(re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE), output.getvalue())


def run_command(command: str, shown: list[str], exit_code: int) -> None:
    """Runs `nacre …` in this process and others in a shell; what installs is only looked at."""
    words = command.split()
    if words[0] == "make":
        assert set(words[1:]) <= TARGETS, command
    elif words[0] == "pip":
        named_files = [word for word in words if "." in word and word != "."]
        assert all((ROOT / name).exists() for name in named_files), command
    elif words[0] == "nacre":
        result = CliRunner().invoke(cli, words[1:])
        assert result.exit_code == exit_code, f"{command}\n{result.output}"
        expect(shown, result.output)
    else:
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert done.returncode == exit_code, f"{command}\n{done.stderr}"
        expect(shown, done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_shows_runs(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for language, name, content, line in steps(page.read_text(encoding="utf-8")):
        if language == "python":
            run_python(content, names, page, line)
        elif language == "yaml" and name:
            (folder / name).write_text(content)
        elif language == "console":
            for command, shown, exit_code in commands(content):
                run_command(command, shown, exit_code)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=named)
def test_what_a_page_names_exists(page: Path) -> None:
    """Verbs, make targets, scripts and files that a page only mentions."""
    text = page.read_text(encoding="utf-8")
    for mention in INLINE.findall(FENCED.sub("", text)):
        tool, word = mention.replace(",", " ").split()[:2]
        if tool == "make":
            assert word in TARGETS, mention
        elif tool == "python":
            assert (ROOT / word).exists(), mention
        elif re.fullmatch(r"[a-z]+", word):
            assert word in VERBS, mention
    for target in LINK.findall(FENCED.sub("", text)):
        assert (page.parent / target).exists(), target


# -- complete and current ----------------------------------------------------------------------


def test_generated_pages_are_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "docs"))
    assert script["main"](["--check"]) == 0, "run scripts/docs"


def test_a_stale_page_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "docs"))
    page = tmp_path / "page.md"
    monkeypatch.setitem(script["main"].__globals__, "pages", lambda: {page: "new\n"})
    assert script["main"](["--check"]) == 1
    assert capsys.readouterr().err == f"{page} is stale; run scripts/docs\n"
    assert not page.exists()
    assert script["main"]([]) == 0 and page.read_text() == "new\n"
    assert script["main"](["--check"]) == 0
    assert script["main"](["--chekc"]) == 2


def test_every_verb_is_documented() -> None:
    headings = re.findall(r"^#+ nacre (.+)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    expected = set(VERBS)
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        expected |= {f"{verb} {name}" for name in getattr(command, "commands", ())}
    assert set(headings) == expected and len(headings) == len(expected)


def test_every_key_is_documented() -> None:
    rows: dict[str, list[str]] = {}
    for line in (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            rows.setdefault(line.split("`")[1], []).append(line.replace("\\|", "|"))
    for entry in explain():
        key = re.split(r"[.\]]", entry.key)[-1]
        if key != "kind" or not entry.kind:  # the kind of an option stands in its heading
            assert any(row.endswith(f"| {entry.doc} |") for row in rows[key]), entry.key


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == nacre.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d\S*)", changes, re.MULTILINE)
    assert versions and versions[0] == nacre.__version__


# -- the presets of `nacre init` ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "image"])
def test_a_preset_plans_and_runs(kind: str, folder: Path) -> None:
    run_command(f"nacre init {kind}", ["wrote recipe.yaml; next: …"], 0)
    text = Path("recipe.yaml").read_text()
    run_command("nacre plan recipe.yaml", ["plan of …"], 0)
    Path("recipe.yaml").write_text(shorter(text))
    run_command("nacre run recipe.yaml --into runs/first", ["│ report … │"], 0)
    assert Path("runs/first/report.html").exists()


def test_the_table_of_a_preset_need_not_be_there_to_plan(folder: Path) -> None:
    """Planning reads no row, so it cannot miss the file."""
    run_command("nacre init table", [], 0)
    preset = Path("recipe.yaml").read_text()
    own = re.search(r"(?m)^# data:\n(?:# .*\n)+", preset)
    assert own is not None
    data = own[0].replace("# ", "", 1).replace("\n# ", "\n")
    text = re.sub(r"(?ms)^data:.*?(?=^\S)", lambda _: data, preset, count=1)
    text = re.sub(r"(?m)^compare: .*\n", "", text)  # trains without protection: public rows only
    text = text.replace("unit: example ", "unit: group\n  rows_per_unit: 3 ")
    text = text.replace("delta: 1.0e-4", "delta: 1.0e-5")
    Path("recipe.yaml").write_text(shorter(text))
    assert not Path("patients.csv").exists()
    assert plan(load_recipe("recipe.yaml")).private
    run_command(
        "nacre run recipe.yaml --into runs/first",
        ["nacre: recipe.yaml:… `data.path`: patients.csv …"],
        2,
    )
    assert not Path("runs").exists()
